"""`galleria audit`: what was done, by whom, and whether the record is whole."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import click

from adapters.cli.context import Settings, short_id
from adapters.cli.lazy import Group
from adapters.text import table
from pipeline.gallery.audit import parse_head


@click.group(cls=Group)
def audit() -> None:
    """Read and verify the record of changes and refusals."""


@audit.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N")
@click.option("--actor", metavar="PRINCIPAL", help="What this principal did.")
@click.option("--object", "id", metavar="ID", help="What was done to this, or to what is in it.")
@click.option("--denied", is_flag=True, help="Refusals alone.")
@click.pass_obj
def list_audit(
    settings: Settings, *, limit: int, actor: str | None, id: str | None, denied: bool
) -> None:
    """List the record, newest first."""

    def wanted(entry: Mapping[str, Any]) -> bool:
        return (
            (actor is None or entry["actor"].lower() == actor.lower())
            and (id is None or f"{entry['object'].lower()}/".startswith(f"{id.lower()}/"))
            and not (denied and entry["allowed"])
        )

    with settings.app() as app:
        contents = ({**entry.content, "hash": entry.hash} for entry in app.grants.audit())
        found = list(islice(filter(wanted, contents), limit))
    rows = [
        (
            entry["seq"],
            entry["time"][:19] + "Z",
            entry["actor"],
            "done" if entry["allowed"] else "DENIED",
            entry["action"],
            short_id(entry["object"]),
            " ".join(map(short_id, entry["details"].split(" "))),
        )
        for entry in found
    ]
    header = ("SEQ", "TIME", "ACTOR", "", "ACTION", "OBJECT", "DETAILS")
    settings.emit({"entries": found}, table(header, rows) if rows else "nothing is recorded")


@audit.command("verify")
@click.option(
    "--head", metavar="SEQ:HASH", help="A head that was printed earlier: it must be in the chain."
)
@click.pass_obj
def verify(settings: Settings, *, head: str | None) -> None:
    """Walk the whole chain of hashes; print its head."""
    expected = None if head is None else parse_head(head)
    with settings.app() as app:
        found = app.grants.verify_audit(expected)
    settings.emit(
        {"entries": found.seq, "head": str(found)},
        f"the record of {found.seq} entries is whole\nhead  {found}",
    )
