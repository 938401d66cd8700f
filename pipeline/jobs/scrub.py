"""Scrub: read what zones hold from the medium, compare the catalog with them, and remember it all.

bases       every chunk, against the manifest, and that against the base's name
versions    records and replicas (of disks, snapshots and images: records), against the catalog
VMs         that their disks are there, name the base that the zone has, and have sound tables

One bad thing ends nothing. What is bad is told with the versions and VMs that need it, and, if that
is asked for, repaired (`repair`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Lock

from pipeline.errors import GalleriaError
from pipeline.jobs.context import JobContext
from pipeline.jobs.verify import Check, Verification, VerifyResult, remember, verify_report
from pipeline.model import DeployedDisk, Deployment, ImageVersion, ReplicationMode
from pipeline.model.clock import utc_now
from pipeline.model.disks import disk_name
from pipeline.model.kinds import ProvisioningState, StorageAccountType
from pipeline.model.names import DefinitionName, GalleryName, VersionName
from pipeline.model.resources import Disk, Resource
from pipeline.model.scrubs import base_subject, version_subject
from pipeline.model.spelling import region_key
from pipeline.ports import StoredBase, Zone

MISSING = "record missing"  # the subject of what a zone has nothing of

Scope = GalleryName | DefinitionName | VersionName | None
Stored = ImageVersion | Resource


@dataclass(frozen=True, slots=True)
class ScrubRequest:
    """What is read: of everything, or what `scope` names, or of one region, the bases that were not
    read for `older_than`, and of their bytes this share, the longest unread first. `rate` is in
    bytes a second."""

    scope: Scope = None
    region: str | None = None
    subset: float = 1.0
    older_than: timedelta | None = None
    rate: int | None = None


@dataclass(frozen=True, slots=True)
class Bad:
    """Something that is not as it must be, and who needs it. `item` is the version, snapshot, image
    or disk whose record or replica it is; `machine` the VM whose disk. `digest` (of the result) is
    a base's."""

    zone: Zone
    result: VerifyResult
    versions: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    item: Stored | None = None
    missing: bool = False  # the whole item is not in the zone
    disk: DeployedDisk | None = None

    @property
    def is_base(self) -> bool:
        return self.item is None and self.disk is None and bool(self.result.digest)

    @property
    def subject(self) -> str:
        """As the catalog has it."""
        if self.disk is not None:
            return self.disk.path
        if self.item is not None:
            return version_subject(self.item.zone_key)
        return base_subject(self.result.digest)


Mend = Callable[[Bad], bool]


def _leave(bad: Bad) -> bool:
    return False


@dataclass(slots=True)
class Scrubbed:
    """What a scrub found; `skipped` bases were not read this time. `unusable` zones could not be
    looked at: why, by directory."""

    bad: list[Bad] = field(default_factory=list)
    bases: int = 0
    skipped: int = 0
    bytes_read: int = 0
    unusable: dict[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not self.bad and not self.unusable


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the zones should hold, by the catalog."""

    items: Sequence[Stored]
    deployments: Sequence[Deployment]
    whole: bool  # everything, and not only what a scope names

    def in_region(self, region: str) -> Iterator[Stored]:
        return (item for item in self.items if region in stored_in(item))

    def users(self, digest: str, region: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of the versions and VMs in a region that need a base."""
        items = (str(i.name) for i in self.in_region(region) if digest in digests_of(i).values())
        machines = (
            vm.name
            for vm in self.deployments
            if vm.region == region and any(disk.digest == digest for disk in vm.disks)
        )
        return tuple(items), tuple(machines)


def inventory(scope: Scope, context: JobContext) -> Inventory:
    """What is in the scope; None is everything, whoever it belongs to. Raises NotFound."""
    match scope:
        case GalleryName():
            context.gallery.get_gallery(scope)
        case DefinitionName():
            context.gallery.get_definition(scope)
        case VersionName():
            context.gallery.get_version(scope)
    versions = [item for item in context.records.versions() if _within(item.name, scope)]
    items: list[Stored] = [item for item in versions if item.completed_regions]
    uids = {item.uid for item in versions}
    deployments = context.records.deployments()
    if scope is None:
        done = ProvisioningState.SUCCEEDED
        items += [item for item in context.records.resources() if item.provisioning_state is done]
    else:
        deployments = [item for item in deployments if item.version_uid in uids]
    return Inventory(items, deployments, whole=scope is None)


def _within(name: VersionName, scope: Scope) -> bool:
    match scope:
        case GalleryName():
            return name.definition.gallery == scope
        case DefinitionName():
            return name.definition == scope
        case VersionName():
            return name == scope
        case _:
            return True


def stored_in(item: Stored) -> tuple[str, ...]:
    """The regions that an item is stored in."""
    return item.completed_regions if isinstance(item, ImageVersion) else (item.location,)


def digests_of(item: Stored) -> dict[int | None, str]:
    """The bases that an item consists of, by LUN."""
    disks = item.disks if isinstance(item, ImageVersion) else item.contents
    return {disk.lun: disk.digest for disk in disks if disk.digest}


def is_shallow(item: Stored) -> bool:
    return isinstance(item, ImageVersion) and item.replication_mode is ReplicationMode.SHALLOW


# --- the scrub ------------------------------------------------------------------------------------


def scrub(request: ScrubRequest, context: JobContext, mend: Mend = _leave) -> Scrubbed:
    """Read what the request names: all bases, then what is made of them. What was read, and what is
    bad, is remembered in the catalog piece by piece, so that a scrub that is cut off has done what
    it has done. `mend` is given what is bad, and says whether that is sound now."""
    found = Scrubbed()
    stock = inventory(request.scope, context)
    zones = _zones(request.region, context)
    found.unusable = {str(zone.path): zone.unusable for zone in zones if zone.unusable}
    usable = [zone for zone in zones if not zone.unusable]
    pace = Pace(request.rate, context.sleep)

    def paced(amount: int) -> None:
        found.bytes_read += amount
        pace.wait(amount)

    check = Check(context, scrub=True, paced=paced)
    chosen, found.skipped = _chosen(usable, stock, request, context)
    bases = {
        zone.path: _scrub_bases(zone, chosen[zone.path], stock, check, found, mend)
        for zone in usable
    }
    for zone in usable:
        for item in list(stock.in_region(zone.region)):
            _scrub_item(zone, item, bases[zone.path], check, found, mend)
    for zone in usable:
        for name, disk in _disks(zone, stock):
            _scrub_disk(zone, name, disk, found, context, mend)
    if stock.whole and request.region is None:
        _forget_gone(usable, stock, context)
    return found


def _zones(region: str | None, context: JobContext) -> list[Zone]:
    return [
        zone
        for name, zones in context.zones.items()
        for zone in zones
        if region is None or region_key(name) == region_key(region)
    ]


def _chosen(
    zones: Sequence[Zone], stock: Inventory, request: ScrubRequest, context: JobContext
) -> tuple[Mapping[Path, Sequence[str]], int]:
    """The bases to read in each zone, and how many are left for another time."""
    known = {(item.zone, item.subject): item.read for item in context.records.scrubs()}
    every = [(zone, digest) for zone in zones for digest in _held(zone, stock)]
    now = utc_now()

    def last(place: tuple[Zone, str]) -> float:
        read = known.get((str(place[0].path), base_subject(place[1])))
        return 0.0 if read is None else read.timestamp()

    due = every
    if request.older_than is not None:
        due = [at for at in every if last(at) <= (now - request.older_than).timestamp()]
    if request.subset < 1:
        due = _share(sorted(due, key=last), every, request.subset)
    chosen: dict[Path, list[str]] = {zone.path: [] for zone in zones}
    for zone, digest in due:
        chosen[zone.path].append(digest)
    return chosen, len(every) - len(due)


def _share(
    due: Sequence[tuple[Zone, str]], every: Sequence[tuple[Zone, str]], share: float
) -> list[tuple[Zone, str]]:
    """The first of `due` that come to this share of all bytes, and one at least."""
    left = share * sum(map(_size, every))
    taken: list[tuple[Zone, str]] = []
    for place in due:
        if taken and left <= 0:
            break
        taken.append(place)
        left -= _size(place)
    return taken


def _size(place: tuple[Zone, str]) -> int:
    zone, digest = place
    try:
        base = zone.find_base(digest)
    except (OSError, GalleriaError):
        base = None
    return 0 if base is None else base.virtual_size


def _held(zone: Zone, stock: Inventory) -> list[str]:
    """The bases that a zone should hold, and (of everything) those that it does; each after what
    it is a delta of."""
    found: dict[str, None] = {}
    for item in stock.in_region(zone.region):
        if _is_there(zone, item):
            found.update(dict.fromkeys(digests_of(item).values()))
    for vm in stock.deployments:
        if vm.region == zone.region and vm.zone == zone.name:
            found.update(dict.fromkeys(disk.digest for disk in vm.disks if disk.digest))
    if stock.whole:
        found.update(dict.fromkeys(zone.digests()))
    ordered: dict[str, None] = {}
    for digest in found:
        line: list[str] = []
        below: str | None = digest
        while below is not None and below not in ordered and below not in line:
            line.append(below)
            below = zone.base_parent(below)
        there = set(zone.digests())
        ordered.update(dict.fromkeys(d for d in reversed(line) if d in found or d in there))
    return list(ordered)


def _is_there(zone: Zone, item: Stored) -> bool:
    """Whether a zone has something under an item's key, good or bad."""
    try:
        return zone.find_version(item.zone_key) is not None
    except (OSError, GalleriaError):
        return True


def _scrub_bases(
    zone: Zone,
    digests: Iterable[str],
    stock: Inventory,
    check: Check,
    found: Scrubbed,
    mend: Mend,
) -> dict[str, StoredBase]:
    """Read these bases of a zone; those that are sound."""
    sound: dict[str, StoredBase] = {}
    for digest in digests:
        versions, machines = stock.users(digest, zone.region)
        result, base = check.base(zone, digest, f"base {digest[:16]}")
        found.bases += 1
        if not result.sound:
            bad = Bad(zone, result, versions, machines)
            found.bad.append(bad)
            base = zone.find_base(digest) if mend(bad) else None
        if base is not None:
            sound[digest] = base
    return sound


def _scrub_item(
    zone: Zone,
    item: Stored,
    sound: Mapping[str, StoredBase],
    check: Check,
    found: Scrubbed,
    mend: Mend,
) -> None:
    """What a zone keeps under an item's key. Clones of bases that were not read are not, either."""
    results = list(_item_results(zone, item, sound, check))
    bad = [result for result in results if not result.sound]
    if results:
        remember(zone, version_subject(item.zone_key), (bad or results)[0], check.context)
    for result in bad:
        missing = result.subject == MISSING
        found.bad.append(Bad(zone, result, (str(item.name),), item=item, missing=missing))
        mend(found.bad[-1])


def _item_results(
    zone: Zone, item: Stored, sound: Mapping[str, StoredBase], check: Check
) -> Iterator[VerifyResult]:
    region, place = zone.region, zone.version_directory(item.zone_key)
    try:
        replicas = zone.find_version(item.zone_key)
        held = zone.held_bases(item.zone_key)
    except (OSError, GalleriaError) as error:
        yield VerifyResult(region, "record", place, "", problem=str(error))
        return
    if replicas is None:
        if must_hold(zone, item, check.context):
            problem = "it is not in the zone"
            yield VerifyResult(region, MISSING, place, "", problem=problem)
        return
    problem = ""
    if dict(held) != digests_of(item) and not is_shallow(item):
        problem = "it names other bases than the catalog"
    wanted = replica_count(zone, item)
    if not problem and wanted is not None and wanted != len(replicas):
        problem = f"it has {len(replicas)} replicas, and the catalog {wanted}"
    yield VerifyResult(region, "record", place, "", problem=problem)
    if isinstance(item, ImageVersion):
        report = check.context.gallery.report(item.name)
        yield from (r for r in verify_report(item, report, [zone]) if r.region)
    bases = {lun: _base(zone, digest, sound) for lun, digest in digests_of(item).items()}
    there = {lun: base for lun, base in bases.items() if base is not None}
    yield from check.replicas(zone, replicas, there, read=sound)


def _base(zone: Zone, digest: str, sound: Mapping[str, StoredBase]) -> StoredBase | None:
    """A base that was read, or is there."""
    if digest in sound:
        return sound[digest]
    with suppress(OSError, GalleriaError):
        return zone.find_base(digest)
    return None


def must_hold(zone: Zone, item: Stored, context: JobContext) -> bool:
    """Whether an item has to be in this zone: in Standard_ZRS in each, else in one of its region
    that no other has it in place of."""
    zones = [other for other in context.zones.get(zone.region, ()) if not other.unusable]
    if _is_zrs(item, zone.region) and not zone.premium:
        return True
    if any(_is_there(other, item) for other in zones):
        return False
    alike = [other for other in zones if not other.premium] or zones
    return zone is alike[0]


def _is_zrs(item: Stored, region: str) -> bool:
    if not isinstance(item, ImageVersion):
        return item.storage is StorageAccountType.STANDARD_ZRS
    target = item.target(region)
    kind = None if target is None else target.storage_account_type
    return (kind or item.storage_account_type) is StorageAccountType.STANDARD_ZRS


def replica_count(zone: Zone, item: Stored) -> int | None:
    """How many replicas a zone has of an item, by the catalog; None where it does not say."""
    if not isinstance(item, ImageVersion):
        return 0
    status = item.status(zone.region)
    replicas = () if status is None else status.result.replicas
    names = [replica["zone"] for replica in replicas]
    return names.count(zone.name) if names else None


def _disks(zone: Zone, stock: Inventory) -> Iterator[tuple[str, DeployedDisk]]:
    """The files of VMs that were deployed from a zone, and of managed disks that it keeps."""
    for vm in stock.deployments:
        if (zone.region, zone.name) == (vm.region, vm.zone):
            for disk in vm.disks:
                yield vm.name, disk
    for item in stock.in_region(zone.region):
        if isinstance(item, Disk) and item.file is not None and _is_there(zone, item):
            digest = item.contents[0].digest if item.contents else ""
            yield item.name.name, DeployedDisk(None, item.file.path, item.file.format, digest)


def verify_resource(resource: Resource, context: JobContext, *, scrub: bool) -> Verification:
    """Verify all that is kept of a snapshot, a disk or an image: its bases, its record, and the
    file of a disk. `scrub` reads the medium."""
    check, stock = Check(context, scrub=scrub), Inventory([resource], [], whole=False)
    results: list[VerifyResult] = []
    zones = [zone for zone in context.zones.get(resource.location, ()) if not zone.unusable]
    for zone in zones:
        if not _is_there(zone, resource) and not must_hold(zone, resource, context):
            continue
        for lun, digest in digests_of(resource).items():
            result, _ = check.base(zone, digest, f"base {disk_name(lun)}")
            results.append(result)
        results += _item_results(zone, resource, {}, check)
        results += (_disk_result(zone, name, disk) for name, disk in _disks(zone, stock))
    return Verification(tuple(results), () if results else (resource.location,))


def _scrub_disk(
    zone: Zone,
    owner: str,
    disk: DeployedDisk,
    found: Scrubbed,
    context: JobContext,
    mend: Mend,
) -> None:
    result = _disk_result(zone, owner, disk)
    remember(zone, disk.path, result, context)
    if not result.sound:
        found.bad.append(Bad(zone, result, machines=(owner,), disk=disk))
        mend(found.bad[-1])


def _disk_result(zone: Zone, owner: str, disk: DeployedDisk) -> VerifyResult:
    try:
        problem = zone.deployed_problem(disk)
    except (OSError, GalleriaError) as error:
        problem = str(error)
    subject = f"disk {disk_name(disk.lun)} of {owner}"
    return VerifyResult(zone.region, subject, Path(disk.path), "", problem=problem)


def _forget_gone(zones: Sequence[Zone], stock: Inventory, context: JobContext) -> None:
    """Records of what neither the catalog nor a zone has any more."""
    places = {str(zone.path): set(map(base_subject, zone.digests())) for zone in zones}
    keys = {version_subject(item.zone_key) for item in stock.items}
    disks = {disk.path for zone in zones for _, disk in _disks(zone, stock)}
    needed = {base_subject(d) for item in stock.items for d in digests_of(item).values()}
    context.records.forget_scrubs(
        record
        for record in context.records.scrubs()
        if record.subject not in places.get(record.zone, {record.subject}) | keys | disks | needed
    )


class Pace:
    """Lets no more than `rate` bytes a second pass, on the whole."""

    def __init__(self, rate: int | None, sleep: Callable[[float], None]) -> None:
        self._rate = rate
        self._sleep = sleep
        self._begun: float | None = None
        self._passed = 0
        self._lock = Lock()

    def wait(self, amount: int) -> None:
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            if self._begun is None:
                self._begun = now
            self._passed += amount
            ahead = self._begun + self._passed / self._rate - now
        if ahead > 0:
            self._sleep(ahead)
