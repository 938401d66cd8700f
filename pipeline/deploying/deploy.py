"""Deploy: new VMs from a version, their disks copy-on-write children spread over its replicas."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pipeline.data.digest import digest
from pipeline.deploying import profile as profiles
from pipeline.deploying.machine import (
    DEFAULT_MEMORY,
    DEFAULT_VCPUS,
    check_hardware,
    check_name,
    enrolled_keys,
    forwarded,
    new_mac_address,
    new_uuid,
)
from pipeline.errors import (
    Conflict,
    GalleriaError,
    InvalidParameter,
    NotFound,
    VerificationFailed,
    undone_by,
)
from pipeline.gallery import rules
from pipeline.gallery.documents import encode
from pipeline.jobs.context import JobContext
from pipeline.jobs.running import running, when_free
from pipeline.jobs.shallow import check_sources
from pipeline.model import (
    DeployedDisk,
    Deployment,
    Hardware,
    ImageDefinition,
    ImageVersion,
    OsProfile,
    OsState,
)
from pipeline.model.clock import utc_now
from pipeline.model.runs import RunKind
from pipeline.ports import Replica, ReplicaDisk, Zone
from pipeline.ports.vms import Machine, VmDirectories
from pipeline.storage.soundness import check_base

MAX_COUNT = 1000


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """VMs with these names, each a directory in `out`. Of a profile the computer name is used for a
    single VM; several are called by their own names. `image` is the version's shared name, for
    those who know it by no other."""

    names: tuple[str, ...]
    out: Path
    region: str
    profile: OsProfile | None = None
    scale_set: str = ""
    image: str = ""
    hardware: Hardware = field(default_factory=Hardware)


def vm_names(name: str, count: int | None) -> tuple[str, ...]:
    """`web`, or with a count `web-1`, `web-2`, ..."""
    if count is None:
        return (name,)
    if not 1 <= count <= MAX_COUNT:
        raise InvalidParameter(f"The number of VMs must be between 1 and {MAX_COUNT}: {count}.")
    return tuple(f"{name}-{number}" for number in range(1, count + 1))


def deploy(
    version: ImageVersion, request: DeployRequest, machines: VmDirectories, context: JobContext
) -> list[Deployment]:
    """Make the VMs, all or none.

    They are recorded before their directories appear: a base that a disk depends on is never
    collected, whenever this ends. What a killed run has made of the same request is gone on with:
    VMs that are in place stay as they are, the others are made with the identity that they had.
    """
    definition = context.gallery.get_definition(version.name.definition)
    profiles.check(definition, request.profile)
    check_hardware(request.hardware, len(request.names))
    for name in request.names:
        check_name(name)
    homes = [request.out.absolute() / name for name in request.names]
    places = [(home.name, str(home)) for home in homes]
    key = identity_of(version, request)

    def begin() -> list[Deployment]:
        return context.gallery.take_deployments(version.name, places, key)

    with running(context, RunKind.DEPLOY, version.name.arm_id, digest=key) as context:
        begun = when_free(begin, context)
        with undone_by(partial(context.gallery.leave_deployments, version.name, begun)):
            return go_on(version, definition, request, homes, begun, key, machines, context)


def go_on(
    version: ImageVersion,
    definition: ImageDefinition,
    request: DeployRequest,
    homes: Sequence[Path],
    begun: Sequence[Deployment],
    key: str,
    machines: VmDirectories,
    context: JobContext,
) -> list[Deployment]:
    """Make those of the VMs that are not in place."""
    known = {Path(item.directory): item for item in begun}
    there = {home for home, item in known.items() if machines.holds(home, item.uuid)}
    homes = [home for home in homes if home not in there]
    placed = [item for home, item in known.items() if home in there]
    if not homes:
        with machines.staging(request.out):  # what the killed run left there goes
            pass
        return context.gallery.finish_deployments(version.name, placed)
    for home in homes:
        check_free(home, machines)
    here = context.zones.get(request.region, ())
    sources = find_replicas(version, request.region, here, request.image)
    sources = sound_replicas(sources, request.image, context)
    check_sources(version, context.pins, request.image)
    warn(version, definition, request.profile, request.image or str(version.name), context)
    first = taken(version, request.region, context)
    with ExitStack() as stack:
        for zone in {zone.path: zone for zone, _ in sources}.values():
            stack.enter_context(zone.hold())
        private = stack.enter_context(machines.staging(request.out))
        staged = [private / home.name for home in homes]
        chosen = [sources[(first + index) % len(sources)] for index in range(len(homes))]
        disks = make_disks(chosen, staged)
        nvram = sources[0][0].find_nvram(version.zone_key)
        made = [
            describe(definition, version, request, home, items, nvram, known.get(home))
            for home, items in zip(homes, disks, strict=True)
        ]
        machines.describe(made, staged)
        deployments = [
            recorded(version, request, machine, *source)
            for machine, source in zip(made, chosen, strict=True)
        ]
        deployments = context.gallery.record_deployments(version.name, deployments, key)
        new = [item for item in deployments if Path(item.directory) not in known]
        with undone_by(partial(context.gallery.forget_deployments, new)):
            machines.place(staged, homes)
        return context.gallery.finish_deployments(version.name, [*placed, *deployments])


def identity_of(version: ImageVersion, request: DeployRequest) -> str:
    """What tells a request from any other; the same when it is asked for again."""
    return digest(
        {
            "version": version.uid,
            "names": request.names,
            "out": str(request.out.absolute()),
            "region": request.region,
            "profile": encode(request.profile),
            "hardware": encode(request.hardware),
            "scaleSet": request.scale_set,
            "image": request.image,
        }
    )


def find_replicas(
    version: ImageVersion, region: str, zones: Sequence[Zone], image: str = ""
) -> list[tuple[Zone, Replica]]:
    """The replicas that a version has in a region, with their zones. Who knows it by the shared
    name `image` is told no other, nor where else it is. Raises NotFound."""
    found: list[tuple[Zone, Replica]] = []
    errors: list[OSError | GalleriaError] = []
    for zone in zones:
        try:
            found += [(zone, replica) for replica in zone.find_version(version.zone_key) or ()]
        except (OSError, GalleriaError) as error:
            errors.append(error)
    if found:
        return found
    if errors and not image:
        raise errors[0]
    if image:
        raise NotFound(
            f"{image} is not available in region {region}",
            hint="choose another region, or ask its publisher",
        )
    places = ", ".join(version.completed_regions) or "no region yet"
    raise NotFound(
        f"{version.name} is not available in region {region}",
        hint=f"it is available in: {places}; galleria replicate brings it to another region",
    )


def sound_replicas(
    sources: Sequence[tuple[Zone, Replica]], image: str, context: JobContext
) -> list[tuple[Zone, Replica]]:
    """Those whose bases are what was published: as they were when they were last known to be, or
    read again. Raises VerificationFailed when none is left."""
    errors: dict[Path, OSError | GalleriaError] = {}
    for zone, replica in {zone.path: (zone, replica) for zone, replica in sources}.values():
        try:
            for digest in {disk.digest for disk in replica.disks if disk.digest}:
                check_base(zone, digest, context)
        except (OSError, GalleriaError) as error:
            errors[zone.path] = error
    sound = [(zone, replica) for zone, replica in sources if zone.path not in errors]
    if sound:
        return sound
    if image:
        raise VerificationFailed(f"what is stored of {image} here is not what was published")
    raise next(iter(errors.values()))


def taken(version: ImageVersion, region: str, context: JobContext) -> int:
    """How many VMs were made from the version in a region: the next is the next replica's."""
    return sum(
        item.version_uid == version.uid and item.region == region
        for item in context.records.deployments()
    )


def check_free(home: Path, machines: VmDirectories) -> None:
    if machines.exists(home):
        raise Conflict(
            f"{home} exists already", hint="choose another --name, or remove the directory"
        )


def make_disks(
    chosen: Sequence[tuple[Zone, Replica]], staged: Sequence[Path]
) -> list[tuple[ReplicaDisk, ...]]:
    """The disks of each VM; those that come from one replica are made together."""
    groups: dict[tuple[Path, int], list[int]] = {}
    for index, (zone, replica) in enumerate(chosen):
        groups.setdefault((zone.path, replica.index), []).append(index)
    found: dict[int, tuple[ReplicaDisk, ...]] = {}
    for indices in groups.values():
        zone, replica = chosen[indices[0]]
        made = zone.deploy(replica, [staged[index] for index in indices])
        found.update(zip(indices, made, strict=True))
    return [found[index] for index in range(len(chosen))]


def describe(
    definition: ImageDefinition,
    version: ImageVersion,
    request: DeployRequest,
    home: Path,
    disks: Sequence[ReplicaDisk],
    nvram: bytes | None,
    begun: Deployment | None,
) -> Machine:
    """A machine with the identity that it was begun with, else one of its own, of the size that its
    definition recommends."""
    profile = request.profile
    if len(request.names) > 1 or request.scale_set:
        profile = profiles.named(profile, home.name)
        profiles.check(definition, profile)
    recommended = definition.recommended
    hardware = forwarded(request.hardware, request.names.index(home.name))
    return Machine(
        name=home.name,
        home=home,
        uuid=begun.uuid if begun else new_uuid(),
        mac_address=begun.mac_address if begun else new_mac_address(),
        os_type=definition.os_type,
        generation=definition.hyper_v_generation,
        architecture=definition.architecture,
        secure_boot=rules.secure_boot(definition),
        enrolled_keys=enrolled_keys(version),
        signatures=version.security_profile.uefi_settings.additional_signatures,
        memory_mib=hardware.memory_mib or recommended.memory.min or DEFAULT_MEMORY,
        vcpus=hardware.vcpus or recommended.vcpus.min or DEFAULT_VCPUS,
        network=hardware.network,
        forwards=hardware.forwards,
        disks=tuple(
            ReplicaDisk(
                disk.lun,
                home / disk.path.name,
                disk.format,
                disk.method,
                disk.digest,
                disk.virtual_size,
            )
            for disk in disks
        ),
        nvram=nvram,
        profile=profile,
        title=request.image or str(version.name),
        host_caching={
            disk.lun: disk.host_caching for disk in version.disks if disk.host_caching is not None
        },
    )


def recorded(
    version: ImageVersion, request: DeployRequest, machine: Machine, zone: Zone, replica: Replica
) -> Deployment:
    return Deployment(
        name=machine.name,
        directory=str(machine.home),
        version=version.name,
        version_uid=version.uid,
        region=zone.region,
        created=utc_now(),
        disks=tuple(
            DeployedDisk(disk.lun, str(disk.path), disk.format.value, disk.digest)
            for disk in machine.disks
        ),
        zone=zone.name,
        replica=replica.index,
        uuid=machine.uuid,
        mac_address=machine.mac_address,
        scale_set=request.scale_set,
        image=request.image,
    )


def warn(
    version: ImageVersion,
    definition: ImageDefinition,
    profile: OsProfile | None,
    name: str,
    context: JobContext,
) -> None:
    """What whoever deploys a version, by that name, should know."""
    for caution in context.gallery.cautions(version, name):
        context.progress.warn(caution)
    if definition.os_state is OsState.SPECIALIZED:
        context.progress.warn(
            f"{name} is Specialized: every VM made from it has the same computer name, "
            "accounts and keys"
        )
    elif profiles.nobody_can_log_in(definition, profile):
        context.progress.warn(
            f"nobody can log in to a VM of {name} unless its image has an account: give "
            "--admin-username with --ssh-key, or --custom-data"
        )
