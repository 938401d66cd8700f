"""Open the sources that galleria itself keeps, and running machines; files are left to `inner`.

What a zone holds as a base is supplied with its digest: a version of it needs no reading.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from pipeline.data.digest import digest
from pipeline.errors import GalleriaError, NotFound
from pipeline.gallery import rules
from pipeline.gallery.access.shared_ids import is_shared_reference, shared_name
from pipeline.gallery.service import GalleryService
from pipeline.gallery.service.resources import ResourceService, as_disk
from pipeline.guest.report import inherited
from pipeline.jobs.replicate import find_donor
from pipeline.jobs.shallow import check_sources, is_shallow, replica_chain
from pipeline.model import ImageDisk, ImageVersion, Origin, OsState
from pipeline.model.descriptions import Description
from pipeline.model.resource_names import (
    ResourceKind,
    ResourceName,
    parse_resource,
    resource_of,
)
from pipeline.model.resources import Disk, ManagedImage, Resource
from pipeline.model.sources import (
    AnySource,
    ArchiveSource,
    Backing,
    DiskSource,
    ManagedImageSource,
    QemuSource,
    SnapshotSource,
    SourceKind,
    StoredDiskSource,
    UrlSource,
    VersionSource,
    VmSource,
    public_url,
)
from pipeline.ports import Chain, ImageFormat, Pins, Progress, StoredBase
from pipeline.ports.machines import CaptureRequest, MachineFacts, RunningMachines, whole
from pipeline.ports.sources import Sources, Supply
from pipeline.storage.placement import Zones, every_zone, usable_base, usable_version
from pipeline.storage.soundness import Reading, check_base


def named_source(text: str, resources: ResourceService) -> AnySource | None:
    """The disk or snapshot of an ARM id, or of a short name; None when there is none. Raises
    InvalidParameter for an id of something else."""
    found = resource_of(text)
    if found is not None:
        return stored_source(found)
    if "/" not in text:
        for kind in (ResourceKind.DISK, ResourceKind.SNAPSHOT):
            name = ResourceName(kind, text)
            if any(item.name == name for item in resources.of_kind(kind)):
                return stored_source(name)
    return None


def stored_source(name: ResourceName, lun: int | None = None) -> AnySource:
    """A disk or a snapshot as a source; raises InvalidParameter for a managed image."""
    if name.kind is ResourceKind.SNAPSHOT:
        return SnapshotSource(lun, name.arm_id)
    if name.kind is ResourceKind.DISK:
        return StoredDiskSource(lun, name.arm_id)
    raise rules.wrong_source(name.arm_id, single=True)


class StoredSources:
    """Every kind of source: those of the catalog and running machines here, the rest by `inner`."""

    def __init__(
        self,
        inner: Sources,
        gallery: GalleryService,
        resources: ResourceService,
        machines: RunningMachines,
        zones: Zones,
        pins: Pins,
        progress: Progress,
        reading: Reading,
    ) -> None:
        self._inner = inner
        self._gallery = gallery
        self._resources = resources
        self._machines = machines
        self._zones = zones
        self._pins = pins
        self._progress = progress
        self._reading = reading

    def identity(self, source: AnySource) -> tuple[object, ...]:
        self._permit(source)
        match source:
            case StoredDiskSource():
                disk = as_disk(self._resource(source.id, ResourceKind.DISK))
                files = disk_files(disk, None, self._zones)
                return ("disk", disk.unique_id, *self._inner.identity(files))
            case SnapshotSource():
                found = self._resource(source.id, ResourceKind.SNAPSHOT)
                return ("snapshot", source.lun, found.unique_id)
            case ManagedImageSource():
                return ("image", self._resource(source.id, ResourceKind.IMAGE).unique_id)
            case VersionSource():
                return ("version", self._gallery.resolve(source.reference).uid)
            case QemuSource():
                return ("qemu", str(source.socket.absolute()))
            case _:
                return self._inner.identity(source)

    def machine_facts(self, source: QemuSource | VmSource) -> MachineFacts | None:
        self._permit(source)
        if isinstance(source, VmSource):
            return self._inner.machine_facts(source)
        return self._machines.facts(source.socket)

    def unwrapped(self, source: DiskSource, work: Path) -> AbstractContextManager[DiskSource]:
        self._permit(source)
        return self._inner.unwrapped(source, work)

    @contextmanager
    def open(self, source: AnySource, work: Path) -> Iterator[Supply]:
        self._permit(source)
        match source:
            case StoredDiskSource():
                disk = as_disk(self._resource(source.id, ResourceKind.DISK))
                yield described(self._disk(disk, source.lun), disk)
            case SnapshotSource():
                found = self._resource(source.id, ResourceKind.SNAPSHOT)
                yield described(self._contents(found, "snapshot", source.lun), found)
            case ManagedImageSource():
                found = self._resource(source.id, ResourceKind.IMAGE)
                yield described(self._contents(found, "managedImage"), found)
            case VersionSource():
                yield self._version(self._gallery.resolve(source.reference), source.reference)
            case QemuSource():
                with self._captured(source) as supply:
                    yield supply
            case _:
                with self._inner.open(source, work) as supply:
                    yield replace(supply, origins=named(supply.disks, source))

    def _permit(self, source: AnySource) -> None:
        """What takes a right on this host; that of the others depends on which one it is."""
        if source.kind is SourceKind.VIRTUAL_MACHINE:
            self._resources.require_machine()
        if source.kind is SourceKind.VHD:
            self._resources.require_storage()

    def _resource(self, id: str, kind: ResourceKind) -> Resource:
        if id.startswith("/"):
            named = resource_of(id)
            if named is None or named.kind is not kind:
                raise rules.wrong_source(id, single=kind is not ResourceKind.IMAGE)
        return self._resources.use(parse_resource(id, kind))

    def _disk(self, disk: Disk, lun: int | None) -> Supply:
        for content in disk.contents:  # what lies below it, unless it is a clone
            sound_base(content.digest, self._zones, disk.id, self._reading)
        origin = Origin("disk", disk.id, disk.unique_id)
        return Supply((disk_files(disk, lun, self._zones),), origins={lun: origin})

    def _contents(self, found: Resource, kind: str, *at: int | None) -> Supply:
        """The disks of a resource; a single one where `at` says."""
        luns = at or tuple(content.lun for content in found.contents)
        disks, origins = [], {}
        for lun, content in zip(luns, found.contents, strict=True):
            disks.append(base_files(self._base(content.digest, found.id), lun))
            origins[lun] = Origin(kind, found.id, found.unique_id, content.digest, content.lun)
        generalized = isinstance(found, ManagedImage) and found.os_state is OsState.GENERALIZED
        stored = found.report if isinstance(found, ManagedImage) else {}
        report = inherited(stored, found.id)
        return Supply(tuple(disks), origins=origins, generalized=generalized, report=report)

    def _version(self, version: ImageVersion, reference: str) -> Supply:
        definition = self._gallery.get_definition(version.name.definition)
        id = known_as(version, reference)
        disks, origins = [], {}
        for disk in version.disks:
            disks.append(chain_files(self._chain(version, disk, id), disk.lun))
            origins[disk.lun] = Origin("version", id, version.uid, disk.digest, disk.lun)
        description = Description(
            generation=definition.hyper_v_generation.value,
            architecture=definition.architecture.value,
            os_type=definition.os_type.value,
            nvram=self._nvram(version),
            purchase_plan=definition.purchase_plan,
            host_caching={
                disk.lun: disk.host_caching for disk in version.disks if disk.host_caching
            },
        )
        generalized = definition.os_state is OsState.GENERALIZED and version.generalized
        report = self._gallery.report(version.name)
        if report is None or digest(report) != version.report_digest:
            report = {}  # galleria verify tells of one that is not what it was
        report = inherited(report, id)
        return Supply(tuple(disks), description, origins, generalized, report)

    def _chain(self, version: ImageVersion, disk: ImageDisk, id: str) -> Chain:
        """Where a disk of a version can be read: its base; of a shallow one, which has none, its
        overlay and the source's files, if those are what they were."""
        if not is_shallow(version):
            return self._base(disk.digest, id).chain
        check_sources(version, self._pins, id if is_shared_reference(id) else "")
        return replica_chain(version, disk.lun, find_donor(version, self._zones))

    def _base(self, digest: str, owner: str) -> StoredBase:
        return sound_base(digest, self._zones, owner, self._reading)

    def _nvram(self, version: ImageVersion) -> bytes | None:
        for zones in self._zones.values():
            for zone in zones:
                if usable_version(zone, version.zone_key) is not None:
                    return zone.find_nvram(version.zone_key)
        return None

    @contextmanager
    def _captured(self, source: QemuSource) -> Iterator[Supply]:
        """A running machine's disks at one point in time. Nothing is left in it afterwards."""
        facts = self._machines.facts(source.socket)
        mark = blake3(b"publish" + str(source.socket.absolute()).encode()).hexdigest()[:32]
        request = CaptureRequest(
            source.socket, mark, whole(facts.disks), source.agent, remember=False
        )
        with self._machines.capture(request, self._progress) as capture:
            tell(capture.stall.seconds, capture.stall.reason, self._progress)
            disks = tuple(chain_files(item.chain, item.disk.lun) for item in capture.disks)
            yield Supply(disks, origins=named(disks, source))


def tell(seconds: float, reason: str, progress: Progress) -> None:
    """Say what the machine had to wait for, and whether its file systems were at rest."""
    progress.note(f"the machine waited {seconds:.3f} s at most")
    if reason:
        progress.warn(f"file systems were not frozen ({reason}): it is crash-consistent")


def described(supply: Supply, resource: Resource) -> Supply:
    """With what is known of the guest."""
    generation, os_type = resource.hyper_v_generation, resource.os_type
    capabilities = resource.supported_capabilities
    architecture = capabilities.architecture
    return replace(
        supply,
        description=Description(
            generation=generation and generation.value,
            architecture=architecture and architecture.value,
            os_type=os_type and os_type.value,
            controller=capabilities.controller,
            accelerated_network=capabilities.accelerated_network,
            purchase_plan=resource.purchase_plan,
            host_caching={
                content.lun: content.caching for content in resource.contents if content.caching
            },
        ),
    )


def known_as(version: ImageVersion, reference: str) -> str:
    """The id by which the caller knows a version: to others than its owner, the shared one."""
    return shared_name(reference, version.number) or version.name.arm_id


def named(disks: Sequence[DiskSource], source: AnySource) -> Mapping[int | None, Origin]:
    """What the disks of a source that the catalog does not know came from."""
    label = label_of(source)
    return {disk.lun: Origin(source.kind.value, label) for disk in disks}


def label_of(source: AnySource) -> str:
    """The name by which a user knows a source."""
    match source:
        case DiskSource():
            name = str(source.path.absolute())
            return f"{name}@{source.internal_snapshot}" if source.internal_snapshot else name
        case ArchiveSource():
            return source.shown if source.remote else str(source.path.absolute())
        case UrlSource():
            return public_url(source.url)
        case VmSource():
            return source.name
        case QemuSource():
            return str(source.socket.absolute())
        case VersionSource():
            return source.reference
        case StoredDiskSource() | SnapshotSource() | ManagedImageSource():
            return source.id


def find_base(digest: str, zones: Zones, owner: str) -> StoredBase:
    """A base in any zone of this host; one whose files have changed only if there is no other.
    Raises NotFound."""
    for zone in every_zone(zones):
        if (usable := usable_base(zone, digest)) is not None:
            return usable
    for zone in every_zone(zones):
        with suppress(OSError, GalleriaError):
            if (changed := zone.find_base(digest)) is not None:
                return changed
    raise NotFound(
        f"no zone on this host holds the content {digest[:16]}... of {owner}",
        hint="galleria doctor shows the zones; mount the one that holds it",
    )


def sound_base(digest: str, zones: Zones, owner: str, reading: Reading) -> StoredBase:
    """A base in any zone of this host that is sound, and was read not long ago, or is now: what is
    made of it inherits what is in it. Raises NotFound, and the VerificationFailed of one that is
    not sound when there is no other."""
    first: GalleriaError | None = None
    for zone in every_zone(zones):
        try:
            if (base := check_base(zone, digest, reading, reused=True)) is not None:
                return base
        except OSError:
            continue
        except GalleriaError as error:
            first = first or error
    if first is not None:
        raise first
    return find_base(digest, zones, owner)


def base_files(base: StoredBase, lun: int | None) -> DiskSource:
    return chain_files(base.chain, lun)


def chain_files(chain: Chain, lun: int | None) -> DiskSource:
    """A chain as a declared disk."""
    top, *below = chain
    backing = tuple(Backing(layer.path, layer.format) for layer in below)
    return DiskSource(lun, top.path, declared=top.format, backing=backing)


def disk_files(disk: Disk, lun: int | None, zones: Zones) -> DiskSource:
    """The files of one of galleria's own disks: its own, and the base that it depends on."""
    if disk.file is None:
        raise NotFound(f"the disk {disk.name} has no file")
    format = ImageFormat(disk.file.format)
    below: tuple[Backing, ...] = ()
    if format is ImageFormat.QCOW2 and disk.contents:
        base = find_base(disk.contents[0].digest, zones, disk.id)
        below = tuple(Backing(layer.path, layer.format) for layer in base.chain)
    return DiskSource(lun, Path(disk.file.path), declared=format, backing=below)


_: type[Sources] = StoredSources
