"""What changes in a gallery: updates, the bin, channels, retention, scopes, limits, features; over
the in-memory catalog."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pipeline.errors import Conflict, GalleriaError, InvalidParameter, NotFound
from pipeline.gallery.rules import Limits, SourceFacts, VersionChange, agreement
from pipeline.gallery.rules.features import completed
from pipeline.gallery.rules.retention import Retention
from pipeline.gallery.services import Services
from pipeline.model import (
    Architecture,
    Deployment,
    Feature,
    Gallery,
    HyperVGeneration,
    Identifier,
    ImageDefinition,
    ImageVersion,
    OsState,
    OsType,
    ProvisioningState,
    PurchasePlan,
    RegionResult,
    RegionStatus,
    ReplicationState,
    SafetyProfile,
    SharingPermissions,
    SoftDeletePolicy,
    SourceProperties,
    TargetRegion,
)
from pipeline.model.names import (
    DefinitionName,
    GalleryName,
    parse_definition,
    parse_gallery,
    parse_version,
)
from tests.samples import NOW, FakeClock, definition, disk, request, services

CORP, WEB = parse_gallery("corp"), parse_definition("corp/web")
V100 = parse_version("corp/web/1.0.0")
OTHER = "11111111-2222-3333-4444-555555555555"
FUTURE = NOW + timedelta(days=400)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ask(clock: FakeClock) -> Services:
    return made(clock)


def made(clock: FakeClock, limits: Limits = Limits()) -> Services:  # noqa: B008 - frozen
    ask = services(clock=clock, limits=limits)
    ask.gallery.create_gallery(CORP, "eu")
    ask.gallery.create_definition(definition())
    return ask


def publish(ask: Services, number: str = "1.0.0", **changes: Any) -> ImageVersion:
    """Completed in its target regions, with as many replicas as are wanted."""
    version = ask.gallery.begin_version(request(f"corp/web/{number}", **changes))
    version = ask.records.record_contents(version, [disk()], {})
    for target in version.target_regions:
        replicas = tuple({"index": index} for index in range(version.replicas_in(target)))
        status = RegionStatus(
            target.name, ReplicationState.COMPLETED, 100, result=RegionResult(replicas)
        )
        version = ask.records.set_regions(version, status)
    return ask.records.finish_version(version)


def soft(ask: Services, days: int = 7, grace: int = 0) -> None:
    policy = SoftDeletePolicy(True, days, grace)
    ask.gallery.update_gallery(CORP, lambda old: replace(old, soft_delete_policy=policy))


# --- updates ------------------------------------------------------------------------------------


def test_of_a_version_its_properties_change(ask: Services) -> None:
    before = publish(ask)
    change = VersionChange(
        exclude_from_latest=True,
        end_of_life_date=FUTURE,
        block_deletion_before_end_of_life=True,
        tags={"a": "b"},
        exclude_in={"US": True},
    )
    after = ask.gallery.begin_update(V100, change)
    assert after.owner is None  # nothing to do in zones
    assert after == replace(
        before,
        exclude_from_latest=True,
        end_of_life_date=FUTURE,
        safety_profile=SafetyProfile(None, block_deletion_before_end_of_life=True),
        tags={"a": "b"},
        target_regions=(
            before.target_regions[0],
            replace(before.target_regions[1], exclude_from_latest=True),
        ),
    )
    again = ask.gallery.begin_update(V100, VersionChange(forget_end_of_life=True))
    assert again.end_of_life_date is None
    assert again.tags == {"a": "b"}


def test_latest_knows_exclusions_of_a_region(ask: Services) -> None:
    for number in ("1.0.9", "1.0.10"):
        publish(ask, number)
    ask.gallery.begin_update(
        parse_version("corp/web/1.0.10"), VersionChange(exclude_in={"us": True})
    )
    assert str(ask.gallery.resolve("corp/web", "eu").number) == "1.0.10"
    assert str(ask.gallery.resolve("corp/web/latest", "US").number) == "1.0.9"
    assert str(ask.gallery.resolve("corp/web").number) == "1.0.10"
    ask.gallery.begin_update(
        parse_version("corp/web/1.0.10"), VersionChange(exclude_from_latest=True)
    )
    assert str(ask.gallery.resolve("corp/web").number) == "1.0.9"


def test_regions_come_and_go(ask: Services) -> None:
    publish(ask)
    change = VersionChange(add=(TargetRegion("uksouth", 2), TargetRegion("EU", 5)), remove=("US",))
    version = ask.gallery.begin_update(V100, change)
    assert version.provisioning_state is ProvisioningState.UPDATING
    assert version.owner is not None
    assert version.leaving == ("us",)
    assert [(t.name, t.regional_replica_count) for t in version.target_regions] == [
        ("eu", 5),
        ("UK South", 2),
    ]
    assert version.completed_regions == ("eu",)
    with pytest.raises(NotFound):
        ask.gallery.resolve(str(V100), "us")
    version = ask.records.region_left(version, "us")
    assert version.leaving == ()


def test_a_region_that_comes_back_is_not_removed_again(ask: Services) -> None:
    publish(ask)
    version = ask.gallery.begin_update(V100, VersionChange(remove=("us",)))
    ask.records.abandon_version(version, "killed")  # before its data was removed
    version = ask.gallery.begin_update(V100, VersionChange(add=(TargetRegion("us"),)))
    assert version.leaving == ()


def test_what_an_update_left_undone_is_done_by_the_next(ask: Services) -> None:
    publish(ask)
    version = ask.gallery.begin_update(V100, VersionChange(remove=("us",)))
    ask.records.abandon_version(version, "killed")
    version = ask.gallery.begin_update(V100, VersionChange())
    assert version.leaving == ("us",)
    ask.records.abandon_version(version, "killed")
    version = ask.gallery.begin_update(V100, VersionChange(add=(TargetRegion("eu", 4),)))
    ask.records.abandon_version(ask.records.region_left(version, "us"), "killed")
    assert ask.gallery.begin_update(V100, VersionChange()).owner is not None  # 4 are not made yet


def test_a_list_that_drops_a_region_needs_leave(ask: Services) -> None:
    publish(ask)
    only_eu = VersionChange(target_regions=(TargetRegion("eu", 2),))
    with pytest.raises(
        Conflict, match=r"can't be removed from replicated locations 'us'"
    ) as caught:
        ask.gallery.begin_update(V100, only_eu)
    assert caught.value.reason == "OperationNotAllowed"
    assert "--remove-region us" in caught.value.hint
    allowed = replace(only_eu, allow_deletion_of_replicated_locations=True)
    assert ask.gallery.begin_update(V100, allowed).leaving == ("us",)


def test_a_safety_profile_can_forbid_to_name_a_region(ask: Services) -> None:
    publish(ask, safety_profile=SafetyProfile(allow_deletion_of_replicated_locations=False))
    with pytest.raises(Conflict, match="replicated locations 'us'"):
        ask.gallery.begin_update(V100, VersionChange(remove=("us",)))


REFUSED: list[tuple[VersionChange, type[GalleriaError], str]] = [
    (VersionChange(remove=("eu",)), InvalidParameter, "must contain the location"),
    (VersionChange(remove=("mars",)), InvalidParameter, "'mars' is not available"),
    (VersionChange(exclude_in={"uksouth": True}), NotFound, "not among the target regions"),
    (VersionChange(add=(TargetRegion("mars"),)), InvalidParameter, "'mars' is not available"),
    (VersionChange(add=(TargetRegion("eu", 0),)), InvalidParameter, "between 1 and 100"),
    (VersionChange(replica_count=101), InvalidParameter, "between 1 and 100"),
    (VersionChange(end_of_life_date=NOW - timedelta(1)), InvalidParameter, "future date"),
]


@pytest.mark.parametrize(("change", "error", "core"), REFUSED)
def test_a_refused_update_changes_nothing(
    ask: Services, change: VersionChange, error: type[GalleriaError], core: str
) -> None:
    before = publish(ask)
    with pytest.raises(error, match=core):
        ask.gallery.begin_update(V100, replace(change, tags={"x": "y"}))
    assert ask.gallery.get_version(V100) == before


def test_of_a_definition_only_some_things_change(ask: Services) -> None:
    changed = ask.gallery.update_definition(WEB, lambda old: replace(old, description="new"))
    assert changed.description == "new"
    features = (Feature("IsHibernateSupported", "True"),)
    with pytest.raises(Conflict, match=r"galleryImage\.properties\.features") as caught:
        ask.gallery.update_definition(WEB, lambda old: replace(old, features=features))
    assert caught.value.reason == "PropertyChangeNotAllowed"
    allowed = ask.gallery.update_definition(
        WEB, lambda old: replace(old, features=features), allow_update_image=True
    )
    assert allowed.features == (Feature("SecurityType", "TrustedLaunchSupported"), *features)
    with pytest.raises(Conflict, match=r"galleryImage\.properties\.osType"):
        ask.gallery.update_definition(
            WEB, lambda old: replace(old, os_type=OsType.WINDOWS), allow_update_image=True
        )
    moved = DefinitionName(CORP, "other")
    with pytest.raises(Conflict, match="'name'"):
        ask.gallery.update_definition(WEB, lambda old: replace(old, name=moved))


def test_of_a_gallery_only_some_things_change(ask: Services) -> None:
    changed = ask.gallery.update_gallery(CORP, lambda old: replace(old, description="new"))
    assert ask.gallery.get_gallery(CORP) == changed
    attempts: list[Callable[[Gallery], Gallery]] = [
        lambda old: replace(old, location="us"),
        lambda old: replace(old, name=parse_gallery("other")),
        lambda old: replace(
            old,
            sharing_profile=replace(old.sharing_profile, permissions=SharingPermissions.COMMUNITY),
        ),
    ]
    for attempt in attempts:
        with pytest.raises(Conflict) as caught:
            ask.gallery.update_gallery(CORP, attempt)
        assert caught.value.reason == "PropertyChangeNotAllowed"
    with pytest.raises(InvalidParameter, match=r"retentionPeriodInDays .* between 1 and 3650"):
        soft(ask, days=0)


# --- the bin ------------------------------------------------------------------------------------


def test_a_deleted_version_stays_a_while(ask: Services, clock: FakeClock) -> None:
    publish(ask)
    publish(ask, "1.0.1")
    soft(ask, days=7, grace=3)
    gone = ask.gallery.begin_delete(parse_version("corp/web/1.0.1"))
    assert gone.provisioning_state is ProvisioningState.SUCCEEDED
    assert gone.soft_deleted is not None
    assert [str(v.number) for v in ask.gallery.list_versions(WEB)] == ["1.0.0"]
    assert [str(v.number) for v in ask.gallery.list_versions(WEB, deleted=True)] == ["1.0.1"]
    assert str(ask.gallery.resolve("corp/web").number) == "1.0.0"
    found = ask.gallery.resolve("corp/web/1.0.1", "eu")  # usable, and that is said
    assert any("is deleted and can be used until" in text for text in ask.gallery.cautions(found))
    with pytest.raises(Conflict, match="soft-deleted"):
        ask.gallery.begin_version(request("corp/web/1.0.1"))
    with pytest.raises(Conflict, match="soft-deleted"):
        ask.gallery.begin_update(gone.name, VersionChange(tags={"a": "b"}))
    with pytest.raises(Conflict, match="soft-deleted already"):
        ask.gallery.begin_delete(gone.name)
    with pytest.raises(Conflict, match="nested resources exist"):
        ask.gallery.delete_definition(WEB)
    clock.now += timedelta(days=8)
    with pytest.raises(NotFound, match="could be used until"):
        ask.gallery.resolve("corp/web/1.0.1", "eu")
    assert ask.gallery.expired(WEB) == []
    back = ask.gallery.undelete(gone.name)
    assert back.soft_deleted is None
    assert str(ask.gallery.resolve("corp/web", "eu").number) == "1.0.1"


def test_the_bin_is_emptied_at_its_time(ask: Services, clock: FakeClock) -> None:
    publish(ask)
    soft(ask, days=7)
    ask.gallery.begin_delete(V100)
    clock.now += timedelta(days=7, minutes=1)
    assert [version.name for version in ask.gallery.expired(WEB)] == [V100]
    with pytest.raises(Conflict, match="was to be removed for good"):
        ask.gallery.undelete(V100)
    version = ask.gallery.begin_delete(V100, permanent=True)
    assert version.provisioning_state is ProvisioningState.DELETING
    ask.records.finish_delete(version)
    with pytest.raises(NotFound):
        ask.gallery.get_version(V100)


def test_what_nobody_could_use_is_not_kept(ask: Services) -> None:
    soft(ask)
    ask.records.finish_version(ask.gallery.begin_version(request()))
    assert ask.gallery.begin_delete(V100).provisioning_state is ProvisioningState.DELETING


def test_only_what_is_deleted_comes_back(ask: Services) -> None:
    publish(ask)
    with pytest.raises(Conflict, match="is not soft-deleted"):
        ask.gallery.undelete(V100)
    with pytest.raises(Conflict, match="is not soft-deleted"):
        ask.gallery.check_in_the_bin(V100)


# --- channels -----------------------------------------------------------------------------------


def test_a_channel_means_what_it_was_given(ask: Services) -> None:
    publish(ask)
    publish(ask, "1.0.1")
    ask.gallery.promote(V100, "Prod")
    assert ask.gallery.resolve("corp/web@prod", "eu").name == V100
    assert ask.gallery.resolve("Corp/Web@PROD").name == V100
    assert ask.gallery.resolve("corp/web", "eu").name != V100
    with pytest.raises(Conflict, match="channel prod means") as caught:
        ask.gallery.begin_delete(V100)
    assert caught.value.reason == "VersionInUse"
    ask.gallery.promote(parse_version("corp/web/1.0.1"), "prod")
    assert str(ask.gallery.resolve("corp/web@prod").number) == "1.0.1"
    ask.gallery.begin_delete(V100)
    with pytest.raises(NotFound, match="no channel 'beta'") as missing:
        ask.gallery.resolve("corp/web@beta")
    assert "prod" in missing.value.hint
    ask.gallery.remove_channel(WEB, "prod")
    assert ask.gallery.list_channels(WEB) == []
    with pytest.raises(NotFound):
        ask.gallery.remove_channel(WEB, "prod")


@pytest.mark.parametrize("name", ["", "latest", "1", "a/b", "x" * 65])
def test_a_channel_has_a_plain_name(ask: Services, name: str) -> None:
    publish(ask)
    with pytest.raises(InvalidParameter, match="channel name"):
        ask.gallery.promote(V100, name)


def test_only_what_can_be_used_is_promoted(ask: Services) -> None:
    ask.records.finish_version(ask.gallery.begin_version(request()))
    with pytest.raises(Conflict, match="can't be promoted"):
        ask.gallery.promote(V100, "prod")


# --- retention ----------------------------------------------------------------------------------


def kept(ask: Services, rule: Retention) -> dict[str, str]:
    return {str(v.version.number): v.reason for v in ask.gallery.retention(WEB, rule)}


def test_retention_keeps_what_it_must(ask: Services, clock: FakeClock) -> None:
    for number in ("1.0.0", "1.0.1", "1.0.2", "1.0.3"):
        publish(ask, number)
    used = ask.gallery.get_version(parse_version("corp/web/1.0.1"))
    vm = Deployment("vm", "/srv/vm", used.name, used.uid, "eu", NOW)
    ask.gallery.record_deployments(used.name, [vm])
    ask.gallery.promote(parse_version("corp/web/1.0.2"), "prod")
    blocked = VersionChange(end_of_life_date=FUTURE, block_deletion_before_end_of_life=True)
    publish(ask, "0.9.0")
    ask.gallery.begin_update(parse_version("corp/web/0.9.0"), blocked)
    assert kept(ask, Retention(keep_last=1)) == {
        "1.0.3": "the last usable one",
        "1.0.2": "in a channel",
        "1.0.1": "in use by deployed disks",
        "1.0.0": "",
        "0.9.0": "blocked until its end of life",
    }
    young = kept(ask, Retention(older_than=timedelta(days=90)))
    assert young["1.0.0"] == "0 days old"
    clock.now += timedelta(days=91)
    assert kept(ask, Retention(older_than=timedelta(days=90)))["1.0.0"] == ""
    both = Retention(keep_last=4, older_than=timedelta(days=90))
    assert kept(ask, both)["1.0.0"] == "among the last 4"


def test_a_failed_version_is_never_the_last_usable_one(ask: Services) -> None:
    publish(ask)
    ask.records.finish_version(ask.gallery.begin_version(request("corp/web/2.0.0")))
    assert kept(ask, Retention(keep_last=1)) == {"2.0.0": "", "1.0.0": "the last usable one"}


def test_a_rule_of_retention_says_something() -> None:
    with pytest.raises(InvalidParameter, match="needs a rule"):
        Retention()
    with pytest.raises(InvalidParameter, match="at least 1"):
        Retention(keep_last=0)


# --- scopes and limits --------------------------------------------------------------------------


def test_galleries_are_in_subscriptions_and_groups(ask: Services) -> None:
    elsewhere = GalleryName("corp", OTHER, "team")
    with pytest.raises(NotFound, match=f"subscription '{OTHER}' could not be found") as caught:
        ask.gallery.create_gallery(elsewhere, "eu")
    assert caught.value.reason == "SubscriptionNotFound"
    ask.gallery.create_tenant(OTHER)
    ask.gallery.create_subscription(OTHER.upper(), "Team", OTHER)
    with pytest.raises(NotFound, match="Resource group 'team' could not be found"):
        ask.gallery.create_gallery(elsewhere, "eu")
    ask.gallery.create_resource_group(OTHER, "Team", "EU", {"a": "b"})
    made = ask.gallery.create_gallery(elsewhere, "eu")  # the name is free in another subscription
    assert ask.gallery.list_galleries(OTHER) == [made]
    assert len(ask.gallery.list_galleries()) == 2
    assert [item.display_name for item in ask.gallery.list_subscriptions()] == [
        "default",
        "Team",
    ]
    deletions: list[Callable[[], None]] = [
        lambda: ask.gallery.delete_resource_group(OTHER, "team"),
        lambda: ask.gallery.delete_subscription(OTHER),
    ]
    for delete in deletions:
        with pytest.raises(Conflict, match="nested resources exist"):
            delete()
    ask.gallery.delete_gallery(elsewhere)
    ask.gallery.delete_resource_group(OTHER, "team")
    ask.gallery.delete_subscription(OTHER)
    assert [item.display_name for item in ask.gallery.list_subscriptions()] == ["default"]


def test_what_a_scope_keeps(ask: Services) -> None:
    ask.gallery.create_tenant(OTHER)
    ask.gallery.create_subscription(OTHER, "Team", OTHER)
    assert ask.gallery.create_subscription(OTHER, tenant=OTHER).display_name == "Team"
    with pytest.raises(Conflict, match="stays in its tenant"):
        ask.gallery.create_subscription(OTHER)
    ask.gallery.create_resource_group(OTHER, "team", "eu")
    with pytest.raises(Conflict) as caught:
        ask.gallery.create_resource_group(OTHER, "TEAM", "us")
    assert caught.value.reason == "InvalidResourceGroupLocation"
    with pytest.raises(InvalidParameter):
        ask.gallery.create_subscription("team")


def test_subscriptions_are_in_tenants(ask: Services) -> None:
    with pytest.raises(NotFound, match=f"Tenant '{OTHER}' not found") as caught:
        ask.gallery.create_subscription(OTHER, tenant=OTHER)
    assert caught.value.reason == "TenantNotFound"
    ask.gallery.create_tenant(OTHER.upper(), "Fabrikam")
    ask.gallery.create_subscription(OTHER, tenant=OTHER)
    assert ask.gallery.get_subscription(OTHER.upper()).tenant == OTHER
    assert ask.gallery.create_tenant(OTHER).display_name == "Fabrikam"
    assert [item.display_name for item in ask.gallery.list_tenants()] == ["default", "Fabrikam"]
    with pytest.raises(Conflict, match=f"include: '/subscriptions/{OTHER}'"):
        ask.gallery.delete_tenant(OTHER)
    ask.gallery.delete_subscription(OTHER)
    ask.gallery.delete_tenant(OTHER)
    for act in (
        ask.gallery.get_tenant,
        ask.gallery.delete_tenant,
        ask.gallery.get_subscription,
    ):
        with pytest.raises(NotFound):
            act(OTHER)
    with pytest.raises(InvalidParameter, match="tenant identifier 'x' is malformed"):
        ask.gallery.create_tenant("x")


def test_a_subscription_holds_so_much_in_a_region(clock: FakeClock) -> None:
    ask = made(clock, Limits(galleries=1, definitions=1, versions=1))
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("galleries", lambda: ask.gallery.create_gallery(parse_gallery("two"), "EU")),
        (
            "image definitions",
            lambda: ask.gallery.create_definition(
                definition("corp/two", identifier=Identifier("a", "b", "c"))
            ),
        ),
        ("image versions", lambda: ask.gallery.begin_version(request("corp/web/1.0.1"))),
    ]
    publish(ask)
    for kind, attempt in attempts:
        with pytest.raises(Conflict, match=f"quota of {kind}: .* has 1 of 1 in region") as caught:
            attempt()
        assert caught.value.reason == "QuotaExceeded"
    ask.gallery.create_gallery(parse_gallery("two"), "us")  # another region has its own
    ask.gallery.create_gallery(CORP, "eu", description="what is there may change")


# --- features and agreement ---------------------------------------------------------------------

V1, V2 = HyperVGeneration.V1, HyperVGeneration.V2
PRIVATE, GROUPS = SharingPermissions.PRIVATE, SharingPermissions.GROUPS


def feature(text: str) -> tuple[Feature, ...]:
    pairs = (item.partition("=") for item in text.split())
    return tuple(Feature(name, value) for name, _, value in pairs)


@pytest.mark.parametrize(
    ("given", "generation", "kind", "expected"),
    [
        ("", V2, PRIVATE, "SecurityType=TrustedLaunchSupported"),
        ("", V1, PRIVATE, ""),
        ("SecurityType=standard", V2, GROUPS, "SecurityType=Standard"),
        ("securitytype=CONFIDENTIALVM", V2, PRIVATE, "SecurityType=ConfidentialVM"),
        (
            "SecurityType=TrustedLaunchAndConfidentialVMSupported",
            V2,
            GROUPS,
            "SecurityType=TrustedLaunchAndConfidentialVmSupported",
        ),
        (
            "DiskControllerType=scsi,nvme",
            V2,
            PRIVATE,
            "SecurityType=TrustedLaunchSupported DiskControllerTypes=SCSI,NVMe",
        ),
        ("IsHibernateSupported=true", V1, PRIVATE, "IsHibernateSupported=True"),
    ],
)
def test_features_are_completed(
    given: str, generation: HyperVGeneration, kind: SharingPermissions, expected: str
) -> None:
    assert completed(feature(given), generation, kind) == feature(expected)


@pytest.mark.parametrize(
    ("given", "generation", "kind", "core"),
    [
        ("SecurityType=TrustedLaunch", V1, PRIVATE, "not supported for Hypervisor generation 'V1'"),
        ("SecurityType=TrustedLaunch", V2, GROUPS, "not supported in a gallery"),
        ("SecurityType=ConfidentialVM", V2, GROUPS, "not supported in a gallery"),
        ("SecurityType=None", V2, PRIVATE, "'None' is not one of Standard, TrustedLaunchSupported"),
        ("Fast=True", V2, PRIVATE, "The feature 'Fast' is not known"),
        ("IsHibernateSupported=yes", V2, PRIVATE, "'yes' is not one of True, False"),
        (
            "DiskControllerTypes=SCSI diskcontrollertype=NVMe",
            V2,
            PRIVATE,
            "'DiskControllerTypes' is given more than once",
        ),
    ],
)
def test_features_are_checked(
    given: str, generation: HyperVGeneration, kind: SharingPermissions, core: str
) -> None:
    with pytest.raises(InvalidParameter, match=core):
        completed(feature(given), generation, kind)


PLAN = PurchasePlan("n", "p", "q")
CAPTURES: list[tuple[str, PurchasePlan | None, SourceProperties, str]] = [
    ("", None, SourceProperties(disk_controller_type="NVMe"), "'NVMe' is not among"),
    ("DiskControllerTypes=SCSI,NVMe", None, SourceProperties(disk_controller_type="nvme"), ""),
    ("DiskControllerTypes=NVMe", None, SourceProperties(disk_controller_type="NVMe"), ""),
    ("", None, SourceProperties(disk_controller_type="IDE"), "'IDE' is not one of"),
    (
        "IsAcceleratedNetworkSupported=True",
        None,
        SourceProperties(accelerated_network=False),
        "does not support accelerated networking",
    ),
    ("IsAcceleratedNetworkSupported=True", None, SourceProperties(accelerated_network=True), ""),
    ("", PLAN, SourceProperties(purchase_plan=PLAN), ""),
    ("", PLAN, SourceProperties(purchase_plan=replace(PLAN, name="x")), "has a different plan"),
]


@pytest.mark.parametrize(("features", "plan", "source", "core"), CAPTURES)
def test_what_is_captured_into_a_definition(
    ask: Services,
    features: str,
    plan: PurchasePlan | None,
    source: SourceProperties,
    core: str,
) -> None:
    ask.gallery.create_definition(
        definition(
            "corp/x",
            identifier=Identifier("a", "b", "c"),
            features=feature(features),
            purchase_plan=plan,
        )
    )
    wanted = request("corp/x/1.0.0", source=source)
    if not core:
        assert ask.gallery.begin_version(wanted).number
        return
    with pytest.raises(InvalidParameter, match=core):
        ask.gallery.begin_version(wanted)


def test_a_feature_may_begin_with_a_version(ask: Services) -> None:
    nvme = Feature("DiskControllerTypes", "SCSI,NVMe", parse_version("corp/web/2.0.0").number)
    ask.gallery.update_definition(
        WEB, lambda old: replace(old, features=(nvme,)), allow_update_image=True
    )
    source = SourceProperties(disk_controller_type="NVMe")
    with pytest.raises(InvalidParameter, match="NVMe"):
        ask.gallery.begin_version(request("corp/web/1.9.9", source=source))
    ask.gallery.begin_version(request("corp/web/2.0.0", source=source))


ALL = SourceFacts(OsType.LINUX, frozenset({V2}), Architecture.X64, OsState.GENERALIZED)


@pytest.mark.parametrize(
    ("made", "facts", "unverified"),
    [
        (definition(), ALL, ()),
        (definition(), replace(ALL, generations=frozenset({V1, V2})), ()),
        (definition(), SourceFacts(), ("hyperVGeneration", "osType", "architecture", "osState")),
        (definition(os_state=OsState.SPECIALIZED), replace(ALL, os_state=None), ()),
        (definition(purchase_plan=PLAN), ALL, ("purchasePlan",)),
    ],
)
def test_what_could_not_be_compared_is_unverified(
    made: ImageDefinition, facts: SourceFacts, unverified: tuple[str, ...]
) -> None:
    assert agreement(made, facts, V100, SourceProperties()) == unverified


def test_another_architecture_is_refused_with_both_values() -> None:
    facts = replace(ALL, architecture=Architecture.ARM64)
    with pytest.raises(InvalidParameter, match=r"\(Arm64\) than the parent gallery image \(x64\)"):
        agreement(definition(), facts, V100, SourceProperties())


def test_end_of_life_is_warned_of_and_changes_nothing(ask: Services, clock: FakeClock) -> None:
    publish(ask, end_of_life_date=NOW + timedelta(days=1))
    ask.gallery.update_definition(
        WEB, lambda old: replace(old, end_of_life_date=NOW + timedelta(days=1))
    )
    assert ask.gallery.cautions(ask.gallery.resolve("corp/web")) == []
    clock.now += timedelta(days=2)
    found = ask.gallery.resolve("corp/web", "eu")
    assert ask.gallery.cautions(found) == [
        "corp/web/1.0.0 reached its end of life on 2026-11-02",
        "corp/web reached its end of life on 2026-11-02",
    ]
