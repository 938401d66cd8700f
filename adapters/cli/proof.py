"""`galleria diff` and `sbom`, and what `generalize --check`, `--dry-run`, `show --report` print."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli.context import Settings, cased, own_version
from adapters.cli.lazy import Command
from adapters.text import bytes_text, fields, seconds_text, table
from pipeline.errors import NotFound
from pipeline.gallery.documents import camel
from pipeline.guest.profiles import Plan
from pipeline.guest.survey import Look
from pipeline.jobs.diff import Difference, Names, difference
from pipeline.jobs.dry_run import check, file_disks, try_generalize, version_disks
from pipeline.model import ImageVersion
from pipeline.sources.ingest import Disk, disk_name
from pipeline.sources.supply import parse_disk

if TYPE_CHECKING:
    from adapters.app import App

REFERENCE = "GALLERY/DEFINITION[/VERSION]"
NOT_FOR_IT = "not applicable"  # the result of an operation that is for other guests
SHOWN_PATHS = 3  # of an operation, on one line
NOT_GENERALIZED = 1


def disks_of(target: str, app: "App") -> list[Disk]:
    """The disks of a file, or of a version where no such file is."""
    if is_version(target):
        return version_disks(app.gallery.resolve(target), app.context)
    return file_disks(parse_disk(target), app.context)


def is_version(target: str) -> bool:
    """Whether an argument that may be a file or a version is a version."""
    count = len(target.split("/"))
    return count in (2, 3) and not Path(target).exists() and not target.startswith((".", "/"))


def check_guest(context: click.Context, target: str) -> None:
    """`generalize --check`: the verdict and why. Exit status 1 unless it is generalized."""
    settings = context.ensure_object(Settings)
    with settings.app() as app:
        found = check(disks_of(target, app), app.context)
    verdict = found.evidence.verdict
    document = {"target": target, "generalized": verdict == "generalized", **_look(found)}
    about: list[tuple[str, object]] = [
        ("guest", _guest_text(found.document()["guest"])),
        ("verdict", verdict),
        *(("  because", reason) for reason in found.evidence.reasons),
    ]
    settings.emit(document, fields([("of", target), *about]))
    if verdict != "generalized":
        context.exit(NOT_GENERALIZED)


def try_guest(settings: Settings, target: str, plan: Plan) -> None:
    """`generalize --dry-run`."""
    with settings.app() as app:
        report = try_generalize(parse_disk(target), plan, app.context)
    settings.emit(
        {"dryRun": True, "report": without_inventory(report)},
        f"{report_text(report)}\n\nnothing of it was kept",
    )


@click.command(cls=Command)
@click.argument("old", metavar=REFERENCE)
@click.argument("new", metavar=REFERENCE)
@click.pass_obj
def diff(settings: Settings, *, old: str, new: str) -> None:
    """Say what changed between two versions: packages, configuration, users, blocks."""
    with settings.app() as app:
        before, after = own_version(app, old), own_version(app, new)
        old_report, new_report = (app.gallery.report(item.name) for item in (before, after))
        found = difference(before, after, old_report, new_report, app.context.zones)
    document = {"from": before.name.arm_id, "to": after.name.arm_id, "difference": found}
    settings.emit(document, diff_text(before, after, found))


@click.command(cls=Command)
@click.argument("reference", metavar=REFERENCE)
@click.pass_obj
def sbom(settings: Settings, *, reference: str) -> None:
    """Print a version's packages as a CycloneDX bill of materials (JSON)."""
    with settings.app() as app:
        version = own_version(app, reference)
        report = app.gallery.report(version.name) or {}
    document = report.get("inventory", {}).get("sbom")
    if document is None:
        raise NotFound(
            f"{version.name} has no bill of materials",
            hint="galleria show --report says why its guest could not be looked into",
        )
    settings.emit_document(document)


def report_text(report: Mapping[str, Any] | None) -> str:
    """A report, readable: each operation that is for such a guest, with its result and paths, then
    what the guest is."""
    if report is None:
        return "there is no report"
    rows = [
        (item["name"], item["result"], len(item["changes"]) or "", _paths(item["changes"]))
        for item in report.get("operations", ())
        if item["result"] != NOT_FOR_IT
    ]
    parts = [table(("OPERATION", "RESULT", "PATHS", ""), rows)] if rows else []
    parts.append(fields(_report_fields(report)))
    return "\n\n".join(part for part in parts if part)


def without_inventory(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """For documents that show a version: the inventory has commands of its own."""
    if report is None:
        return None
    return {camel(key): cased(value) for key, value in report.items() if key != "inventory"}


def _report_fields(report: Mapping[str, Any]) -> list[tuple[str, object]]:
    check, inventory = report.get("check", {}), report.get("inventory") or {}
    other = sum(item["result"] == NOT_FOR_IT for item in report.get("operations", ()))
    found: list[tuple[str, object]] = [
        ("profile", report.get("profile", "")),
        (NOT_FOR_IT, f"{other} operations" if other else ""),
        ("guest", _guest_text(report.get("guest", {}))),
        ("looks", check.get("verdict", "") + (", taken by --force" * bool(check.get("forced")))),
        *(("  because", reason) for reason in check.get("reasons", ())),
        *(("free space", note) for note in report.get("free_space", ())),
    ]
    if "copied_from" in report:
        found.append(("as it was for", report["copied_from"]))
    if "validation" in report:
        found += _validation_fields(report["validation"])
    if "boot" in report:
        boot = report["boot"]
        found.append(("boots", f"{boot['by']} after {seconds_text(boot['seconds'])}"))
    if inventory:
        counts = (
            f"{len(inventory['sbom']['components'])} packages, "
            f"{len(inventory['files'])} configuration files, {len(inventory['users'])} accounts"
        )
        found.append(("inventory", counts))
    return found


def _validation_fields(validation: Mapping[str, Any]) -> list[tuple[str, object]]:
    """How many checks hold, and each that does not."""
    checks = validation["findings"]
    counts = Counter(item["result"] for item in checks)
    said = ", ".join(f"{count} {result}" for result, count in counts.most_common())
    return [
        (f"for {validation['for']}", said),
        *(
            (f"  {item['result']}", f"{item['check']}: {item['found']}")
            for item in checks
            if item["result"] in ("warn", "unknown")
        ),
    ]


def _paths(changes: list[Mapping[str, str]]) -> str:
    shown = ", ".join(f"{item['action']} {item['path']}" for item in changes[:SHOWN_PATHS])
    more = len(changes) - SHOWN_PATHS
    return f"{shown} and {more} more" if more > 0 else shown


def _look(found: Look) -> dict[str, Any]:
    document = without_inventory(found.document())
    return {} if document is None else document


def _guest_text(guest: Mapping[str, str]) -> str:
    names = (guest.get("os_type", ""), guest.get("distribution", ""), guest.get("version", ""))
    return guest_name(*names) or "unknown"


def guest_name(*words: str) -> str:
    """OS type, distribution and version, as far as they are known. (Windows is its own
    distribution.)"""
    return " ".join(word for word in dict.fromkeys(words) if word not in ("", "unknown"))


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
