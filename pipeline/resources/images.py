"""Managed images: an OS disk and data disks, generalized, in one piece."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pipeline.errors import InvalidParameter
from pipeline.gallery import rules
from pipeline.guest.profiles import Plan
from pipeline.jobs.context import JobContext
from pipeline.jobs.running import running, when_free
from pipeline.model import HostCaching, OsState, StorageAccountType
from pipeline.model.resource_names import ResourceName
from pipeline.model.resources import ManagedImage
from pipeline.model.runs import RunKind
from pipeline.model.sources import AnySource, ManagedImageSource, SourceKind, VersionSource
from pipeline.resources.opening import label_of
from pipeline.resources.snapshots import Properties, blank
from pipeline.resources.storing import Intake, store_resource, taken_back
from pipeline.sources.supply import check_combination, supplied

_STANDARD = StorageAccountType.STANDARD_LRS


@dataclass(frozen=True, slots=True)
class Storage:
    """Where an image is stored, and how VMs made from it cache its disks: `os_caching`,
    `data_caching`, or by LUN; None is what suits the storage."""

    storage_account_type: StorageAccountType | None = None
    zone_resilient: bool = False
    os_caching: HostCaching | None = None
    data_caching: HostCaching | None = None
    data_caching_by_lun: Mapping[int | None, HostCaching] = field(default_factory=dict)

    @property
    def kind(self) -> StorageAccountType:
        """Its storage account type: that of zone-resilient ones is Standard_ZRS."""
        zrs = StorageAccountType.STANDARD_ZRS
        return zrs if self.zone_resilient else self.storage_account_type or _STANDARD

    def caching(self, luns: Iterable[int | None]) -> dict[int | None, HostCaching]:
        """Of every disk. Azure's defaults: None on standard storage, ReadOnly on premium."""
        premium = self.kind is StorageAccountType.PREMIUM_LRS
        usual = HostCaching.READ_ONLY if premium else HostCaching.NONE
        of_data = self.data_caching or usual
        luns = tuple(luns)
        rules.caching(self.data_caching_by_lun, luns)
        return {
            lun: (self.os_caching or usual)
            if lun is None
            else self.data_caching_by_lun.get(lun, of_data)
            for lun in luns
        }


def create_image(
    name: ResourceName,
    sources: tuple[AnySource, ...],
    plan: Plan | None,
    properties: Properties,
    context: JobContext,
    storage: Storage | None = None,
) -> ManagedImage:
    """Make an image from a VM or from disks. `plan` generalizes them; None: they are already, as
    Azure has it, where the owner deprovisions the VM before."""
    storage = storage or Storage()
    wanted = wanted_image(name, sources, properties, context, storage)
    with running(context, RunKind.IMAGE, name.arm_id) as context:
        begun = when_free(lambda: context.resources.begin(wanted), context)
        return made_from(begun, sources, plan, storage, context)


def wanted_image(
    name: ResourceName,
    sources: tuple[AnySource, ...],
    properties: Properties,
    context: JobContext,
    storage: Storage,
) -> ManagedImage:
    """The image that is to be made, if its sources are there and may be used."""
    check_combination(sources)
    rules.image_storage(storage.storage_account_type, zone_resilient=storage.zone_resilient)
    context.resources.check_storage(name, properties.location, storage.kind)
    for source in sources:
        if isinstance(source, ManagedImageSource | VersionSource):
            raise InvalidParameter(
                "a managed image is made from a VM or from disks, not from another image",
                hint="publish a version from it",
            )
        context.sources.identity(source)
    machine = next((s for s in sources if s.kind is SourceKind.VIRTUAL_MACHINE), None)
    return replace(
        blank(ManagedImage, name, properties),
        os_state=OsState.GENERALIZED,
        source_virtual_machine=label_of(machine) if machine else "",
        storage_account_type=storage.kind,
        zone_resilient=storage.zone_resilient,
    )


def made_from(
    begun: ManagedImage,
    sources: tuple[AnySource, ...],
    plan: Plan | None,
    storage: Storage,
    context: JobContext,
) -> ManagedImage:
    """An image that has been begun, with the content of its sources."""
    with taken_back([begun], context), context.work.directory() as work:
        with supplied(sources, work, context.sources) as supply:
            caching = storage.caching(disk.lun for disk in supply.disks)
            whole = replace(
                supply,
                generalized=plan is None or supply.generalized,
                description=replace(supply.description, host_caching=caching),
            )
            made = store_resource(begun, Intake(whole, plan=plan), work, context)
        return context.records.finish_resource(made)
