"""Find versions."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pipeline.errors import InvalidParameter
from pipeline.gallery import rules
from pipeline.gallery.access.shared_ids import is_shared_reference
from pipeline.gallery.latest import latest, usable
from pipeline.gallery.service.base import Operations
from pipeline.model import ImageVersion, ProvisioningState
from pipeline.model.access import Action
from pipeline.model.names import (
    DefinitionName,
    Reference,
    VersionName,
    VersionNumber,
    parse_reference,
)
from pipeline.model.runs import Held
from pipeline.model.scrubs import ScrubRecord, base_subject, version_subject
from pipeline.model.spelling import region_key
from pipeline.ports.catalog import CatalogReader

PARENTS = 16  # versions on either side that a new base may start from

_UNFINISHED = (
    ProvisioningState.CREATING,
    ProvisioningState.UPDATING,
    ProvisioningState.DELETING,
)


class Lookup(Operations):
    def get_version(self, name: VersionName) -> ImageVersion:
        """In whatever state it is."""
        with self._access.read(Action.VERSION_READ, name) as catalog:
            return rules.existing(catalog.version(name), name)

    def list_versions(
        self,
        definition: DefinitionName,
        *,
        limit: int | None = None,
        before: VersionNumber | None = None,
        deleted: bool = False,
    ) -> list[ImageVersion]:
        """Newest first, at most `limit`, those below number `before`; or the soft-deleted ones."""
        with self._access.read(Action.VERSION_READ, definition) as catalog:
            rules.existing(catalog.definition(definition), definition)
            found = catalog.versions(definition, start=before, deleted=deleted)
            return list(islice(found, limit))

    def count_versions(self, definition: DefinitionName, *, deleted: bool = False) -> int:
        with self._access.read(Action.VERSION_READ, definition) as catalog:
            return catalog.count_versions(definition, deleted=deleted)

    def latest_version(
        self, definition: DefinitionName, region: str | None = None
    ) -> ImageVersion | None:
        with self._access.read(Action.VERSION_READ, definition) as catalog:
            return latest(catalog.versions(definition), region)

    def report(self, name: VersionName) -> Mapping[str, Any] | None:
        """The generalize report that was recorded with a version."""
        with self._access.read(Action.VERSION_READ, name) as catalog:
            return catalog.report(name)

    def resolve(self, reference: str | Reference, region: str | None = None) -> ImageVersion:
        """The version that `g/i/v`, `g/i@channel`, `g/i/latest`, `g/i` or a shared name means; with
        a region, one to be used there."""
        if isinstance(reference, str) and is_shared_reference(reference):
            return self._views.resolve(
                reference, lambda catalog, real: self._find(catalog, real, region)
            )
        wanted = parse_reference(reference) if isinstance(reference, str) else reference
        with self._access.read(Action.VERSION_READ, wanted.version or wanted.definition) as catalog:
            return self._find(catalog, wanted, region)

    def own_version(self, reference: str, region: str | None = None) -> ImageVersion:
        """As `resolve`, of galleries in which the caller has a role. Raises InvalidParameter for a
        shared name: its users may deploy and copy the version, and are told nothing else of it."""
        if is_shared_reference(reference):
            raise InvalidParameter(
                f"'{reference}' is shared with you: this takes a version of a gallery of your own.",
                hint="galleria show, deploy, disk create and publish --image-version take shared"
                " names",
            )
        return self.resolve(reference, region)

    def _find(self, catalog: CatalogReader, wanted: Reference, region: str | None) -> ImageVersion:
        if region is not None:
            region = rules.known_region(region, self._regions, edge_zones=True).name
        rules.existing(catalog.definition(wanted.definition), wanted.definition)
        number = wanted.number
        if wanted.channel is not None:
            number = _promoted(catalog, wanted.definition, wanted.channel)
        if number is None:
            found = latest(catalog.versions(wanted.definition), region)
            if found is None:
                raise rules.no_latest(wanted.definition, region)
            return found
        name = VersionName(wanted.definition, number)
        version = rules.existing(catalog.version(name), name)
        if region is not None:
            rules.not_out_of_use(version, self._clock())
            if not usable(version, region):
                raise rules.not_in_region(name, region)
        return version

    def parents_of(self, name: VersionName) -> dict[int | None, tuple[str, ...]]:
        """By LUN, root digests of disks of the definition's usable versions: what a new base of
        version `name` can start from. Nearest first: older ones going back, then newer ones."""
        definition, number = name.definition, name.number
        with self._access.read(Action.VERSION_READ, name) as catalog:
            near = [
                *_usable(catalog.versions(definition, start=number)),
                *_usable(catalog.versions(definition, start=number, ascending=True)),
            ]
        found: dict[int | None, dict[str, None]] = {}
        for version in near:
            for disk in version.disks:
                if disk.digest:  # a shallow version's disks are no bases
                    found.setdefault(disk.lun, {})[disk.digest] = None
        return {lun: tuple(digests) for lun, digests in found.items()}

    def degraded(
        self, definition: DefinitionName, versions: Iterable[ImageVersion]
    ) -> dict[str, list[ScrubRecord]]:
        """By the uid of a definition's versions, what was bad of them when it was last read, in the
        regions in which they are Completed; versions without any are left out."""
        with self._access.read(Action.VERSION_READ, definition) as catalog:
            bad = [record for record in catalog.scrubs() if record.problem]
        found = {version.uid: degrading(version, bad) for version in versions}
        return {uid: records for uid, records in found.items() if records}

    def cautions(self, version: ImageVersion, name: str = "") -> list[str]:
        """What whoever uses a version, by that name if not by its own, should be told."""
        with self._access.read(Action.VERSION_READ, version.name) as catalog:
            definition = catalog.definition(version.name.definition)
        return list(rules.cautions(version, definition, self._clock(), name))

    def is_interrupted(self, version: ImageVersion) -> bool:
        """Whether it is unfinished and nobody works on it: its process died, or never began."""
        held = self.holder(version) is not None or self._runs.owns(version.owner)
        return version.provisioning_state in _UNFINISHED and not held

    def holder(self, version: ImageVersion) -> Held | None:
        """The run of another process that works on it."""
        with self._access.read(Action.VERSION_READ, version.name) as catalog:
            return self._holder(catalog, version)


def _usable(versions: Iterable[ImageVersion]) -> Iterator[ImageVersion]:
    return islice(filter(usable, versions), PARENTS)


def _promoted(catalog: CatalogReader, definition: DefinitionName, channel: str) -> VersionNumber:
    channels = catalog.channels(definition)
    for item in channels:
        if item.name == channel:
            return item.version
    raise rules.no_channel(definition, channel, [item.name for item in channels])


def degrading(version: ImageVersion, records: Iterable[ScrubRecord]) -> list[ScrubRecord]:
    """Those of `records` that are of something that a version needs where it is Completed."""
    needed = {base_subject(disk.digest) for disk in version.disks if disk.digest}
    needed.add(version_subject(version.zone_key))
    regions = set(map(region_key, version.completed_regions))
    return [
        record
        for record in records
        if record.subject in needed and region_key(record.region) in regions
    ]
