"""`galleria gc`: what nobody needs any more goes."""

from dataclasses import replace
from typing import Any

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.text import bytes_text, printable, table
from pipeline.errors import InvalidParameter
from pipeline.model.garbage import Collected


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    from adapters.config.values import parse_duration

    if value is None:
        return None
    found = parse_duration(value)
    if found is None:
        raise InvalidParameter(f"--grace: {value!r} is not a time such as 30min, 12h or 7d")
    return found


@click.command("gc", cls=Command)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "--grace",
    metavar="TIME",
    callback=_duration,
    help="Leave bases that are younger. Default: keep_unused of the configuration, 1 h.",
)
@click.pass_obj
def gc_command(settings: Settings, *, dry_run: bool, grace: int | None) -> None:
    """Remove what nobody needs: bases, remains of killed runs, old downloads and logs.

    How long things are kept is in the configuration (keep_..., max_...). What galleria did not make
    is left alone.
    """
    keep = replace(settings.load().keep, dry_run=dry_run)
    with settings.session() as session:
        found = session.collect_garbage(keep if grace is None else replace(keep, unused=grace))
    places = [_document(item) for item in found if item.freed or item.kept or item.region]
    total = sum(item.size for item in found)
    settings.emit(
        {"dryRun": dry_run, "freedBytes": total, "places": places},
        _text(found, total, dry_run=dry_run),
    )


def _document(item: Collected) -> dict[str, Any]:
    return {
        "place": item.place,
        "region": item.region or None,
        "freedBytes": item.size,
        "freed": [
            {"kind": each.kind.value, "name": each.name, "allocatedBytes": each.size}
            for each in item.freed
        ],
        "kept": [
            {"kind": each.kind.value, "name": each.name, "reason": each.why} for each in item.kept
        ],
    }


def _text(found: list[Collected], total: int, *, dry_run: bool) -> str:
    gone, rows = ("would go" if dry_run else "gone"), []
    for item in found:
        place = f"{item.region}: {printable(item.place)}" if item.region else printable(item.place)
        rows += [
            (place, each.kind.value, _short(each.name), bytes_text(each.size), gone)
            for each in item.freed
        ]
        rows += [
            (place, each.kind.value, _short(each.name), "", f"stays: {printable(each.why)}")
            for each in item.kept
        ]
    listed = table(("PLACE", "KIND", "NAME", "SIZE", "WHAT"), rows) + "\n\n" if rows else ""
    return f"{listed}{'would free' if dry_run else 'freed'} {bytes_text(total)}"


def _short(name: str) -> str:
    return printable(name if len(name) <= SHOWN else f"{name[:SHOWN]}...")


SHOWN = 24
