"""`galleria show`."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli.context import Settings, short_id
from adapters.cli.lazy import Command
from adapters.cli.lineage import WORDS, lineage_of
from adapters.cli.proof import report_text, without_inventory
from adapters.cli.properties import settled
from adapters.cli.shared import show_view
from adapters.cli.timing import stats_text
from adapters.cli.versions import end_of_life, marks, minute, region_table
from adapters.cli.watch import watch
from adapters.text import bytes_text, fields, printable, table
from pipeline.gallery.access.shared_ids import is_shared_reference
from pipeline.gallery.documents import encode
from pipeline.gallery.validations import ValidationsProfile, ValidationStatus, validations
from pipeline.jobs.shallow import is_shallow, source_changes
from pipeline.model import (
    Deployment,
    DiskProvenance,
    ImageVersion,
    RegionStatus,
    StorageAccountType,
    TargetRegion,
)
from pipeline.model.spelling import EDGE
from pipeline.resources.lineage import of_version
from pipeline.sources.ingest import disk_name

if TYPE_CHECKING:
    from adapters.app import App

USERS = 5  # that are shown by name
STORED = ("version", "snapshot", "disk", "managedImage")  # kinds of origin that galleria keeps


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
        changed = source_changes(version, app.context.pins)
        allocated = {status.region: _allocated(app, version, status) for status in version.regions}
        deployments = [
            item for item in app.gallery.list_deployments() if item.version_uid == version.uid
        ]
    profile = validations(version, definition, report)
    document = {
        "version": encode(version),
        "definition": settled(definition),
        "aggregatedState": version.aggregated_state.value,
        "interrupted": interrupted,
        "channels": [item.name for item in channels if item.version == version.number],
        "cautions": cautions,
        "allocatedBytes": allocated,
        "deployments": encode(deployments),
        "sourceChanges": changed,
        "targetExtendedLocations": [_edge_document(version, item) for item in version.edge_zones],
        "validationsProfile": encode(profile),
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
            ("validated", _validated(profile)),
            ("published", minute(version.published_date)),
            ("end of life", end_of_life(version)),
            ("latest", _exclusions(version)),
            ("channels", " ".join(marks(version, None, channels))),
            *(("note", caution) for caution in cautions),
            ("tags", " ".join(f"{key}={value}" for key, value in version.tags.items())),
            ("storage", _storage(version)),
            ("mode", version.replication_mode.value if is_shallow(version) else ""),
            *(("source", text) for text in _sources(version, changed)),
            ("used by", _users(deployments)),
        ]
    )
    parts = [about, *_disks(version), region_table(version, allocated), *_replicas(version)]
    if with_report:
        parts += [report_text(report), stats_text(version.stats)]
    if with_lineage:
        document["lineage"], tree = lineage
        parts.append(tree)
    settings.emit(document, "\n\n".join(part for part in parts if part))


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
            disk.host_caching.value if disk.host_caching else "",
            _source(disk.source),
        )
        for disk in version.disks
    ]
    header = ("DISK", "VIRTUAL SIZE", "DIGEST", "HOST CACHING", "SOURCE")
    return [table(header, rows)] if rows else []


def _source(source: DiskProvenance) -> str:
    """The file that was read; or the version, snapshot, disk or image whose content it is."""
    origin = source.origin
    if origin is not None and origin.kind in STORED:
        return printable(f"{WORDS.get(origin.kind, origin.kind)} {short_id(origin.id)}")
    # what was downloaded was read under another name
    named = origin.id if origin is not None and origin.kind == "vhd" else source.path
    machine = f" of {Path(origin.id).name}" if origin is not None and origin.id != named else ""
    return printable(f"{Path(named).name} ({source.format}){machine}")


def _edge_document(version: ImageVersion, target: TargetRegion) -> dict[str, Any]:
    """An edge zone as Azure's JSON has it; the version's own has it among the target regions."""
    region, _, zone = target.name.partition(EDGE)
    return {
        "name": region,
        "extendedLocation": {"name": zone, "type": "EdgeZone"},
        "extendedLocationReplicaCount": target.own_count(version.replica_count),
        "storageAccountType": encode(target.storage_account_type),
    }


def _storage(version: ImageVersion) -> str:
    """In what each region keeps it, unless that is the same plain storage everywhere."""
    told = []
    for target in version.target_regions:
        kinds = [target.storage_account_type] if target.storage_account_type else []
        texts = [kind.value for kind in kinds]
        texts += [
            f"{item.regional_replica_count} more in {item.storage_account_type.value}"
            for item in target.additional_replica_sets
        ]
        told.append((target.name, ", ".join(texts)))
    if {text for _, text in told} <= {StorageAccountType.STANDARD_LRS.value, ""}:
        return ""
    return "; ".join(f"{name}: {text}" for name, text in told)


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


def _validated(profile: ValidationsProfile) -> str:
    return ", ".join(
        item.type + ("" if item.status is ValidationStatus.SUCCEEDED else f" ({item.status.value})")
        for item in profile.executed_validations
    )


def _changes(report: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Operation, action and path of all that generalizing did."""
    return [
        (operation["name"], change["action"], change["path"])
        for operation in (report or {}).get("operations", [])
        for change in operation["changes"]
    ]
