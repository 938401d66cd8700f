"""What a publish would be: new, the rest of an interrupted one, nothing, or a conflict; and which
number is next."""

import pytest

from pipeline.errors import Conflict, InvalidParameter
from pipeline.gallery.service import GalleryService
from pipeline.jobs.plan import Action, find_version, judge, next_patch
from pipeline.model import RegionStatus, ReplicationState
from pipeline.model.names import MAX_NUMBER, parse_definition, parse_gallery, parse_version
from tests.memory_catalog import MemoryCatalog
from tests.samples import REGIONS, FakeClock, FakeOwners, definition, disk, request

WEB = parse_definition("corp/web")


@pytest.fixture
def owners() -> FakeOwners:
    return FakeOwners()


@pytest.fixture
def service(owners: FakeOwners) -> GalleryService:
    made = GalleryService(MemoryCatalog(), owners, REGIONS, FakeClock())
    made.create_gallery(parse_gallery("corp"), "eu")
    made.create_definition(definition())
    return made


def publish(service: GalleryService, name: str) -> str:
    """A whole version; returns its fingerprint."""
    version = service.record_contents(service.begin_version(request(name)), [disk()], {})
    for target in version.target_regions:
        status = RegionStatus(target.name, ReplicationState.COMPLETED, 100)
        version = service.set_regions(version, status)
    return service.finish_version(version).fingerprint


def following(service: GalleryService, fingerprint: str) -> str:
    return str(next_patch(WEB, fingerprint, service.list_versions(WEB)).number)


def test_the_next_number(service: GalleryService) -> None:
    assert following(service, "any") == "1.0.0"
    mark = publish(service, "corp/web/1.9.9")
    publish(service, "corp/web/1.10.0")
    assert following(service, "any") == "1.10.1"
    assert following(service, mark) == "1.10.1"


def test_an_unfinished_number_is_taken_up_again(service: GalleryService) -> None:
    publish(service, "corp/web/1.0.0")
    left = service.begin_version(request("corp/web/1.0.1"))
    assert following(service, left.fingerprint) == "1.0.1"
    assert following(service, "another request") == "1.0.2"


def test_numbers_end(service: GalleryService) -> None:
    publish(service, f"corp/web/1.0.{MAX_NUMBER}")
    with pytest.raises(InvalidParameter):
        following(service, "any")


def test_what_a_publish_would_be(service: GalleryService, owners: FakeOwners) -> None:
    name = parse_version("corp/web/1.0.0")
    assert find_version(name, service) is None
    assert judge(None, "any", service) is Action.PUBLISH

    begun = service.begin_version(request("corp/web/1.0.0"))
    with pytest.raises(Conflict, match="has been working on it"):
        judge(begun, begun.fingerprint, service)
    owners.dead.add(owners.me)
    assert judge(begun, begun.fingerprint, service) is Action.CONTINUE
    assert judge(begun, "another request", service) is Action.CONTINUE

    mark = publish(service, "corp/web/2.0.0")
    made = find_version(parse_version("corp/web/2.0.0"), service)
    assert judge(made, mark, service) is Action.NOTHING
    with pytest.raises(Conflict, match="immutable"):
        judge(made, "another request", service)
