"""`galleria list`, `show`, `version`, `promote`, `retention` and `replicate`: image versions."""

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings, short_id
from adapters.cli.lazy import Command, Group
from adapters.cli.report import report_text
from adapters.cli.share import list_view, show_view
from adapters.text import (
    bytes_text,
    end_of_life_text,
    fields,
    minute_text,
    printable,
    seconds_text,
    table,
)
from pipeline.errors import PartiallyReplicated
from pipeline.gallery.access.shared_ids import is_shared_reference
from pipeline.gallery.documents import encode
from pipeline.gallery.rules import VersionChange
from pipeline.gallery.rules.retention import Retention
from pipeline.gallery.validations import ValidationsProfile, ValidationStatus
from pipeline.jobs import show as jobs
from pipeline.jobs.show import ListedVersion
from pipeline.model import (
    Deployment,
    DiskProvenance,
    ImageVersion,
    ProvisioningState,
    RegionStatus,
    ReplicationMode,
    ReplicationState,
    StorageAccountType,
)
from pipeline.model.disks import disk_name
from pipeline.model.names import (
    names_definition,
    parse_definition,
    parse_number,
    parse_reference,
    parse_version,
)
from pipeline.model.scrubs import ScrubRecord

if TYPE_CHECKING:
    from adapters.app import Session


HEADER = ("STAGE", "TIME", "CPU", "READ", "WRITTEN", "CLONED", "SKIPPED")
BYTES = ("bytesRead", "bytesWritten", "bytesCloned", "bytesSkipped")


def stats_text(stats: Mapping[str, Any]) -> str:
    """A line a stage, and one for all; empty where nothing was measured."""
    stages = stats.get("stages", ())
    if not stages:
        return ""
    whole = {**stats, "name": "all", **{key: sum(one[key] for one in stages) for key in BYTES}}
    rows = [
        (
            one["name"],
            seconds_text(one["wallSeconds"]),
            seconds_text(one["cpuSeconds"]),
            *(bytes_text(one[key]) if one[key] else "-" for key in BYTES),
        )
        for one in (*stages, whole)
    ]
    return table(HEADER, rows)


LIMIT = 100  # versions of a definition that are listed


@click.command("list", cls=Command)
@click.argument("name", metavar="[GALLERY[/DEFINITION]]", required=False)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=LIMIT,
    show_default=True,
    metavar="N",
    help="Versions to show of each definition; 0: all.",
)
@click.option("--before", metavar="VERSION", help="Only versions below this number: the next page.")
@click.option("--deleted", is_flag=True, help="Show deleted versions that are still kept.")
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
    subscription = None if all_subscriptions else settings.subscription
    with settings.session() as session:
        if name is not None and is_shared_reference(name):
            list_view(settings, session.views, name)
            return
        found = jobs.list_versions(
            name,
            session.gallery,
            subscription=subscription,
            limit=limit or None,
            before=None if before is None else parse_number(before),
            deleted=deleted,
        )
    header = ("VERSION", "STATE", "REGIONS", "VIRTUAL SIZE", "PUBLISHED", "END OF LIFE", "")
    rows = [_row(item) for item in found.versions]
    text = table(header, rows) if rows else "there are no versions"
    if found.total > len(rows):
        text += f"\n{len(rows)} of {found.total}: --before VERSION shows the next, --limit 0 all"
    documents = [item.document() for item in found.versions]
    settings.emit({"versions": documents, "total": found.total}, text)


def marks(version: ImageVersion, channels: Iterable[str], *, is_latest: bool = False) -> str:
    """What points at a version, and when it goes if it is deleted."""
    found = ["latest"] if is_latest else []
    found += [f"@{name}" for name in channels]
    deletion = version.soft_deleted
    if deletion is not None:
        found.append(f"kept until {minute_text(deletion.hard_deletion_target_time)}")
    return " ".join(found)


def _row(item: ListedVersion) -> tuple[object, ...]:
    version = item.version
    return (
        version.name,
        version.provisioning_state.value,
        ", ".join(
            _place(version, status) + " Degraded" * (status.region in item.degraded)
            for status in version.regions
        ),
        bytes_text(sum(disk.virtual_size for disk in version.disks)) if version.disks else "",
        minute_text(version.published_date),
        end_of_life_text(version.end_of_life_date),
        marks(version, item.channels, is_latest=item.is_latest),
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


SECONDS = 0.5
GRACE_SECONDS = 10.0  # in which a background process takes a version over
_WIDTH = 30
_UP = "\x1b[{}A\x1b[J"  # ECMA-48: cursor up, erase what is below


def watch(settings: Settings, reference: str) -> int:
    """Show how far each region is until nobody works on the version any more: redrawn on a
    terminal, else a line for every change. Returns the exit status that the version deserves."""
    with settings.session() as session:
        version = session.gallery.own_version(reference)
        shown: list[str] = []
        idle = 0.0
        while True:
            lines = [_line(version, index) for index in range(len(version.regions))]
            _show(settings, version, lines, shown)
            shown = lines
            if _ended(version):
                break
            # nobody has it: a background process may be about to
            idle = idle + SECONDS if session.gallery.is_interrupted(version) else 0.0
            if idle >= GRACE_SECONDS:
                break
            time.sleep(SECONDS)
            version = session.gallery.get_version(version.name)
        interrupted = session.gallery.is_interrupted(version)
    return _finish(settings, version, interrupted=interrupted)


def _ended(version: ImageVersion) -> bool:
    return version.provisioning_state in (ProvisioningState.SUCCEEDED, ProvisioningState.FAILED)


def _line(version: ImageVersion, index: int) -> str:
    status = version.regions[index]
    filled = _WIDTH * status.progress // 100
    bar = "#" * filled + "." * (_WIDTH - filled)
    text = f"{status.region}  [{bar}] {status.progress:3d} %  {status.state.value}"
    return printable(f"{text}  {status.details}" if status.details else text)


def _show(settings: Settings, version: ImageVersion, lines: list[str], shown: list[str]) -> None:
    if settings.json:
        if lines != shown:
            settings.emit_json({"version": encode(version)})
            sys.stdout.flush()
        return
    if sys.stdout.isatty():
        if shown:
            sys.stdout.write(_UP.format(len(shown)))
        sys.stdout.write("\n".join(lines) + "\n")
    else:
        for line in lines:
            if line not in shown:
                print(line)
    sys.stdout.flush()


def _finish(settings: Settings, version: ImageVersion, *, interrupted: bool) -> int:
    if interrupted:
        text = "the process that worked on it is gone: the same command continues"
    else:
        text = f"replication {version.aggregated_state.value}"
    if not settings.json:
        print(f"{version.name}: {version.provisioning_state.value}, {text}")
    failed = any(status.state is ReplicationState.FAILED for status in version.regions)
    return PartiallyReplicated.exit_status if failed or interrupted else 0


USERS = 5  # that are shown by name
STORED = ("version", "snapshot", "disk", "managedImage")  # kinds of origin that galleria keeps


@click.command(cls=Command)
@arguments.REFERENCE
@click.option("--region", metavar="NAME", help="Region for which latest is resolved.")
@click.option("--report", "with_report", is_flag=True, help="Show what generalizing changed, too.")
@click.option(
    "--lineage", "with_lineage", is_flag=True, help="Show what it came from, and what came from it."
)
@click.option(
    "--watch",
    "watching",
    is_flag=True,
    help="Show the progress of its regions until they are done.",
)
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
    """Show one version: its regions, replicas, disks and sizes."""
    settings = context.ensure_object(Settings)
    if watching:
        context.exit(watch(settings, reference))
    with settings.session() as session:
        version = session.gallery.resolve(reference, region)
        if is_shared_reference(reference):
            show_view(settings, session.views, version, reference)
            return
        found = jobs.show_version(version, session.gallery, session.zones, lambda: session.pins)
        lineage = _lineage(session, version) if with_lineage else ([], "")
    document, definition = found.document(), found.definition
    kind = f"{definition.os_type.value} {definition.os_state.value}"
    about = fields(
        [
            ("version", version.name),
            ("id", version.name.arm_id),
            ("state", _state(version, interrupted=found.interrupted)),
            (
                "image",
                f"{kind} {definition.hyper_v_generation.value} {definition.architecture.value}",
            ),
            ("generalized", _generalized(version, found.report)),
            ("validated", _validated(found.validations)),
            ("published", minute_text(version.published_date)),
            ("end of life", end_of_life_text(version.end_of_life_date)),
            ("latest", _exclusions(version)),
            ("channels", marks(version, found.channels)),
            *(("note", caution) for caution in found.cautions),
            ("tags", " ".join(f"{key}={value}" for key, value in version.tags.items())),
            *(("degraded", _degraded(record)) for record in found.degraded),
            ("storage", _storage(version)),
            ("mode", _mode(version)),
            *(("source", text) for text in _sources(version, found.source_changes)),
            ("used by", _users(found.deployments)),
        ]
    )
    parts = [about, *_disks(version), region_table(version, found.allocated), *_replicas(version)]
    if with_report:
        parts += [report_text(found.report), stats_text(version.stats)]
    if with_lineage:
        document["lineage"], tree = lineage
        parts.append(tree)
    settings.emit(document, "\n\n".join(part for part in parts if part))


def _degraded(record: ScrubRecord) -> str:
    """What is bad in a region, and when that was seen."""
    what = f"{record.region}: {Path(record.subject).parts[0]}, {record.problem}"
    return printable(f"{what} ({minute_text(record.read)}): galleria repair")


def _lineage(session: "Session", version: ImageVersion) -> tuple[list[dict[str, Any]], str]:
    from adapters.cli.resource import lineage_of
    from pipeline.resources.lineage import of_version

    return lineage_of(of_version(version), session)


def _mode(version: ImageVersion) -> str:
    full = version.replication_mode is ReplicationMode.FULL
    return "" if full else version.replication_mode.value


def _sources(version: ImageVersion, changed: Mapping[str, list[str]]) -> Iterable[str]:
    """The files that a shallow version depends on, and what became of them."""
    for disk in version.disks:
        for file in disk.source.files:
            what = ", ".join(changed.get(file.path, ()))
            yield f"{file.path}: {f'CHANGED: {what}' if what else 'unchanged'}"


def _users(deployments: Sequence[Deployment]) -> str:
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
        from adapters.cli.resource import WORDS

        return printable(f"{WORDS.get(origin.kind, origin.kind)} {short_id(origin.id)}")
    # what was downloaded was read under another name
    named = origin.id if origin is not None and origin.kind == "vhd" else source.path
    machine = f" of {Path(origin.id).name}" if origin is not None and origin.id != named else ""
    return printable(f"{Path(named).name} ({source.format}){machine}")


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


NAME = click.argument("name", metavar="GALLERY/DEFINITION/VERSION")


@click.group(cls=Group)
def version() -> None:
    """List, show, change, delete and undelete image versions."""


version.add_command(list_versions, "list")
version.add_command(show, "show")


@version.command("update")
@NAME
@click.option(
    "--target-regions",
    "--target-region",
    "targets",
    multiple=True,
    metavar="REGION[=REPLICAS][=SKU]...",
    help="The complete new list of regions: the version leaves all others.",
)
@click.option(
    "--add-region",
    "added",
    multiple=True,
    metavar="REGION[=REPLICAS][=SKU]",
    help="Region to add, or a new number of replicas in a region (repeatable).",
)
@arguments.ADDITIONAL
@arguments.EDGE_ZONES
@click.option(
    "--remove-region",
    "removed",
    multiple=True,
    metavar="REGION",
    help="Region to leave (repeatable).",
)
@click.option(
    "--replica-count", type=int, metavar="N", help="Replicas in regions that give no number."
)
@click.option("--exclude-from-latest", type=bool, help="Never use this version as latest.")
@click.option(
    "--exclude-from-latest-in",
    "excluded",
    multiple=True,
    metavar="REGION",
    help="Never use it as latest in this region.",
)
@click.option(
    "--include-in-latest-in",
    "included",
    multiple=True,
    metavar="REGION",
    help="Use it as latest in this region again.",
)
@click.option(
    "--end-of-life-date",
    callback=arguments.as_date,
    metavar="DATE",
    help="Date, such as 2030-01-31.",
)
@click.option("--no-end-of-life-date", is_flag=True, help="Remove the end-of-life date.")
@click.option(
    "--allow-replicated-location-deletion",
    type=bool,
    help="Whether the version may leave regions that are not in --target-regions.",
)
@click.option(
    "--block-deletion-before-end-of-life",
    "--block-delete-before-eol",
    "block",
    type=bool,
    help="Whether deletion is blocked before the end of life.",
)
@arguments.TAGS
@click.pass_obj
def update(settings: Settings, /, *, name: str, **values: Any) -> None:
    """Change regions, replicas, exclusion from latest, end of life, safety and tags."""
    from pipeline.jobs.update import update_version

    regions = settings.load().regions
    targets = arguments.target_regions(values["targets"], regions)
    added = arguments.target_regions(values["added"], regions, "--add-region")
    named = arguments.with_additional((*targets, *added), values["additional"], regions)
    change = VersionChange(
        target_regions=named[: len(targets)] or None,
        target_edge_zones=arguments.edge_zones(values["edges"], regions),
        add=named[len(targets) :],
        remove=values["removed"],
        replica_count=values["replica_count"],
        exclude_from_latest=values["exclude_from_latest"],
        exclude_in={
            **dict.fromkeys(values["excluded"], True),
            **dict.fromkeys(values["included"], False),
        },
        end_of_life_date=values["end_of_life_date"],
        forget_end_of_life=values["no_end_of_life_date"],
        allow_deletion_of_replicated_locations=values["allow_replicated_location_deletion"],
        block_deletion_before_end_of_life=values["block"],
        tags=arguments.pairs(values["tags"], "--tags") or None,
    )
    with settings.session() as session:
        changed = update_version(parse_version(name), change, session.context)
    settings.emit({"version": encode(changed)}, f"{changed.name}\n{region_table(changed)}")


@version.command("delete")
@NAME
@click.option(
    "--permanent",
    "--bypass-soft-delete",
    "permanent",
    is_flag=True,
    help="Delete permanently, even if the gallery keeps deleted versions for some time.",
)
@click.option(
    "--force", is_flag=True, help="Delete it even if a process on another host works on it."
)
@click.pass_obj
def delete(settings: Settings, *, name: str, permanent: bool, force: bool) -> None:
    """Delete a version with its replicas. Disks that were deployed from it keep working."""
    from pipeline.jobs.delete import delete_version

    wanted = parse_version(name)
    with settings.session() as session:
        kept = delete_version(wanted, session.context, permanent=permanent, force=force)
    if kept is None:
        text = f"deleted {wanted}"
    else:
        deletion = kept.soft_deleted
        until = f" until {minute_text(deletion.consumption_end_time)}" if deletion else ""
        text = f"deleted {wanted}; it is kept{until}: galleria version undelete brings it back"
    settings.emit({"deleted": wanted.arm_id, "softDeleted": encode(kept)}, text)


@version.command("undelete")
@NAME
@click.pass_obj
def undelete(settings: Settings, *, name: str) -> None:
    """Bring back a deleted version that is still kept."""
    with settings.session() as session:
        found = session.gallery.undelete(parse_version(name))
    settings.emit({"version": encode(found)}, f"{found.name} is back")


@version.command("purge")
@click.argument("name", metavar="GALLERY/DEFINITION[/VERSION]")
@click.pass_obj
def purge_command(settings: Settings, *, name: str) -> None:
    """Remove a deleted version permanently, or all expired ones of a definition."""
    from pipeline.jobs.delete import purge

    wanted = parse_definition(name) if names_definition(name) else parse_version(name)
    with settings.session() as session:
        gone = purge(wanted, session.context)
    text = "\n".join(f"removed {item}" for item in gone) or "there is nothing to remove"
    settings.emit({"removed": [item.arm_id for item in gone]}, text)


@click.command(cls=Command)
@arguments.REFERENCE
@click.option("--channel", required=True, metavar="NAME", help="Name of the channel, such as prod.")
@click.option("--remove", is_flag=True, help="Remove the channel.")
@click.pass_obj
def promote(settings: Settings, *, reference: str, channel: str, remove: bool) -> None:
    """Point a channel, GALLERY/DEFINITION@CHANNEL, to this version."""
    with settings.session() as session:
        if remove:
            definition = parse_reference(reference).definition
            session.gallery.remove_channel(definition, channel)
            return settings.emit({"removed": channel}, f"removed {definition}@{channel}")
        version = session.gallery.own_version(reference)
        made = session.gallery.promote(version.name, channel)
    text = f"{made.definition}@{made.name} is {made.version}"
    return settings.emit({"channel": encode(made)}, text)


@click.group(cls=Group)
def retention() -> None:
    """Delete old versions by rule."""


@retention.command("apply")
@click.argument("name", metavar="GALLERY/DEFINITION")
@click.option("--keep-last", type=int, metavar="N", help="Keep the N newest usable versions.")
@click.option(
    "--older-than",
    metavar="AGE",
    help="Keep versions younger than this: 90d, 12w, 6m (30 days each), 1y.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.pass_obj
def apply(
    settings: Settings, *, name: str, keep_last: int | None, older_than: str | None, dry_run: bool
) -> None:
    """Delete the versions of a definition that no rule keeps.

    The last usable version always stays, and so do those that deployed disks, scale
    sets or channels use, and those that may not be deleted before their end of life.
    """
    from pipeline.jobs.delete import apply_retention

    rule = Retention(keep_last, arguments.age(older_than, "--older-than"))
    with settings.session() as session:
        verdicts, expired = apply_retention(
            parse_definition(name), rule, session.context, dry_run=dry_run
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


@click.command(cls=Command)
@arguments.REFERENCE
@click.option(
    "--region",
    "--target-region",
    "--target-regions",
    "regions",
    multiple=True,
    metavar="REGION[=REPLICAS][=SKU]...",
    help="Region to add (repeatable). Default: regions that are not complete.",
)
@click.option(
    "--retry",
    is_flag=True,
    help="Retry transient errors (EIO, locks, connections) for a minute, with exponential backoff.",
)
@click.pass_obj
def replicate(settings: Settings, *, reference: str, regions: tuple[str, ...], retry: bool) -> None:
    """Bring a version to more regions, or make failed regions again."""
    from pipeline.jobs.replicate import replicate_version

    targets = arguments.target_regions(regions, settings.load().regions)
    with settings.session() as session:
        version = session.gallery.own_version(reference)
        version = replicate_version(version.name, targets, session.context, retry=retry)
    settings.emit({"version": encode(version)}, f"{version.name}\n{region_table(version)}")
