"""What the description of a VM says of it, whatever describes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.model.definitions import PurchasePlan
from pipeline.model.kinds import HostCaching


@dataclass(frozen=True, slots=True)
class Description:
    """What a VM's description says, in Azure's words; None where it does not say.

    `controller` is SCSI or NVMe. `nvram` is the VM's UEFI variable store; `purchase_plan` that of
    the marketplace image that it comes from, however many copies ago; `host_caching` is by LUN.
    """

    generation: str | None = None  # V1, V2
    architecture: str | None = None  # x64, Arm64
    controller: str | None = None
    os_type: str | None = None  # Linux, Windows
    nvram: bytes | None = None
    accelerated_network: bool | None = None
    purchase_plan: PurchasePlan | None = None
    host_caching: Mapping[int | None, HostCaching] = field(default_factory=dict)
