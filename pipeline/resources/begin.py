"""Begin: disks, snapshots and managed images for callers who do not wait, as `pipeline.jobs.begin`
does it for versions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InvalidParameter, NotFound
from pipeline.gallery.arm import resources as arm
from pipeline.jobs.context import JobContext
from pipeline.model import HostCaching, ProvisioningState
from pipeline.model.resource_names import ResourceKind, ResourceName, resource_of
from pipeline.model.resources import CreateOption, Resource
from pipeline.model.runs import Run, RunKind
from pipeline.model.sources import AnySource, SnapshotSource, StoredDiskSource
from pipeline.resources.disks import (
    DiskOrigin,
    VersionDisk,
    check_unused,
    create_disk,
    delete_disk,
    wanted_disk,
)
from pipeline.resources.images import Storage, create_image, wanted_image
from pipeline.resources.opening import stored_source
from pipeline.resources.snapshots import (
    Properties,
    check_unneeded,
    create_snapshot,
    delete_resource,
    wanted_snapshot,
)

KINDS = {
    ResourceKind.DISK: RunKind.DISK,
    ResourceKind.SNAPSHOT: RunKind.SNAPSHOT,
    ResourceKind.IMAGE: RunKind.IMAGE,
}


@dataclass(frozen=True, slots=True)
class BegunResource:
    """A resource as it is from now on, and the run that does the rest; None when nothing is left to
    do."""

    resource: Resource
    run: Run | None = None


def put_resource(
    name: ResourceName, document: Mapping[str, Any], context: JobContext
) -> BegunResource:
    """Make a resource; of one that is there, change the tags. The run's record keeps what was
    asked."""
    try:
        old = context.resources.get(name)
    except NotFound:
        old = None
    if old is not None and old.provisioning_state is ProvisioningState.SUCCEEDED:
        location, tags = arm.location_and_tags(name.kind, document)
        return BegunResource(context.resources.set_tags(name, tags, location))
    wanted = _wanted(name, document, context)
    about = {"resource": name.arm_id, "document": document}
    with context.runs.reserved(KINDS[name.kind], name.arm_id, about) as run:
        begun = context.resources.begin(wanted)
    context.later(run)
    return BegunResource(begun, run)


def begin_delete(name: ResourceName, context: JobContext) -> BegunResource:
    """From now on it can't be used."""
    if name.kind is ResourceKind.DISK:
        check_unused(name, context)
    else:
        check_unneeded(name, context)
    with context.runs.reserved(RunKind.DELETE, name.arm_id, {"resource": name.arm_id}) as run:
        going = context.resources.begin_delete(name)
    context.later(run)
    return BegunResource(going, run)


def make_resource(name: ResourceName, document: Mapping[str, Any], context: JobContext) -> None:
    """What a run of `put_resource` does."""
    match name.kind:
        case ResourceKind.SNAPSHOT:
            body = arm.read_disk(document)
            create_snapshot(
                name,
                _copied(body),
                _properties(body),
                context,
                incremental=body.properties.incremental,
            )
        case ResourceKind.DISK:
            body = arm.read_disk(document)
            create_disk(
                name, _origin(body), _properties(body), context, virtual_size=_virtual_size(body)
            )
        case ResourceKind.IMAGE:
            image = arm.read_image(document)
            create_image(
                name, _sources(image), None, _image_properties(image), context, _storage(image)
            )


def remove_resource(name: ResourceName, context: JobContext) -> None:
    """What a run of `begin_delete` does."""
    (delete_disk if name.kind is ResourceKind.DISK else delete_resource)(name, context)


def _wanted(name: ResourceName, document: Mapping[str, Any], context: JobContext) -> Resource:
    match name.kind:
        case ResourceKind.SNAPSHOT:
            body = arm.read_disk(document)
            incremental = body.properties.incremental
            properties = _properties(body)
            return wanted_snapshot(
                name, _copied(body), properties, context, incremental=incremental
            )
        case ResourceKind.DISK:
            body = arm.read_disk(document)
            return wanted_disk(name, _origin(body), _properties(body), context, _virtual_size(body))
        case ResourceKind.IMAGE:
            image = arm.read_image(document)
            properties = _image_properties(image)
            return wanted_image(name, _sources(image), properties, context, _storage(image))


# --- what documents mean -------------------------------------------------------------------------


def _properties(body: arm.DiskBody) -> Properties:
    said = body.properties
    capabilities = said.supported_capabilities
    return Properties(
        body.location,
        said.os_type,
        said.hyper_v_generation,
        capabilities.architecture,
        body.tags,
        capabilities.accelerated_network,
        capabilities.disk_controller_types,
        said.purchase_plan,
    )


def _copied(body: arm.DiskBody) -> StoredDiskSource | SnapshotSource:
    """The disk or snapshot that is copied."""
    data = body.properties.creation_data
    if data.create_option is not CreateOption.COPY:
        raise InvalidParameter(
            f"The createOption '{data.create_option.value}' is not supported here.",
            hint="Copy takes a disk or a snapshot; a disk can be made FromImage or Empty, too",
        )
    named = resource_of(data.source_resource_id)
    source = None if named is None else stored_source(named)
    if not isinstance(source, StoredDiskSource | SnapshotSource):
        raise InvalidParameter(
            f"The sourceResourceId '{data.source_resource_id}' is not that of a disk or snapshot."
        )
    return source


def _origin(body: arm.DiskBody) -> DiskOrigin:
    data = body.properties.creation_data
    if data.create_option is CreateOption.EMPTY:
        return None
    if data.create_option is CreateOption.FROM_IMAGE:
        image = data.gallery_image_reference or data.image_reference
        if image is None or not image.reference:
            raise InvalidParameter(
                "Required parameter 'creationData.galleryImageReference' is missing (null)."
            )
        return VersionDisk(image.reference, image.lun)
    return _copied(body)


def _virtual_size(body: arm.DiskBody) -> int:
    """Of an empty disk; any other has that of its source."""
    empty = body.properties.creation_data.create_option is CreateOption.EMPTY
    return (body.properties.disk_size_gb or 0) * arm.GIB if empty else 0


def _image_properties(body: arm.ImageBody) -> Properties:
    disk = body.properties.storage_profile.os_disk
    return Properties(
        body.location, disk.os_type, body.properties.hyper_v_generation, tags=body.tags
    )


def _sources(body: arm.ImageBody) -> tuple[AnySource, ...]:
    profile = body.properties.storage_profile
    found = [_source(profile.os_disk.source, None)]
    for disk in profile.data_disks:
        if disk.lun is None:
            raise InvalidParameter("Required parameter 'dataDisks.lun' is missing (null).")
        found.append(_source(disk.source, disk.lun))
    return tuple(found)


def _source(id: str, lun: int | None) -> AnySource:
    named = resource_of(id)
    if named is None:
        raise InvalidParameter(f"The id '{id}' is not that of a disk or snapshot.")
    return stored_source(named, lun)


def _storage(body: arm.ImageBody) -> Storage:
    profile = body.properties.storage_profile
    by_lun: dict[int | None, HostCaching] = {
        disk.lun: disk.caching for disk in profile.data_disks if disk.caching is not None
    }
    return Storage(
        profile.os_disk.storage_account_type,
        profile.zone_resilient,
        profile.os_disk.caching,
        data_caching_by_lun=by_lun,
    )
