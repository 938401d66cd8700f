"""`galleria validate`."""

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.cli.proof import is_version
from adapters.formats.vhd_footer import azure_upload_problems
from adapters.text import fields, table
from pipeline.errors import GalleriaError
from pipeline.guest.findings import Finding, failed
from pipeline.jobs.dry_run import validate_file, validate_version
from pipeline.sources.supply import parse_disk


@click.command("validate", cls=Command)
@click.argument("target", metavar="FILE|GALLERY/DEFINITION[/VERSION]")
@click.option(
    "--for",
    "cloud",
    type=click.Choice(["azure"]),
    default="azure",
    show_default=True,
    help="Whose rules.",
)
@click.pass_context
def validate_command(context: click.Context, *, target: str, cloud: str) -> None:
    """Check whether a cloud would take a disk, and whether it would run there."""
    settings = context.ensure_object(Settings)
    with settings.app() as app:
        if is_version(target):
            findings = validate_version(app.gallery.resolve(target), app.context)
        else:
            findings = validate_file(parse_disk(target), azure_upload_problems, app.context)
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
