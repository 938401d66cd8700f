"""`galleria promote` and `galleria retention`."""

import re
from datetime import timedelta

import click

from adapters.cli.context import Settings, own_version
from adapters.cli.lazy import Command, Group
from adapters.text import table
from pipeline.gallery.documents import encode
from pipeline.gallery.rules.retention import Retention
from pipeline.jobs.delete import apply_retention
from pipeline.model.names import parse_definition, parse_reference

_UNITS = {"d": 1, "w": 7, "m": 30, "y": 365}


@click.command(cls=Command)
@click.argument("reference", metavar="GALLERY/DEFINITION[/VERSION]")
@click.option("--channel", required=True, metavar="NAME", help="Such as prod.")
@click.option("--remove", is_flag=True, help="Take the channel away instead.")
@click.pass_obj
def promote(settings: Settings, *, reference: str, channel: str, remove: bool) -> None:
    """Let GALLERY/DEFINITION@CHANNEL mean this version."""
    with settings.app() as app:
        if remove:
            definition = parse_reference(reference).definition
            app.gallery.remove_channel(definition, channel)
            return settings.emit({"removed": channel}, f"removed {definition}@{channel}")
        version = own_version(app, reference)
        made = app.gallery.promote(version.name, channel)
    text = f"{made.definition}@{made.name} is {made.version}"
    return settings.emit({"channel": encode(made)}, text)


@click.group(cls=Group)
def retention() -> None:
    """Delete old versions by rule."""


@retention.command("apply")
@click.argument("name", metavar="GALLERY/DEFINITION")
@click.option("--keep-last", type=int, metavar="N", help="Keep the N newest usable versions.")
@click.option(
    "--older-than", metavar="AGE", help="Keep what is younger: 90d, 12w, 6m (30 days each), 1y."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.pass_obj
def apply(
    settings: Settings, *, name: str, keep_last: int | None, older_than: str | None, dry_run: bool
) -> None:
    """Delete the versions of a definition that no rule keeps.

    The last usable version always stays, and so do those that deployed disks or channels use, and
    those that may not be deleted before their end of life.
    """
    rule = Retention(keep_last, _age(older_than))
    with settings.app() as app:
        verdicts, expired = apply_retention(
            parse_definition(name), rule, app.context, dry_run=dry_run
        )
    verb = "would go" if dry_run else "deleted"
    rows = [
        (item.version.name, (item.reason and f"kept: {item.reason}") or verb) for item in verdicts
    ]
    rows += [(item, "would leave the bin" if dry_run else "removed for good") for item in expired]
    document = {
        "dryRun": dry_run,
        "deleted": [item.version.name.arm_id for item in verdicts if not item.reason],
        "purged": [item.arm_id for item in expired],
        "kept": {item.version.name.arm_id: item.reason for item in verdicts if item.reason},
    }
    text = table(("VERSION", ""), rows) if rows else "there are no versions"
    settings.emit(document, text)


def _age(text: str | None) -> timedelta | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})([dwmy])", text)
    if match is None:
        raise click.UsageError(f"--older-than: {text!r} is not a number and one of d, w, m, y: 90d")
    return timedelta(days=int(match[1]) * _UNITS[match[2]])
