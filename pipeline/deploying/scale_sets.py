"""Scale sets: named groups of like VMs, that grow, shrink and change their image together."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.deploying import profile as profiles
from pipeline.deploying.deploy import MAX_COUNT, DeployRequest, deploy
from pipeline.deploying.machine import check_name
from pipeline.deploying.release import release
from pipeline.errors import InvalidParameter, NotFound
from pipeline.gallery.access.shared_ids import shared_name
from pipeline.jobs.context import JobContext
from pipeline.jobs.running import running
from pipeline.model import Deployment, ImageShape, ImageVersion, OsProfile, ScaleSet
from pipeline.model.clock import utc_now
from pipeline.model.runs import RunKind
from pipeline.ports.vms import VmDirectories


def create(
    name: str,
    image: str,
    region: str,
    out: Path,
    profile: OsProfile | None,
    count: int,
    machines: VmDirectories,
    context: JobContext,
) -> ScaleSet:
    """Make a scale set of `count` VMs, or go on with what a killed run began of it. Its image must
    be there now, and take the profile."""
    check_name(name)
    version = context.gallery.resolve(image, region)
    definition = context.gallery.get_definition(version.name.definition)
    profiles.check(definition, profile)
    scale_set = ScaleSet(
        name=name,
        image=image,
        region=region,
        directory=str(out.absolute()),
        created=utc_now(),
        version=version.name,
        shape=shape_of(version, context),
        profile=profile,
    )
    made = context.gallery.create_scale_set(scale_set, count)
    scale(made, count, machines, context)
    return context.gallery.get_scale_set(name)


def members(scale_set: ScaleSet, deployments: Iterable[Deployment]) -> list[Deployment]:
    """Its VMs among these, in the order of their numbers."""
    found = (item for item in deployments if item.scale_set == scale_set.name)
    return sorted(found, key=number)


def number(deployment: Deployment) -> int:
    return int(deployment.name.rpartition("-")[2])


def scale(
    scale_set: ScaleSet, count: int, machines: VmDirectories, context: JobContext
) -> list[Deployment]:
    """Bring it to `count` VMs: new ones from what its image means now, or the last ones released.
    What a killed run began is finished first. Returns those that the caller may see."""
    if not 0 <= count <= MAX_COUNT:
        raise InvalidParameter(f"A scale set has between 0 and {MAX_COUNT} VMs: {count}.")
    with (
        running(context, RunKind.SCALE, scale_set.version.arm_id) as context,
        context.gallery.scaling(scale_set) as (found, members_now),
    ):
        present = sorted(members_now, key=number)
        if count < len(present):
            release(present[count:], machines, context, keep_disks=False)
            present = present[:count]
        present = _finish(present, machines, context)
        if count > len(present):
            _scale_out(found, present, count - len(present), machines, context)
    return members(scale_set, context.gallery.list_deployments())


def _finish(
    present: Sequence[Deployment], machines: VmDirectories, context: JobContext
) -> list[Deployment]:
    """Those VMs that are in place: what a killed run has begun and not placed is forgotten."""
    begun = [item for item in present if item.making is not None]
    absent = [i for i in begun if not machines.holds(Path(i.directory), i.uuid)]
    for name in {item.version for item in begun}:
        placed = [item for item in begun if item.version == name and item not in absent]
        context.gallery.finish_deployments(name, placed)
    context.gallery.forget_deployments(absent)
    return [item for item in present if item not in absent]


def _scale_out(
    scale_set: ScaleSet,
    present: Sequence[Deployment],
    more: int,
    machines: VmDirectories,
    context: JobContext,
) -> None:
    version = image_version(scale_set, scale_set.image, context)
    first = max((number(item) for item in present), default=0) + 1
    request = DeployRequest(
        names=tuple(f"{scale_set.name}-{first + index}" for index in range(more)),
        out=Path(scale_set.directory),
        region=scale_set.region,
        profile=scale_set.profile,
        scale_set=scale_set.name,
        image=shared_name(scale_set.image, version.number),
    )
    deploy(version, request, machines, context)

    def change(now: ScaleSet) -> ScaleSet:
        """Another image that it was given meanwhile stays."""
        return replace(now, version=version.name) if now.image == scale_set.image else now

    context.gallery.change_scale_set(scale_set, change)


def change_image(scale_set: ScaleSet, image: str, context: JobContext) -> ScaleSet:
    """Make new VMs from another image from now on; the present ones stay as they are."""
    version = image_version(scale_set, image, context)
    return context.gallery.change_scale_set(
        scale_set, lambda now: replace(now, image=image, version=version.name)
    )


def image_version(scale_set: ScaleSet, image: str, context: JobContext) -> ImageVersion:
    """What an image means for a scale set. Raises NotFound when it is gone, and InvalidParameter
    when it is of another kind than the set's VMs."""
    try:
        version = context.gallery.resolve(image, scale_set.region)
    except NotFound as error:
        raise NotFound(
            f"The scale set '{scale_set.name}' can't scale out: its image '{image}' is gone or not "
            f"usable in {scale_set.region}: {error.message}",
            plain=f"the scale set {scale_set.name} can't make VMs: {error.plain}",
            hint="galleria scale-set update gives it another image; its present VMs are not "
            "affected",
            code=error.reason,
        ) from error
    name = shared_name(image, version.number) or str(version.name)
    check_shape(scale_set, shape_of(version, context), name)
    return version


def shape_of(version: ImageVersion, context: JobContext) -> ImageShape:
    definition = context.gallery.get_definition(version.name.definition)
    luns = tuple(sorted(disk.lun for disk in version.disks if disk.lun is not None))
    return ImageShape(definition.os_type, definition.hyper_v_generation, definition.os_state, luns)


def check_shape(scale_set: ScaleSet, shape: ImageShape, name: str) -> None:
    """Raise InvalidParameter, with every difference, when an image of this shape can't take the
    place of the one that a scale set's VMs have."""
    old = scale_set.shape
    differences = [
        (what, now, then)
        for what, now, then in (
            ("OS type", old.os_type.value, shape.os_type.value),
            ("generation", old.hyper_v_generation.value, shape.hyper_v_generation.value),
            ("OS state", old.os_state.value, shape.os_state.value),
            ("data-disk layout", _luns(old.luns), _luns(shape.luns)),
        )
        if now != then
    ]
    if differences:
        texts = [
            f"current {what} is {now} which is different from the updated {what} {then}"
            for what, now, then in differences
        ]
        told = "; ".join(f"{what} {now}, the image has {then}" for what, now, then in differences)
        called = f"Virtual Machine Scale Set '{scale_set.name}'"
        raise InvalidParameter(
            f"Cannot update {called} to '{name}': {'; '.join(texts)}.",
            plain=f"{name} does not fit the scale set {scale_set.name}: its VMs have {told}",
            hint="make another scale set for this image",
        )


def _luns(luns: Sequence[int]) -> str:
    return "LUNs " + ", ".join(map(str, luns)) if luns else "no data disks"


def delete(scale_set: ScaleSet, machines: VmDirectories, context: JobContext) -> None:
    """Release all its VMs, then forget it."""
    context.gallery.check_scale_set_deletable(scale_set)
    present = members(scale_set, context.records.deployments())
    release(present, machines, context, keep_disks=False)
    context.gallery.delete_scale_set(scale_set)
