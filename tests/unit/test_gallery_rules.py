"""One case a rule: its error class, Azure's code, and the core of Azure's message."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from pipeline.errors import Conflict, GalleriaError, HeldByRun, InvalidParameter, NotFound, Refused
from pipeline.gallery import rules
from pipeline.model import (
    Architecture,
    Disallowed,
    Feature,
    Gallery,
    HyperVGeneration,
    Identifier,
    ImageDefinition,
    OsState,
    OsType,
    ProvisioningState,
    PurchasePlan,
    Recommended,
    Region,
    RegionStatus,
    ReplicationMode,
    ReplicationState,
    ResourceRange,
    SafetyProfile,
    StorageAccountType,
    TargetRegion,
)
from pipeline.model.names import GalleryName
from pipeline.model.runs import Held, Run, RunKind
from tests.samples import NOW, OWNER, REGIONS, definition, gallery, request, version

EU = REGIONS[0]
PAST, FUTURE = NOW - timedelta(days=1), NOW + timedelta(days=1)
ZRS = StorageAccountType.STANDARD_ZRS
LRS = StorageAccountType.STANDARD_LRS
OTHER_GROUP = GalleryName("Corp", resource_group="other")
FAILED_EVERYWHERE = version(
    provisioning_state=ProvisioningState.FAILED,
    regions=(RegionStatus("eu", ReplicationState.FAILED), RegionStatus("us")),
)
PARTIAL = version(
    provisioning_state=ProvisioningState.FAILED,
    regions=(
        RegionStatus("eu", ReplicationState.COMPLETED, 100),
        RegionStatus("us", ReplicationState.FAILED),
    ),
)
CREATING = version(
    provisioning_state=ProvisioningState.CREATING,
    regions=(RegionStatus("eu"), RegionStatus("us")),
    owner=OWNER,
    owned_since=NOW,
)
HELD = Held(Run(OWNER, RunKind.PUBLISH, "/", NOW, host="build1"))
DELETING = version(provisioning_state=ProvisioningState.DELETING)


def put(old: ImageDefinition | None = None, **changes: Any) -> Callable[[], object]:
    new = definition(**changes)
    siblings = [definition("corp/db", identifier=Identifier("Contoso", "web", "DB"))]
    return lambda: rules.definition_put(new, old, siblings, NOW)


def changed(**changes: Any) -> Callable[[], object]:
    return put(definition(), **changes)


def targets(*wanted: TargetRegion, mode: ReplicationMode = ReplicationMode.FULL) -> object:
    return rules.targets(wanted, EU, REGIONS, mode)


@dataclass(frozen=True)
class Case:
    rule: str
    do: Callable[[], object]
    error: type[GalleriaError]
    code: str
    core: str


CHANGES: dict[str, dict[str, Any]] = {
    "osType": {"os_type": OsType.WINDOWS},
    "osState": {"os_state": OsState.SPECIALIZED},
    "hyperVGeneration": {"hyper_v_generation": HyperVGeneration.V1},
    "architecture": {"architecture": Architecture.ARM64},
    "identifier.publisher": {"identifier": Identifier("Fabrikam", "web", "web")},
    "identifier.offer": {"identifier": Identifier("Contoso", "mail", "web")},
    "identifier.sku": {"identifier": Identifier("Contoso", "web", "back")},
    "eula": {"eula": "x"},
    "privacyStatementUri": {"privacy_statement_uri": "x"},
    "disallowed": {"disallowed": Disallowed(("Standard_LRS",))},
    "features": {"features": (Feature("SecurityType", "Standard"),)},
    "purchasePlan": {"purchase_plan": PurchasePlan("a", "b", "c")},
}
INVALID, NOT_CHANGED = "InvalidParameter", "PropertyChangeNotAllowed"
CASES = [
    Case(
        "unknown region",
        lambda: rules.known_region("mars", REGIONS),
        InvalidParameter,
        "LocationNotAvailableForResourceType",
        "The provided location 'mars' is not available for resource type "
        "'Microsoft.Compute/galleries'. List of available regions for the resource type is "
        "'UK South, eu, us'",
    ),
    Case(
        "gallery in another resource group",
        lambda: rules.gallery_put(gallery(), Gallery(OTHER_GROUP, "eu", NOW)),
        Conflict,
        "Conflict",
        "The gallery name 'corp' is not unique within the subscription "
        "'00000000-0000-0000-0000-000000000000'. Please pick another gallery name",
    ),
    Case(
        "gallery in another region",
        lambda: rules.gallery_put(gallery(location="us"), gallery()),
        Conflict,
        "InvalidResourceLocation",
        "The resource 'corp' already exists in location 'eu' in resource group 'galleria'. A "
        "resource with the same name cannot be created in location 'us'",
    ),
    Case(
        "delete what is not empty",
        lambda: rules.deletable("corp", ["corp/web"]),
        Conflict,
        "CannotDeleteResource",
        "Cannot delete resource 'corp' while nested resources exist. Some existing nested resource "
        "IDs include: 'corp/web'",
    ),
    Case(
        "parent missing",
        lambda: rules.parent(None, "corp"),
        NotFound,
        "ParentResourceNotFound",
        "Can not perform requested operation on nested resource. Parent resource 'corp' not found",
    ),
    Case(
        "resource missing",
        lambda: rules.existing(None, "corp"),
        NotFound,
        "ResourceNotFound",
        "The resource 'corp' was not found",
    ),
    Case(
        "triple taken, in another case",
        put(identifier=Identifier("CONTOSO", "Web", "db")),
        Conflict,
        "Conflict",
        "Gallery image: 'corp/db' identified by (publisher:CONTOSO, offer:Web, sku:db) already "
        "exists. Choose a different publisher, offer, sku combination",
    ),
    Case(
        "publisher rule",
        put(identifier=Identifier("", "web", "x")),
        InvalidParameter,
        INVALID,
        "Asset name galleryImage.properties.identifier.publisher is not valid: ''. It cannot be "
        "empty",
    ),
    Case(
        "end of life in the past",
        put(end_of_life_date=PAST),
        InvalidParameter,
        INVALID,
        "EndOfLifeDate must be set to a future date",
    ),
    Case(
        "vCPU minimum above maximum",
        put(recommended=Recommended(vcpus=ResourceRange(8, 4))),
        InvalidParameter,
        INVALID,
        "The minimum value of recommended.vCPUs must not be greater than the maximum value",
    ),
    Case(
        "memory minimum above maximum",
        put(recommended=Recommended(memory=ResourceRange(8, 4))),
        InvalidParameter,
        INVALID,
        "The minimum value of recommended.memory must not be greater than the maximum value",
    ),
    Case(
        "no vCPU",
        put(recommended=Recommended(vcpus=ResourceRange(max=0))),
        InvalidParameter,
        INVALID,
        "The value 0 of parameter recommended.vCPUs is out of range",
    ),
    *(
        Case(
            f"immutable {path}",
            changed(**change),
            Conflict,
            NOT_CHANGED,
            f"Changing property 'galleryImage.properties.{path}' is not allowed",
        )
        for path, change in CHANGES.items()
    ),
    Case(
        "definition in another region",
        changed(location="us"),
        Conflict,
        "InvalidResourceLocation",
        "The resource 'corp/web' already exists in location 'eu'",
    ),
    Case(
        "source region not targeted",
        lambda: targets(TargetRegion("us")),
        InvalidParameter,
        INVALID,
        "Gallery image version publishing profile regions 'us' must contain the location of image "
        "version 'eu'",
    ),
    Case(
        "repeated region, in another spelling",
        lambda: targets(TargetRegion("eu"), TargetRegion("UK South"), TargetRegion("uksouth", 2)),
        InvalidParameter,
        INVALID,
        "Duplicate regions are not allowed in target publishing regions: 'UK South'",
    ),
    Case(
        "unknown target region",
        lambda: targets(TargetRegion("eu"), TargetRegion("mars")),
        InvalidParameter,
        "LocationNotAvailableForResourceType",
        "The provided location 'mars' is not available for resource type "
        "'Microsoft.Compute/galleries/images/versions'",
    ),
    *(
        Case(
            f"{count} replicas in a region",
            functools.partial(targets, TargetRegion("eu", count)),
            InvalidParameter,
            INVALID,
            f"The value {count} of parameter targetRegion.regionalReplicaCount is out of range. "
            "The value must be between 1 and 100, inclusive",
        )
        for count in (-1, 0, 101)
    ),
    Case(
        "common replica count",
        lambda: rules.version_request(request(replica_count=0), definition(), NOW),
        InvalidParameter,
        INVALID,
        "The value 0 of parameter publishingProfile.replicaCount is out of range. The value must "
        "be between 1 and 100, inclusive",
    ),
    Case(
        "ZRS without zones",
        lambda: targets(TargetRegion("eu", storage_account_type=ZRS)),
        InvalidParameter,
        INVALID,
        "ZRS storage account type is not supported in this region: 'eu'",
    ),
    Case(
        "shallow in two regions",
        lambda: targets(TargetRegion("eu"), TargetRegion("us"), mode=ReplicationMode.SHALLOW),
        InvalidParameter,
        INVALID,
        "replication mode Shallow exists in its source region only, with one replica",
    ),
    Case(
        "shallow with two replicas",
        lambda: targets(TargetRegion("eu", 2), mode=ReplicationMode.SHALLOW),
        InvalidParameter,
        INVALID,
        "replication mode Shallow exists in its source region only, with one replica",
    ),
    Case(
        "version's end of life in the past",
        lambda: rules.version_request(request(end_of_life_date=PAST), definition(), NOW),
        InvalidParameter,
        INVALID,
        "EndOfLifeDate must be set to a future date",
    ),
    Case(
        "generalize for a specialized definition",
        lambda: rules.version_request(
            request(generalize=True), definition(os_state=OsState.SPECIALIZED), NOW
        ),
        InvalidParameter,
        INVALID,
        "since the OS State in the parent gallery image (Specialized) is not Generalized",
    ),
    Case(
        "duplicate LUN",
        lambda: rules.version_request(request(luns=(0, 1, 0)), definition(), NOW),
        InvalidParameter,
        INVALID,
        "Duplicated lun numbers have been detected: 0",
    ),
    Case(
        "negative LUN",
        lambda: rules.version_request(request(luns=(-1,)), definition(), NOW),
        InvalidParameter,
        INVALID,
        "The value -1 of parameter lun is out of range",
    ),
    Case(
        "disk over 2 TiB, full",
        lambda: rules.disk_limit((2 << 40) + 512, ReplicationMode.FULL, "os"),
        Refused,
        "Refused",
        "The GalleryImageVersion source resource size 2049 exceeds the max size 2048 supported",
    ),
    Case(
        "disk over 32 TiB, shallow",
        lambda: rules.disk_limit((32 << 40) + 512, ReplicationMode.SHALLOW, "os"),
        Refused,
        "Refused",
        "exceeds the max size 32768 supported",
    ),
    Case(
        "number taken",
        lambda: rules.number_free(version(), "f1", None),
        Conflict,
        "Conflict",
        "The image version 'corp/web/1.0.0' already exists: its content is immutable",
    ),
    Case(
        "number usable somewhere with other content",
        lambda: rules.number_free(PARTIAL, "f2", None),
        Conflict,
        "Conflict",
        "The image version 'corp/web/1.0.0' is unfinished but usable in eu, from other sources",
    ),
    Case(
        "number being published",
        lambda: rules.number_free(CREATING, "f1", HELD),
        HeldByRun,
        "Conflict",
        "run 0123456789ab (publish) on build1 has been working on it since "
        "2026-11-01T12:00:00+00:00",
    ),
    Case(
        "number being deleted",
        lambda: rules.number_free(DELETING, "f1", None),
        Conflict,
        "OperationNotAllowed",
        "Operation 'Create Gallery Image Version' is not allowed on 'corp/web/1.0.0'; since it is "
        "marked for deletion. You can only retry the Delete operation",
    ),
    Case(
        "replicate while deleting",
        lambda: rules.not_busy(DELETING, None, operation="Update"),
        Conflict,
        "OperationNotAllowed",
        "Operation 'Update Gallery Image Version' is not allowed on 'corp/web/1.0.0'; since it is "
        "marked for deletion. You can only retry the Delete operation",
    ),
    Case(
        "replicate from nothing",
        lambda: rules.has_source(FAILED_EVERYWHERE),
        Conflict,
        "Conflict",
        "is not Completed in any region: there is nothing to replicate from",
    ),
    Case(
        "other replica count where Completed",
        lambda: rules.replication_put(version(), [TargetRegion("eu", 3)]),
        Conflict,
        NOT_CHANGED,
        "is not allowed for region 'eu', where 'corp/web/1.0.0' is Completed",
    ),
    Case(
        "delete before end of life",
        lambda: rules.version_deletable(
            version(
                end_of_life_date=FUTURE,
                safety_profile=SafetyProfile(block_deletion_before_end_of_life=True),
            ),
            NOW,
        ),
        Conflict,
        "DeleteGalleryImageVersionBlockedBeforeEndOfLife",
        "can't be deleted before its end of life",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_refused(case: Case) -> None:
    with pytest.raises(case.error, match=re.escape(case.core)) as caught:
        case.do()
    assert type(caught.value) is case.error
    assert caught.value.reason == case.code


def test_the_allowed_neighbours_of_every_refusal() -> None:
    assert rules.known_region("uk SOUTH", REGIONS) == REGIONS[2]
    rules.gallery_put(gallery("CORP", location="EU", description="new"), gallery())
    rules.deletable("corp", [])
    put(end_of_life_date=FUTURE, recommended=Recommended(ResourceRange(2, 2), ResourceRange(1)))()
    put(identifier=Identifier("Contoso", "web", "other"))()
    rules.version_request(request(replica_count=100, luns=(0, 63)), definition(), NOW)
    rules.version_request(request(generalize=False), definition(os_state=OsState.SPECIALIZED), NOW)
    rules.version_request(request(generalize=False), definition(), NOW)
    rules.disk_limit(2 << 40, ReplicationMode.FULL, "os")
    rules.disk_limit(32 << 40, ReplicationMode.SHALLOW, "os")
    rules.number_free(None, "f1", None)
    rules.number_free(CREATING, "f2", None)
    rules.number_free(FAILED_EVERYWHERE, "f2", None)
    rules.number_free(PARTIAL, "f1", None)
    rules.not_busy(DELETING, None, operation="Delete")
    rules.replication_put(PARTIAL, [TargetRegion("eu", 2), TargetRegion("us", 9)])
    blocked = SafetyProfile(block_deletion_before_end_of_life=True)
    rules.version_deletable(version(safety_profile=blocked), NOW)
    rules.version_deletable(version(safety_profile=blocked, end_of_life_date=NOW), NOW)
    rules.version_deletable(version(end_of_life_date=FUTURE), NOW)


def test_what_may_change_of_a_definition() -> None:
    changed(
        description="new",
        release_note_uri="https://new",
        end_of_life_date=FUTURE,
        recommended=Recommended(ResourceRange(1, 2)),
        tags={"a": "b"},
    )()


def test_an_end_of_life_that_has_passed_meanwhile_does_not_stop_other_changes() -> None:
    put(definition(end_of_life_date=PAST), end_of_life_date=PAST, description="new")()


def test_targets_are_the_source_region_by_default_and_spelt_as_configured() -> None:
    assert rules.targets((), EU, REGIONS) == (TargetRegion("eu", None, LRS),)
    wanted = (TargetRegion("EU", 99), TargetRegion("uksouth", exclude_from_latest=True))
    assert rules.targets(wanted, EU, REGIONS) == (
        TargetRegion("eu", 99, LRS),
        TargetRegion("UK South", None, LRS, exclude_from_latest=True),
    )


def test_a_region_with_zones_takes_zrs() -> None:
    zoned = Region("eu", (StorageAccountType.STANDARD_LRS, ZRS))
    wanted = (TargetRegion("eu", storage_account_type=ZRS),)
    assert rules.targets(wanted, zoned, (zoned,)) == wanted


@pytest.mark.parametrize(
    ("regional", "common", "effective"), [(None, None, 1), (None, 3, 3), (2, 3, 2), (2, None, 2)]
)
def test_the_replica_count_of_a_region(
    regional: int | None, common: int | None, effective: int
) -> None:
    target = TargetRegion("eu", regional)
    assert version(replica_count=common).replicas_in(target) == effective
