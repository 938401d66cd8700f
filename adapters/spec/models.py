"""What the documents of a build spec may say, and the JSON schema of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    TypeAdapter,
    model_validator,
)
from pydantic.alias_generators import to_camel

from adapters.spec.texts import (
    NEXT_PATCH,
    ChecksumText,
    Count,
    DateText,
    DefinitionText,
    DiskText,
    GalleryText,
    GuestPathText,
    OperationText,
    PathText,
    ProfileText,
    RegionText,
    VersionText,
    by,
)
from pipeline.guest.profiles import DEFAULT
from pipeline.model import (
    Architecture,
    HostCaching,
    HyperVGeneration,
    OsState,
    OsType,
    ReplicationMode,
    SharingPermissions,
    SignatureTemplate,
    StorageAccountStrategy,
    StorageAccountType,
)
from pipeline.model.names import parse_number

SCHEMA_FILE = Path(__file__).with_name("spec.schema.json")
NAME = r"[A-Za-z_][A-Za-z0-9_-]*"  # of a variable, or of an axis of a matrix
BUILD_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
EXCLUDE = "exclude"
MAX_VALUES = 100  # of an axis

Kind = Literal["string", "integer", "boolean", "list", "map"]
_KINDS: Mapping[type, Kind] = {str: "string", int: "integer", bool: "boolean", list: "list"}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class Variable(_Model):
    """A variable of the file. Without a default it has to be given: --var, --var-file."""

    type: Kind = "string"
    default: Any = Field(None, description="Of this type. Left out: a value must be given.")
    description: str | None = None


def _declared(value: object) -> object:
    """A variable that is given by its default alone."""
    kind = _KINDS.get(type(value))
    return value if kind is None else {"type": kind, "default": value}


VariableName = Annotated[str, StringConstraints(pattern=f"^{NAME}$", max_length=64)]
Variables = Mapping[
    VariableName,
    Annotated[
        Variable,
        BeforeValidator(_declared, json_schema_input_type=Variable | str | int | bool | list[Any]),
    ],
]
Matrix = Mapping[
    VariableName, Annotated[tuple[Any, ...], Field(min_length=1, max_length=MAX_VALUES)]
]


class Document(_Model):
    """What documents of every kind have."""

    api_version: Literal["galleria/v1"]
    variables: Variables = Field(
        default_factory=dict,
        description="Variables of all documents in the file, by name: a default, or {type, default,"
        " description}. ${var.NAME} stands for the value.",
    )
    matrix: Matrix = Field(
        default_factory=dict,
        description="Lists of values by name: the document stands for one document for each"
        " combination, in which ${matrix.NAME} is the value, ${matrix.NAME.KEY} a member of it."
        f" `{EXCLUDE}` lists the combinations that are left out.",
    )


class SafetyProfile(_Model):
    """What keeps a version from being lost."""

    allow_deletion_of_replicated_locations: bool | None = Field(
        default=None,
        description="Whether it may leave regions. Left out: only those that are named.",
    )
    block_deletion_before_end_of_life: bool = False


class UefiSettings(_Model):
    """What a Trusted Launch VM starts with."""

    signature_template_names: tuple[SignatureTemplate, ...] = ()
    additional_signatures: Mapping[str, Any] = Field(
        default_factory=dict,
        description="As Azure has them: pk, and lists kek, db, dbx, of {type: sha256 | x509,"
        " value: [base64]}.",
    )


class SecurityProfile(_Model):
    uefi_settings: UefiSettings = UefiSettings()


class Image(_Model):
    """Which version is made, and its properties."""

    gallery: GalleryText
    definition: DefinitionText
    version: VersionText = Field(description=f"Major.Minor.Patch, or {NEXT_PATCH}.")
    exclude_from_latest: bool = False
    end_of_life_date: DateText | None = Field(None, description="ISO 8601, in the future.")
    tags: Mapping[str, str] = Field(default_factory=dict)
    location: RegionText | None = Field(
        None, description="Source region. Left out: the definition's."
    )
    safety_profile: SafetyProfile = SafetyProfile()
    security_profile: SecurityProfile = SecurityProfile()


class DataDisk(_Model):
    """A data disk by its logical unit number."""

    lun: int = Field(ge=0, le=63)
    path: PathText | None = None
    backing: tuple[PathText, ...] = Field((), description="Files below it, the bottom last.")
    vhd_uri: PathText | None = Field(None, description="http(s), instead of path.")
    checksum: ChecksumText | None = Field(None, description="sha256:HEX, with vhdUri.")
    snapshot: str | None = Field(None, description="A snapshot or disk, instead of path.")

    @model_validator(mode="after")
    def _one_of_them(self) -> "DataDisk":
        if sum(item is not None for item in (self.path, self.vhd_uri, self.snapshot)) != 1:
            raise ValueError("a data disk has a path, a vhdUri or a snapshot")
        if (self.vhd_uri is None) != (self.checksum is None):
            raise ValueError("vhdUri and checksum go together")
        return self


class Plan(_Model):
    """The purchase plan of the marketplace image that the machine was made from."""

    name: str
    publisher: str
    product: str


class SourceMachine(_Model):
    """What is declared of the machine that the disks come from."""

    disk_controller_type: Literal["SCSI", "NVMe"] | None = None
    accelerated_network: bool | None = None
    purchase_plan: Plan | None = None


class SourceDisks(_Model):
    """Image files, relative to the spec (FILE@NAME picks a qcow2 internal snapshot), or URLs; or
    one whole machine."""

    os_disk: PathText | None = None
    os_disk_backing: tuple[PathText, ...] = Field((), description="Files below it, bottom last.")
    extents_from: PathText | None = Field(
        None,
        description="Where the parts of a VMDK in several files lie. Default: beside its "
        "descriptor.",
    )
    os_vhd_uri: PathText | None = Field(None, description="http(s), instead of osDisk.")
    checksum: ChecksumText | None = Field(
        None, description="sha256:HEX, with osVhdUri or a box's own URL."
    )
    os_snapshot: str | None = Field(None, description="A snapshot or disk, instead of osDisk.")
    data_disks: tuple[DataDisk, ...] = ()
    vm: PathText | None = Field(None, description="A libvirt domain's XML, or its name.")
    box: PathText | None = Field(
        None, description="A Vagrant box: file, directory, name, or URL of it or its catalog."
    )
    ova: PathText | None = Field(None, description="An OVA.")
    ova_machine: str | None = Field(None, description="Which machine of the OVA.")
    ova_configuration: str | None = Field(
        None, description="Which deployment option of the OVA. Default: the OVA's default."
    )
    qmp: PathText | None = Field(None, description="A running QEMU, by its QMP socket.")
    qga: PathText | None = Field(None, description="Its guest agent's socket, with qmp.")
    managed_image: str | None = Field(None, description="A managed image.")
    image_version: str | None = Field(None, description="A version: gallery/definition/version.")
    machine: SourceMachine = SourceMachine()

    @model_validator(mode="after")
    def _one_of_all(self) -> "SourceDisks":
        kept = (self.managed_image, self.image_version)
        whole = [
            item for item in (self.vm, self.box, self.ova, self.qmp, *kept) if item is not None
        ]
        disks = (self.os_disk, self.os_vhd_uri, self.os_snapshot)
        single = [item for item in disks if item is not None]
        if len(whole) + len(single) != 1 or (whole and self.data_disks):
            raise ValueError(
                "give one of osDisk, osVhdUri, osSnapshot (these with dataDisks), vm, box, ova, "
                "qmp, managedImage and imageVersion"
            )
        if self.qga is not None and self.qmp is None:
            raise ValueError("qga goes with qmp")
        if self.os_disk_backing and self.os_disk is None and self.vm is None:
            raise ValueError("osDiskBacking goes with osDisk or vm")
        if self.ova is None and (self.ova_machine or self.ova_configuration):
            raise ValueError("ovaMachine and ovaConfiguration go with ova")
        if self.os_vhd_uri is not None and self.checksum is None:
            raise ValueError("osVhdUri and checksum go together")
        if self.checksum is not None and "://" not in (self.os_vhd_uri or self.box or ""):
            raise ValueError("checksum goes with osVhdUri or with the URL of a box")
        return self


class Generalize(_Model):
    """How the guest is generalized. Operations: `galleria operations`."""

    profile: ProfileText = DEFAULT
    operations: tuple[OperationText, ...] = Field((), description="Only these, not the profile's.")
    enable: tuple[OperationText, ...] = Field((), description="These as well.")
    skip: tuple[OperationText, ...] = Field((), description="Not these.")
    remove_users: tuple[str, ...] = Field((), description="Remove these accounts.")
    keep_users: tuple[str, ...] = Field((), description="Keep these accounts.")
    remove_paths: tuple[GuestPathText, ...] = Field(
        (), description="Remove what these absolute paths or patterns name in the guest."
    )
    truncate_paths: tuple[GuestPathText, ...] = Field(
        (), description="Empty the files that these name."
    )
    agents: tuple[PathText, ...] = Field(
        (),
        description="TOML files (relative to the spec) that name further agents and their state.",
    )
    scripts: tuple[PathText, ...] = Field(
        (),
        description="Shell scripts (relative to the spec) to run as root inside the guest, in the "
        "appliance, without a network. Danger: they and the guest's programs can spoil the image, "
        "and make it differ from run to run.",
    )


class ReplicaSet(_Model):
    """More replicas in a region, in storage of another type."""

    storage_account_type: StorageAccountType
    regional_replica_count: Count = 1


class SpecRegion(_Model):
    """A region that the version is to be in."""

    name: RegionText
    replicas: Count | None = Field(None, description="Default: replicaCount.")
    storage_account_type: StorageAccountType | None = Field(
        None, description="Default: the version's."
    )
    exclude_from_latest: bool = False
    additional_replica_sets: tuple[ReplicaSet, ...] = ()


class EdgeZone(_Model):
    """An edge zone that the version is to be in, as well."""

    region: RegionText
    zone: RegionText
    replicas: Count | None = Field(None, description="Default: replicaCount.")
    storage_account_type: StorageAccountType | None = None


def _generalize_tag(value: object) -> str:
    return "flag" if isinstance(value, bool) else "details"


class Spec(Document):
    """One image version, built by `galleria build`."""

    kind: Literal["ImageVersion"]
    name: Annotated[str, StringConstraints(pattern=f"^{BUILD_NAME}$", max_length=100)] | None = (
        Field(
            None, description="Of the build, for --only, rows and logs. Left out: the file's name."
        )
    )
    image: Image
    source: SourceDisks
    generalize: (
        Annotated[
            Annotated[bool, Tag("flag")] | Annotated[Generalize, Tag("details")],
            Discriminator(_generalize_tag),
        ]
        | None
    ) = Field(None, description="Left out: when the definition's OS state is Generalized.")
    target_regions: tuple[SpecRegion, ...] = Field(
        (), description="Left out: the gallery's region alone."
    )
    target_edge_zones: tuple[EdgeZone, ...] = ()
    replica_count: Count | None = None
    replication_mode: ReplicationMode = Field(
        ReplicationMode.FULL, description="Shallow makes no copy."
    )
    storage_account_type: StorageAccountType | None = Field(
        None, description="Of regions that name none. Default: Standard_LRS."
    )
    storage_account_strategy: StorageAccountStrategy | None = Field(
        None, description="Instead of a type."
    )
    host_caching: Mapping[DiskText, HostCaching] = Field(
        default_factory=dict, description="By disk: os, or the LUN of a data disk."
    )
    force: bool = Field(
        False, description="Take a guest that is not generalized as one that is; recorded."
    )
    validate_for: Literal["azure"] | None = Field(
        None, alias="validate", description="Publish only what this cloud would take."
    )
    boot_check: bool = Field(False, description="Boot a clone before anything is visible.")
    preflight: bool = Field(True, description="Estimate the space first.")
    wait: Literal["first", "all", "none"] = Field(
        "all",
        description="Whose end the build waits for: the first region's, all regions', or nobody's.",
    )


class SharingKind(_Model):
    permissions: SharingPermissions


class SoftDelete(_Model):
    """Whether, and for how many days, deleted versions can be used and undeleted."""

    is_soft_delete_enabled: bool
    retention_period_in_days: int = 7
    grace_period_in_days: int = 0


class GallerySpec(Document):
    """A gallery, declared for `galleria apply`. What is left out stays as it is."""

    kind: Literal["Gallery"]
    name: GalleryText
    location: RegionText | None = Field(None, description="Default: the source region.")
    description: str | None = None
    tags: Mapping[str, str] | None = None
    sharing_profile: SharingKind | None = None
    soft_delete_policy: SoftDelete | None = None


class IdentifierSpec(_Model):
    """Publisher, offer and SKU together are unique in the gallery."""

    publisher: str
    offer: str
    sku: str


class RangeSpec(_Model):
    min: int | None = None
    max: int | None = None


class RecommendedSpec(_Model):
    """What VMs should have. Memory is in MB."""

    vcpus: RangeSpec | None = Field(None, alias="vCPUs")
    memory: RangeSpec | None = None


class DisallowedSpec(_Model):
    disk_types: tuple[str, ...]


class FeatureSpec(_Model):
    """A feature of versions; with startsAtVersion, of that one and later ones."""

    name: str
    value: str
    starts_at_version: Annotated[str, by(parse_number)] | None = None


class DefinitionSpec(Document):
    """An image definition, declared for `galleria apply`. What is left out stays as it is."""

    kind: Literal["ImageDefinition"]
    gallery: GalleryText
    name: DefinitionText
    os_type: OsType
    identifier: IdentifierSpec
    location: RegionText | None = Field(None, description="Default: the gallery's.")
    os_state: OsState | None = Field(None, description="Default: Generalized.")
    hyper_v_generation: HyperVGeneration | None = Field(None, description="Default: V2.")
    architecture: Architecture | None = Field(None, description="Default: x64.")
    description: str | None = None
    eula: str | None = None
    privacy_statement_uri: str | None = None
    release_note_uri: str | None = None
    end_of_life_date: DateText | None = None
    recommended: RecommendedSpec | None = None
    disallowed: DisallowedSpec | None = None
    features: tuple[FeatureSpec, ...] | None = None
    allow_update_image: bool = Field(False, description="Features may change.")
    purchase_plan: Plan | None = None
    tags: Mapping[str, str] | None = None


AnyDocument = Spec | GallerySpec | DefinitionSpec
MODELS: Mapping[str, type[AnyDocument]] = {
    "ImageVersion": Spec,
    "Gallery": GallerySpec,
    "ImageDefinition": DefinitionSpec,
}
REFERENCE = "Reference"


def schema() -> dict[str, Any]:
    """The JSON schema of a document (draft 2020-12)."""
    one = Annotated[AnyDocument, Field(discriminator="kind")]
    whole = TypeAdapter[Any](one).json_schema(by_alias=True)
    parts = whole["$defs"]
    for name, part in parts.items():
        if name != "Variable":
            _open_to_references(part)
    parts[REFERENCE] = {
        "description": "${var.NAME} or ${matrix.NAME}: the value is checked where it stands.",
        "type": "string",
        "pattern": r"\$\{(var|matrix)\.",
    }
    # editors take no discriminator, which is OpenAPI's
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Build spec",
        "oneOf": whole["oneOf"],
        "$defs": dict(sorted(parts.items())),
    }


def _open_to_references(part: dict[str, Any]) -> None:
    """Let a reference stand for each value of an object, and for each item of a list."""
    for name, value in part.get("properties", {}).items():
        if "const" not in value and name not in ("variables", "matrix"):
            part["properties"][name] = _or_reference(value)
    for key in ("items", "additionalProperties"):
        if isinstance(part.get(key), dict):
            part[key] = _or_reference(part[key])
    for other in part.get("anyOf", ()):
        _open_to_references(other)


def _or_reference(value: dict[str, Any]) -> dict[str, Any]:
    _open_to_references(value)
    reference = {"$ref": f"#/$defs/{REFERENCE}"}
    if set(value) <= {"type", "description", "title", "default"} and value.get("type") == "string":
        return value  # takes any text
    if "anyOf" in value:
        return {**value, "anyOf": [*value["anyOf"], reference]}
    names = ("title", "description", "default")
    about: dict[str, Any] = {key: value[key] for key in names if key in value}
    rest = {key: item for key, item in value.items() if key not in about}
    return {**about, "anyOf": [rest, reference]}
