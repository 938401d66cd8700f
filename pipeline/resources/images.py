"""Managed images: an OS disk and data disks, generalized, in one piece."""

from dataclasses import replace
from datetime import UTC, datetime

from pipeline.errors import InvalidParameter
from pipeline.gallery.model import OsState
from pipeline.guest.profiles import Plan
from pipeline.resources.model import ManagedImage
from pipeline.resources.names import ResourceName
from pipeline.resources.opening import label_of
from pipeline.resources.snapshots import Properties
from pipeline.resources.storing import Keeper, store, taken_back
from pipeline.sources import (
    AnySource,
    ManagedImageSource,
    SourceKind,
    VersionSource,
    check_combination,
    supplied,
)


def create_image(
    name: ResourceName,
    sources: tuple[AnySource, ...],
    plan: Plan | None,
    properties: Properties,
    keeper: Keeper,
) -> ManagedImage:
    """Make an image from a VM or from disks. `plan` generalizes them; None: they are already, as
    Azure has it, where the owner deprovisions the VM before."""
    check_combination(sources)
    for source in sources:
        if isinstance(source, ManagedImageSource | VersionSource):
            raise InvalidParameter(
                "a managed image is made from a VM or from disks, not from another image",
                hint="publish a version from it",
            )
        keeper.ports.sources.identity(source)
    machine = next((s for s in sources if s.kind is SourceKind.VIRTUAL_MACHINE), None)
    begun = keeper.resources.begin(
        ManagedImage(
            name.arm_id,
            properties.location,
            datetime.now(UTC),
            "",
            os_type=properties.os_type,
            hyper_v_generation=properties.hyper_v_generation,
            supported_capabilities=properties.capabilities,
            purchase_plan=properties.purchase_plan,
            tags=properties.tags,
            os_state=OsState.GENERALIZED,
            source_virtual_machine=label_of(machine) if machine else "",
        )
    )
    with taken_back([begun], keeper), keeper.ports.work.directory() as work:
        with supplied(sources, work, keeper.ports.sources) as supply:
            whole = replace(supply, generalized=plan is None or supply.generalized)
            made = store(begun, whole, {}, plan, work, keeper)
        return keeper.resources.finish(made)
