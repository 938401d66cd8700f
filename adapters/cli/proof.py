"""`galleria verify`, `diff`, `sbom`, `boot-check` and `validate`: what a version is shown to be."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.cli.report import guest_text, report_text
from adapters.cli.sources import parse_disk
from adapters.text import bytes_text, fields, printable, seconds_text, table
from pipeline.errors import GalleriaError, VerificationFailed
from pipeline.gallery.documents import cased, without_inventory
from pipeline.guest.boot import SECONDS
from pipeline.guest.findings import Finding, failed
from pipeline.guest.profiles import Plan
from pipeline.guest.survey import Survey
from pipeline.jobs.boot_check import boot_version, console_log
from pipeline.jobs.diff import Difference, Names, difference
from pipeline.jobs.dry_run import (
    check,
    file_disks,
    try_generalize,
    validate_file,
    validate_version,
    version_disks,
)
from pipeline.jobs.show import bill_of_materials
from pipeline.jobs.verify import Verification, VerifyResult, verify_all
from pipeline.model import ImageVersion
from pipeline.model.disks import disk_name
from pipeline.sources.ingest import Disk

if TYPE_CHECKING:
    from adapters.app import Session


NOT_GENERALIZED = 1


@contextmanager
def disks_of(target: str, session: "Session") -> Iterator[list[Disk]]:
    """The disks of a file, or of a version where no such file is."""
    if is_version(target):
        yield version_disks(session.gallery.resolve(target), session.context)
        return
    with file_disks(parse_disk(target), session.context) as disks:
        yield disks


def is_version(target: str) -> bool:
    """Whether an argument that may be a file or a version is a version."""
    count = len(target.split("/"))
    return count in (2, 3) and not Path(target).exists() and not target.startswith((".", "/"))


def check_guest(context: click.Context, target: str) -> None:
    """`generalize --check`: the verdict and why. Exit status 1 unless it is generalized."""
    settings = context.ensure_object(Settings)
    with settings.session() as session, disks_of(target, session) as disks:
        found = check(disks, session.context)
    verdict = found.evidence.verdict
    document = {"target": target, "generalized": verdict == "generalized", **_look(found)}
    about: list[tuple[str, object]] = [
        ("guest", guest_text(found.document()["guest"])),
        ("verdict", verdict),
        *(("  because", reason) for reason in found.evidence.reasons),
    ]
    settings.emit(document, fields([("of", target), *about]))
    if verdict != "generalized":
        context.exit(NOT_GENERALIZED)


def try_guest(settings: Settings, target: str, plan: Plan) -> None:
    """`generalize --dry-run`."""
    with settings.session() as session:
        report = try_generalize(parse_disk(target), plan, session.context)
    settings.emit(
        {"dryRun": True, "report": without_inventory(report)},
        f"{report_text(report)}\n\nnothing of it was kept",
    )


@click.command(cls=Command)
@click.argument("old", metavar=arguments.VERSION)
@click.argument("new", metavar=arguments.VERSION)
@click.pass_obj
def diff(settings: Settings, *, old: str, new: str) -> None:
    """Show what changed between two versions: packages, configuration, users, blocks."""
    with settings.session() as session:
        before, after = session.gallery.own_version(old), session.gallery.own_version(new)
        old_report, new_report = (session.gallery.report(item.name) for item in (before, after))
        found = difference(before, after, old_report, new_report, session.context)
    document = {"from": before.name.arm_id, "to": after.name.arm_id, "difference": found}
    settings.emit(document, diff_text(before, after, found))


@click.command(cls=Command)
@arguments.REFERENCE
@click.pass_obj
def sbom(settings: Settings, *, reference: str) -> None:
    """Print a version's packages as a CycloneDX bill of materials (JSON)."""
    with settings.session() as session:
        version = session.gallery.own_version(reference)
        document = bill_of_materials(version, session.gallery)
    settings.emit_document(document)


def _look(found: Survey) -> dict[str, Any]:
    document = without_inventory(found.document())
    return {} if document is None else document


def diff_text(before: ImageVersion, after: ImageVersion, found: Difference) -> str:
    """What changed, as tables."""
    parts = [f"from {before.name} to {after.name}"]
    if not found.compared:
        parts.append("only blocks: one of the versions has no inventory of its guest")
    packages = [
        *(("added", item.name, "", item.version) for item in found.packages_added),
        *(("removed", item.name, item.version, "") for item in found.packages_removed),
        *(("upgraded", item.name, item.before, item.after) for item in found.packages_upgraded),
    ]
    if packages:
        parts.append(table(("PACKAGE", "NAME", "FROM", "TO"), packages))
    for title, names in (("CONFIGURATION", found.files), ("USER", found.users)):
        if any((names.added, names.removed, names.changed)):
            parts.append(table((title, ""), _name_rows(names)))
    if found.compared and len(parts) == 1:
        parts.append("no package, configuration file or user differs")
    disks = [
        (disk_name(disk.lun), bytes_text(max(disk.before, disk.after)), bytes_text(disk.changed))
        for disk in found.disks
    ]
    parts.append(table(("DISK", "VIRTUAL SIZE", "CHANGED"), disks))
    return "\n\n".join(parts)


def _name_rows(names: Names) -> list[tuple[str, str]]:
    return [
        *(("added", name) for name in names.added),
        *(("removed", name) for name in names.removed),
        *(("changed", name) for name in names.changed),
    ]


@click.command("boot-check", cls=Command)
@arguments.REFERENCE
@click.option("--region", metavar="NAME", help="Region of the replica. Default: the source region.")
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(min=1),
    default=SECONDS,
    show_default=True,
    help="Seconds to wait for a login prompt.",
)
@click.pass_obj
def boot_check(settings: Settings, *, reference: str, region: str | None, seconds: float) -> None:
    """Boot a temporary clone of a version, without network, and show its identity."""
    with settings.session() as session:
        place = None if region is None else session.region(region)
        version = session.gallery.own_version(reference, place)
        booted = boot_version(version, place, session.context, seconds=seconds)
        log = console_log(version, session.context)
    document = booted.document()
    text = f"{version.name} boots\n{boot_fields(document)}\nconsole  {printable(str(log))}"
    settings.emit({"version": version.name.arm_id, "boot": cased(document), "console": log}, text)


def boot_fields(boot: Mapping[str, Any]) -> str:
    """What a boot check saw."""
    return fields(
        [
            ("up by", f"{boot['by']}, after {seconds_text(boot['seconds'])}"),
            ("hostname", boot["hostname"]),
            ("machine id", "made at this boot" if boot["first_boot"] else "not seen to be made"),
            *(("host key", key) for key in boot["host_keys"]),
            *(("failed", unit) for unit in boot["failed"]),
        ]
    )


@click.command("validate", cls=Command)
@click.argument("target", metavar="FILE|GALLERY/DEFINITION[/VERSION]")
@click.option(
    "--for",
    "cloud",
    type=click.Choice(["azure"]),
    default="azure",
    show_default=True,
    help="Cloud whose rules are checked.",
)
@click.pass_context
def validate_command(context: click.Context, *, target: str, cloud: str) -> None:
    """Check whether a cloud would accept a disk, and whether it would run there."""
    from adapters.formats.vhd_footer import azure_upload_problems

    settings = context.ensure_object(Settings)
    with settings.session() as session:
        if is_version(target):
            findings = validate_version(session.gallery.resolve(target), session.context)
        else:
            findings = validate_file(parse_disk(target), azure_upload_problems, session.context)
    bad = failed(findings)
    document = {"target": target, "for": cloud, "passed": not bad}
    document["findings"] = [item.document() for item in findings]
    settings.emit(document, findings_text(findings))
    if bad:
        context.exit(GalleriaError.exit_status)


def findings_text(findings: tuple[Finding, ...]) -> str:
    """What does not hold stands last, where it is seen, with what to do."""
    order = ("ok", "info", "unknown", "warn", "fail")
    ordered = sorted(findings, key=lambda item: order.index(item.result))
    rows = [(item.result, item.check, item.found) for item in ordered]
    fixes = fields([(f"fix {item.check}:", item.fix) for item in ordered if item.fix])
    return "\n\n".join(filter(None, [table(("RESULT", "CHECK", "FOUND"), rows), fixes]))


@click.command(cls=Command)
@arguments.REFERENCE
@click.option(
    "--region", metavar="NAME", help="Only this region. Default: all regions where it is complete."
)
@click.option("--scrub", is_flag=True, help="Read from the disk, not from the page cache.")
@click.pass_context
def verify(context: click.Context, *, reference: str, region: str | None, scrub: bool) -> None:
    """Read a version's bases and replicas again and compare every chunk."""
    settings = context.ensure_object(Settings)
    with settings.session() as session:
        place = None if region is None else session.region(region)
        version = session.gallery.own_version(reference, place)
        found = verify_all(version, place, session.context, scrub=scrub)
    tell_verified(context, "version", version.name.arm_id, found)


def tell_verified(context: click.Context, kind: str, id: str, found: Verification) -> None:
    """Print what reading something again showed. Exit status 1 unless all of it is sound."""
    rows = [(item.region, item.subject, _verdict(item)) for item in found.results]
    rows += [(name, "", f"no zone here holds the {kind}") for name in found.missing]
    places_of_bad = fields([(f"{item.region} {item.subject}", item.path) for item in found.bad])
    text = "\n".join([table(("REGION", "DISK", "VERDICT"), rows), places_of_bad]).strip()
    context.ensure_object(Settings).emit(
        {
            kind: id,
            "sound": found.sound,
            "verdicts": [item.document() for item in found.results],
            "missingRegions": found.missing,
        },
        text,
    )
    if not found.sound:
        context.exit(VerificationFailed.exit_status)


def _verdict(verdict: VerifyResult) -> str:
    if verdict.problem:
        return verdict.problem
    if verdict.bad:
        return f"{bytes_text(sum(area.length for area in verdict.bad))} differ"
    return "sound"
