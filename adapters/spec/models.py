"""What a build spec may say, and the JSON schema of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
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
)
from pipeline.guest.profiles import DEFAULT
from pipeline.model import (
    HostCaching,
    ReplicationMode,
    SignatureTemplate,
    StorageAccountStrategy,
    StorageAccountType,
)

SCHEMA_FILE = Path(__file__).with_name("spec.schema.json")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


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


class Spec(_Model):
    """One image version, built by `galleria build`."""

    api_version: Literal["galleria/v1"]
    kind: Literal["ImageVersion"]
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


def schema() -> dict[str, Any]:
    """The JSON schema of a spec (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Spec.model_json_schema(by_alias=True),
    }
