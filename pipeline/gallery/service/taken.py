"""What a process records of a version or resource that it has taken, and what jobs know of all.

The right was asked when the version was taken, and is once more before a region of it can be used;
jobs need to know which bases are in use whoever uses them. Nothing of it is shown to whoever asked
for the job.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, NewType, TypeVar

from pipeline.data.digest import digest
from pipeline.errors import Conflict, ConnectionLost, NotFound
from pipeline.gallery import metrics, rules, transitions
from pipeline.gallery.audited import AuditedCatalog
from pipeline.gallery.metrics import Metric
from pipeline.gallery.service.running import JobRuns
from pipeline.model import (
    Deployment,
    Gallery,
    ImageDisk,
    ImageVersion,
    ProvisioningState,
    RegionStatus,
    ReplicationState,
)
from pipeline.model.access import Action
from pipeline.model.clock import utc_now
from pipeline.model.names import VersionName
from pipeline.model.resource_names import ResourceKind
from pipeline.model.resources import Disk, Resource, Snapshot
from pipeline.model.scrubs import ScrubRecord, base_subject
from pipeline.model.spelling import region_key
from pipeline.ports.catalog import CatalogReader

# A version that this process has taken: what begins to publish, replicate, update or delete one
# makes it, and nobody else can go on with that.
TakenVersion = NewType("TakenVersion", ImageVersion)

R = TypeVar("R", bound=Resource)
T = TypeVar("T")


class JobRecords:
    """What jobs alone ask of the catalog. Safe to call from many threads and processes at once."""

    def __init__(
        self,
        catalog: AuditedCatalog,
        runs: JobRuns,
        require: Callable[[Action, VersionName], None],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`require` asks for a right as it is now, and raises where it is gone."""
        self._catalog = catalog
        self._require = require
        self._runs = runs
        self._clock = clock

    # --- versions that were taken -------------------------------------------------------------

    def set_regions(self, version: TakenVersion, *statuses: RegionStatus) -> TakenVersion:
        """Record how far regions are. Each call is a durable transaction: call it on changes of
        state and every few per cent, not for every block. A region that can be used from now on
        takes the right to write the version still: it may be gone since the work began."""
        if any(status.state is ReplicationState.COMPLETED for status in statuses):
            self._require(Action.VERSION_WRITE, version.name)

        def change(current: ImageVersion) -> ImageVersion:
            for status in statuses:
                current = transitions.region_changed(current, status, self._clock())
            return current

        changed = self._change(version, change)
        done = {item.key for item in statuses if item.state is ReplicationState.COMPLETED}
        if done:
            self._forget_bad(changed, done)
        return changed

    def _forget_bad(self, version: ImageVersion, regions: Collection[str]) -> None:
        """What was bad in these regions of the bases that a version has just been stored with is
        not bad any more: they were read, or written anew."""
        subjects = {base_subject(disk.digest) for disk in version.disks if disk.digest}
        mended = [
            record
            for record in self.scrubs()
            if record.problem
            and record.subject in subjects
            and region_key(record.region) in regions
        ]
        if mended:
            self.forget_scrubs(mended)

    def record_contents(
        self,
        version: TakenVersion,
        disks: Sequence[ImageDisk],
        report: Mapping[str, Any],
        unverified: tuple[str, ...] = (),
    ) -> TakenVersion:
        """What the version consists of, and what was done to the guest and seen in it; before its
        first region is Completed. The version's record has the report's digest."""

        def act() -> TakenVersion:
            with self._catalog.write() as (catalog, changes):
                current = replace(
                    _mine(catalog, version),
                    disks=tuple(disks),
                    unverified=unverified,
                    report_digest=digest(report),
                )
                changes.put_version(current)
                changes.put_report(version.name, report)
                return TakenVersion(current)

        return _again(act)

    def region_left(self, version: TakenVersion, region: str) -> TakenVersion:
        """Nothing of a removed region is left in its zones."""
        return self._change(
            version,
            lambda current: replace(
                current, leaving=tuple(name for name in current.leaving if name != region)
            ),
        )

    def finish_version(
        self, version: TakenVersion, stats: Mapping[str, Any] | None = None
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
        self, version: TakenVersion, stats: Mapping[str, Any] | None = None
    ) -> ImageVersion:
        """Give up a version that is usable, with regions left to be made: another process goes on
        with `begin_replication`."""

        def change(current: ImageVersion) -> ImageVersion:
            rules.has_source(current)
            kept = current.stats if stats is None else stats
            return transitions.handed_over(replace(current, stats=kept))

        return self._change(version, change)

    def abandon_version(self, version: TakenVersion, details: str) -> ImageVersion | None:
        """End a publication that failed. When no region was Completed the version is gone and its
        number free (None); else it is Failed, and usable where it is Completed."""
        with self._catalog.write() as (catalog, changes):
            current = _mine(catalog, version)
            if not current.completed_regions:
                changes.delete_version(current.name)
                return None
            failed = transitions.finished(current, details)
            changes.put_version(failed)
            return failed

    def finish_delete(self, version: TakenVersion) -> None:
        """Forget a version whose replicas are gone."""
        with self._catalog.write() as (catalog, changes):
            current = _mine(catalog, version)
            if current.provisioning_state is not ProvisioningState.DELETING:
                raise Conflict(f"The image version '{version.name}' is not marked for deletion.")
            changes.delete_version(current.name)

    def gallery(self, version: ImageVersion) -> Gallery:
        """The gallery of a version, for what zones keep beside its bytes."""
        name = version.name.definition.gallery
        with self._catalog.read() as catalog:
            return rules.parent(catalog.gallery(name), name)

    # --- resources that were taken ------------------------------------------------------------

    def change_resource(self, resource: R) -> R:
        """Record what the process that makes it has done."""
        return self._replace(resource, resource)

    def check_taken(self, resource: Resource) -> None:
        """Raise unless it is still this process that makes it."""
        with self._catalog.read() as catalog:
            _taken(catalog.resource(resource.name), resource)

    def finish_resource(self, resource: R) -> R:
        """From now on it can be used."""
        done = replace(
            resource,
            provisioning_state=ProvisioningState.SUCCEEDED,
            completion_percent=100,
            owner=None,
        )
        return self._replace(resource, done)

    def forget_resource(self, resource: Resource) -> None:
        """The end of a deletion, or of a resource that could not be made."""
        with self._catalog.write() as (catalog, changes):
            _taken(catalog.resource(resource.name), resource)
            changes.delete_resource(resource.name)

    # --- what there is, whoever may see it ----------------------------------------------------

    def deployments(self) -> list[Deployment]:
        """All, to know which bases are in use."""
        with self._catalog.read() as catalog:
            return catalog.deployments()

    def base_users(
        self, region: str, digests: Sequence[str], *, unfinished: bool = False
    ) -> dict[str, str]:
        """Which of these bases in a region somebody needs, and who: deployed disks, versions that
        are there, disks, snapshots and images. With `unfinished`, versions as well that were begun
        and may be gone on with."""
        if not digests:
            return {}
        with self._catalog.read() as catalog:
            found = {
                content.digest: f"the {item.name.kind.noun} {item.name}"
                for kind in ResourceKind
                for item in catalog.resources(kind)
                if item.provisioning_state is not ProvisioningState.DELETING
                and region_key(item.location) == region_key(region)
                for content in item.contents
            }
            found |= {
                disk.digest: str(item.name)
                for item in catalog.versions_with(digests)
                if item.provisioning_state is not ProvisioningState.DELETING
                and item.target(region) is not None
                and (item.is_completed_in(region) or unfinished)
                for disk in item.disks
            }
            found |= {
                disk.digest: f"the VM {item.name}"
                for item in catalog.deployments()
                for disk in item.disks
            }
        return {digest: found[digest] for digest in digests if digest in found}

    def versions(self) -> list[ImageVersion]:
        """All, deleted ones too, in whatever state they are."""
        with self._catalog.read() as catalog:
            return list(_every_version(catalog))

    def metrics(self) -> list[Metric]:
        """What there is, as numbers."""
        with self._catalog.read() as catalog:
            return metrics.of_catalog(catalog)

    def cut_audit(self, seconds: int, *, dry_run: bool) -> int:
        """Remove the entries of the audit record that are older; returns how many."""
        until = self._clock() - timedelta(seconds=seconds)
        if not dry_run:
            return self._catalog.cut(until)
        limit = until.astimezone(UTC).isoformat(timespec="microseconds")
        with self._catalog.read() as catalog:
            old = takewhile(lambda entry: str(entry.content["time"]) < limit, catalog.audit())
            return sum(1 for _ in old)

    def resources(self) -> list[Resource]:
        """All, to know what a killed process left."""
        with self._catalog.read() as catalog:
            return [item for kind in ResourceKind for item in catalog.resources(kind)]

    def scrubs(self) -> list[ScrubRecord]:
        """What the last reading of everything in the zones showed."""
        with self._catalog.read() as catalog:
            return catalog.scrubs()

    def record_scrubs(self, records: Iterable[ScrubRecord]) -> None:
        """Remember what reading showed."""
        with self._catalog.write() as (_, changes):
            for record in records:
                changes.put_scrub(record)

    def forget_scrubs(self, records: Iterable[ScrubRecord]) -> None:
        """Of what is not there any more."""
        with self._catalog.write() as (_, changes):
            for record in records:
                changes.delete_scrub(record.zone, record.subject)

    def zone_moved(self, old: str, new: str) -> None:
        """What the catalog says lies in the directory `old` lies in `new` now."""
        with self._catalog.write() as (catalog, changes):
            for kind in ResourceKind:
                for resource in catalog.resources(kind):
                    if isinstance(resource, Disk) and resource.file is not None:
                        path = _moved(resource.file.path, old, new)
                        if path != resource.file.path:
                            file = replace(resource.file, path=path)
                            changes.put_resource(replace(resource, file=file))
            for version in _every_version(catalog):
                regions = tuple(_moved_status(status, old, new) for status in version.regions)
                if regions != version.regions:
                    changes.put_version(replace(version, regions=regions))

    def snapshots(self) -> list[Snapshot]:
        """Every usable one, newest first: what a new one can start from."""
        usable = (
            item
            for item in self.resources()
            if isinstance(item, Snapshot) and item.provisioning_state is ProvisioningState.SUCCEEDED
        )
        return sorted(usable, key=lambda item: item.time_created, reverse=True)

    def zone_keys(self) -> set[str]:
        """The versions that may have files in zones, by the names that they have there."""
        return {version.zone_key for version in self.versions()}

    def worked_on(self) -> list[str]:
        """The versions and resources that a run works on which may still go on, and other runs."""
        made: list[ImageVersion | Resource] = [*self.versions(), *self.resources()]
        with self._catalog.read() as catalog:
            held = {
                run.id for run in catalog.runs() if self._runs.holder(catalog, run.id) is not None
            }
            named = {str(item.name): item.owner for item in made if item.owner in held}
            rest = [run for run in catalog.runs() if run.id in held - set(named.values())]
        return [*named, *(run.who for run in rest)]

    def _change(
        self, version: TakenVersion, change: Callable[[ImageVersion], ImageVersion]
    ) -> TakenVersion:
        def act() -> TakenVersion:
            with self._catalog.write() as (catalog, changes):
                changed = change(_mine(catalog, version))
                changes.put_version(changed)
                return TakenVersion(changed)

        return _again(act)

    def _replace(self, resource: Resource, changed: R) -> R:
        with self._catalog.write() as (catalog, changes):
            _taken(catalog.resource(resource.name), resource)
            changes.put_resource(changed)
            return changed


def _again(act: Callable[[], T]) -> T:
    """Do what can be done twice again, if the connection ended meanwhile: hours of work do not
    depend on one connection."""
    try:
        return act()
    except ConnectionLost:
        return act()


def _mine(catalog: CatalogReader, version: TakenVersion) -> ImageVersion:
    """The version as it is now; refuses when another process has taken it over since."""
    current = catalog.version(version.name)
    if current is None or (current.uid, current.attempt) != (version.uid, version.attempt):
        raise Conflict(
            f"The work on '{version.name}' was taken over by another process, or the version "
            "was deleted.",
            hint="galleria show tells who works on it",
        )
    return current


def _taken(current: Resource | None, resource: Resource) -> None:
    """Refuse unless it is still this process that has the resource."""
    name = resource.name
    if current is None or current.unique_id != resource.unique_id:
        raise NotFound(f"The {name.kind.noun} '{name}' was deleted meanwhile.")
    if resource.owner is None or current.owner != resource.owner:
        raise Conflict(f"The {name.kind.noun} '{name}' was taken over by another process.")


def _every_version(catalog: CatalogReader) -> Iterator[ImageVersion]:
    for gallery in catalog.galleries():
        for definition in catalog.definitions(gallery.name):
            yield from list(catalog.versions(definition.name, deleted=None))


def _moved_status(status: RegionStatus, old: str, new: str) -> RegionStatus:
    """A region's status, whose replicas lie in another directory now."""
    replicas = tuple(
        {
            **replica,
            "disks": [
                {**disk, "path": _moved(disk["path"], old, new)} for disk in replica["disks"]
            ],
        }
        for replica in status.result.replicas
    )
    return replace(status, result=replace(status.result, replicas=replicas))


def _moved(path: str, old: str, new: str) -> str:
    return new + path.removeprefix(old) if path.startswith(f"{old}/") else path
