"""`--cascade`: say what would go, ask, and delete it."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adapters.cli import arguments
from adapters.text import bytes_text, printable, table
from pipeline.errors import Refused
from pipeline.jobs.delete import Cascade, delete_cascade, plan_cascade
from pipeline.model.names import DefinitionName, GalleryName

if TYPE_CHECKING:
    from adapters.app import App

DELETION = arguments.options(
    click.option("--cascade", is_flag=True, help="With everything in it, for good."),
    click.option("--yes", "-y", is_flag=True, help="Do not ask."),
    click.option("--dry-run", is_flag=True, help="Only say what would be deleted."),
)
Name = TypeVar("Name", GalleryName, DefinitionName)


def deleted(
    app: "App", name: Name, delete: Callable[[Name], None], values: Mapping[str, bool]
) -> tuple[dict[str, Any], str]:
    """Delete what is empty, or as `DELETION` asks what is in it too; the result's document and
    text."""
    if values["cascade"]:
        return cascade(app, name, yes=values["yes"], dry_run=values["dry_run"])
    delete(name)
    kind = "gallery" if isinstance(name, GalleryName) else "definition"
    return {"deleted": name.arm_id}, f"deleted {kind} {printable(str(name))}"


def cascade(
    app: "App", name: GalleryName | DefinitionName, *, yes: bool, dry_run: bool
) -> tuple[dict[str, Any], str]:
    """Plan, confirm and delete; returns the document and the text of the result."""
    plan = plan_cascade(app.context, name)
    document = _document(plan)
    if dry_run:
        return {"plan": document}, _text(plan)
    if not yes:
        _confirm(plan, name)
    delete_cascade(plan, app.context)
    return {"deleted": document}, f"{_text(plan)}\n\ndeleted all of it"


def _confirm(plan: Cascade, name: GalleryName | DefinitionName) -> None:
    click.echo(_text(plan), err=True)
    if not sys.stdin.isatty():
        raise Refused(
            f"{name} and all that is in it would be deleted, and nobody is there to be asked.",
            hint="--yes deletes it without asking, --dry-run only says what would go",
        )
    question = f"Delete all of this for good, from {printable(str(name))}?"
    click.confirm(question, abort=True, err=True)


def _document(plan: Cascade) -> dict[str, Any]:
    return {
        "gallery": plan.gallery.arm_id if plan.gallery else None,
        "definitions": [item.arm_id for item in plan.definitions],
        "versions": [item.name.arm_id for item in plan.versions],
        "channels": [item.arm_id for item in plan.channels],
    }


def _text(plan: Cascade) -> str:
    rows: list[tuple[object, ...]] = [
        (
            "version",
            item.name,
            ", ".join(item.completed_regions),
            bytes_text(sum(disk.virtual_size for disk in item.disks)),
        )
        for item in plan.versions
    ]
    rows += [
        ("channel", f"{item.definition}@{item.name}", "", str(item.version))
        for item in plan.channels
    ]
    rows += [("definition", item, "", "") for item in plan.definitions]
    rows += [("gallery", plan.gallery, "", "")] if plan.gallery else []
    return table(("DELETE", "NAME", "REGIONS", ""), rows)
