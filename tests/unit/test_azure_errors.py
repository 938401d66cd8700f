"""Azure's error conditions (its troubleshooting guide): a case for each, with the class, the HTTP
status, the code and the core of the message. `ELSEWHERE` are those that can't occur here, and why.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.deploying import profile
from pipeline.deploying.scale_sets import check_shape
from pipeline.errors import (
    Conflict,
    GalleriaError,
    InvalidParameter,
    NotFound,
    Refused,
    TooManyRequests,
)
from pipeline.gallery import rules
from pipeline.gallery.documents import decode, encode, parse_date
from pipeline.gallery.rules import SourceFacts, VersionChange, agreement
from pipeline.model import (
    HyperVGeneration,
    Identifier,
    ImageDefinition,
    ImageShape,
    OsProfile,
    OsState,
    OsType,
    ProvisioningState,
    PurchasePlan,
    Recommended,
    ReplicationMode,
    ResourceRange,
    SafetyProfile,
    ScaleSet,
    SourceProperties,
    StorageAccountType,
    TargetRegion,
)
from pipeline.model.names import GalleryName, parse_definition, parse_gallery, parse_number
from pipeline.model.resource_names import ResourceKind, parse_resource
from pipeline.model.sources import DiskSource, VmSource
from pipeline.resources.opening import stored_source
from pipeline.sources.supply import check_combination
from tests.samples import NOW, REGIONS, definition, gallery, request, version

EU = REGIONS[0]
DELETING = version(provisioning_state=ProvisioningState.DELETING)
V100 = version().name
SET = ScaleSet(
    "web",
    "corp/web",
    "eu",
    "/srv/vms",
    NOW,
    V100,
    ImageShape(OsType.LINUX, HyperVGeneration.V2, OsState.GENERALIZED, ()),
)
PLAN = PurchasePlan("plan", "Contoso", "web")


@dataclass(frozen=True)
class Row:
    """`row` is the condition as the guide has it."""

    row: str
    do: Callable[[], object]
    error: type[GalleriaError]
    core: str
    code: str = "InvalidParameter"
    status: int = 400


def changed(**changes: Any) -> Callable[[], object]:
    return lambda: rules.definition_put(definition(**changes), definition(), [], NOW)


def disagree(made: ImageDefinition, **facts: Any) -> Callable[[], object]:
    known = replace(SourceFacts(), **facts)
    return lambda: agreement(made, known, V100, SourceProperties())


def sources(*wanted: DiskSource | VmSource) -> Callable[[], object]:
    return lambda: check_combination(wanted)


OS, DATA = DiskSource(None, Path("os.vhd")), DiskSource(0, Path("data.vhd"))
FIXED = "PropertyChangeNotAllowed"

DEFINITION_CHANGES: dict[str, dict[str, Any]] = {
    "osType": {"os_type": OsType.WINDOWS},
    "osState": {"os_state": OsState.SPECIALIZED},
    "hyperVGeneration": {"hyper_v_generation": HyperVGeneration.V1},
    "identifier.publisher": {"identifier": Identifier("x", "web", "web")},
    "identifier.offer": {"identifier": Identifier("Contoso", "x", "web")},
    "identifier.sku": {"identifier": Identifier("Contoso", "web", "x")},
}

ROWS = [
    Row(
        "gallery name bad chars",
        lambda: parse_gallery("my-gallery"),
        InvalidParameter,
        "Gallery name is invalid: 'my-gallery'. Allowed characters are English alphanumeric "
        "characters, with underscores, and periods allowed in the middle, up to 80 characters",
    ),
    Row(
        "name ends in . or _",
        lambda: parse_gallery("corp_"),
        InvalidParameter,
        "The provided resource name 'corp_' has these invalid trailing characters: _",
    ),
    Row(
        "unknown region",
        lambda: rules.known_region("mars", REGIONS),
        InvalidParameter,
        "The provided location 'mars' is not available for resource type "
        "'Microsoft.Compute/galleries'. List of available regions for the resource type is",
        "LocationNotAvailableForResourceType",
    ),
    Row(
        "same gallery name in subscription",
        lambda: rules.gallery_put(
            gallery(), replace(gallery(), name=GalleryName("corp", resource_group="other"))
        ),
        Conflict,
        "The gallery name 'corp' is not unique within the subscription "
        "'00000000-0000-0000-0000-000000000000'. Please pick another gallery name",
        "Conflict",
        409,
    ),
    Row(
        "same id, other region",
        lambda: rules.gallery_put(gallery(location="us"), gallery()),
        Conflict,
        "The resource 'corp' already exists in location 'eu' in resource group 'galleria'. A "
        "resource with the same name cannot be created in location 'us'",
        "InvalidResourceLocation",
        409,
    ),
    Row(
        "delete non-empty",
        lambda: rules.deletable("corp", ["corp/web"]),
        Conflict,
        "Cannot delete resource 'corp' while nested resources exist. Some existing nested resource "
        "IDs include: 'corp/web'",
        "CannotDeleteResource",
        409,
    ),
    Row(
        "parent missing",
        lambda: rules.parent(None, "corp"),
        NotFound,
        "Can not perform requested operation on nested resource. Parent resource 'corp' not found",
        "ParentResourceNotFound",
        404,
    ),
    *(
        Row(
            f"changing definition {path}",
            changed(**change),
            Conflict,
            f"Changing property 'galleryImage.properties.{path}' is not allowed",
            FIXED,
            409,
        )
        for path, change in DEFINITION_CHANGES.items()
    ),
    Row(
        "definition name rule",
        lambda: parse_definition("corp/we!b"),
        InvalidParameter,
        r"The entity name 'we!b' is invalid according to its validation rule: "
        r"^[^_\W][\w-._]{0,79}(?<![-.])$",
    ),
    *(
        Row(
            f"{part} rule",
            lambda part=part, longest=longest: rules.definition_put(  # type: ignore[misc]
                definition(
                    identifier=replace(Identifier("p", "o", "s"), **{part: "x" * (longest + 1)})
                ),
                None,
                [],
                NOW,
            ),
            InvalidParameter,
            f"Asset name galleryImage.properties.identifier.{part} is not valid: "
            f"'{'x' * (longest + 1)}'. It cannot be empty. Allowed characters are uppercase or "
            "lowercase letters, digits, hyphen(-), period (.), underscore (_). Names are not "
            "allowed to end with period(.). The length of the name cannot exceed "
            f"{longest}",
        )
        for part, longest in (("publisher", 128), ("offer", 64), ("sku", 64))
    ),
    Row(
        "triple taken",
        lambda: rules.definition_put(
            definition("corp/new", identifier=Identifier("CONTOSO", "web", "web")),
            None,
            [definition()],
            NOW,
        ),
        Conflict,
        "Gallery image: 'corp/web' identified by (publisher:CONTOSO, offer:web, sku:web) already "
        "exists. Choose a different publisher, offer, sku combination",
        "Conflict",
        409,
    ),
    Row(
        "bad date",
        lambda: parse_date("tomorrow", "properties.endOfLifeDate"),
        InvalidParameter,
        "Could not convert string to DateTimeOffset: 'tomorrow'. Path 'properties.endOfLifeDate'",
        "BadRequest",
    ),
    Row(
        "EOL in the past",
        lambda: rules.end_of_life(NOW - timedelta(days=1), NOW),
        InvalidParameter,
        "EndOfLifeDate must be set to a future date",
    ),
    Row(
        "min > max",
        lambda: rules.recommended(Recommended(vcpus=ResourceRange(8, 4))),
        InvalidParameter,
        "The minimum value of recommended.vCPUs must not be greater than the maximum value",
    ),
    Row(
        "enum wrong",
        lambda: decode(ImageDefinition, {**encode(definition()), "osType": "BeOS"}),
        InvalidParameter,
        "Cannot bind parameter ImageDefinition.osType: 'BeOS' is not one of Linux, Windows",
    ),
    Row(
        "int wrong",
        lambda: decode(ResourceRange, {"min": "two"}),
        InvalidParameter,
        "Cannot bind parameter ResourceRange.min: 'two' is not an integer",
    ),
    Row(
        "unknown member",
        lambda: decode(ImageDefinition, {**encode(definition()), "osKind": "Linux"}),
        InvalidParameter,
        "Could not find member 'osKind' on object of type 'ImageDefinition'",
    ),
    Row(
        "ZRS in a region without zones",
        lambda: rules.targets(
            [TargetRegion("eu", storage_account_type=StorageAccountType.STANDARD_ZRS)], EU, REGIONS
        ),
        InvalidParameter,
        "ZRS storage account type is not supported in this region",
    ),
    *(
        Row(
            f"version name {text}",
            lambda text=text: parse_number(text),  # type: ignore[misc]
            InvalidParameter,
            f"The image version name is invalid: '{text}'. The image version name should follow "
            "Major(int).Minor(int).Patch(int) format, for e.g: 1.0.0, 2018.12.1",
        )
        for text in ("1.0", "v1.0.0", "1.0.0-rc1", "1.0.2147483648", "01.0.0")
    ),
    Row(
        "source region not targeted",
        lambda: rules.targets([TargetRegion("us")], EU, REGIONS),
        InvalidParameter,
        "Gallery image version publishing profile regions 'us' must contain the location of image "
        "version 'eu'",
    ),
    Row(
        "repeated region",
        lambda: rules.targets(
            [TargetRegion("eu"), TargetRegion("UK South"), TargetRegion("uksouth")], EU, REGIONS
        ),
        InvalidParameter,
        "Duplicate regions are not allowed in target publishing regions",
    ),
    *(
        Row(
            f"replica count {count}",
            lambda count=count: rules.targets([TargetRegion("eu", count)], EU, REGIONS),  # type: ignore[misc]
            InvalidParameter,
            f"The value {count} of parameter targetRegion.regionalReplicaCount is out of range. "
            "The value must be between 1 and 100, inclusive",
        )
        for count in (0, 101)
    ),
    Row(
        "source missing",
        lambda: rules.source_missing("web.vhd", "no such file"),
        NotFound,
        "Source 'web.vhd' is not found. Please check source exists, and is in the same region as "
        "gallery image version being created",
        "NotFound",
        404,
    ),
    Row(
        "no source",
        sources(),
        InvalidParameter,
        "a version has exactly one OS disk",
        "OSDiskRequired",
    ),
    Row(
        "two kinds of source",
        sources(VmSource("web1"), OS),
        InvalidParameter,
        "The gallery artifact version source can only be specified either directly under "
        "storageProfile or within individual OS or data disks. One and only one source type (user "
        "image, snapshot, disk, virtual machine) can be provided",
        "InvalidSource",
    ),
    Row(
        "duplicate LUN",
        sources(OS, DATA, replace(DATA, path=Path("other.vhd"))),
        InvalidParameter,
        "Duplicated lun numbers have been detected",
    ),
    Row(
        "duplicate disk id",
        sources(OS, DATA, replace(DATA, lun=1)),
        InvalidParameter,
        "Duplicated source ids",
    ),
    Row(
        "OS = data blob",
        sources(OS, replace(OS, lun=0)),
        InvalidParameter,
        "OSDiskImage and DataDiskImage cannot point to same blob",
    ),
    Row(
        "osState mismatch with parent",
        lambda: rules.version_request(
            request(generalize=True), definition(os_state=OsState.SPECIALIZED), NOW
        ),
        InvalidParameter,
        "Cannot create Gallery Image Version from: 'corp/web/1.0.0' since the OS State in the "
        "parent gallery image (Specialized) is not Generalized",
    ),
    Row(
        "a specialized source in a generalized parent",
        disagree(definition(), os_state=OsState.SPECIALIZED),
        InvalidParameter,
        "since the OS State in the parent gallery image (Generalized) is not Specialized",
    ),
    Row(
        "generation mismatch with parent",
        disagree(definition(), generations=frozenset({HyperVGeneration.V1})),
        InvalidParameter,
        "Cannot create Gallery Image Version from: 'corp/web/1.0.0' since it has a different "
        "Hypervisor generation (V1) than the parent gallery image (V2)",
    ),
    Row(
        "osType mismatch with parent",
        disagree(definition(), os_type=OsType.WINDOWS),
        InvalidParameter,
        "since it has a different OS type (Windows) than the parent gallery image (Linux)",
    ),
    Row(
        "plan mismatch",
        lambda: rules.version_request(
            request(source=SourceProperties(purchase_plan=PLAN)), definition(), NOW
        ),
        InvalidParameter,
        "The resource with id 'corp/web/1.0.0' has a different plan [name: plan, publisher: "
        "Contoso, product: web] than the parent gallery image plan [none]",
    ),
    Row(
        "disk > 2 TB in Full",
        lambda: rules.disk_limit((2 << 40) + 512, ReplicationMode.FULL, "os"),
        Refused,
        "The GalleryImageVersion source resource size 2049 exceeds the max size 2048 supported",
        "Refused",
        403,
    ),
    Row(
        "update while deleting",
        lambda: rules.not_busy(DELETING, None, operation="Update"),
        Conflict,
        "Operation 'Update Gallery Image Version' is not allowed on 'corp/web/1.0.0'; since it is "
        "marked for deletion. You can only retry the Delete operation",
        "OperationNotAllowed",
        409,
    ),
    Row(
        "EOL delete block",
        lambda: rules.version_deletable(
            version(
                end_of_life_date=NOW + timedelta(days=1),
                safety_profile=SafetyProfile(block_deletion_before_end_of_life=True),
            ),
            NOW,
        ),
        Conflict,
        "can't be deleted before its end of life",
        "DeleteGalleryImageVersionBlockedBeforeEndOfLife",
        409,
    ),
    Row(
        "SKU of an existing region changed",
        lambda: rules.changed_targets(
            version(
                target_regions=(
                    TargetRegion("eu", 2, StorageAccountType.STANDARD_LRS),
                    TargetRegion("us", None, StorageAccountType.STANDARD_LRS),
                )
            ),
            VersionChange(add=(TargetRegion("us", 1, StorageAccountType.PREMIUM_LRS),)),
            REGIONS,
        ),
        InvalidParameter,
        "Global storage account type does not match the storage account type in the existing "
        "TargetRegion: 'us'. Please specify 'Standard_LRS'",
        FIXED,
    ),
    Row(
        "deploy: no latest",
        lambda: rules.no_latest("corp/web", "eu"),
        NotFound,
        "There is no latest image version exists for 'corp/web'",
        "GalleryImageNotFound",
        404,
    ),
    Row(
        "deploy: region lacks it",
        lambda: rules.not_in_region(V100, "us"),
        NotFound,
        "The gallery image 'corp/web/1.0.0' is not available in us region. Please contact image "
        "owner to replicate to this region, or change your requested region",
        "GalleryImageNotFound",
        404,
    ),
    Row(
        "disk from version, bad LUN",
        lambda: rules.no_disk("corp/web/1.0.0", [None, 0], 3),
        InvalidParameter,
        "The value of parameter imageReference is invalid",
    ),
]

# Rows of the guide that have no case above: where they are tested, or why they can't occur.
ROWS += [
    Row(
        "DES missing",
        lambda: rules.region_encryption(["des1", "des2"], ["eu", "us"], "p"),
        InvalidParameter,
        "The disk encryption set 'des1' is not found in region 'eu'",
        "DiskEncryptionSetNotFound",
    ),
    Row(
        "one region without DES",
        lambda: rules.region_encryption(["des1", "null"], ["eu", "us"], "p"),
        InvalidParameter,
        "no disk encryption set is given for 'us'",
    ),
    Row(
        "encryption of fewer regions than there are",
        lambda: rules.region_encryption(["des1"], ["eu", "us"], "p"),
        InvalidParameter,
        "1 values for 2 target regions",
    ),
]
ROWS += [
    Row(
        "source throttled",
        lambda: rules.source_throttled("https://x.example/web.vhd", "429"),
        TooManyRequests,
        "Too many requests on source 'https://x.example/web.vhd'. Please reduce the number of "
        "requests",
        "TooManyRequests",
        429,
    ),
    Row(
        "wrong kind in source.id",
        lambda: rules.wrong_source("/subscriptions/s/x", single=False),
        InvalidParameter,
        "must either be a managed image, virtual machine or another gallery image version",
    ),
    Row(
        "wrong kind in a disk's source.id",
        lambda: stored_source(parse_resource("gold", ResourceKind.IMAGE)),
        InvalidParameter,
        "must be a managed disk or snapshot",
    ),
    Row(
        "deploy: specialized + osProfile",
        lambda: profile.check(definition(os_state=OsState.SPECIALIZED), OsProfile("web1")),
        InvalidParameter,
        "Parameter 'osProfile' is not allowed",
    ),
    Row(
        "deploy: generalized without osProfile",
        lambda: profile.check(definition(), None),
        InvalidParameter,
        "Required parameter 'osProfile' is missing (null)",
    ),
    Row(
        "scale set: OS state swap",
        lambda: check_shape(
            SET, replace(SET.shape, os_state=OsState.SPECIALIZED), "corp/own/1.0.0"
        ),
        InvalidParameter,
        "Cannot update Virtual Machine Scale Set 'web' to 'corp/own/1.0.0': current OS state is "
        "Generalized which is different from the updated OS state Specialized",
    ),
]
ELSEWHERE = {
    "source changed on update": "no command takes the sources of a version that exists",
    "data disk added / LUN moved": "the same: a version's disks are fixed when it is published",
    "ephemeral OS / UltraSSD / unmanaged disk VM": "there are no such disks here",
    "DES of another subscription / new LUN on update / ...": "there are no disk encryption sets",
    "deploy: cross-tenant": "tests/unit/test_guard.py, "
    "test_roles_reach_across_tenants_only_to_members",
}


def happen(row: Row) -> None:
    """Some rules make the error, for their caller to raise."""
    made = row.do()
    if isinstance(made, Exception):
        raise made


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.row)
def test_a_condition_is_refused_in_azures_words(row: Row) -> None:
    with pytest.raises(row.error, match=re.escape(row.core)) as caught:
        happen(row)
    assert type(caught.value) is row.error
    assert (caught.value.reason, caught.value.http_status) == (row.code, row.status)
    jargon = (
        r"properties\.|\bparameter\b|cannot bind|gallery ?image|nested resource|blob|scale set '"
    )
    assert not re.findall(jargon, caught.value.plain.lower()), "people are told in plain words"


def test_each_condition_has_one_name() -> None:
    names = [row.row for row in ROWS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(ELSEWHERE)
