"""Image definitions and their parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.model.kinds import Architecture, HyperVGeneration, OsState, OsType
from pipeline.model.names import DefinitionName, VersionNumber


@dataclass(frozen=True, slots=True)
class Identifier:
    """The marketplace-like triple, unique in a gallery without regard to case."""

    publisher: str
    offer: str
    sku: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.publisher.lower(), self.offer.lower(), self.sku.lower()


@dataclass(frozen=True, slots=True)
class ResourceRange:
    min: int | None = None
    max: int | None = None


@dataclass(frozen=True, slots=True)
class Recommended:
    """What a VM made from the image should have. Memory is in MB, as `az` has it."""

    vcpus: ResourceRange = field(default=ResourceRange(), metadata={"json": "vCPUs"})
    memory: ResourceRange = ResourceRange()


@dataclass(frozen=True, slots=True)
class Disallowed:
    disk_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Feature:
    """`starts_at_version` is the first version that has it; None: all."""

    name: str
    value: str
    starts_at_version: VersionNumber | None = None


@dataclass(frozen=True, slots=True)
class PurchasePlan:
    name: str
    publisher: str
    product: str


@dataclass(frozen=True, slots=True)
class ImageDefinition:
    """`location` is empty, and `created` None, of one that is asked for: the gallery says both."""

    name: DefinitionName
    location: str
    created: datetime | None = field(default=None, kw_only=True)
    os_type: OsType
    identifier: Identifier
    os_state: OsState = OsState.GENERALIZED
    hyper_v_generation: HyperVGeneration = HyperVGeneration.V2
    architecture: Architecture = Architecture.X64
    description: str = ""
    eula: str = ""
    privacy_statement_uri: str = ""
    release_note_uri: str = ""
    end_of_life_date: datetime | None = None
    recommended: Recommended = Recommended()
    disallowed: Disallowed = Disallowed()
    features: tuple[Feature, ...] = ()
    purchase_plan: PurchasePlan | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Channel:
    """A name, such as prod, for one version of a definition, given by hand."""

    definition: DefinitionName
    name: str
    version: VersionNumber
    promoted: datetime

    @property
    def arm_id(self) -> str:
        return f"{self.definition.arm_id}/channels/{self.name}"
