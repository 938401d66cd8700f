"""What a publish is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from blake3 import blake3

from pipeline.gallery import rules
from pipeline.guest.partitions import PartitionTable
from pipeline.guest.profiles import Plan
from pipeline.jobs.agree import agree_with_disks, partition_table
from pipeline.jobs.boot_check import check_bootable
from pipeline.jobs.context import JobContext
from pipeline.jobs.prepare import PublishPolicy, prepare, start
from pipeline.jobs.replicate import (
    placed,
)
from pipeline.model import ImageVersion, VersionRequest
from pipeline.model.sources import AnySource
from pipeline.ports.sources import Sources, Supply
from pipeline.sources.ingest import Disk
from pipeline.sources.pin import snapshot
from pipeline.sources.supply import check_combination, data_luns
from pipeline.storage.placement import Parents, Places
from pipeline.storage.store import Material, check_room


class Wait(Enum):
    """When publish returns: usable in the source region, or complete everywhere. With NONE its
    caller has put it in the background, where it goes on to the end."""

    FIRST = "first"
    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """`plan` None leaves the guest as it is. `preflight` False goes on without estimating space.
    `force` takes a guest that is not what the definition says, and records it. `boot_check` boots
    what was stored before it becomes visible; `validate` takes only what Azure would."""

    version: VersionRequest
    sources: tuple[AnySource, ...]
    plan: Plan | None
    wait: Wait = Wait.ALL
    preflight: bool = True
    force: bool = False
    boot_check: bool = False
    validate: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """What is known before the first byte of a version is stored. `unverified` is what nothing
    shows to be as the definition says."""

    material: Material
    report: Mapping[str, Any]
    unverified: tuple[str, ...]

    @property
    def disks(self) -> tuple[Disk, ...]:
        return self.material.disks

    @property
    def places(self) -> Places:
        return self.material.places


@contextmanager
def ready(
    version: ImageVersion,
    supply: Supply,
    sources: tuple[Disk, ...],
    request: PublishRequest,
    work: Path,
    context: JobContext,
) -> Iterator[Ready]:
    """Everything up to the first byte that is stored: the sources held still, every check made, the
    guest generalized on an overlay. A dry run ends here."""
    plan = request.plan if version.generalized and not supply.generalized else None
    with snapshot(sources, work, context.pins) as (disks, pin), ExitStack() as stack:
        if request.boot_check:
            check_bootable(version, supply.description.nvram, context)
        # the appliance boots while everything else is looked at
        started = None if plan is None else start(disks, work, context, stack)
        table = partition_table(disks, context.images)
        confirm(version, table, {}, supply, request, context)
        known = supply.stored if plan is None else {}
        parents: Parents = {lun: (digest,) for lun, digest in known.items()}
        parents = parents or context.gallery.parents_of(version.name)
        places = placed(version, first_regions(version, request.wait), context, parents)
        material = Material(disks, pin, known, parents, places)
        if request.preflight:
            with context.timed("estimate space"):
                check_room(material, context.zones, context.images, context.work)
        definition = context.gallery.get_definition(version.name.definition)
        policy = PublishPolicy(definition, request.force, request.validate)
        disks, report = prepare(disks, table, plan, supply, policy, work, context, started=started)
        unverified = confirm(version, table, report, supply, request, context)
        yield Ready(replace(material, disks=disks), report, unverified)


def described(request: PublishRequest, sources: Sources) -> VersionRequest:
    """The request with what tells it from another one: a run that died is taken up again only for
    the same sources, unchanged, and the same plan."""
    check_combination(request.sources)
    digest = blake3()
    for source in request.sources:
        digest.update(repr(sources.identity(source)).encode())
    digest.update(repr(decisions(request.plan)).encode())
    return replace(request.version, fingerprint=digest.hexdigest(), luns=data_luns(request.sources))


def decisions(plan: Plan | None) -> tuple[object, ...]:
    """What a plan decides, in a form that is the same in every process (functions and the order of
    sets are not)."""
    if plan is None:
        return ()
    names = tuple(operation.name for operation in plan.operations)
    policy = plan.policy
    users = (policy.users.value, sorted(policy.remove_users), sorted(policy.keep_users))
    own = (policy.remove_paths, policy.truncate_paths)
    scripts = tuple((script.name, script.text) for script in policy.scripts)
    return (plan.profile, names, *users, policy.force, own, scripts)


def first_regions(version: ImageVersion, wait: Wait) -> list[str]:
    """The regions that this run makes; those that it does not wait for come from the first one."""
    if wait is Wait.FIRST:
        return [version.location]
    return [target.name for target in version.target_regions]


def confirm(
    version: ImageVersion,
    table: PartitionTable,
    report: Mapping[str, Any],
    supply: Supply,
    request: PublishRequest,
    context: JobContext,
) -> tuple[str, ...]:
    """Compare the definition with what is known of the OS disk; what could not be compared."""
    declared, description = request.version.source, supply.description
    return agree_with_disks(version, table, report, description, declared, context.gallery)


def check_limits(
    version: ImageVersion, disks: Sequence[Disk], request: PublishRequest, context: JobContext
) -> None:
    rules.caching(request.version.host_caching, [disk.lun for disk in disks])
    for disk in disks:
        context.gallery.check_disk(version, disk.virtual_size, disk.name)
