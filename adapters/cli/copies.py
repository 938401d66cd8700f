"""`galleria replicate`, `verify` and `export`: what is done with a version."""

from pathlib import Path

import click

from adapters.cli import arguments
from adapters.cli.context import Settings, configured_region, own_version
from adapters.cli.files import FORMATS
from adapters.cli.lazy import Command
from adapters.cli.versions import region_table
from adapters.text import bytes_text, fields, printable, table
from pipeline.errors import VerificationFailed
from pipeline.gallery.documents import encode
from pipeline.jobs.files import export_version
from pipeline.jobs.replicate import replicate_version
from pipeline.jobs.verify import Verdict, verify_report, verify_sources, verify_version
from pipeline.ports import ImageFormat
from pipeline.sources.ingest import disk_name

REFERENCE = click.argument("reference", metavar="GALLERY/DEFINITION[/VERSION]")


@click.command(cls=Command)
@REFERENCE
@click.option(
    "--region",
    "--target-region",
    "--target-regions",
    "regions",
    multiple=True,
    metavar="REGION[=REPLICAS][=SKU]...",
    help="A region to add (repeatable). Default: those that are not complete yet.",
)
@click.option(
    "--retry",
    is_flag=True,
    help="Try again for a minute, ever more slowly, what may pass (EIO, a lock, a connection).",
)
@click.pass_obj
def replicate(settings: Settings, *, reference: str, regions: tuple[str, ...], retry: bool) -> None:
    """Bring a version to more regions, or make failed regions again."""
    targets = arguments.target_regions(regions, settings.load().regions)
    with settings.app() as app:
        version = own_version(app, reference)
        version = replicate_version(version.name, targets, app.context, retry=retry)
    settings.emit({"version": encode(version)}, f"{version.name}\n{region_table(version)}")


@click.command(cls=Command)
@REFERENCE
@click.option(
    "--region", metavar="NAME", help="Only this region. Default: all where it is complete."
)
@click.option("--scrub", is_flag=True, help="Read the medium, not what memory still holds of it.")
@click.pass_context
def verify(context: click.Context, *, reference: str, region: str | None, scrub: bool) -> None:
    """Read a version's bases and replicas again and compare every chunk."""
    settings = context.ensure_object(Settings)
    with settings.app() as app:
        place = None if region is None else configured_region(app, region)
        version = own_version(app, reference, place)
        places = version.completed_regions if place is None else (place,)
        zones = [zone for name in places for zone in app.zones.get(name, ())]
        report = app.gallery.report(version.name)
        images, progress = app.context.images, app.context.progress
        found = verify_version(version, zones, images, progress, scrub=scrub)
        verdicts = list(found)
        reports = list(verify_report(version, report, zones))
        verdicts += verify_sources(version, app.context.pins)
    missing = [name for name in places if not any(v.region == name for v in verdicts)]
    verdicts += reports
    bad = [verdict for verdict in verdicts if not verdict.sound]
    rows = [(v.region, v.subject, _verdict(v)) for v in verdicts]
    rows += [(name, "", "no zone here holds the version") for name in missing]
    places_of_bad = fields([(f"{v.region} {v.subject}", v.path) for v in bad])
    text = "\n".join([table(("REGION", "DISK", "VERDICT"), rows), places_of_bad]).strip()
    sound = not bad and not missing and bool(verdicts)
    settings.emit(
        {
            "version": version.name.arm_id,
            "sound": sound,
            "verdicts": [{"sound": v.sound, **_document(v)} for v in verdicts],
            "missingRegions": missing,
        },
        text,
    )
    if not sound:
        context.exit(VerificationFailed.exit_status)


@click.command(cls=Command)
@REFERENCE
@click.option("--to", "--format", "format_name", required=True, type=FORMATS)
@click.option("--out", required=True, metavar="FILE", type=click.Path(path_type=Path))
@click.option("--lun", type=int, metavar="N", help="A data disk. Default: the OS disk.")
@click.option("--subformat", default="", help="For vhd: fixed (default) or dynamic.")
@click.pass_obj
def export(
    settings: Settings,
    *,
    reference: str,
    format_name: str,
    out: Path,
    lun: int | None,
    subformat: str,
) -> None:
    """Write one disk of a version as a stand-alone file."""
    with settings.app() as app:
        version = own_version(app, reference)
        for caution in app.gallery.cautions(version):
            app.context.progress.warn(caution)
        export_version(version, lun, out, ImageFormat(format_name), subformat, app.context)
    length = out.stat().st_size
    settings.emit(
        {
            "version": version.name.arm_id,
            "lun": lun,
            "file": out,
            "format": format_name,
            "fileSize": length,
        },
        f"wrote {disk_name(lun)} of {version.name} to {printable(str(out))} "
        f"({format_name}, {bytes_text(length)})",
    )


def _document(verdict: Verdict) -> dict[str, object]:
    return {
        "region": verdict.region,
        "subject": verdict.subject,
        "path": verdict.path,
        "digest": verdict.digest,
        "bad": [{"start": area.start, "length": area.length} for area in verdict.bad],
        "problem": verdict.problem,
    }


def _verdict(verdict: Verdict) -> str:
    if verdict.problem:
        return verdict.problem
    if verdict.bad:
        return f"{bytes_text(sum(area.length for area in verdict.bad))} differ"
    return "sound"
