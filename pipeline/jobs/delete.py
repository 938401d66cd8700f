"""Delete: versions with their data, what contains them, and what retention lets go.

The catalog marks a version first, so that nobody can use it; then its files go, then its row. A run
that was killed in between is finished by the same command. Deployed disks keep the bases that they
depend on.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import Conflict
from pipeline.gallery.rules.retention import Retention, RetentionDecision
from pipeline.gallery.service.taken import TakenVersion
from pipeline.jobs.context import JobContext
from pipeline.jobs.replicate import remove_stored
from pipeline.jobs.running import running, when_free
from pipeline.jobs.shallow import refuse_needed_key
from pipeline.model import Channel, ImageVersion, ProvisioningState
from pipeline.model.names import DefinitionName, GalleryName, VersionName
from pipeline.model.runs import RunKind
from pipeline.storage.placement import sink_name


@dataclass(frozen=True, slots=True)
class Cascade:
    """Everything that deleting a gallery or a definition with all that is in it would remove."""

    gallery: GalleryName | None
    definitions: tuple[DefinitionName, ...]
    versions: tuple[ImageVersion, ...]
    channels: tuple[Channel, ...]

    def document(self) -> dict[str, Any]:
        """As JSON data: the ids of all of it."""
        return {
            "gallery": self.gallery.arm_id if self.gallery else None,
            "definitions": [item.arm_id for item in self.definitions],
            "versions": [item.name.arm_id for item in self.versions],
            "channels": [item.arm_id for item in self.channels],
        }


def delete_version(
    name: VersionName, context: JobContext, *, permanent: bool = False, force: bool = False
) -> ImageVersion | None:
    """Delete a version; returns it if it is in the bin now, None if it is gone."""
    key = context.gallery.get_version(name).zone_key
    refuse_needed_key(key, context.zones, f"The image version '{name}'")

    def begin() -> TakenVersion:
        return context.gallery.begin_delete(name, force=force, permanent=permanent)

    wanted = {"version": name.arm_id, "permanent": permanent}
    with running(context, RunKind.DELETE, name.arm_id, wanted) as context:
        version = when_free(begin, context)
        if version.provisioning_state is not ProvisioningState.DELETING:
            return version
        remove_data(version, tuple(context.zones), context)
        context.records.finish_delete(version)
    return None


def remove_data(version: ImageVersion, regions: Iterable[str], context: JobContext) -> None:
    """Take a version's replicas out of regions, and the bases that nobody else needs."""
    zones = {sink_name(zone): zone for name in regions for zone in context.zones.get(name, ())}
    named = {target.name for target in version.target_regions} | set(version.leaving)
    named |= {status.region for status in version.regions}
    remove_stored(version.zone_key, zones, named, context)


def plan_cascade(context: JobContext, name: GalleryName | DefinitionName) -> Cascade:
    """What deleting a gallery, or one definition, with everything in it would remove."""
    gallery = name if isinstance(name, GalleryName) else None
    if isinstance(name, GalleryName):
        definitions = [item.name for item in context.gallery.list_definitions(name)]
    else:
        definitions = [context.gallery.get_definition(name).name]
    versions = [
        version
        for definition in definitions
        for deleted in (False, True)
        for version in context.gallery.list_versions(definition, deleted=deleted)
    ]
    channels = [
        channel
        for definition in definitions
        for channel in context.gallery.list_channels(definition)
    ]
    return Cascade(gallery, tuple(definitions), tuple(versions), tuple(channels))


def delete_cascade(plan: Cascade, context: JobContext) -> None:
    """Delete all of a plan, for good: versions, then definitions, then the gallery. Nothing is
    deleted if one of the versions, or the gallery, may not be."""
    if plan.gallery is not None:
        context.gallery.check_gallery_deletable(plan.gallery)
    context.gallery.check_deletable(plan.versions)
    about = plan.gallery or plan.definitions[0]
    wanted = {"gallery" if plan.gallery else "definition": about.arm_id}
    with running(context, RunKind.DELETE, about.arm_id, wanted) as context:
        _delete_all(plan, context)


def _delete_all(plan: Cascade, context: JobContext) -> None:
    for channel in plan.channels:
        context.gallery.remove_channel(channel.definition, channel.name)
    with context.progress.stage("delete versions", len(plan.versions), "version") as meter:
        for version in plan.versions:
            delete_version(version.name, context, permanent=True)
            meter.advance(1)
    for definition in plan.definitions:
        context.gallery.delete_definition(definition)
    if plan.gallery is not None:
        context.gallery.delete_gallery(plan.gallery)


def purge(name: DefinitionName | VersionName, context: JobContext) -> list[VersionName]:
    """Remove a deleted version for good, or all of a definition whose time in the bin is over."""
    if isinstance(name, DefinitionName):
        return purge_expired(name, context)
    context.gallery.check_in_the_bin(name)
    delete_version(name, context, permanent=True)
    return [name]


def purge_expired(definition: DefinitionName, context: JobContext) -> list[VersionName]:
    """Remove for good what has been in the bin for longer than its gallery keeps it."""
    expired = [version.name for version in context.gallery.expired(definition)]
    with running(context, RunKind.DELETE, definition.arm_id) as context:
        for name in expired:
            delete_version(name, context, permanent=True)
    return expired


def apply_retention(
    definition: DefinitionName, rule: Retention, context: JobContext, *, dry_run: bool = False
) -> tuple[Sequence[RetentionDecision], Sequence[VersionName]]:
    """Delete what a rule does not keep (into the bin, where there is one), and remove what has been
    in the bin long enough. Returns what became of each version, and what left the bin."""
    verdicts = context.gallery.retention(definition, rule)
    if dry_run:
        return verdicts, [version.name for version in context.gallery.expired(definition)]
    with running(context, RunKind.RETENTION, definition.arm_id) as context:
        for verdict in verdicts:
            if not verdict.reason:
                delete_version(verdict.version.name, context)
            elif verdict.version.provisioning_state is ProvisioningState.DELETING:
                # begun by a run that was killed; or one that lives does it, which is as good
                with contextlib.suppress(Conflict):
                    delete_version(verdict.version.name, context)
        return verdicts, purge_expired(definition, context)
