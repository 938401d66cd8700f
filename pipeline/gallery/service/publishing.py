"""Publish and replicate: a version's number is taken, or the version itself, to add regions."""

import uuid
from collections.abc import Sequence
from dataclasses import replace

from pipeline.gallery import rules, transitions
from pipeline.gallery.access import sharing
from pipeline.gallery.rules.agreement import SourceFacts, agreement
from pipeline.gallery.service.base import Operations
from pipeline.gallery.service.taken import TakenVersion
from pipeline.model import (
    ImageVersion,
    OsState,
    SourceProperties,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.access import Action
from pipeline.model.names import VersionName
from pipeline.ports.catalog import CatalogReader


class Publishing(Operations):
    def begin_version(self, request: VersionRequest) -> TakenVersion:
        """Check every rule and take the number.

        What a dead or failed process left under the number is taken over: the uid stays. When
        regions are Completed already (only for the request's own fingerprint), they stay, and so do
        the disks: the rest is to be made from those regions' bases, not from the sources.
        """
        with self._access.write(Action.VERSION_WRITE, request.name) as (catalog, changes):
            version = self._first(catalog, request, self._runs.id)
            self._take(catalog, changes, catalog.version(request.name))
            changes.put_version(version)
            if not version.completed_regions:
                changes.put_report(request.name, None)
            return TakenVersion(version)

    def try_version(self, request: VersionRequest) -> ImageVersion:
        """What `begin_version` would make, every rule checked; nothing is recorded."""
        with self._access.read(Action.VERSION_WRITE, request.name) as catalog:
            return self._first(catalog, request, "")

    def _first(self, catalog: CatalogReader, request: VersionRequest, run: str) -> ImageVersion:
        now, name = self._clock(), request.name
        definition = rules.parent(catalog.definition(name.definition), name.definition)
        rules.version_request(request, definition, now)
        location = rules.known_region(
            request.location or definition.location,
            self._regions,
            kind="galleries/images/versions",
        )
        gallery = rules.parent(catalog.gallery(name.definition.gallery), name.definition.gallery)
        permissions = gallery.sharing_profile.permissions
        sharing.may_hold_version(permissions, gallery, name, location.name)
        targets = rules.targets(
            request.target_regions,
            location,
            self._regions,
            request.replication_mode,
            kind=rules.storage_type(request),
            strategy=request.storage_account_strategy,
            common=request.replica_count,
        )
        old = catalog.version(name)
        rules.number_free(old, request.fingerprint, self._holder(catalog, old))
        if old is None:
            subscription, limit = name.definition.gallery.subscription, self._limits.versions
            count = catalog.counts(subscription, location.name).versions
            rules.quota("image versions", count, limit, subscription, location.name)
        generalized = request.generalize
        if generalized is None:
            generalized = definition.os_state is OsState.GENERALIZED
        version = transitions.created(
            replace(request, name=VersionName(definition.name, name.number)),
            location.name,
            targets,
            generalized=generalized,
            uid=uuid.uuid4().hex,
            owner=run,
            now=now,
        )
        if old is not None:
            version = transitions.taken_over(old, version)
        return version

    def check_source(
        self, version: ImageVersion, facts: SourceFacts, source: SourceProperties
    ) -> tuple[str, ...]:
        """The properties of the definition that nothing is known to confirm; refuses disks that
        contradict one."""
        name = version.name.definition
        with self._access.read(Action.DEFINITION_READ, name) as catalog:
            definition = rules.existing(catalog.definition(name), name)
        return agreement(definition, facts, version.name, source)

    def begin_replication(
        self, name: VersionName, targets: Sequence[TargetRegion] = ()
    ) -> TakenVersion:
        """Take a published version to add regions to it, or to make failed ones again. What is to
        be done is every region that is not Completed."""
        with self._access.write(Action.VERSION_WRITE, name) as (catalog, changes):
            version = rules.existing(catalog.version(name), name)
            rules.not_busy(version, self._holder(catalog, version), operation="Update")
            rules.not_deleted(version)
            rules.has_source(version)
            wanted = {t.key: t for t in version.target_regions}
            # a region that is there already and is only named is no change
            wanted |= {
                t.key: rules.kept(version, t)
                for t in targets
                if t.regional_replica_count or not version.is_completed_in(t.name)
            }
            location = rules.known_region(version.location, self._regions)
            checked = rules.targets(
                tuple(wanted.values()),
                location,
                self._regions,
                version.replication_mode,
                kind=version.storage_account_type,
                strategy=version.storage_account_strategy,
                common=version.replica_count,
            )
            rules.replication_put(version, checked)
            self._take(catalog, changes, version)
            version = transitions.replicating(version, checked, self._runs.id, self._clock())
            changes.put_version(version)
            return TakenVersion(version)
