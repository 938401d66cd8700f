"""Properties of versions beyond regions and counts: strategy, additional replicas, host caching."""

from dataclasses import replace
from typing import Any, cast

import pytest

from pipeline.deploying.machine import enrolled_keys
from pipeline.errors import EnvironmentMissing, InvalidParameter
from pipeline.gallery import rules
from pipeline.gallery.documents import decode, encode
from pipeline.gallery.rules import VersionChange
from pipeline.gallery.services import Services
from pipeline.gallery.transitions import regions_differ
from pipeline.gallery.validations import validations
from pipeline.guest.findings import Finding, Severity
from pipeline.model import (
    AdditionalReplicaSet,
    HostCaching,
    ImageVersion,
    PurchasePlan,
    Region,
    ReplicationMode,
    SafetyProfile,
    SecurityProfile,
    SignatureTemplate,
    StorageAccountStrategy,
    StorageAccountType,
    TargetRegion,
    UefiSettings,
)
from pipeline.ports import Zone
from pipeline.storage.placement import place, placed_again, sinks
from tests.samples import NOW, definition, disk, request, services, version
from tests.unit.test_placement import Place

LRS, ZRS = StorageAccountType.STANDARD_LRS, StorageAccountType.STANDARD_ZRS
PREMIUM, V2 = StorageAccountType.PREMIUM_LRS, StorageAccountType.PREMIUM_V2_LRS
PREFER, DEFAULT = (
    StorageAccountStrategy.PREFER_STANDARD_ZRS,
    StorageAccountStrategy.DEFAULT_STANDARD_LRS,
)
FAST = AdditionalReplicaSet(PREMIUM, 3)
REGIONS = (Region("eu", (LRS, ZRS, PREMIUM)), Region("us", (LRS,)), Region("UK South", (PREMIUM,)))
EU = REGIONS[0]


def checked(*wanted: TargetRegion, **options: Any) -> tuple[TargetRegion, ...]:
    return rules.targets(wanted, EU, REGIONS, **options)


# --- storage account strategy -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "kinds"), [(PREFER, (ZRS, LRS)), (DEFAULT, (LRS, LRS)), (None, (LRS, LRS))]
)
def test_a_strategy_chooses_for_regions_that_name_no_type(
    strategy: StorageAccountStrategy | None, kinds: tuple[StorageAccountType, ...]
) -> None:
    found = checked(TargetRegion("eu"), TargetRegion("us"), strategy=strategy)
    assert tuple(item.storage_account_type for item in found) == kinds
    named = checked(TargetRegion("eu", storage_account_type=PREMIUM), strategy=strategy)
    assert named[0].storage_account_type is PREMIUM


def test_type_and_strategy_exclude_each_other() -> None:
    both = request(storage_account_type=LRS, storage_account_strategy=PREFER)
    with pytest.raises(InvalidParameter, match="exclude each other"):
        rules.storage_type(both)
    assert rules.storage_type(request()) is LRS
    assert rules.storage_type(request(storage_account_strategy=PREFER)) is None


def test_a_type_that_no_zone_offers_is_refused_in_azure_s_words() -> None:
    with pytest.raises(InvalidParameter, match="PremiumV2_LRS storage account type is not supp"):
        checked(TargetRegion("eu", storage_account_type=V2))


# --- additional replica sets --------------------------------------------------------------------


def test_additional_replicas_lie_in_the_other_sort_of_zones() -> None:
    target = TargetRegion("eu", 2, LRS, additional_replica_sets=(FAST,))
    zones = [Place("slow", free=1), Place("large", free=2), Place("fast", premium=True)]
    places = place([target], {}, {"eu": cast(tuple[Zone, ...], tuple(zones))})
    assert {share.zone.name: share.replicas for share in places["eu"]} == {"large": 2, "fast": 3}
    assert sorted(sinks(places)) == ["/fast", "/large"]
    assert target.count(None) == 5


def test_they_are_counted_where_the_version_is() -> None:
    fast, slow = Place("fast", premium=True), Place("slow")
    target = TargetRegion("eu", 1, LRS, additional_replica_sets=(FAST,))
    shares = placed_again(target, None, cast(list[Zone], [fast, slow]))
    assert {share.zone.name: share.replicas for share in shares} == {"slow": 1, "fast": 3}
    with pytest.raises(EnvironmentMissing, match="no zone of region eu on this host holds"):
        placed_again(target, None, cast(list[Zone], [slow]))


@pytest.mark.parametrize(
    ("own", "sets", "problem"),
    [
        (LRS, (AdditionalReplicaSet(ZRS, 1),), "are not valid"),
        (LRS, (FAST, FAST), "are not valid"),
        (PREMIUM, (FAST,), "are not valid"),
        (LRS, (AdditionalReplicaSet(PREMIUM, 0),), "out of range"),
        (LRS, (AdditionalReplicaSet(PREMIUM, 101),), "out of range"),
        (LRS, (AdditionalReplicaSet(V2, 1),), "PremiumV2_LRS storage account type is not"),
    ],
)
def test_sets_that_are_not_possible(
    own: StorageAccountType, sets: tuple[AdditionalReplicaSet, ...], problem: str
) -> None:
    with pytest.raises(InvalidParameter, match=problem):
        checked(TargetRegion("eu", 1, own, additional_replica_sets=sets))


def test_shallow_has_one_replica_in_all() -> None:
    target = TargetRegion("eu", 1, LRS, additional_replica_sets=(FAST,))
    with pytest.raises(InvalidParameter, match="replication mode Shallow"):
        rules.targets([target], EU, REGIONS, ReplicationMode.SHALLOW)


def test_a_version_has_a_hundred_replicas_at_most_in_all() -> None:
    regions = (TargetRegion("eu", 60), TargetRegion("us"))
    checked(*regions, common=40)
    with pytest.raises(InvalidParameter, match="would have 101 replicas in 2 regions"):
        checked(*regions, common=41)
    more = replace(regions[0], additional_replica_sets=(AdditionalReplicaSet(PREMIUM, 40),))
    with pytest.raises(InvalidParameter, match="would have 101 replicas"):
        checked(more, regions[1])


# --- edge zones ---------------------------------------------------------------------------------

EDGES = (*REGIONS, Region("eu/paris", (LRS,)), Region("eu/rome", (PREMIUM,)))
PARIS = TargetRegion("EU/Paris", 2)


def test_an_edge_zone_takes_replicas_beside_its_regions() -> None:
    found = rules.targets([PARIS], EU, EDGES)
    assert [(item.name, item.count(None)) for item in found] == [("eu", 1), ("eu/paris", 2)]
    for name, problem in (("eu/oslo", "location 'eu/oslo' is not"), ("eu/rome", "Standard_LRS")):
        with pytest.raises(InvalidParameter, match=problem):
            rules.targets([TargetRegion(name)], EU, EDGES)


def test_nothing_has_its_home_in_an_edge_zone() -> None:
    with pytest.raises(InvalidParameter) as caught:
        rules.known_region("eu/paris", EDGES)
    assert caught.value.reason == "LocationNotAvailableForResourceType"
    assert "eu/paris" not in caught.value.message.partition("List of")[2]


def test_edge_zones_have_a_list_of_their_own() -> None:
    old = version(
        target_regions=(TargetRegion("eu", 1, LRS), TargetRegion("eu/paris", 1, LRS)),
        safety_profile=SafetyProfile(True),
    )

    def names(change: VersionChange) -> list[str]:
        return [item.name for item in rules.changed_targets(old, change, EDGES)]

    more = (TargetRegion("eu"), TargetRegion("us"))
    assert names(VersionChange(target_regions=more)) == ["eu", "us", "eu/paris"]
    assert names(VersionChange(target_edge_zones=())) == ["eu"]
    rome = TargetRegion("eu/rome", None, PREMIUM)
    assert names(VersionChange(target_edge_zones=(rome,))) == ["eu", "eu/rome"]
    assert names(VersionChange(remove=("EU/paris",))) == ["eu"]


# --- changes ------------------------------------------------------------------------------------


def there(**changes: Any) -> ImageVersion:
    targets = (TargetRegion("eu", 2, ZRS, additional_replica_sets=(FAST,)), TargetRegion("us"))
    return version(target_regions=targets, storage_account_type=LRS, **changes)


def test_of_a_region_that_is_there_only_numbers_change() -> None:
    old = there()
    more = AdditionalReplicaSet(PREMIUM, 5)
    add = TargetRegion("EU", 4, additional_replica_sets=(more,))
    found = rules.changed_targets(old, VersionChange(add=(add,)), REGIONS)
    assert found[0] == TargetRegion("eu", 4, ZRS, additional_replica_sets=(more,))
    # a new list keeps what it does not name of a region
    named = VersionChange(target_regions=(TargetRegion("eu", 2), TargetRegion("us")))
    assert rules.changed_targets(old, named, REGIONS)[0] == old.target_regions[0]


@pytest.mark.parametrize(
    "target",
    [
        TargetRegion("eu", 2, LRS),
        TargetRegion("eu", 2, additional_replica_sets=(AdditionalReplicaSet(LRS, 1),)),
        TargetRegion("us", 2, additional_replica_sets=(FAST,)),
    ],
)
def test_what_is_kept_where_does_not_change(target: TargetRegion) -> None:
    with pytest.raises(InvalidParameter) as caught:
        rules.changed_targets(there(), VersionChange(add=(target,)), REGIONS)
    assert caught.value.reason == "PropertyChangeNotAllowed"


def test_moving_a_replica_to_the_other_sort_is_work() -> None:
    old = there()
    fewer = replace(old.target_regions[0], regional_replica_count=1)
    fewer = replace(fewer, additional_replica_sets=(AdditionalReplicaSet(PREMIUM, 4),))
    new = replace(old, target_regions=(fewer, old.target_regions[1]))
    assert new.replicas_in(fewer) == old.replicas_in(old.target_regions[0])
    assert regions_differ(old, new)


def service() -> Services:
    made = services(regions=REGIONS)
    made.gallery.create_gallery(definition().name.gallery, "eu")
    made.gallery.create_definition(definition())
    return made


def test_regions_added_later_get_their_type_by_the_version_s_strategy() -> None:
    asked = service()
    wanted = request(target_regions=(), storage_account_strategy=PREFER)
    made = asked.gallery.begin_version(wanted)
    assert (made.storage_account_type, made.storage_account_strategy) == (
        None,
        PREFER,
    )
    assert made.target_regions == (TargetRegion("eu", None, ZRS),)
    targets = (TargetRegion("us"), TargetRegion("eu"))
    found = rules.changed_targets(made, VersionChange(add=targets), REGIONS)
    assert [item.storage_account_type for item in found] == [ZRS, LRS]


# --- host caching -------------------------------------------------------------------------------


def test_host_caching_is_of_disks_that_are_there() -> None:
    rules.caching({None: HostCaching.NONE, 4: HostCaching.READ_ONLY}, [None, 0, 4])
    with pytest.raises(InvalidParameter, match="no data disk with LUN 3"):
        rules.caching({3: HostCaching.READ_WRITE}, [None, 0])


def test_it_is_kept_in_azure_s_spelling() -> None:
    cached = replace(disk(), host_caching=HostCaching.READ_ONLY)
    made = version(disks=(cached,), storage_account_strategy=DEFAULT)
    document = encode(made)
    assert document["disks"][0]["hostCaching"] == "ReadOnly"
    assert document["storageAccountStrategy"] == "DefaultStandard_LRS"
    assert decode(ImageVersion, document) == made


# --- encryption and validations -----------------------------------------------------------------


def test_no_encryption_is_what_scripts_may_ask_for() -> None:
    rules.region_encryption((), ["eu"], "p")
    rules.region_encryption(["null", "NULL"], ["eu", "us"], "p")


FINE = Finding("upload size", Severity.FAIL, holds=True, found="1 GiB").document()
WARNING = Finding("agent", Severity.WARN, holds=False, found="none").document()
UNSURE = Finding("boot loader", Severity.FAIL, holds=None, found="not looked into").document()
BAD = Finding("drivers", Severity.FAIL, holds=False, found="none").document()


def test_the_validations_profile_says_what_was_checked() -> None:
    made = version(disks=(disk(),), report_digest="d", generalized=True, published_date=NOW)
    plan = PurchasePlan("plan", "Contoso", "product")
    report = {
        "version": 2,
        "check": {"verdict": "generalized"},
        "boot": {"by": "login prompt"},
        "validation": {"for": "azure", "findings": [FINE, WARNING]},
    }
    document = encode(validations(made, definition(purchase_plan=plan), report))
    assert document["validationEtag"] == "d"
    assert document["executedValidations"] == [
        {"type": kind, "status": "Succeeded", "version": "2", "executionTime": encode(NOW)}
        for kind in ("Generalized", "DeclaredProperties", "AzureCompatibility", "Boot")
    ]
    assert [item["name"] for item in document["platformAttributes"]] == [
        "source_image_publisher",
        "source_image_offer",
        "source_image_sku",
    ]
    for findings, status in (([FINE, UNSURE], "Unknown"), ([UNSURE, BAD], "Failed")):
        report = {"validation": {"for": "azure", "findings": findings}}
        _, found = validations(made, definition(), report).executed_validations
        assert (found.type, found.status.value) == ("AzureCompatibility", status)
    unsure = replace(made, unverified=("osType",))
    forced = {"check": {"verdict": "specialized", "forced": True}}
    statuses = validations(unsure, definition(), forced).executed_validations
    assert [item.status.value for item in statuses] == ["Unknown", "Unknown"]
    assert encode(validations(version(disks=()), definition(), None)) == {}


# --- signature templates ------------------------------------------------------------------------


def test_no_template_stands_alone_and_means_no_keys() -> None:
    nobody, windows = SignatureTemplate.NONE, SignatureTemplate.MICROSOFT_WINDOWS
    for names, keys in (((), True), ((windows,), True), ((nobody,), False)):
        profile = SecurityProfile(UefiSettings(names))
        rules.version_request(request(security_profile=profile), definition(), NOW)
        assert enrolled_keys(version(security_profile=profile)) is keys
    both = SecurityProfile(UefiSettings((windows, nobody)))
    with pytest.raises(InvalidParameter, match="exclude each other"):
        rules.version_request(request(security_profile=both), definition(), NOW)
