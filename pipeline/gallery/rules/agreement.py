"""Whether a definition's declared properties agree with what inspection of the disks found."""

from dataclasses import dataclass

from pipeline.errors import InvalidParameter
from pipeline.model import (
    Architecture,
    HyperVGeneration,
    ImageDefinition,
    OsState,
    OsType,
    SourceProperties,
)
from pipeline.model.names import VersionName


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known of the disks. None, or no generation, means that nothing is; several
    generations, that the disk boots in each."""

    os_type: OsType | None = None
    generations: frozenset[HyperVGeneration] = frozenset()
    architecture: Architecture | None = None
    os_state: OsState | None = None


def agreement(
    definition: ImageDefinition, facts: SourceFacts, name: VersionName, source: SourceProperties
) -> tuple[str, ...]:
    """The declared properties that nothing could be compared with, by Azure's names. Raises
    InvalidParameter with both values for one that is contradicted."""
    unverified = []
    generation = definition.hyper_v_generation
    if not facts.generations:
        unverified.append("hyperVGeneration")
    elif generation not in facts.generations:
        found = "/".join(sorted(item.value for item in facts.generations))
        raise _contradiction(
            name,
            f"it has a different Hypervisor generation ({found}) than the parent gallery image "
            f"({generation.value})",
            f"they boot as generation {found}, and the definition says {generation.value}",
        )
    if facts.os_type is None:
        unverified.append("osType")
    elif facts.os_type is not definition.os_type:
        raise _contradiction(
            name,
            f"it has a different OS type ({facts.os_type.value}) than the parent gallery image "
            f"({definition.os_type.value})",
            f"they hold {facts.os_type.value}, and the definition says {definition.os_type.value}",
        )
    if facts.architecture is None:
        unverified.append("architecture")
    elif facts.architecture is not definition.architecture:
        raise _contradiction(
            name,
            f"it has a different architecture ({facts.architecture.value}) than the parent gallery "
            f"image ({definition.architecture.value})",
            f"they are for {facts.architecture.value}, and the definition says "
            f"{definition.architecture.value}",
        )
    if definition.os_state is OsState.GENERALIZED and facts.os_state is None:
        unverified.append("osState")
    elif definition.os_state is OsState.GENERALIZED and facts.os_state is OsState.SPECIALIZED:
        raise _contradiction(
            name,
            "the OS State in the parent gallery image (Generalized) is not Specialized",
            "they are Specialized, and the definition says Generalized",
        )
    if definition.purchase_plan is not None and source.purchase_plan is None:
        unverified.append("purchasePlan")
    return tuple(unverified)


def _contradiction(name: VersionName, why: str, plain: str) -> InvalidParameter:
    return InvalidParameter(
        f"Cannot create Gallery Image Version from: '{name}' since {why}.",
        plain=f"the disks do not fit {name.definition}: {plain}",
        hint="publish into a definition that says what these disks are (definition create "
        "--hyper-v-generation, --os-type, --architecture)",
    )
