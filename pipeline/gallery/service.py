"""The operations on galleries, definitions and versions. Rules are in `rules`, changes of state in
`transitions`; here each operation reads, checks and writes in one transaction."""

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import Conflict
from pipeline.gallery import rules, transitions
from pipeline.gallery.catalog import Catalog, CatalogReader, Owners
from pipeline.gallery.latest import latest, usable
from pipeline.gallery.model import (
    Deployment,
    Gallery,
    ImageDefinition,
    ImageDisk,
    ImageVersion,
    OsState,
    ProvisioningState,
    Region,
    RegionStatus,
    TargetRegion,
    VersionRequest,
)
from pipeline.gallery.names import (
    DefinitionName,
    GalleryName,
    Reference,
    VersionName,
    parse_reference,
)

PARENTS = 16  # versions on either side that a new base may start from

_UNFINISHED = (
    ProvisioningState.CREATING,
    ProvisioningState.UPDATING,
    ProvisioningState.DELETING,
)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class GalleryService:
    """All that is asked of the catalog. Safe to call from many threads and processes at once."""

    def __init__(
        self,
        catalog: Catalog,
        owners: Owners,
        regions: Iterable[Region],
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._catalog = catalog
        self._owners = owners
        self._regions = tuple(regions)
        self._clock = clock

    # --- galleries ---------------------------------------------------------------------------

    def create_gallery(
        self,
        name: GalleryName,
        location: str,
        *,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Gallery:
        """Make a gallery, or change description and tags of the one that is there."""
        region = rules.known_region(location, self._regions)
        with self._catalog.write() as catalog:
            old = catalog.gallery_in_subscription(name)
            gallery = Gallery(name, region.name, self._clock(), description, tags or {})
            rules.gallery_put(gallery, old)
            if old is not None:
                gallery = replace(gallery, name=old.name, created=old.created)
            catalog.put_gallery(gallery)
            return gallery

    def get_gallery(self, name: GalleryName) -> Gallery:
        with self._catalog.read() as catalog:
            return rules.existing(catalog.gallery(name), name)

    def list_galleries(self) -> list[Gallery]:
        with self._catalog.read() as catalog:
            return catalog.galleries()

    def delete_gallery(self, name: GalleryName) -> None:
        with self._catalog.write() as catalog:
            rules.existing(catalog.gallery(name), name)
            rules.deletable(name, [d.name for d in catalog.definitions(name)])
            catalog.delete_gallery(name)

    # --- definitions -------------------------------------------------------------------------

    def create_definition(self, definition: ImageDefinition) -> ImageDefinition:
        """Make a definition, or change what may be changed of the one that is there. `created` of
        an existing one stays."""
        region = rules.known_region(definition.location, self._regions, kind="galleries/images")
        definition = replace(definition, location=region.name)
        with self._catalog.write() as catalog:
            rules.parent(catalog.gallery(definition.name.gallery), definition.name.gallery)
            old = catalog.definition(definition.name)
            siblings = catalog.definitions(definition.name.gallery)
            rules.definition_put(definition, old, siblings, self._clock())
            if old is not None:
                definition = replace(definition, name=old.name, created=old.created)
            catalog.put_definition(definition)
            return definition

    def get_definition(self, name: DefinitionName) -> ImageDefinition:
        with self._catalog.read() as catalog:
            return rules.existing(catalog.definition(name), name)

    def list_definitions(self, gallery: GalleryName) -> list[ImageDefinition]:
        with self._catalog.read() as catalog:
            rules.existing(catalog.gallery(gallery), gallery)
            return catalog.definitions(gallery)

    def delete_definition(self, name: DefinitionName) -> None:
        with self._catalog.write() as catalog:
            rules.existing(catalog.definition(name), name)
            rules.deletable(name, [v.name for v in catalog.versions(name)])
            catalog.delete_definition(name)

    # --- versions: look up -------------------------------------------------------------------

    def get_version(self, name: VersionName) -> ImageVersion:
        """In whatever state it is."""
        with self._catalog.read() as catalog:
            return rules.existing(catalog.version(name), name)

    def list_versions(self, definition: DefinitionName) -> list[ImageVersion]:
        """Newest first."""
        with self._catalog.read() as catalog:
            rules.existing(catalog.definition(definition), definition)
            return list(catalog.versions(definition))

    def report(self, name: VersionName) -> Mapping[str, Any] | None:
        """The generalize report that was recorded with a version."""
        with self._catalog.read() as catalog:
            return catalog.report(name)

    def resolve(self, reference: str | Reference, region: str | None = None) -> ImageVersion:
        """The version that `g/i/v`, `g/i/latest` or `g/i` means; with a region, one to be used
        there."""
        wanted = parse_reference(reference) if isinstance(reference, str) else reference
        if region is not None:
            region = rules.known_region(region, self._regions).name
        with self._catalog.read() as catalog:
            rules.existing(catalog.definition(wanted.definition), wanted.definition)
            if wanted.number is None:
                found = latest(catalog.versions(wanted.definition), region)
                if found is None:
                    raise rules.no_latest(wanted.definition, region)
                return found
            name = VersionName(wanted.definition, wanted.number)
            version = rules.existing(catalog.version(name), name)
        if region is not None and not usable(version, region):
            raise rules.not_in_region(name, region)
        return version

    def parents_of(self, name: VersionName) -> dict[int | None, tuple[str, ...]]:
        """By LUN, root digests of disks of the definition's usable versions: what a new base of
        version `name` can start from. Nearest first: older ones going back, then newer ones."""
        older: list[ImageVersion] = []
        newer: deque[ImageVersion] = deque(maxlen=PARENTS)
        with self._catalog.read() as catalog:
            for version in filter(usable, catalog.versions(name.definition)):
                if version.number > name.number:
                    newer.appendleft(version)
                elif version.number < name.number:
                    older.append(version)
                if len(older) == PARENTS:
                    break
        found: dict[int | None, dict[str, None]] = {}
        for version in [*older, *newer]:
            for disk in version.disks:
                found.setdefault(disk.lun, {})[disk.digest] = None
        return {lun: tuple(digests) for lun, digests in found.items()}

    def is_interrupted(self, version: ImageVersion) -> bool:
        """Whether it is unfinished and nobody works on it: its process died, or never began."""
        return version.provisioning_state in _UNFINISHED and not self._busy(version)

    # --- versions: publish -------------------------------------------------------------------

    def begin_version(self, request: VersionRequest) -> ImageVersion:
        """Check every rule and take the number.

        What a dead or failed process left under the number is taken over: the uid stays. When
        regions are Completed already (only for the request's own fingerprint), they stay, and so do
        the disks: the rest is to be made from those regions' bases, not from the sources.
        """
        now, owner = self._clock(), self._owners.current()
        with self._catalog.write() as catalog:
            name = request.name
            definition = rules.parent(catalog.definition(name.definition), name.definition)
            rules.version_request(request, definition, now)
            location = rules.known_region(
                request.location or definition.location,
                self._regions,
                kind="galleries/images/versions",
            )
            targets = rules.targets(
                request.target_regions, location, self._regions, request.replication_mode
            )
            old = catalog.version(name)
            rules.number_free(old, request.fingerprint, owner_alive=self._busy(old))
            generalized = request.generalize
            if generalized is None:
                generalized = definition.os_state is OsState.GENERALIZED
            version = transitions.created(
                replace(request, name=VersionName(definition.name, name.number)),
                location.name,
                targets,
                generalized=generalized,
                uid=uuid.uuid4().hex,
                owner=owner,
                now=now,
            )
            if old is not None:
                version = transitions.taken_over(old, version)
            catalog.put_version(version)
            if not version.completed_regions:
                catalog.put_report(name, None)
            return version

    def check_disk(self, version: ImageVersion, virtual_size: int, disk: str) -> None:
        """Refuse a disk that is too large for the version's replication mode."""
        rules.disk_limit(virtual_size, version.replication_mode, disk)

    def set_region(self, version: ImageVersion, status: RegionStatus) -> ImageVersion:
        """Record how far a region is. Each call is a durable transaction: call it on changes of
        state and every few per cent, not for every block."""
        return self._change(
            version, lambda current: transitions.region_changed(current, status, self._clock())
        )

    def record_disks(self, version: ImageVersion, disks: Sequence[ImageDisk]) -> ImageVersion:
        """What the version consists of; before its first region is Completed."""
        return self._change(version, lambda current: replace(current, disks=tuple(disks)))

    def record_report(self, version: ImageVersion, report: Mapping[str, Any]) -> None:
        with self._catalog.write() as catalog:
            self._mine(catalog, version)
            catalog.put_report(version.name, report)

    def finish_version(
        self, version: ImageVersion, stats: Mapping[str, Any] | None = None
    ) -> ImageVersion:
        """End a publication or replication: Succeeded when every region is Completed, else Failed,
        and then usable where it is Completed."""
        return self._change(
            version,
            lambda current: transitions.finished(
                replace(current, stats=current.stats if stats is None else stats)
            ),
        )

    def hand_over(self, version: ImageVersion) -> ImageVersion:
        """Give up a version that is usable, with regions left to be made: another process goes on
        with `begin_replication`."""

        def change(current: ImageVersion) -> ImageVersion:
            rules.has_source(current)
            return transitions.handed_over(current)

        return self._change(version, change)

    def abandon_version(self, version: ImageVersion, details: str) -> ImageVersion | None:
        """End a publication that failed. When no region was Completed the version is gone and its
        number free (None); else it is Failed, and usable where it is Completed."""
        with self._catalog.write() as catalog:
            current = self._mine(catalog, version)
            if not current.completed_regions:
                catalog.delete_version(current.name)
                return None
            failed = transitions.finished(current, details)
            catalog.put_version(failed)
            return failed

    def begin_replication(
        self, name: VersionName, targets: Sequence[TargetRegion] = ()
    ) -> ImageVersion:
        """Take a published version to add regions to it, or to make failed ones again. What is to
        be done is every region that is not Completed."""
        with self._catalog.write() as catalog:
            version = rules.existing(catalog.version(name), name)
            rules.not_busy(version, owner_alive=self._busy(version), operation="Update")
            rules.has_source(version)
            wanted = {t.key: t for t in version.target_regions} | {t.key: t for t in targets}
            location = rules.known_region(version.location, self._regions)
            checked = rules.targets(
                tuple(wanted.values()), location, self._regions, version.replication_mode
            )
            rules.replication_put(version, checked)
            version = transitions.replicating(
                version, checked, self._owners.current(), self._clock()
            )
            catalog.put_version(version)
            return version

    # --- versions: delete --------------------------------------------------------------------

    def begin_delete(self, name: VersionName, *, force: bool = False) -> ImageVersion:
        """Mark a version: from now on nobody can use it, and its replicas may be removed. `force`
        takes it from a process that seems to live (one on another host can't be seen)."""
        with self._catalog.write() as catalog:
            version = rules.existing(catalog.version(name), name)
            rules.not_busy(
                version, owner_alive=self._busy(version) and not force, operation="Delete"
            )
            rules.version_deletable(version, self._clock())
            version = transitions.deleting(version, self._owners.current(), self._clock())
            catalog.put_version(version)
            return version

    def finish_delete(self, version: ImageVersion) -> None:
        """Forget a version whose replicas are gone."""
        with self._catalog.write() as catalog:
            current = self._mine(catalog, version)
            if current.provisioning_state is not ProvisioningState.DELETING:
                raise Conflict(f"The image version '{version.name}' is not marked for deletion.")
            catalog.delete_version(current.name)

    # --- steps and deployments ---------------------------------------------------------------

    def step(self, key: str) -> Mapping[str, Any] | None:
        """What the step of that content-addressed key gave, if it was done."""
        with self._catalog.read() as catalog:
            return catalog.step(key)

    def record_step(self, key: str, output: Mapping[str, Any]) -> None:
        with self._catalog.write() as catalog:
            catalog.put_step(key, output)

    def record_deployment(self, deployment: Deployment) -> None:
        with self._catalog.write() as catalog:
            catalog.put_deployment(deployment)

    def list_deployments(self) -> list[Deployment]:
        with self._catalog.read() as catalog:
            return catalog.deployments()

    # -----------------------------------------------------------------------------------------

    def _busy(self, version: ImageVersion | None) -> bool:
        return (
            version is not None and version.owner is not None and self._owners.alive(version.owner)
        )

    def _mine(self, catalog: CatalogReader, version: ImageVersion) -> ImageVersion:
        """The version as it is now; refuses when another process has taken it over since."""
        current = catalog.version(version.name)
        if current is None or (current.uid, current.attempt) != (version.uid, version.attempt):
            raise Conflict(
                f"The work on '{version.name}' was taken over by another process, or the version "
                "was deleted.",
                hint="galleria show tells who works on it",
            )
        return current

    def _change(
        self, version: ImageVersion, change: Callable[[ImageVersion], ImageVersion]
    ) -> ImageVersion:
        with self._catalog.write() as catalog:
            changed = change(self._mine(catalog, version))
            catalog.put_version(changed)
            return changed
