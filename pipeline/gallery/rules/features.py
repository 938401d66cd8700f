"""What features a definition may have, and what may be captured into it.

Names and values compare without regard to case (Azure's own tools mix `Vm` and `VM`) and are kept
in the spelling of the tables below.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pipeline.errors import InvalidParameter
from pipeline.model import (
    Feature,
    HyperVGeneration,
    ImageDefinition,
    PurchasePlan,
    SharingPermissions,
    SourceProperties,
)
from pipeline.model.names import VersionName, VersionNumber
from pipeline.model.spelling import did_you_mean

SECURITY = "SecurityType"
DISK_CONTROLLERS = "DiskControllerTypes"
ACCELERATED_NETWORK = "IsAcceleratedNetworkSupported"
HIBERNATE = "IsHibernateSupported"
STANDARD, DEFAULT_SECURITY = "Standard", "TrustedLaunchSupported"
_FLAG = ("True", "False")
VALUES: Mapping[str, tuple[str, ...]] = {
    SECURITY: (
        STANDARD,
        DEFAULT_SECURITY,
        "TrustedLaunch",
        "ConfidentialVMSupported",
        "ConfidentialVM",
        "TrustedLaunchAndConfidentialVmSupported",
    ),
    HIBERNATE: _FLAG,
    ACCELERATED_NETWORK: _FLAG,
    DISK_CONTROLLERS: ("SCSI", "NVMe", "SCSI,NVMe", "SCSI, NVMe"),
    "IsSecureBootSupported": _FLAG,
    "IsMeasuredBootSupported": _FLAG,
}
# These make VMs of that kind alone, which a gallery for others may not ask of them.
PRIVATE_ONLY = ("TrustedLaunch", "ConfidentialVM")
_ALIASES = {"diskcontrollertype": DISK_CONTROLLERS}  # as Azure's own table spells it


def completed(
    features: Iterable[Feature], generation: HyperVGeneration, kind: SharingPermissions
) -> tuple[Feature, ...]:
    """The features of a definition, in their own spelling. A V2 definition without a security type
    gets Azure's default; `Standard` declines it."""
    found = tuple(_spelled(feature) for feature in features)
    names = [feature.name for feature in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidParameter(f"The feature '{name}' is given more than once.")
    security = next((item.value for item in found if item.name == SECURITY), None)
    if generation is HyperVGeneration.V2 and security is None:
        return (Feature(SECURITY, DEFAULT_SECURITY), *found)
    allowed(security, generation, kind)
    return found


def allowed(security: str | None, generation: HyperVGeneration, kind: SharingPermissions) -> None:
    """Whether a security type fits the generation and the kind of the gallery."""
    if security in (None, STANDARD):
        return
    if generation is HyperVGeneration.V1:
        raise InvalidParameter(
            f"The security type '{security}' is not supported for Hypervisor generation 'V1'.",
            hint="security types need UEFI: use --hyper-v-generation V2",
        )
    if security in PRIVATE_ONLY and kind is not SharingPermissions.PRIVATE:
        raise InvalidParameter(
            f"The security type '{security}' is not supported in a gallery whose sharing "
            f"permissions are '{kind.value}'; it needs 'Private'."
        )


def security_type(definition: ImageDefinition) -> str:
    """As the definition says; Standard when it says nothing."""
    return value_of(definition, SECURITY) or STANDARD


def value_of(
    definition: ImageDefinition, name: str, number: VersionNumber | None = None
) -> str | None:
    """A feature's value; with a number, only if that version has it already."""
    for feature in definition.features:
        begins = feature.starts_at_version
        if feature.name == name and (number is None or begins is None or begins <= number):
            return feature.value
    return None


def capture(definition: ImageDefinition, source: SourceProperties, name: VersionName) -> None:
    """Whether what is declared of the source fits what the definition promises."""
    number = name.number
    controllers = (value_of(definition, DISK_CONTROLLERS, number) or "SCSI").lower()
    wanted = source.disk_controller_type
    if wanted is not None and wanted.lower() not in ("scsi", "nvme"):
        raise InvalidParameter(
            f"Cannot bind parameter diskControllerType: {wanted!r} is not one of SCSI, NVMe.",
            plain=f"there is no disk controller {wanted!r}: it is SCSI or NVMe",
        )
    if wanted is not None and wanted.lower() == "nvme" and "nvme" not in controllers:
        raise _unfit(
            name,
            f"its disk controller type 'NVMe' is not among those of the parent gallery image "
            f"('{value_of(definition, DISK_CONTROLLERS, number) or 'SCSI'}')",
            "use a definition with --features DiskControllerTypes=SCSI,NVMe",
        )
    fast = value_of(definition, ACCELERATED_NETWORK, number) == "True"
    if fast and source.accelerated_network is False:
        raise _unfit(
            name,
            f"it does not support accelerated networking and the parent gallery image says "
            f"{ACCELERATED_NETWORK}=True",
            "use a definition without that feature",
        )
    plan = source.purchase_plan
    if plan is not None and plan != definition.purchase_plan:
        raise InvalidParameter(
            f"The resource with id '{name}' has a different plan [{_plan(plan)}] than the parent "
            f"gallery image plan [{_plan(definition.purchase_plan)}].",
            plain=f"the source of {name} has the purchase plan {_plan(plan)}, and the definition "
            f"has {_plan(definition.purchase_plan)}",
            hint="a marketplace image's plan goes with all that is made from it: use a definition "
            "with that plan",
        )


def _spelled(feature: Feature) -> Feature:
    lower = feature.name.lower()
    name = _ALIASES.get(lower) or next((n for n in VALUES if n.lower() == lower), None)
    if name is None:
        raise InvalidParameter(
            f"The feature {feature.name!r} is not known.",
            plain=f"there is no feature {feature.name!r}{did_you_mean(feature.name, VALUES)}",
            hint=f"features: {', '.join(VALUES)}",
        )
    for value in VALUES[name]:
        if value.lower() == feature.value.lower():
            return replace(feature, name=name, value=value.replace(" ", ""))
    raise InvalidParameter(
        f"Cannot bind parameter features.{name}: {feature.value!r} is not one of "
        f"{', '.join(VALUES[name])}.",
        plain=f"the feature {name} can't be {feature.value!r}: it is one of "
        f"{', '.join(VALUES[name])}",
    )


def _unfit(name: VersionName, why: str, hint: str) -> InvalidParameter:
    return InvalidParameter(
        f"Cannot create Gallery Image Version from: '{name}' since {why}.",
        plain=f"{name}: {why.replace('the parent gallery image', 'the definition')}",
        hint=hint,
    )


def _plan(plan: PurchasePlan | None) -> str:
    if plan is None:
        return "none"
    return f"name: {plan.name}, publisher: {plan.publisher}, product: {plan.product}"
