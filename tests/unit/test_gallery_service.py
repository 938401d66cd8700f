"""The life of galleries, definitions and versions, over the in-memory catalog."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.errors import Conflict, InvalidParameter, NotFound
from pipeline.gallery.service import PARENTS, GalleryService
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
from tests.memory_catalog import MemoryCatalog
from tests.samples import NOW, REGIONS, FakeClock, FakeOwners, definition, disk, request

CORP, WEB = parse_gallery("corp"), parse_definition("corp/web")
V100 = parse_version("corp/web/1.0.0")
Action = Callable[[], object]
FAILED, COMPLETED = ReplicationState.FAILED, ReplicationState.COMPLETED


@pytest.fixture
def owners() -> FakeOwners:
    return FakeOwners()


@pytest.fixture
def service(owners: FakeOwners) -> GalleryService:
    """With gallery corp and definition corp/web."""
    made = GalleryService(MemoryCatalog(), owners, REGIONS, FakeClock())
    made.create_gallery(CORP, "eu")
    made.create_definition(definition())
    return made


def done(service: GalleryService, version: ImageVersion, *regions: str) -> ImageVersion:
    for region in regions:
        version = service.set_regions(version, RegionStatus(region, COMPLETED, 100))
    return version


def published(
    service: GalleryService, name: str = "corp/web/1.0.0", digest: str = "d0"
) -> ImageVersion:
    version = service.begin_version(request(name))
    version = service.record_contents(version, [disk(digest=digest)], {})
    return service.finish_version(done(service, version, "eu", "us"))


# --- galleries and definitions ------------------------------------------------------------------


def test_creating_again_changes_what_may_change(service: GalleryService) -> None:
    first = service.get_gallery(CORP)
    again = service.create_gallery(parse_gallery("CORP"), "EU", description="ours")
    assert again == replace(first, description="ours")
    assert service.list_galleries() == [again]
    kept = service.get_definition(WEB)
    later = service.create_definition(
        definition("CORP/WEB", description="x", identifier=kept.identifier, created=NOW.max)
    )
    assert later == replace(kept, description="x")
    assert str(service.list_definitions(CORP)[0].name) == "corp/web"


def test_nothing_is_made_in_what_is_not_there(service: GalleryService) -> None:
    actions: list[Action] = [
        lambda: service.create_definition(definition("none/web")),
        lambda: service.begin_version(request("corp/none/1.0.0")),
    ]
    for make in actions:
        with pytest.raises(NotFound) as caught:
            make()
        assert caught.value.reason == "ParentResourceNotFound"


def test_two_definitions_may_share_two_of_three(service: GalleryService) -> None:
    service.create_definition(
        definition("corp/back", identifier=Identifier("Contoso", "web", "back"))
    )
    with pytest.raises(Conflict, match=r"already exists\. Choose a different publisher"):
        service.create_definition(
            definition("corp/third", identifier=Identifier("contoso", "WEB", "BACK"))
        )
    assert [str(d.name) for d in service.list_definitions(CORP)] == ["corp/back", "corp/web"]


def test_deleting_goes_from_the_inside_out(service: GalleryService) -> None:
    published(service)
    actions: list[Action] = [
        lambda: service.delete_gallery(CORP),
        lambda: service.delete_definition(WEB),
    ]
    for delete in actions:
        with pytest.raises(Conflict, match="Cannot delete resource") as caught:
            delete()
        assert caught.value.reason == "CannotDeleteResource"
    service.finish_delete(service.begin_delete(V100))
    service.delete_definition(WEB)
    service.delete_gallery(CORP)
    assert service.list_galleries() == []
    absent: list[Action] = [
        lambda: service.get_gallery(CORP),
        lambda: service.get_definition(WEB),
        lambda: service.get_version(V100),
        lambda: service.delete_gallery(CORP),
        lambda: service.list_definitions(CORP),
        lambda: service.list_versions(WEB),
    ]
    for get in absent:
        with pytest.raises(NotFound):
            get()


# --- publishing ---------------------------------------------------------------------------------


def test_a_version_is_published_region_by_region(service: GalleryService) -> None:
    version = service.begin_version(request())
    assert version.provisioning_state is ProvisioningState.CREATING
    assert version.generalized
    with pytest.raises(NotFound):
        service.resolve("corp/web")
    version = service.record_contents(version, [disk()], {"removed": ["/etc/machine-id"]})
    result = RegionResult(({"index": 0},), ("reflink",), 10, 5, 5)
    version = service.set_regions(version, RegionStatus("EU", COMPLETED, 100, result=result))
    assert service.resolve("corp/web/latest", "eu") == version  # usable before the rest is done
    assert version.published_date is not None
    with pytest.raises(NotFound, match="is not available in us region") as caught:
        service.resolve("corp/web/1.0.0", "us")
    assert caught.value.reason == "GalleryImageNotFound"
    first_date = version.published_date
    version = service.finish_version(done(service, version, "us"), {"seconds": 3})
    assert version.provisioning_state is ProvisioningState.SUCCEEDED
    assert version.owner is None
    assert version.published_date == first_date
    assert version.stats == {"seconds": 3}
    assert [status.region for status in version.regions] == ["eu", "us"]
    assert version.regions[0].result == result
    assert service.report(V100) == {"removed": ["/etc/machine-id"]}
    assert service.list_versions(WEB) == [version]


def test_a_failed_region_leaves_the_others_usable(service: GalleryService) -> None:
    version = done(service, service.begin_version(request()), "eu")
    version = service.set_regions(version, RegionStatus("us", FAILED, 30, "no space left"))
    version = service.finish_version(version)
    assert version.provisioning_state is ProvisioningState.FAILED
    assert service.resolve("corp/web", "eu") == version
    with pytest.raises(NotFound, match="no latest image version exists"):
        service.resolve("corp/web", "us")


def test_a_region_that_was_not_finished_has_failed(service: GalleryService) -> None:
    version = service.finish_version(done(service, service.begin_version(request()), "eu"))
    status = version.status("us")
    assert status is not None
    assert status.state is FAILED
    assert status.details


def test_an_abandoned_version_leaves_its_number_free(service: GalleryService) -> None:
    version = service.begin_version(request())
    version = service.record_contents(version, [disk()], {"a": 1})
    assert service.abandon_version(version, "the disk is full") is None
    with pytest.raises(NotFound):
        service.get_version(V100)
    again = service.begin_version(request())
    assert again.uid != version.uid
    assert service.report(V100) is None


def test_abandoning_after_the_first_region_keeps_the_version(service: GalleryService) -> None:
    version = done(service, service.begin_version(request()), "eu")
    failed = service.abandon_version(version, "host went down")
    assert failed is not None
    assert failed.provisioning_state is ProvisioningState.FAILED
    assert [(s.state, s.details) for s in failed.regions] == [
        (COMPLETED, ""),
        (FAILED, "host went down"),
    ]


def test_a_number_is_taken_once(service: GalleryService, owners: FakeOwners) -> None:
    service.begin_version(request())
    owners.become(5678)
    with pytest.raises(Conflict, match=r"process 1234 on build1 .* since 2026-11-01T12:00"):
        service.begin_version(request())
    service.begin_version(request("corp/web/1.0.1"))


def test_a_published_number_stays_taken(service: GalleryService) -> None:
    published(service)
    with pytest.raises(Conflict, match="its content is immutable"):
        service.begin_version(request())


def test_the_number_of_a_dead_process_is_taken_over(
    service: GalleryService, owners: FakeOwners
) -> None:
    old = service.begin_version(request())
    old = service.record_contents(old, [disk(digest="half")], {"half": True})
    owners.dead.add(owners.me)
    assert service.is_interrupted(service.get_version(V100))
    owners.become(5678)
    new = service.begin_version(request(fingerprint="f2", target_regions=()))
    assert (new.uid, new.attempt) == (old.uid, old.attempt + 1)
    assert new.owner == owners.me
    assert new.fingerprint == "f2"
    assert new.disks == ()
    assert [target.name for target in new.target_regions] == ["eu"]
    assert service.report(V100) is None
    assert not service.is_interrupted(new)


def test_a_process_that_was_thought_dead_can_change_nothing(
    service: GalleryService, owners: FakeOwners
) -> None:
    old = service.begin_version(request())
    owners.dead.add(owners.me)
    owners.become(5678)
    new = service.begin_version(request())
    before = service.get_version(V100)
    actions: list[Action] = [
        lambda: service.set_regions(old, RegionStatus("eu", COMPLETED, 100)),
        lambda: service.record_contents(old, [disk()], {}),
        lambda: service.finish_version(old),
        lambda: service.abandon_version(old, "x"),
        lambda: service.hand_over(old),
    ]
    for act in actions:
        with pytest.raises(Conflict, match="taken over by another process"):
            act()
    assert service.get_version(V100) == before
    done(service, new, "eu")


def test_what_a_dead_process_completed_is_kept_and_the_rest_resumed(
    service: GalleryService, owners: FakeOwners
) -> None:
    old = service.record_contents(service.begin_version(request()), [disk()], {"kept": True})
    old = done(service, old, "us")
    owners.dead.add(owners.me)
    owners.become(5678)
    with pytest.raises(Conflict, match=r"unfinished but usable in us, from other sources"):
        service.begin_version(request(fingerprint="other"))
    new = service.begin_version(
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
    assert service.report(V100) == {"kept": True}
    finished = service.finish_version(done(service, new, "eu", "uksouth"))
    assert finished.provisioning_state is ProvisioningState.SUCCEEDED


def test_a_version_that_failed_everywhere_is_taken_over(service: GalleryService) -> None:
    failed = service.finish_version(service.begin_version(request()))
    assert failed.provisioning_state is ProvisioningState.FAILED
    again = service.begin_version(request(fingerprint="other"))
    assert again.attempt == failed.attempt + 1


def test_generalize_follows_the_definition_and_can_be_declined(service: GalleryService) -> None:
    service.create_definition(
        definition(
            "corp/raw",
            os_state=OsState.SPECIALIZED,
            identifier=Identifier("Contoso", "web", "raw"),
        )
    )
    assert service.begin_version(request("corp/web/1.0.0")).generalized
    assert not service.begin_version(request("corp/web/1.0.1", generalize=False)).generalized
    assert not service.begin_version(request("corp/raw/1.0.0")).generalized
    with pytest.raises(InvalidParameter, match="OS State"):
        service.begin_version(request("corp/raw/1.0.1", generalize=True))


def test_a_refused_request_takes_no_number(service: GalleryService) -> None:
    refused = request(target_regions=(TargetRegion("us"),))
    with pytest.raises(InvalidParameter, match="must contain the location"):
        service.begin_version(refused)
    assert service.list_versions(WEB) == []


def test_a_region_that_is_no_target_has_no_status(service: GalleryService) -> None:
    version = service.begin_version(request())
    with pytest.raises(NotFound):
        service.set_regions(version, RegionStatus("uksouth", COMPLETED, 100))


# --- replicating later --------------------------------------------------------------------------


def test_regions_are_added_and_failed_ones_made_again(service: GalleryService) -> None:
    version = service.begin_version(request())
    version = service.finish_version(done(service, version, "eu"))
    again = service.begin_replication(V100, [TargetRegion("us", 3), TargetRegion("uksouth")])
    assert again.provisioning_state is ProvisioningState.UPDATING
    assert [(t.name, t.regional_replica_count) for t in again.target_regions] == [
        ("eu", 2),
        ("us", 3),
        ("UK South", None),
    ]
    assert [s.state.value for s in again.regions] == ["Completed", "Unknown", "Unknown"]
    assert service.resolve("corp/web", "eu") == again
    finished = service.finish_version(done(service, again, "us", "UK South"))
    assert finished.provisioning_state is ProvisioningState.SUCCEEDED


def test_another_process_goes_on_with_what_was_handed_over(
    service: GalleryService, owners: FakeOwners
) -> None:
    version = service.begin_version(request())
    with pytest.raises(Conflict, match="not Completed in any region"):
        service.hand_over(version)
    version = service.hand_over(done(service, version, "eu"))
    assert version.provisioning_state is ProvisioningState.UPDATING
    assert service.is_interrupted(version)
    owners.become(5678)
    taken = service.begin_replication(V100)
    assert [s.state.value for s in taken.regions] == ["Completed", "Unknown"]
    with pytest.raises(Conflict, match="process 5678"):
        service.begin_replication(V100)


def test_publishing_again_resumes_what_was_handed_over(service: GalleryService) -> None:
    version = service.hand_over(done(service, service.begin_version(request()), "eu"))
    again = service.begin_version(request(target_regions=()))
    assert again.uid == version.uid
    assert [(t.name, t.regional_replica_count) for t in again.target_regions] == [
        ("eu", 2),
        ("us", None),
    ]


def test_nothing_is_replicated_from_nothing(service: GalleryService) -> None:
    service.finish_version(service.begin_version(request()))
    with pytest.raises(Conflict, match="nothing to replicate from"):
        service.begin_replication(V100)


# --- deleting -----------------------------------------------------------------------------------


def test_a_version_being_deleted_is_used_by_nobody(
    service: GalleryService, owners: FakeOwners
) -> None:
    published(service)
    first = service.begin_delete(V100)
    assert first.provisioning_state is ProvisioningState.DELETING
    with pytest.raises(NotFound):
        service.resolve("corp/web", "eu")
    with pytest.raises(NotFound):
        service.resolve("corp/web/1.0.0", "eu")
    owners.dead.add(owners.me)
    owners.become(5678)
    actions: list[Action] = [
        lambda: service.begin_version(request()),
        lambda: service.begin_replication(V100),
    ]
    for act in actions:
        with pytest.raises(Conflict) as caught:
            act()
        assert caught.value.reason == "OperationNotAllowed"
    second = service.begin_delete(V100)
    with pytest.raises(Conflict, match="taken over"):
        service.finish_delete(first)
    service.finish_delete(second)
    assert service.list_versions(WEB) == []


def test_a_version_at_work_is_deleted_only_by_force(
    service: GalleryService, owners: FakeOwners
) -> None:
    version = service.begin_version(request())
    owners.become(5678)
    with pytest.raises(Conflict, match="process 1234"):
        service.begin_delete(V100)
    with pytest.raises(Conflict, match="not marked for deletion"):
        service.finish_delete(version)
    service.finish_delete(service.begin_delete(V100, force=True))
    with pytest.raises(Conflict):
        service.set_regions(version, RegionStatus("eu", COMPLETED, 100))


def test_deleting_can_be_blocked_until_the_end_of_life(service: GalleryService) -> None:
    blocked = SafetyProfile(block_deletion_before_end_of_life=True)
    version = service.begin_version(
        request(end_of_life_date=NOW + timedelta(days=1), safety_profile=blocked)
    )
    service.finish_version(done(service, version, "eu", "us"))
    with pytest.raises(Conflict) as caught:
        service.begin_delete(V100)
    assert caught.value.reason == "DeleteGalleryImageVersionBlockedBeforeEndOfLife"
    assert service.resolve("corp/web", "eu").provisioning_state is ProvisioningState.SUCCEEDED


# --- looking up ---------------------------------------------------------------------------------


def test_latest_is_by_number(service: GalleryService) -> None:
    for number in ("1.0.9", "2.0.0", "1.0.10", "1.0.5"):
        published(service, f"corp/web/{number}")
    assert str(service.resolve("corp/web", "eu").number) == "2.0.0"
    found = [str(v.number) for v in service.list_versions(WEB)]
    assert found == ["2.0.0", "1.0.10", "1.0.9", "1.0.5"]


def test_what_is_not_there_is_not_found(service: GalleryService) -> None:
    with pytest.raises(NotFound, match=r"'corp/web/9\.9\.9' was not found"):
        service.resolve("corp/web/9.9.9")
    with pytest.raises(NotFound, match="'corp/none' was not found"):
        service.resolve("corp/none/latest")
    with pytest.raises(NotFound, match="no latest image version exists for 'corp/web'"):
        service.resolve("corp/web")
    with pytest.raises(InvalidParameter) as caught:
        service.resolve("corp/web", "mars")
    assert caught.value.reason == "LocationNotAvailableForResourceType"


def test_parents_are_older_versions_first_then_newer_ones(service: GalleryService) -> None:
    for number in ("1.0.0", "1.0.1", "1.0.9", "2.0.0", "3.0.0"):
        version = service.begin_version(request(f"corp/web/{number}"))
        disks = [disk(digest=f"os-{number}"), disk(1, digest="data")]
        version = service.record_contents(version, disks, {})
        if number != "1.0.1":  # not usable: not a parent
            service.finish_version(done(service, version, "eu", "us"))
    assert service.parents_of(parse_version("corp/web/1.0.10")) == {
        None: ("os-1.0.9", "os-1.0.0", "os-2.0.0", "os-3.0.0"),
        1: ("data",),
    }
    assert service.parents_of(parse_version("corp/web/0.0.1"))[None][0] == "os-1.0.0"


def test_only_the_nearest_versions_are_parents(service: GalleryService) -> None:
    for patch in range(2 * PARENTS + 3):
        published(service, f"corp/web/1.0.{patch}", digest=str(patch))
    middle = PARENTS + 1
    expected = [*range(PARENTS, 0, -1), *range(middle + 1, middle + 1 + PARENTS)]
    found = service.parents_of(parse_version(f"corp/web/1.0.{middle}"))
    assert found == {None: tuple(map(str, expected))}
