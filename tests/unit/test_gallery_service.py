"""The life of galleries, definitions and versions, over the in-memory catalog."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.errors import Conflict, InvalidParameter, NotFound
from pipeline.gallery.service import PARENTS
from pipeline.gallery.service.taken import TakenVersion
from pipeline.gallery.services import Services
from pipeline.model import (
    Identifier,
    ImageVersion,
    OsState,
    ProvisioningState,
    RegionResult,
    RegionStatus,
    ReplicationState,
    SafetyProfile,
    TargetRegion,
)
from pipeline.model.names import parse_definition, parse_gallery, parse_version
from tests.samples import NOW, become_another, definition, die, disk, request, services

CORP, WEB = parse_gallery("corp"), parse_definition("corp/web")
V100 = parse_version("corp/web/1.0.0")
Action = Callable[[], object]
FAILED, COMPLETED = ReplicationState.FAILED, ReplicationState.COMPLETED


@pytest.fixture
def ask() -> Services:
    """With gallery corp and definition corp/web."""
    made = services()
    made.gallery.create_gallery(CORP, "eu")
    made.gallery.create_definition(definition())
    return made


def done(ask: Services, version: TakenVersion, *regions: str) -> TakenVersion:
    for region in regions:
        version = ask.records.set_regions(version, RegionStatus(region, COMPLETED, 100))
    return version


def published(ask: Services, name: str = "corp/web/1.0.0", digest: str = "d0") -> ImageVersion:
    version = ask.gallery.begin_version(request(name))
    version = ask.records.record_contents(version, [disk(digest=digest)], {})
    return ask.records.finish_version(done(ask, version, "eu", "us"))


# --- galleries and definitions ------------------------------------------------------------------


def test_creating_again_changes_what_may_change(ask: Services) -> None:
    first = ask.gallery.get_gallery(CORP)
    again = ask.gallery.create_gallery(parse_gallery("CORP"), "EU", description="ours")
    assert again == replace(first, description="ours")
    assert ask.gallery.list_galleries() == [again]
    kept = ask.gallery.get_definition(WEB)
    later = ask.gallery.create_definition(
        definition("CORP/WEB", description="x", identifier=kept.identifier, created=NOW.max)
    )
    assert later == replace(kept, description="x")
    assert str(ask.gallery.list_definitions(CORP)[0].name) == "corp/web"


def test_what_is_asked_for_says_neither_when_nor_has_to_say_where() -> None:
    ask = services(lambda: NOW)
    gallery = ask.gallery.create_gallery(CORP)
    group = ask.gallery.create_resource_group(CORP.subscription, "rg")
    assert gallery.location == group.location == ask.region() == "eu"  # the source region
    assert ask.region("US") == "us"
    with pytest.raises(InvalidParameter) as caught:
        ask.region("uk")
    assert caught.value.plain == "there is no region 'uk'"
    with pytest.raises(InvalidParameter, match="there is no region in the configuration"):
        services(regions=()).gallery.create_gallery(CORP)
    for created in (None, NOW.max):
        made = ask.gallery.create_definition(definition(location="", created=created))
        assert made.location == "eu"
        assert made.created == NOW


def test_nothing_is_made_in_what_is_not_there(ask: Services) -> None:
    actions: list[Action] = [
        lambda: ask.gallery.create_definition(definition("none/web")),
        lambda: ask.gallery.begin_version(request("corp/none/1.0.0")),
    ]
    for make in actions:
        with pytest.raises(NotFound) as caught:
            make()
        assert caught.value.reason == "ParentResourceNotFound"


def test_two_definitions_may_share_two_of_three(ask: Services) -> None:
    ask.gallery.create_definition(
        definition("corp/back", identifier=Identifier("Contoso", "web", "back"))
    )
    with pytest.raises(Conflict, match=r"already exists\. Choose a different publisher"):
        ask.gallery.create_definition(
            definition("corp/third", identifier=Identifier("contoso", "WEB", "BACK"))
        )
    assert [str(d.name) for d in ask.gallery.list_definitions(CORP)] == [
        "corp/back",
        "corp/web",
    ]


def test_deleting_goes_from_the_inside_out(ask: Services) -> None:
    published(ask)
    actions: list[Action] = [
        lambda: ask.gallery.delete_gallery(CORP),
        lambda: ask.gallery.delete_definition(WEB),
    ]
    for delete in actions:
        with pytest.raises(Conflict, match="Cannot delete resource") as caught:
            delete()
        assert caught.value.reason == "CannotDeleteResource"
    ask.records.finish_delete(ask.gallery.begin_delete(V100))
    ask.gallery.delete_definition(WEB)
    ask.gallery.delete_gallery(CORP)
    assert ask.gallery.list_galleries() == []
    absent: list[Action] = [
        lambda: ask.gallery.get_gallery(CORP),
        lambda: ask.gallery.get_definition(WEB),
        lambda: ask.gallery.get_version(V100),
        lambda: ask.gallery.delete_gallery(CORP),
        lambda: ask.gallery.list_definitions(CORP),
        lambda: ask.gallery.list_versions(WEB),
    ]
    for get in absent:
        with pytest.raises(NotFound):
            get()


# --- publishing ---------------------------------------------------------------------------------


def test_a_version_is_published_region_by_region(ask: Services) -> None:
    version = ask.gallery.begin_version(request())
    assert version.provisioning_state is ProvisioningState.CREATING
    assert version.generalized
    with pytest.raises(NotFound):
        ask.gallery.resolve("corp/web")
    version = ask.records.record_contents(version, [disk()], {"removed": ["/etc/machine-id"]})
    result = RegionResult(({"index": 0},), ("reflink",), 10, 5, 5)
    version = ask.records.set_regions(version, RegionStatus("EU", COMPLETED, 100, result=result))
    assert ask.gallery.resolve("corp/web/latest", "eu") == version  # usable before the rest is done
    assert version.published_date is not None
    with pytest.raises(NotFound, match="is not available in us region") as caught:
        ask.gallery.resolve("corp/web/1.0.0", "us")
    assert caught.value.reason == "GalleryImageNotFound"
    first_date = version.published_date
    finished = ask.records.finish_version(done(ask, version, "us"), {"seconds": 3})
    assert finished.provisioning_state is ProvisioningState.SUCCEEDED
    assert finished.owner is None
    assert finished.published_date == first_date
    assert finished.stats == {"seconds": 3}
    assert [status.region for status in finished.regions] == ["eu", "us"]
    assert finished.regions[0].result == result
    assert ask.gallery.report(V100) == {"removed": ["/etc/machine-id"]}
    assert ask.gallery.list_versions(WEB) == [finished]


def test_a_failed_region_leaves_the_others_usable(ask: Services) -> None:
    version = done(ask, ask.gallery.begin_version(request()), "eu")
    version = ask.records.set_regions(version, RegionStatus("us", FAILED, 30, "no space left"))
    failed = ask.records.finish_version(version)
    assert failed.provisioning_state is ProvisioningState.FAILED
    assert ask.gallery.resolve("corp/web", "eu") == failed
    with pytest.raises(NotFound, match="no latest image version exists"):
        ask.gallery.resolve("corp/web", "us")


def test_a_region_that_was_not_finished_has_failed(ask: Services) -> None:
    version = ask.records.finish_version(done(ask, ask.gallery.begin_version(request()), "eu"))
    status = version.status("us")
    assert status is not None
    assert status.state is FAILED
    assert status.details


def test_an_abandoned_version_leaves_its_number_free(ask: Services) -> None:
    version = ask.gallery.begin_version(request())
    version = ask.records.record_contents(version, [disk()], {"a": 1})
    assert ask.records.abandon_version(version, "the disk is full") is None
    with pytest.raises(NotFound):
        ask.gallery.get_version(V100)
    again = ask.gallery.begin_version(request())
    assert again.uid != version.uid
    assert ask.gallery.report(V100) is None


def test_abandoning_after_the_first_region_keeps_the_version(ask: Services) -> None:
    version = done(ask, ask.gallery.begin_version(request()), "eu")
    failed = ask.records.abandon_version(version, "host went down")
    assert failed is not None
    assert failed.provisioning_state is ProvisioningState.FAILED
    assert [(s.state, s.details) for s in failed.regions] == [
        (COMPLETED, ""),
        (FAILED, "host went down"),
    ]


def test_a_number_is_taken_once(ask: Services) -> None:
    ask.gallery.begin_version(request())
    become_another(ask)
    with pytest.raises(Conflict, match=r"run \w+ \(publish\) on build1 .* since 2026-11-01T12:00"):
        ask.gallery.begin_version(request())
    ask.gallery.begin_version(request("corp/web/1.0.1"))


def test_a_published_number_stays_taken(ask: Services) -> None:
    published(ask)
    with pytest.raises(Conflict, match="its content is immutable"):
        ask.gallery.begin_version(request())


def test_the_number_of_a_dead_process_is_taken_over(ask: Services) -> None:
    old = ask.gallery.begin_version(request())
    old = ask.records.record_contents(old, [disk(digest="half")], {"half": True})
    die(ask)
    assert ask.gallery.is_interrupted(ask.gallery.get_version(V100))
    become_another(ask)
    new = ask.gallery.begin_version(request(fingerprint="f2", target_regions=()))
    assert (new.uid, new.attempt) == (old.uid, old.attempt + 1)
    assert new.owner == ask.job_runs.id
    assert new.fingerprint == "f2"
    assert new.disks == ()
    assert [target.name for target in new.target_regions] == ["eu"]
    assert ask.gallery.report(V100) is None
    assert not ask.gallery.is_interrupted(new)


def test_a_process_that_was_thought_dead_can_change_nothing(ask: Services) -> None:
    old = ask.gallery.begin_version(request())
    die(ask)
    become_another(ask)
    new = ask.gallery.begin_version(request())
    before = ask.gallery.get_version(V100)
    actions: list[Action] = [
        lambda: ask.records.set_regions(old, RegionStatus("eu", COMPLETED, 100)),
        lambda: ask.records.record_contents(old, [disk()], {}),
        lambda: ask.records.finish_version(old),
        lambda: ask.records.abandon_version(old, "x"),
        lambda: ask.records.hand_over(old),
    ]
    for act in actions:
        with pytest.raises(Conflict, match="taken over by another process"):
            act()
    assert ask.gallery.get_version(V100) == before
    done(ask, new, "eu")


def test_what_a_dead_process_completed_is_kept_and_the_rest_resumed(ask: Services) -> None:
    old = ask.records.record_contents(
        ask.gallery.begin_version(request()), [disk()], {"kept": True}, ("osType",)
    )
    old = done(ask, old, "us")
    die(ask)
    become_another(ask)
    with pytest.raises(Conflict, match=r"unfinished but usable in us, from other sources"):
        ask.gallery.begin_version(request(fingerprint="other"))
    new = ask.gallery.begin_version(
        request(target_regions=(TargetRegion("eu"), TargetRegion("UK South")))
    )
    assert new.uid == old.uid
    assert new.disks == old.disks
    assert new.published_date == old.published_date
    assert [(s.region, s.state.value) for s in new.regions] == [
        ("eu", "Unknown"),
        ("UK South", "Unknown"),
        ("us", "Completed"),
    ]
    assert ask.gallery.report(V100) == {"kept": True}
    finished = ask.records.finish_version(done(ask, new, "eu", "uksouth"))
    assert finished.provisioning_state is ProvisioningState.SUCCEEDED
    assert new.unverified == ("osType",)


def test_a_version_that_failed_everywhere_is_taken_over(ask: Services) -> None:
    failed = ask.records.finish_version(ask.gallery.begin_version(request()))
    assert failed.provisioning_state is ProvisioningState.FAILED
    again = ask.gallery.begin_version(request(fingerprint="other"))
    assert again.attempt == failed.attempt + 1


def test_generalize_follows_the_definition_and_can_be_declined(ask: Services) -> None:
    ask.gallery.create_definition(
        definition(
            "corp/raw",
            os_state=OsState.SPECIALIZED,
            identifier=Identifier("Contoso", "web", "raw"),
        )
    )
    assert ask.gallery.begin_version(request("corp/web/1.0.0")).generalized
    assert not ask.gallery.begin_version(request("corp/web/1.0.1", generalize=False)).generalized
    assert not ask.gallery.begin_version(request("corp/raw/1.0.0")).generalized
    with pytest.raises(InvalidParameter, match="OS State"):
        ask.gallery.begin_version(request("corp/raw/1.0.1", generalize=True))


def test_a_refused_request_takes_no_number(ask: Services) -> None:
    refused = request(target_regions=(TargetRegion("us"),))
    with pytest.raises(InvalidParameter, match="must contain the location"):
        ask.gallery.begin_version(refused)
    assert ask.gallery.list_versions(WEB) == []


def test_a_region_that_is_no_target_has_no_status(ask: Services) -> None:
    version = ask.gallery.begin_version(request())
    with pytest.raises(NotFound):
        ask.records.set_regions(version, RegionStatus("uksouth", COMPLETED, 100))


# --- replicating later --------------------------------------------------------------------------


def test_regions_are_added_and_failed_ones_made_again(ask: Services) -> None:
    ask.records.finish_version(done(ask, ask.gallery.begin_version(request()), "eu"))
    again = ask.gallery.begin_replication(V100, [TargetRegion("us", 3), TargetRegion("uksouth")])
    assert again.provisioning_state is ProvisioningState.UPDATING
    assert [(t.name, t.regional_replica_count) for t in again.target_regions] == [
        ("eu", 2),
        ("us", 3),
        ("UK South", None),
    ]
    assert [s.state.value for s in again.regions] == ["Completed", "Unknown", "Unknown"]
    assert ask.gallery.resolve("corp/web", "eu") == again
    finished = ask.records.finish_version(done(ask, again, "us", "UK South"))
    assert finished.provisioning_state is ProvisioningState.SUCCEEDED


def test_another_process_goes_on_with_what_was_handed_over(ask: Services) -> None:
    version = ask.gallery.begin_version(request())
    with pytest.raises(Conflict, match="not Completed in any region"):
        ask.records.hand_over(version)
    left = ask.records.hand_over(done(ask, version, "eu"))
    assert left.provisioning_state is ProvisioningState.UPDATING
    assert ask.gallery.is_interrupted(left)
    become_another(ask)
    taken = ask.gallery.begin_replication(V100)
    assert [s.state.value for s in taken.regions] == ["Completed", "Unknown"]
    mine = ask.job_runs.id
    become_another(ask)
    with pytest.raises(Conflict, match=f"run {mine}"):
        ask.gallery.begin_replication(V100)


def test_publishing_again_resumes_what_was_handed_over(ask: Services) -> None:
    version = ask.records.hand_over(done(ask, ask.gallery.begin_version(request()), "eu"))
    again = ask.gallery.begin_version(request(target_regions=()))
    assert again.uid == version.uid
    assert [(t.name, t.regional_replica_count) for t in again.target_regions] == [
        ("eu", 2),
        ("us", None),
    ]


def test_nothing_is_replicated_from_nothing(ask: Services) -> None:
    ask.records.finish_version(ask.gallery.begin_version(request()))
    with pytest.raises(Conflict, match="nothing to replicate from"):
        ask.gallery.begin_replication(V100)


# --- deleting -----------------------------------------------------------------------------------


def test_a_version_being_deleted_is_used_by_nobody(ask: Services) -> None:
    published(ask)
    first = ask.gallery.begin_delete(V100)
    assert first.provisioning_state is ProvisioningState.DELETING
    with pytest.raises(NotFound):
        ask.gallery.resolve("corp/web", "eu")
    with pytest.raises(NotFound):
        ask.gallery.resolve("corp/web/1.0.0", "eu")
    die(ask)
    become_another(ask)
    actions: list[Action] = [
        lambda: ask.gallery.begin_version(request()),
        lambda: ask.gallery.begin_replication(V100),
    ]
    for act in actions:
        with pytest.raises(Conflict) as caught:
            act()
        assert caught.value.reason == "OperationNotAllowed"
    second = ask.gallery.begin_delete(V100)
    with pytest.raises(Conflict, match="taken over"):
        ask.records.finish_delete(first)
    ask.records.finish_delete(second)
    assert ask.gallery.list_versions(WEB) == []


def test_a_version_at_work_is_deleted_only_by_force(ask: Services) -> None:
    version = ask.gallery.begin_version(request())
    become_another(ask)
    with pytest.raises(Conflict, match=f"run {version.owner}"):
        ask.gallery.begin_delete(V100)
    with pytest.raises(Conflict, match="not marked for deletion"):
        ask.records.finish_delete(version)
    ask.records.finish_delete(ask.gallery.begin_delete(V100, force=True))
    with pytest.raises(Conflict):
        ask.records.set_regions(version, RegionStatus("eu", COMPLETED, 100))


def test_deleting_can_be_blocked_until_the_end_of_life(ask: Services) -> None:
    blocked = SafetyProfile(block_deletion_before_end_of_life=True)
    version = ask.gallery.begin_version(
        request(end_of_life_date=NOW + timedelta(days=1), safety_profile=blocked)
    )
    ask.records.finish_version(done(ask, version, "eu", "us"))
    with pytest.raises(Conflict) as caught:
        ask.gallery.begin_delete(V100)
    assert caught.value.reason == "DeleteGalleryImageVersionBlockedBeforeEndOfLife"
    assert ask.gallery.resolve("corp/web", "eu").provisioning_state is ProvisioningState.SUCCEEDED


# --- looking up ---------------------------------------------------------------------------------


def test_latest_is_by_number(ask: Services) -> None:
    for number in ("1.0.9", "2.0.0", "1.0.10", "1.0.5"):
        published(ask, f"corp/web/{number}")
    assert str(ask.gallery.resolve("corp/web", "eu").number) == "2.0.0"
    found = [str(v.number) for v in ask.gallery.list_versions(WEB)]
    assert found == ["2.0.0", "1.0.10", "1.0.9", "1.0.5"]


def test_what_is_not_there_is_not_found(ask: Services) -> None:
    with pytest.raises(NotFound, match=r"'corp/web/9\.9\.9' was not found"):
        ask.gallery.resolve("corp/web/9.9.9")
    with pytest.raises(NotFound, match="'corp/none' was not found"):
        ask.gallery.resolve("corp/none/latest")
    with pytest.raises(NotFound, match="no latest image version exists for 'corp/web'"):
        ask.gallery.resolve("corp/web")
    with pytest.raises(InvalidParameter) as caught:
        ask.gallery.resolve("corp/web", "mars")
    assert caught.value.reason == "LocationNotAvailableForResourceType"


def test_parents_are_older_versions_first_then_newer_ones(ask: Services) -> None:
    for number in ("1.0.0", "1.0.1", "1.0.9", "2.0.0", "3.0.0"):
        version = ask.gallery.begin_version(request(f"corp/web/{number}"))
        disks = [disk(digest=f"os-{number}"), disk(1, digest="data")]
        version = ask.records.record_contents(version, disks, {})
        if number != "1.0.1":  # not usable: not a parent
            ask.records.finish_version(done(ask, version, "eu", "us"))
    assert ask.gallery.parents_of(parse_version("corp/web/1.0.10")) == {
        None: ("os-1.0.9", "os-1.0.0", "os-2.0.0", "os-3.0.0"),
        1: ("data",),
    }
    assert ask.gallery.parents_of(parse_version("corp/web/0.0.1"))[None][0] == "os-1.0.0"


def test_only_the_nearest_versions_are_parents(ask: Services) -> None:
    for patch in range(2 * PARENTS + 3):
        published(ask, f"corp/web/1.0.{patch}", digest=str(patch))
    middle = PARENTS + 1
    expected = [*range(PARENTS, 0, -1), *range(middle + 1, middle + 1 + PARENTS)]
    found = ask.gallery.parents_of(parse_version(f"corp/web/1.0.{middle}"))
    assert found == {None: tuple(map(str, expected))}
