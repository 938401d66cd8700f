"""`galleria scrub` and `repair`: what the zones hold is read again, and mended."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.text import bytes_text, fields, printable, table
from pipeline.errors import VerificationFailed
from pipeline.model.access import ROOT

if TYPE_CHECKING:
    from pipeline.jobs.repair import Repaired
    from pipeline.jobs.scrub import Bad, Scope, Scrubbed, ScrubRequest

SCOPE = click.argument("name", metavar="[GALLERY[/DEFINITION[/VERSION]]]", required=False)
REGION = click.option("--region", metavar="NAME", help="Only this region.")
SHOWN = 5  # ranges, versions or VMs of one bad thing
_RATES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@click.command(cls=Command)
@SCOPE
@REGION
@click.option("--subset", metavar="PERCENT", help="Read this share of the bytes: 5%.")
@click.option("--older-than", metavar="AGE", help="Only what was not read for so long: 7d, 4w.")
@click.option("--rate", metavar="BYTES", help="Bytes a second to read at most: 200M.")
@click.option("--repair", "repairing", is_flag=True, help="Repair what is bad.")
@click.pass_context
def scrub(
    context: click.Context,
    *,
    name: str | None,
    region: str | None,
    subset: str | None,
    older_than: str | None,
    rate: str | None,
    repairing: bool,
) -> None:
    """Read what zones hold from the disk, and compare the catalog with it.

    Every chunk of the bases, their manifests, all records, the tables and backing
    files of replicas and deployed disks. The catalog remembers when each base was last
    read: with --subset the longest unread are read first. One bad thing ends nothing;
    the exit status is 1 when something is bad and was not repaired.
    """
    from pipeline.jobs.scrub import ScrubRequest

    request = ScrubRequest(
        scope_of(name),
        region,
        _share(subset),
        arguments.age(older_than, "--older-than"),
        _rate(rate),
    )
    _run(context, request, repair=repairing)


@click.command(cls=Command)
@SCOPE
@REGION
@click.pass_context
def repair(context: click.Context, *, name: str | None, region: str | None) -> None:
    """Read what zones hold, and make what is bad or lost again from what is sound.

    Chunks come from any zone, or the source's file, and are proven by their digests. Replicas
    and deployed disks stay usable meanwhile. What was bad goes to the zone's quarantine. What
    can't be repaired is told, with the versions, VMs and bytes; the exit status is 1 then.
    """
    from pipeline.jobs.scrub import ScrubRequest

    _run(context, ScrubRequest(scope_of(name), region), repair=True)


def _run(context: click.Context, request: "ScrubRequest", *, repair: bool) -> None:
    from dataclasses import replace

    from pipeline.jobs.repair import scrubbed

    settings = context.ensure_object(Settings)
    with settings.session() as session:
        if request.region is not None:
            request = replace(request, region=session.region(request.region))
        scope = ROOT if request.scope is None else request.scope.arm_id
        (session.grants.check_repair if repair else session.grants.check_scrub)(scope)
        for path in session.recreate_lost_zones() if repair else ():
            session.context.progress.warn(f"the zone {path} was lost: an empty one is filled")
        found, repaired = scrubbed(request, session.context, repair=repair)
    left = [item for item in repaired if item.problem]
    sound = found.sound or (repair and not left and not found.unusable)
    settings.emit(_document(found, repaired, sound=sound), _text(found, repaired))
    if not sound:
        context.exit(VerificationFailed.exit_status)


def scope_of(name: str | None) -> "Scope":
    """A gallery, a definition or a version."""
    from pipeline.model.names import (
        is_definition,
        names_definition,
        parse_definition,
        parse_gallery,
        parse_version,
    )

    if name is None:
        return None
    parse: Callable[[str], Any] = parse_gallery
    if is_definition(name):
        parse = parse_definition if names_definition(name) else parse_version
    found: Scope = parse(name)
    return found


def _share(text: str | None) -> float:
    if text is None:
        return 1.0
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%?", text)
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share <= 1:
        raise click.UsageError(f"--subset: {text!r} is not a percentage: 5%")
    return share


def _rate(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})([KMG]?)(?:i?B)?(?:/s)?", text)
    rate = int(match[1]) * _RATES[match[2]] if match else 0
    if not rate:
        raise click.UsageError(f"--rate: {text!r} is not a number of bytes: 200M")
    return rate


def _text(found: "Scrubbed", repaired: list["Repaired"]) -> str:
    outcome = {id(item.bad): item for item in repaired}
    rows = []
    for bad in found.bad:
        done = outcome.get(id(bad))
        rows.append(
            (
                bad.result.region,
                bad.result.subject,
                _verdict(bad),
                ""
                if done is None
                else (f"not repaired: {done.problem}" * bool(done.problem)) or "repaired",
                ", ".join([*_some(bad.versions), *(f"VM {vm}" for vm in _some(bad.machines))]),
            )
        )
    rows += [("", path, why, "", "") for path, why in found.unusable.items()]
    parts = [table(("REGION", "WHAT", "VERDICT", "", "NEEDED BY"), rows)] if rows else []
    lost = [
        (
            printable(f"lost in {item.bad.result.region}, {item.bad.result.subject}"),
            _ranges(item),
        )
        for item in repaired
        if item.problem and item.lost
    ]
    parts += [fields(lost)] if lost else []
    left = f", {found.skipped} left for another time" if found.skipped else ""
    parts.append(
        f"{found.bases} bases read ({bytes_text(found.bytes_read)}){left}; {len(found.bad)} bad"
    )
    return "\n\n".join(parts)


def _verdict(bad: "Bad") -> str:
    from pipeline.jobs.verify import said_of

    return said_of(bad.result)


def _ranges(item: "Repaired") -> str:
    shown = ", ".join(f"bytes {area.start}-{area.end}" for area in item.lost[:SHOWN])
    return shown + f" and {len(item.lost) - SHOWN} more" * (len(item.lost) > SHOWN)


def _some(names: tuple[str, ...]) -> list[str]:
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return [*names[:SHOWN], *more]


def _document(found: "Scrubbed", repaired: list["Repaired"], *, sound: bool) -> dict[str, object]:
    outcome = {id(item.bad): item for item in repaired}
    return {
        "sound": sound,
        "basesRead": found.bases,
        "basesSkipped": found.skipped,
        "bytesRead": found.bytes_read,
        "unusableZones": [{"zone": path, "problem": why} for path, why in found.unusable.items()],
        "findings": [_finding(bad, outcome.get(id(bad))) for bad in found.bad],
    }


def _finding(bad: "Bad", done: "Repaired | None") -> dict[str, object]:
    lost = () if done is None else done.lost
    return {
        "region": bad.result.region,
        "zone": bad.zone.path,
        "subject": bad.result.subject,
        "path": bad.result.path,
        "digest": bad.result.digest,
        "problem": _verdict(bad),
        "bad": [{"start": area.start, "length": area.length} for area in bad.result.bad],
        "versions": bad.versions,
        "machines": bad.machines,
        "repaired": done is not None and not done.problem,
        "notRepaired": "" if done is None else done.problem,
        "lost": [{"start": area.start, "length": area.length} for area in lost],
    }
