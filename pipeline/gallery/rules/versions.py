"""What may be published, replicated and deleted."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from pipeline.errors import Conflict, HeldByRun, InvalidParameter, Refused
from pipeline.gallery.rules.features import capture
from pipeline.gallery.rules.regions import replica_count
from pipeline.gallery.rules.resources import end_of_life
from pipeline.gallery.rules.signatures import additional_signatures, signature_templates
from pipeline.gallery.rules.sources import distinct_luns
from pipeline.model import (
    ImageDefinition,
    ImageVersion,
    OsState,
    ProvisioningState,
    ReplicationMode,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.runs import Held

GIB = 1 << 30
MAX_DISK_GIB: Mapping[ReplicationMode, int] = {
    ReplicationMode.FULL: 2 * 1024,
    ReplicationMode.SHALLOW: 32 * 1024,
}


def version_request(request: VersionRequest, definition: ImageDefinition, now: datetime) -> None:
    """What does not depend on other versions; regions are checked by `targets`."""
    replica_count(request.replica_count, "publishingProfile.replicaCount")
    end_of_life(request.end_of_life_date, now)
    if request.generalize and definition.os_state is OsState.SPECIALIZED:
        raise InvalidParameter(
            f"Cannot create Gallery Image Version from: '{request.name}' since the OS State in the "
            "parent gallery image (Specialized) is not Generalized.",
            plain=f"{request.name.definition} is Specialized: nothing is generalized for it",
            hint="a Specialized definition takes disks as they are: leave --generalize out, or use "
            "a Generalized definition",
        )
    capture(definition, request.source, request.name)
    settings = request.security_profile.uefi_settings
    signature_templates(settings.signature_template_names)
    additional_signatures(settings.additional_signatures, definition)
    distinct_luns(request.luns)


def disk_limit(virtual_size: int, mode: ReplicationMode, disk: str) -> None:
    """`virtual_size` is in bytes; called when inspection has found it, before content is read."""
    limit = MAX_DISK_GIB[mode]
    if virtual_size > limit * GIB:
        raise Refused(
            f"The GalleryImageVersion source resource size {-(-virtual_size // GIB)} exceeds the "
            f"max size {limit} supported (GiB, replication mode {mode.value}): {disk}.",
            plain=f"{disk} has {-(-virtual_size // GIB)} GiB: a version in mode {mode.value} can "
            f"have disks of {limit} GiB at most",
        )


def number_free(old: ImageVersion | None, fingerprint: str, held: Held | None) -> None:
    """Whether a number can be published under: it is free, or left behind by a process that died
    or failed, and then either nothing of it is usable or the same content is asked for."""
    if old is None:
        return
    not_busy(old, held, operation="Create")
    if old.soft_deleted is not None:
        raise Conflict(
            f"The image version '{old.name}' exists and is soft-deleted.",
            hint="galleria version undelete brings it back, version purge frees its number",
        )
    done = old.completed_regions
    if old.provisioning_state is ProvisioningState.SUCCEEDED:
        raise Conflict(
            f"The image version '{old.name}' already exists: its content is immutable.",
            hint="publish the next number, or delete this version first",
        )
    if done and old.fingerprint != fingerprint:
        raise Conflict(
            f"The image version '{old.name}' is unfinished but usable in {', '.join(done)}, from "
            "other sources or with another profile than these: its content is immutable.",
            hint="finish it with galleria replicate, publish the next number, or delete it first",
        )


def not_busy(version: ImageVersion, held: Held | None, operation: str) -> None:
    """Refuse what a run works on, and any change of what is being deleted."""
    if version.provisioning_state is ProvisioningState.DELETING and operation != "Delete":
        raise Conflict(
            f"Operation '{operation} Gallery Image Version' is not allowed on '{version.name}'; "
            "since it is marked for deletion. You can only retry the Delete operation.",
            plain=f"{version.name} is being deleted",
            hint=f"galleria version delete {version.name} completes that",
            code="OperationNotAllowed",
        )
    if held is not None:
        since = version.owned_since.isoformat(timespec="seconds") if version.owned_since else "?"
        raise in_use(
            held,
            f"Operation '{operation} Gallery Image Version' is not allowed on '{version.name}': "
            f"the {held.run.who} has been working on it since {since} "
            f"(state {version.provisioning_state.value}).",
            plain=f"another process works on {version.name}: {held.run.who}, since {since} "
            f"({version.provisioning_state.value})",
        )


def in_use(held: Held, message: str, plain: str = "") -> HeldByRun:
    """Why what a run holds is not free."""
    return HeldByRun(
        message,
        run=held.run.id,
        heard=held.run.heartbeat,
        free_in=held.free_in,
        plain=plain,
        hint=f"galleria runs show {held.run.id} --watch follows it; its work is taken over when it"
        " has not been heard of for a while",
    )


def has_source(version: ImageVersion) -> None:
    """Replication reads the base of a region that has one, never the sources."""
    if not version.completed_regions:
        raise Conflict(
            f"The image version '{version.name}' is not Completed in any region: there is nothing "
            "to replicate from.",
            hint="publish it again: a failed publication leaves its number free",
        )


def replication_put(version: ImageVersion, wanted: Iterable[TargetRegion]) -> None:
    """Regions may be added and unfinished ones asked for again, not one that is done changed."""
    for target in wanted:
        if version.is_completed_in(target.name) and version.target(target.name) != target:
            raise Conflict(
                "Changing property "
                "'galleryImageVersion.properties.publishingProfile.targetRegions' "
                f"is not allowed for region '{target.name}', where '{version.name}' is Completed.",
                plain=f"{version.name} is complete in region {target.name} already",
                hint="galleria version update --add-region changes replica counts",
                code="PropertyChangeNotAllowed",
            )
