"""Documents: Azure's names, an exact round trip, and exact errors."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from pipeline.errors import InvalidParameter
from pipeline.gallery.documents import decode, encode, parse_date
from pipeline.model import (
    Disallowed,
    Feature,
    Gallery,
    ImageDefinition,
    ImageVersion,
    PurchasePlan,
    Recommended,
    RegionResult,
    RegionStatus,
    ReplicationState,
    ResourceRange,
    SafetyProfile,
    StorageAccountType,
    TargetRegion,
)
from tests import samples

FULL = samples.definition(
    description="a web server",
    eula="eula",
    privacy_statement_uri="https://p",
    release_note_uri="https://r",
    end_of_life_date=datetime(2030, 1, 31, tzinfo=UTC),
    recommended=Recommended(ResourceRange(2, 4), ResourceRange(min=1024)),
    disallowed=Disallowed(("Standard_LRS",)),
    features=(Feature("SecurityType", "Standard"),),
    purchase_plan=PurchasePlan("n", "p", "q"),
    tags={"team": "web"},
)


def test_a_definition_has_azures_property_names() -> None:
    document = encode(FULL)
    assert document["osType"] == "Linux"
    assert document["osState"] == "Generalized"
    assert document["hyperVGeneration"] == "V2"
    assert document["architecture"] == "x64"
    assert document["identifier"] == {"publisher": "Contoso", "offer": "web", "sku": "web"}
    assert document["privacyStatementUri"] == "https://p"
    assert document["releaseNoteUri"] == "https://r"
    assert document["endOfLifeDate"] == "2030-01-31T00:00:00Z"
    assert document["recommended"] == {"vCPUs": {"min": 2, "max": 4}, "memory": {"min": 1024}}
    assert document["disallowed"] == {"diskTypes": ["Standard_LRS"]}
    assert document["purchasePlan"] == {"name": "n", "publisher": "p", "product": "q"}
    assert document["name"].endswith("/galleries/corp/images/web")


def test_a_version_has_azures_property_names() -> None:
    wanted = TargetRegion("eu", 2, StorageAccountType.STANDARD_LRS)
    version = samples.version(replica_count=3, exclude_from_latest=True, target_regions=(wanted,))
    document = encode(version)
    assert document["targetRegions"][0]["regionalReplicaCount"] == 2
    assert document["targetRegions"][0]["storageAccountType"] == "Standard_LRS"
    assert document["replicaCount"] == 3
    assert document["excludeFromLatest"] is True
    assert document["replicationMode"] == "Full"
    assert document["provisioningState"] == "Succeeded"
    assert document["publishedDate"] == "2026-11-01T12:00:00Z"
    assert document["safetyProfile"] == {
        "blockDeletionBeforeEndOfLife": False,
    }
    assert document["regions"][0]["state"] == "Completed"


@pytest.mark.parametrize(
    "value",
    [
        samples.gallery(description="d", tags={"a": "b"}),
        samples.definition(),
        FULL,
        samples.version(),
        samples.version(
            fingerprint="",
            owner=samples.OWNER,
            owned_since=samples.NOW,
            disks=(samples.disk(), samples.disk(3)),
            regions=(
                RegionStatus(
                    "eu",
                    ReplicationState.FAILED,
                    40,
                    "no room",
                    RegionResult(({"index": 0},), ("reflink",), 1, 2, 3),
                ),
                RegionStatus("us"),
            ),
            safety_profile=SafetyProfile(block_deletion_before_end_of_life=True),
            stats={"seconds": 1.5, "stages": [1, None]},
        ),
    ],
)
def test_every_resource_survives_json(value: Gallery | ImageDefinition | ImageVersion) -> None:
    kind: Any = type(value)
    assert decode(kind, json.loads(json.dumps(encode(value)))) == value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, "Could not find member 'colour' on object of type 'ImageDefinition'"),
        ({"osType": "BSD"}, r"Cannot bind parameter ImageDefinition.osType: 'BSD' is not one of"),
        ({"osType": 3}, r"ImageDefinition.osType: 3 is not one of Linux, Windows"),
        ({"description": 3}, r"ImageDefinition.description: 3 is not a string"),
        ({"features": {}}, r"ImageDefinition.features: {} is not a list"),
        ({"features": [{"name": "x"}]}, r"'ImageDefinition.features\[0\].value' is missing"),
        ({"recommended": {"vCPUs": {"min": "2"}}}, r"vCPUs.min: '2' is not an integer"),
        ({"recommended": {"vCPUs": {"min": True}}}, r"vCPUs.min: True is not an integer"),
        ({"identifier": None}, r"ImageDefinition.identifier: None is not an object"),
        ({"endOfLifeDate": "soon"}, "Could not convert string to DateTimeOffset: 'soon'. Path"),
        ({"name": 1}, r"ImageDefinition.name: 1 is not a name"),
        ({"tags": []}, r"ImageDefinition.tags: \[\] is not an object"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        decode(ImageDefinition, encode(FULL) | change)


def test_a_missing_property_is_named() -> None:
    document = encode(FULL)
    del document["osType"]
    with pytest.raises(InvalidParameter, match=r"'ImageDefinition\.osType' is missing"):
        decode(ImageDefinition, document)


def test_values_compare_without_case_as_azure_has_it() -> None:
    assert decode(ImageDefinition, encode(FULL) | {"osType": "linux"}) == FULL


def test_dates_are_utc() -> None:
    noon = datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert parse_date("2030-01-31", "p") == datetime(2030, 1, 31, tzinfo=UTC)
    assert parse_date("2030-01-31T12:00:00Z", "p") == noon
    assert parse_date("2030-01-31T14:00:00+02:00", "p") == noon
    local = replace(FULL, end_of_life_date=noon.astimezone(timezone(timedelta(hours=5))))
    assert encode(local)["endOfLifeDate"] == "2030-01-31T12:00:00Z"


# As the catalog and the zones hold them since 2026-11. They are read, and written the same.
STORED = {
    Gallery: (
        '{"name": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/galleria'
        '/providers/Microsoft.Compute/galleries/corp", '
        '"location": "eu", "created": "2026-11-01T12:00:00Z", "description": "d", '
        '"tags": {"a": "b"}, "sharingProfile": {"permissions": "Private"}, '
        '"softDeletePolicy": {"isSoftDeleteEnabled": false, "retentionPeriodInDays": 7, '
        '"gracePeriodInDays": 0}}'
    ),
    ImageDefinition: (
        '{"name": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/galleria'
        '/providers/Microsoft.Compute/galleries/corp/images/web", '
        '"location": "eu", "created": "2026-11-01T12:00:00Z", "osType": "Linux", '
        '"identifier": {"publisher": "Contoso", "offer": "web", "sku": "web"}, '
        '"osState": "Generalized", "hyperVGeneration": "V2", "architecture": "x64", '
        '"description": "a web server", "eula": "eula", "privacyStatementUri": "https://p", '
        '"releaseNoteUri": "https://r", "endOfLifeDate": "2030-01-31T00:00:00Z", '
        '"recommended": {"vCPUs": {"min": 2, "max": 4}, "memory": {"min": 1024}}, '
        '"disallowed": {"diskTypes": ["Standard_LRS"]}, '
        '"features": [{"name": "SecurityType", "value": "Standard"}], '
        '"purchasePlan": {"name": "n", "publisher": "p", "product": "q"}, '
        '"tags": {"team": "web"}}'
    ),
    ImageVersion: (
        '{"name": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/galleria'
        '/providers/Microsoft.Compute/galleries/corp/images/web/versions/1.0.0", '
        '"uid": "bc604fbb26445171a90fa9d3e228321c", "attempt": 1, "fingerprint": "ab", '
        '"location": "eu", "created": "2026-11-01T12:00:00Z", '
        '"provisioningState": "Succeeded", "targetRegions": [{"name": "eu", '
        '"regionalReplicaCount": 2, "storageAccountType": "Standard_LRS", '
        '"excludeFromLatest": false}], "regions": [{"region": "eu", "state": "Failed", '
        '"progress": 40, "details": "no room", "result": {"replicas": [{"index": 0, '
        '"disks": [{"lun": null, "method": "reflink", "path": "/z/os.raw"}]}], '
        '"methods": ["reflink"], "bytesRead": 1, "bytesWritten": 2, "bytesShared": 3}}, '
        '{"region": "us", "state": "Unknown", "progress": 0, "result": {"bytesRead": 0, '
        '"bytesWritten": 0, "bytesShared": 0}}], "generalized": true, '
        '"replicationMode": "Full", "excludeFromLatest": false, '
        '"endOfLifeDate": "2030-01-31T00:00:00Z", '
        '"safetyProfile": {"blockDeletionBeforeEndOfLife": true}, '
        '"publishedDate": "2026-11-01T12:00:00Z", "disks": [{"lun": null, "digest": "d0", '
        '"virtualSize": 1073741824, "source": {"path": "web.vhdx", "format": "vhdx", '
        '"origin": {"kind": "vhd", "id": "web.vhdx", "digest": "s0"}}}, {"lun": 3, '
        '"digest": "d0", "virtualSize": 1073741824, "source": {"path": "web.vhdx", '
        '"format": "vhdx", "origin": {"kind": "vhd", "id": "web.vhdx", "digest": "s0"}}}], '
        '"stats": {"seconds": 1.5, "stages": [1, null]}, "owner": "4ac2bf7d01e9", '
        '"ownedSince": "2026-11-01T12:00:00Z"}'
    ),
}


@pytest.mark.parametrize("kind", STORED)
def test_what_was_stored_is_read_and_written_the_same(
    kind: type[Gallery | ImageDefinition | ImageVersion],
) -> None:
    assert json.dumps(encode(decode(kind, json.loads(STORED[kind])))) == STORED[kind]
