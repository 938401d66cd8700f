"""`galleria list` and `galleria show`."""

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.cli.lineage import lineage_of
from adapters.cli.proof import report_text, without_inventory
from adapters.cli.shared import list_view, show_view
from adapters.cli.watch import watch
from adapters.text import bytes_text, fields, printable, table
from pipeline.gallery.documents import encode
from pipeline.gallery.model import (
    Channel,
    Deployment,
    ImageVersion,
    RegionStatus,
    ReplicationState,
)
from pipeline.gallery.names import (
    DefinitionName,
    is_definition,
    parse_definition,
    parse_gallery,
    parse_number,
)
from pipeline.gallery.shared_ids import is_shared_reference
from pipeline.resources.lineage import of_version
from pipeline.shallow import is_shallow, source_changes
from pipeline.stages.ingest import disk_name

if TYPE_CHECKING:
    from adapters.app import App

USERS = 5  # that are shown by name
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
                marks = _marks(version, newest, channels)
                rows.append(_row(version, marks))
                documents.append({**encode(version), "isLatest": "latest" in marks})
            total += count
            shown += len(found)
    header = ("VERSION", "STATE", "REGIONS", "VIRTUAL SIZE", "PUBLISHED", "END OF LIFE", "")
    text = table(header, rows) if rows else "there are no versions"
    if total > shown:
        text += f"\n{shown} of {total}: --before VERSION shows the next, --limit 0 all"
    settings.emit({"versions": documents, "total": total}, text)


@click.command(cls=Command)
@click.argument("reference", metavar="GALLERY/DEFINITION[/VERSION]")
@click.option("--region", metavar="NAME", help="What latest means in this region.")
@click.option("--report", "with_report", is_flag=True, help="What generalizing changed, too.")
@click.option(
    "--lineage", "with_lineage", is_flag=True, help="What it came from, and what came from it."
)
@click.option("--watch", "watching", is_flag=True, help="How far its regions are, until the end.")
@click.pass_context
def show(
    context: click.Context,
    *,
    reference: str,
    region: str | None,
    with_report: bool,
    with_lineage: bool,
    watching: bool,
) -> None:
    """Show one version: regions, replicas, how they were made, bytes."""
    settings = context.ensure_object(Settings)
    if watching:
        context.exit(watch(settings, reference))
    with settings.app() as app:
        version = app.gallery.resolve(reference, region)
        if is_shared_reference(reference):
            show_view(settings, app.views, version, reference)
            return
        report = app.gallery.report(version.name)
        definition = app.gallery.get_definition(version.name.definition)
        interrupted = app.gallery.is_interrupted(version)
        channels = app.gallery.list_channels(version.name.definition)
        cautions = app.gallery.cautions(version)
        lineage = lineage_of(of_version(version), app) if with_lineage else ([], "")
        changed = source_changes(version, app.ports.pins)
        allocated = {status.region: _allocated(app, version, status) for status in version.regions}
        deployments = [
            item for item in app.gallery.list_deployments() if item.version_uid == version.uid
        ]
    document = {
        "version": encode(version),
        "definition": encode(definition),
        "aggregatedState": version.aggregated_state.value,
        "interrupted": interrupted,
        "channels": [item.name for item in channels if item.version == version.number],
        "cautions": cautions,
        "allocatedBytes": allocated,
        "deployments": encode(deployments),
        "sourceChanges": changed,
        "generalizeReport": without_inventory(report),
    }
    kind = f"{definition.os_type.value} {definition.os_state.value}"
    about = fields(
        [
            ("version", version.name),
            ("id", version.name.arm_id),
            ("state", _state(version, interrupted=interrupted)),
            (
                "image",
                f"{kind} {definition.hyper_v_generation.value} {definition.architecture.value}",
            ),
            ("generalized", _generalized(version, report)),
            ("published", _minute(version.published_date)),
            ("end of life", _end_of_life(version)),
            ("latest", _exclusions(version)),
            ("channels", " ".join(_marks(version, None, channels))),
            *(("note", caution) for caution in cautions),
            ("tags", " ".join(f"{key}={value}" for key, value in version.tags.items())),
            ("mode", version.replication_mode.value if is_shallow(version) else ""),
            *(("source", text) for text in _sources(version, changed)),
            ("used by", _users(deployments)),
        ]
    )
    parts = [about, *_disks(version), region_table(version, allocated), *_replicas(version)]
    if with_report:
        parts.append(report_text(report))
    if with_lineage:
        document["lineage"], tree = lineage
        parts.append(tree)
    settings.emit(document, "\n\n".join(parts))


def _sources(version: ImageVersion, changed: Mapping[str, list[str]]) -> Iterable[str]:
    """The files that a shallow version leans on, and what became of them."""
    for disk in version.disks:
        for file in disk.source.files:
            what = ", ".join(changed.get(file.path, ()))
            yield f"{file.path}: {f'CHANGED: {what}' if what else 'unchanged'}"


def _users(deployments: list[Deployment]) -> str:
    """The VMs that were made from a version: the first few by name."""
    if not deployments:
        return ""
    names = ", ".join(item.name for item in deployments[:USERS])
    more = f" and {len(deployments) - USERS} more" if len(deployments) > USERS else ""
    return f"{len(deployments)} VMs: {names}{more}"


def _exclusions(version: ImageVersion) -> str:
    if version.exclude_from_latest:
        return "excluded"
    names = [target.name for target in version.target_regions if target.exclude_from_latest]
    return f"excluded in {', '.join(names)}" if names else ""


def _definitions(app: "App", name: str | None, subscription: str | None) -> list[DefinitionName]:
    """What is named; without a name all of a subscription, or (None) of all."""
    if name is not None and is_definition(name):
        return [parse_definition(name)]
    listed = [] if name else app.gallery.list_galleries(subscription)
    galleries = [parse_gallery(name)] if name else [gallery.name for gallery in listed]
    return [item.name for gallery in galleries for item in app.gallery.list_definitions(gallery)]


def _marks(
    version: ImageVersion, newest: ImageVersion | None, channels: Iterable[Channel]
) -> list[str]:
    """What points at a version, and when it goes if it is deleted."""
    marks = ["latest"] if newest is not None and newest.number == version.number else []
    marks += [f"@{item.name}" for item in channels if item.version == version.number]
    deletion = version.soft_deleted
    if deletion is not None:
        marks.append(f"kept until {_minute(deletion.hard_deletion_target_time)}")
    return marks


def _row(version: ImageVersion, marks: Iterable[str]) -> tuple[object, ...]:
    return (
        version.name,
        version.provisioning_state.value,
        ", ".join(_place(version, status) for status in version.regions),
        bytes_text(sum(disk.virtual_size for disk in version.disks)) if version.disks else "",
        _minute(version.published_date),
        _end_of_life(version),
        " ".join(marks),
    )


def _place(version: ImageVersion, status: RegionStatus) -> str:
    if status.state is ReplicationState.COMPLETED:
        return f"{status.region} {len(status.result.replicas)}"
    return f"{status.region} {status.state.value}"


def _allocated(app: "App", version: ImageVersion, status: RegionStatus) -> int:
    """What the version's files in a region occupy: shared blocks once, parents of a delta too."""
    zones = app.zones.get(status.region, ())
    return sum(zone.allocated_bytes([version.zone_key]) for zone in zones)


def _disks(version: ImageVersion) -> Iterable[str]:
    rows = [
        (
            disk_name(disk.lun),
            bytes_text(disk.virtual_size),
            disk.digest[:16],
            f"{Path(disk.source.path).name} ({disk.source.format})",
        )
        for disk in version.disks
    ]
    return [table(("DISK", "VIRTUAL SIZE", "DIGEST", "SOURCE"), rows)] if rows else []


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


def _replicas(version: ImageVersion) -> Iterable[str]:
    """For each region the directory of its replicas, and how each was made."""
    for status in version.regions:
        disks = [
            (replica["index"], disk["lun"], disk["method"], disk["path"])
            for replica in status.result.replicas
            for disk in replica["disks"]
        ]
        if disks:
            place = os.path.commonpath([Path(path).parent.parent for *_, path in disks])
            rows = [
                (index, disk_name(lun), method, os.path.relpath(path, place))
                for index, lun, method, path in disks
            ]
            title = printable(f"replicas in {status.region}, {place}")
            yield f"{title}\n{table(('REPLICA', 'DISK', 'MADE BY', 'FILE'), rows)}"


def _state(version: ImageVersion, *, interrupted: bool) -> str:
    state = f"{version.provisioning_state.value}, replication {version.aggregated_state.value}"
    if interrupted:
        return f"{state}; the process that worked on it is gone: the same command continues"
    return state


def _generalized(version: ImageVersion, report: Mapping[str, Any] | None) -> str:
    if not version.generalized:
        return "no"
    done = {name for name, _, _ in _changes(report)}
    paths = {path for _, _, path in _changes(report)}
    return f"yes, {len(done)} operations changed {len(paths)} paths" if done else "yes"


def _changes(report: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Operation, action and path of all that generalizing did."""
    return [
        (operation["name"], change["action"], change["path"])
        for operation in (report or {}).get("operations", [])
        for change in operation["changes"]
    ]


def _end_of_life(version: ImageVersion) -> str:
    end = version.end_of_life_date
    if end is None:
        return ""
    return f"{end:%Y-%m-%d}" + (" (past)" if end <= datetime.now(UTC) else "")


def _minute(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}Z"
