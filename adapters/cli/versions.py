"""`galleria list`, and the regions of a version as several commands print them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.cli.shared import list_view
from adapters.text import bytes_text, printable, table
from pipeline.gallery.access.shared_ids import is_shared_reference
from pipeline.gallery.documents import encode
from pipeline.model import Channel, ImageVersion, RegionStatus, ReplicationState
from pipeline.model.names import (
    DefinitionName,
    is_definition,
    parse_definition,
    parse_gallery,
    parse_number,
)

if TYPE_CHECKING:
    from adapters.app import App

LIMIT = 100  # versions of a definition that are listed


@click.command("list", cls=Command)
@click.argument("name", metavar="[GALLERY[/DEFINITION]]", required=False)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=LIMIT,
    show_default=True,
    metavar="N",
    help="Of each definition; 0: all.",
)
@click.option("--before", metavar="VERSION", help="Those below this number: the next page.")
@click.option("--deleted", is_flag=True, help="Those that are deleted and still kept.")
@arguments.ALL_SUBSCRIPTIONS
@click.pass_obj
def list_versions(
    settings: Settings,
    *,
    name: str | None,
    limit: int,
    before: str | None,
    deleted: bool,
    all_subscriptions: bool,
) -> None:
    """List image versions, newest first."""
    start = None if before is None else parse_number(before)
    subscription = None if all_subscriptions else settings.subscription
    rows: list[tuple[object, ...]] = []
    documents = []
    total = shown = 0
    with settings.app() as app:
        if name is not None and is_shared_reference(name):
            list_view(settings, app.views, name)
            return
        for wanted in _definitions(app, name, subscription):
            found = app.gallery.list_versions(
                wanted, limit=limit or None, before=start, deleted=deleted
            )
            count = app.gallery.count_versions(wanted, deleted=deleted)
            newest = None if deleted or not found else app.gallery.latest_version(wanted)
            channels = app.gallery.list_channels(wanted) if found else []
            for version in found:
                told = marks(version, newest, channels)
                rows.append(_row(version, told))
                documents.append({**encode(version), "isLatest": "latest" in told})
            total += count
            shown += len(found)
    header = ("VERSION", "STATE", "REGIONS", "VIRTUAL SIZE", "PUBLISHED", "END OF LIFE", "")
    text = table(header, rows) if rows else "there are no versions"
    if total > shown:
        text += f"\n{shown} of {total}: --before VERSION shows the next, --limit 0 all"
    settings.emit({"versions": documents, "total": total}, text)


def _definitions(app: "App", name: str | None, subscription: str | None) -> list[DefinitionName]:
    """What is named; without a name all of a subscription, or (None) of all."""
    if name is not None and is_definition(name):
        return [parse_definition(name)]
    listed = [] if name else app.gallery.list_galleries(subscription)
    galleries = [parse_gallery(name)] if name else [gallery.name for gallery in listed]
    return [item.name for gallery in galleries for item in app.gallery.list_definitions(gallery)]


def marks(
    version: ImageVersion, newest: ImageVersion | None, channels: Iterable[Channel]
) -> list[str]:
    """What points at a version, and when it goes if it is deleted."""
    found = ["latest"] if newest is not None and newest.number == version.number else []
    found += [f"@{item.name}" for item in channels if item.version == version.number]
    deletion = version.soft_deleted
    if deletion is not None:
        found.append(f"kept until {minute(deletion.hard_deletion_target_time)}")
    return found


def _row(version: ImageVersion, told: Iterable[str]) -> tuple[object, ...]:
    return (
        version.name,
        version.provisioning_state.value,
        ", ".join(_place(version, status) for status in version.regions),
        bytes_text(sum(disk.virtual_size for disk in version.disks)) if version.disks else "",
        minute(version.published_date),
        end_of_life(version),
        " ".join(told),
    )


def _place(version: ImageVersion, status: RegionStatus) -> str:
    if status.state is ReplicationState.COMPLETED:
        return f"{status.region} {len(status.result.replicas)}"
    return f"{status.region} {status.state.value}"


def region_table(version: ImageVersion, allocated: Mapping[str, int] | None = None) -> str:
    """A line for each region, and the problems of those that failed."""
    virtual_size = sum(disk.virtual_size for disk in version.disks)
    header = ["REGION", "STATE", "REPLICAS", "BASE", "LOGICAL", "READ", "WRITTEN", "SHARED"]
    rows = []
    for status in version.regions:
        result = status.result
        row: list[object] = [status.region, status.state.value]
        if status.state is ReplicationState.COMPLETED:
            counts = (result.bytes_read, result.bytes_written, result.bytes_shared)
            row += [
                len(result.replicas),
                ", ".join(sorted(set(result.methods))),
                bytes_text(virtual_size * len(result.replicas)),
                *map(bytes_text, counts),
            ]
            row += [bytes_text(allocated[status.region])] if allocated is not None else []
        rows.append(row)
    if allocated is not None:
        header.append("ALLOCATED")
    padded = [[*row, *[""] * (len(header) - len(row))] for row in rows]
    problems = [
        f"{printable(status.region)}: {printable(status.details)}"
        for status in version.regions
        if status.details
    ]
    return "\n".join([table(header, padded), *problems])


def end_of_life(version: ImageVersion) -> str:
    end = version.end_of_life_date
    if end is None:
        return ""
    return f"{end:%Y-%m-%d}" + (" (past)" if end <= datetime.now(UTC) else "")


def minute(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}Z"
