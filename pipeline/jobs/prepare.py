"""Prepare: one sequence for all that becomes a version or a resource.

    sources -> checked -> prepared -> stored

`check_publish` (of a resource: `check_resource`) asks all that can be asked before the sources are
pinned, and decides what is to become of the disks: this is the plan. `prepared` holds the sources
still, compares them with the definition, and generalizes them on overlays: a dry run ends there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from blake3 import blake3

from pipeline.azure.guest import guest_findings
from pipeline.azure.validate import findings, require_passed
from pipeline.gallery import rules
from pipeline.guest.generalize import generalize
from pipeline.guest.profiles import Plan
from pipeline.guest.survey import GuestCheck, Survey, check_os_state, survey_if_any
from pipeline.jobs import shallow
from pipeline.jobs.agree import PublishPolicy, agree, agree_with_disks, partition_table
from pipeline.jobs.boot_check import boot_disks, check_bootable
from pipeline.jobs.context import JobContext
from pipeline.jobs.replicate import placed
from pipeline.model import HostCaching, ImageVersion, VersionRequest
from pipeline.model.sources import AnySource
from pipeline.ports import Chain, GuestSession
from pipeline.ports.sources import Sources, Supply
from pipeline.sources.ingest import Disk, ingest
from pipeline.sources.partitions import PartitionTable
from pipeline.sources.pin import pin_disks
from pipeline.sources.supply import check_combination, data_luns
from pipeline.storage.placement import Parents
from pipeline.storage.store import Destination, Material, check_room

# --- what is asked for ---------------------------------------------------------------------------


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


def fingerprinted(request: PublishRequest, sources: Sources) -> VersionRequest:
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
    own = (policy.remove_paths, policy.truncate_paths, policy.agent_paths)
    scripts = tuple((script.name, script.text) for script in policy.scripts)
    return (plan.profile, names, *users, policy.force, own, scripts)


# --- the plan ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checked:
    """Sources that passed what can be checked before they are pinned, and what is to become of
    them. Every rule is checked before a byte is stored; a boot check, before the version is
    visible.

    `plan` generalizes the guest; None leaves it as it is. `policy` is what a version's guest has to
    be; a resource's may be anything, and is not even looked at unless `survey`. `caching` is by
    LUN. `files` are those that a Shallow version depends on, and what they are now; a Full one has
    none. `room`: estimate the space first. `boot`: boot it before it is visible."""

    supply: Supply
    disks: tuple[Disk, ...]
    plan: Plan | None
    destination: Destination
    policy: PublishPolicy | None = None
    caching: Mapping[int | None, HostCaching] = field(default_factory=dict)
    files: shallow.Fingerprints = field(default_factory=dict)
    survey: bool = True
    room: bool = True
    boot: bool = False


def check_publish(
    version: ImageVersion, supply: Supply, request: PublishRequest, context: JobContext
) -> Checked:
    """Check the sources of a version, and decide what becomes of them."""
    description, wanted = supply.description, request.version
    agree(version, description, wanted.source, context.gallery)
    with context.timed("inspect"):
        disks = ingest(supply.disks, context.images)
    rules.caching(wanted.host_caching, [disk.lun for disk in disks])
    for disk in disks:
        rules.disk_limit(disk.virtual_size, version.replication_mode, disk.name)
    is_shallow = shallow.is_shallow(version)
    if is_shallow:
        shallow.check_lasting(supply)
    plan = effective_plan(version, request, supply)
    known = supply.stored if plan is None and not is_shallow else {}
    parents: Parents = {lun: (digest,) for lun, digest in known.items()}
    parents = parents or context.gallery.parents_of(version.name)
    regions = first_regions(version, request.wait)
    definition = context.gallery.get_definition(version.name.definition)
    return Checked(
        supply,
        disks,
        plan,
        Destination(placed(version, regions, context, parents), parents, known),
        policy=PublishPolicy(
            version, definition, description, wanted.source, request.force, request.validate
        ),
        caching=host_caching(supply, request),
        files=shallow.fingerprints(disks, context.pins) if is_shallow else {},
        room=request.preflight and not is_shallow,
        boot=request.boot_check,
    )


def host_caching(supply: Supply, request: PublishRequest) -> dict[int | None, HostCaching]:
    """That of VMs made from the version: what is asked for, or else what the disks had in the
    version that they come from."""
    return {**supply.description.host_caching, **request.version.host_caching}


def effective_plan(version: ImageVersion, request: PublishRequest, supply: Supply) -> Plan | None:
    """What is done to the guest: nothing to one that is generalized, or is to stay as it is."""
    return request.plan if version.generalized and not supply.generalized else None


def first_regions(version: ImageVersion, wait: Wait) -> list[str]:
    """The regions that this run makes; those that it does not wait for come from the first one."""
    if wait is Wait.FIRST:
        return [version.location]
    return [target.name for target in version.target_regions]


# --- the disks -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """Disks on which nothing is left to check or to change. `unverified` is what nothing shows to
    be as the definition says."""

    checked: Checked
    material: Material
    report: Mapping[str, Any]
    unverified: tuple[str, ...]

    @property
    def disks(self) -> tuple[Disk, ...]:
        return self.material.disks

    @property
    def nvram(self) -> bytes | None:
        return self.checked.supply.description.nvram


@contextmanager
def prepared(checked: Checked, work: Path, context: JobContext) -> Iterator[Prepared]:
    """Everything up to the first byte that is stored: the sources held still, every check made, the
    guest generalized on an overlay. A dry run ends here."""
    policy = checked.policy
    if policy is not None and checked.boot:
        check_bootable(policy.version, policy.description.nvram, context)
    with pin_disks(checked.disks, work, context.pins) as (disks, pin), ExitStack() as stack:
        # the appliance boots while everything else is looked at
        started = None if checked.plan is None else start(disks, work, context, stack)
        table = None if policy is None else partition_table(disks, context.images)
        confirm(policy, table, {}, context)
        material = Material(disks, pin, checked.destination)
        if checked.room:
            with context.timed("estimate space"):
                failures = check_room(material, context.zones, context.images, context.work)
            for error in failures.values():
                if policy is None:  # a resource is in all of its zones, or is not made
                    raise error
                context.progress.warn(str(error))
            material = replace(material, failures=failures)
        cleaned = treated(checked, disks, started, work, context)
        report = judged(policy, table, cleaned, context)
        unverified = confirm(policy, table, report, context)
        if checked.files:  # there is no copy in which it could be left out
            shallow.zero_free(cleaned.disks, context.images)
        yield Prepared(checked, replace(material, disks=cleaned.disks), report, unverified)


def confirm(
    policy: PublishPolicy | None,
    table: PartitionTable | None,
    report: Mapping[str, Any],
    context: JobContext,
) -> tuple[str, ...]:
    """Compare the definition, if there is one, with what is known of the OS disk; what could not be
    compared."""
    if policy is None or table is None:
        return ()
    return agree_with_disks(policy, table, report, context.gallery)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Disks as they are to be stored. `report` is JSON; `seen` is the look that was taken, if one
    was."""

    disks: tuple[Disk, ...]
    report: Mapping[str, Any]
    seen: Survey | None = None


def treated(
    checked: Checked,
    disks: tuple[Disk, ...],
    started: "Started | None",
    work: Path,
    context: JobContext,
) -> Cleaned:
    """Generalize the guest, or else look at it. Disks that stay as they were stored are not looked
    at again: what was found then is still so."""
    supply, policy = checked.supply, checked.policy
    azure = policy is not None and policy.azure
    if not checked.survey:
        return Cleaned(disks, {})
    if checked.plan is None and supply.report and supply.stored and not azure:
        return Cleaned(disks, supply.report)
    check = guest_findings if azure else None
    if checked.plan is not None and started is not None:
        return cleaned_on(started, disks, checked.plan, context, check)
    seen = survey_if_any(disks, work, context.guests, context.images, context.progress, check=check)
    return Cleaned(disks, {"generalized": supply.generalized, **seen.document()}, seen)


def judged(
    policy: PublishPolicy | None,
    table: PartitionTable | None,
    cleaned: Cleaned,
    context: JobContext,
) -> Mapping[str, Any]:
    """The report. Raises Refused for a guest that is not what the definition declares, and
    StageFailed for one that Azure would not take."""
    report, progress = cleaned.report, context.progress
    if policy is None or table is None:
        return report
    definition = policy.definition
    if policy.azure and cleaned.seen is not None:
        checks = findings(cleaned.disks[0].virtual_size, table, cleaned.seen, definition)
        report = require_passed(checks, report, progress)
    return check_os_state(report, definition.os_state, progress, force=policy.force)


def report_with_boot(
    version: ImageVersion,
    ready: Prepared,
    disks: Sequence[Disk],
    work: Path,
    context: JobContext,
) -> Mapping[str, Any]:
    """The report; with what came of booting these disks, if that is asked for."""
    if not ready.checked.boot:
        return ready.report
    booted = boot_disks(version, disks, ready.nvram, work, context)
    return {**ready.report, "boot": booted.document()}


def check_still(ready: Prepared, context: JobContext) -> None:
    """Raise SourceChanged when a source is not what it was when this run began."""
    ready.material.pin.verify()
    shallow.check_still(ready.checked.files, context.pins)


# --- generalizing --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """A GuestHost whose one appliance is on its way already, on private overlays on disks. What is
    checked in the meantime may fail: then `stack` is left with that error, and nothing was done."""

    overlays: tuple[Chain, ...]
    appliance: GuestSession
    stack: ExitStack

    @contextmanager
    def session(self, _: Sequence[Chain], *, writable: bool) -> Iterator[GuestSession]:
        """Once, and on `overlays`, whatever is asked for."""
        with self.stack.pop_all():
            yield self.appliance


def start(disks: Sequence[Disk], work: Path, context: JobContext, stack: ExitStack) -> Started:
    overlays = tuple(
        context.images.create_overlay(disk.chain, work / f"{disk.name}.qcow2") for disk in disks
    )
    return Started(
        overlays, stack.enter_context(context.guests.session(overlays, writable=True)), stack
    )


def clean(disks: tuple[Disk, ...], plan: Plan, work: Path, context: JobContext) -> Cleaned:
    """Generalize disks on private overlays, whatever they are."""
    with ExitStack() as stack:
        return cleaned_on(start(disks, work, context, stack), disks, plan, context)


def cleaned_on(
    started: Started,
    disks: tuple[Disk, ...],
    plan: Plan,
    context: JobContext,
    check: GuestCheck | None = None,
) -> Cleaned:
    """Generalize on the overlays of `started`, and take what the file systems call free for
    zero."""
    result = generalize(started, started.overlays, plan, context.progress, check=check)
    cleaned = tuple(
        replace(disk, chain=chain, free=free)
        for disk, chain, free in zip(disks, started.overlays, result.free, strict=True)
    )
    return Cleaned(cleaned, {"generalized": True, **result.report}, result.seen)
