"""Publish and replicate: a version's number is taken, its progress recorded, its work ended."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.data.digest import digest
from pipeline.gallery import rules, transitions
from pipeline.gallery.access import sharing
from pipeline.gallery.rules.agreement import SourceFacts, agreement
from pipeline.gallery.service.base import Operations
from pipeline.model import (
    ImageDisk,
    ImageVersion,
    OsState,
    RegionStatus,
    SourceProperties,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.names import VersionName
from pipeline.ports.catalog import CatalogReader


class Publishing(Operations):
    def begin_version(self, request: VersionRequest) -> ImageVersion:
        """Check every rule and take the number.

        What a dead or failed process left under the number is taken over: the uid stays. When
        regions are Completed already (only for the request's own fingerprint), they stay, and so do
        the disks: the rest is to be made from those regions' bases, not from the sources.
        """
        with self._catalog.write() as catalog:
            version = self._first(catalog, request)
            catalog.put_version(version)
            if not version.completed_regions:
                catalog.put_report(request.name, None)
            return version

    def try_version(self, request: VersionRequest) -> ImageVersion:
        """What `begin_version` would make, every rule checked; nothing is recorded."""
        with self._catalog.read() as catalog:
            return self._first(catalog, request)

    def _first(self, catalog: CatalogReader, request: VersionRequest) -> ImageVersion:
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
        rules.number_free(old, request.fingerprint, owner_alive=self._busy(old))
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
            owner=self._owners.current(),
            now=now,
        )
        if old is not None:
            version = transitions.taken_over(old, version)
        return version

    def check_disk(self, version: ImageVersion, virtual_size: int, disk: str) -> None:
        """Refuse a disk that is too large for the version's replication mode."""
        rules.disk_limit(virtual_size, version.replication_mode, disk)

    def set_regions(self, version: ImageVersion, *statuses: RegionStatus) -> ImageVersion:
        """Record how far regions are. Each call is a durable transaction: call it on changes of
        state and every few per cent, not for every block."""

        def change(current: ImageVersion) -> ImageVersion:
            for status in statuses:
                current = transitions.region_changed(current, status, self._clock())
            return current

        return self._change(version, change)

    def check_source(
        self, version: ImageVersion, facts: SourceFacts, source: SourceProperties
    ) -> tuple[str, ...]:
        """The properties of the definition that nothing is known to confirm; refuses disks that
        contradict one."""
        with self._catalog.read() as catalog:
            name = version.name.definition
            definition = rules.existing(catalog.definition(name), name)
        return agreement(definition, facts, version.name, source)

    def record_contents(
        self,
        version: ImageVersion,
        disks: Sequence[ImageDisk],
        report: Mapping[str, Any],
        unverified: tuple[str, ...] = (),
    ) -> ImageVersion:
        """What the version consists of, and what was done to the guest and seen in it; before its
        first region is Completed. The version's record has the report's digest."""
        with self._catalog.write() as catalog:
            current = replace(
                self._mine(catalog, version),
                disks=tuple(disks),
                unverified=unverified,
                report_digest=digest(report),
            )
            catalog.put_version(current)
            catalog.put_report(version.name, report)
            return current

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

    def hand_over(
        self, version: ImageVersion, stats: Mapping[str, Any] | None = None
    ) -> ImageVersion:
        """Give up a version that is usable, with regions left to be made: another process goes on
        with `begin_replication`."""

        def change(current: ImageVersion) -> ImageVersion:
            rules.has_source(current)
            kept = current.stats if stats is None else stats
            return transitions.handed_over(replace(current, stats=kept))

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
            version = transitions.replicating(
                version, checked, self._owners.current(), self._clock()
            )
            catalog.put_version(version)
            return version
