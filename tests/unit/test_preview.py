"""What a publish would be: new, the rest of an interrupted one, nothing, or a conflict; and which
number is next."""

import pytest

from pipeline.errors import Conflict, InvalidParameter
from pipeline.gallery.services import Services
from pipeline.jobs.plan import Action, find_version, judge, next_patch
from pipeline.model import RegionStatus, ReplicationState
from pipeline.model.names import MAX_NUMBER, parse_definition, parse_gallery, parse_version
from tests.samples import FakeOwners, definition, disk, request, services

WEB = parse_definition("corp/web")


@pytest.fixture
def owners() -> FakeOwners:
    return FakeOwners()


@pytest.fixture
def ask(owners: FakeOwners) -> Services:
    made = services(owners)
    made.gallery.create_gallery(parse_gallery("corp"), "eu")
    made.gallery.create_definition(definition())
    return made


def publish(ask: Services, name: str) -> str:
    """A whole version; returns its fingerprint."""
    version = ask.records.record_contents(ask.gallery.begin_version(request(name)), [disk()], {})
    for target in version.target_regions:
        status = RegionStatus(target.name, ReplicationState.COMPLETED, 100)
        version = ask.records.set_regions(version, status)
    return ask.records.finish_version(version).fingerprint


def following(ask: Services, fingerprint: str) -> str:
    return str(next_patch(WEB, fingerprint, ask.gallery.list_versions(WEB)).number)


def test_the_next_number(ask: Services) -> None:
    assert following(ask, "any") == "1.0.0"
    mark = publish(ask, "corp/web/1.9.9")
    publish(ask, "corp/web/1.10.0")
    assert following(ask, "any") == "1.10.1"
    assert following(ask, mark) == "1.10.1"


def test_an_unfinished_number_is_taken_up_again(ask: Services) -> None:
    publish(ask, "corp/web/1.0.0")
    left = ask.gallery.begin_version(request("corp/web/1.0.1"))
    assert following(ask, left.fingerprint) == "1.0.1"
    assert following(ask, "another request") == "1.0.2"


def test_numbers_end(ask: Services) -> None:
    publish(ask, f"corp/web/1.0.{MAX_NUMBER}")
    with pytest.raises(InvalidParameter):
        following(ask, "any")


def test_what_a_publish_would_be(ask: Services, owners: FakeOwners) -> None:
    name = parse_version("corp/web/1.0.0")
    assert find_version(name, ask.gallery) is None
    assert judge(None, "any", ask.gallery) is Action.PUBLISH

    begun = ask.gallery.begin_version(request("corp/web/1.0.0"))
    with pytest.raises(Conflict, match="has been working on it"):
        judge(begun, begun.fingerprint, ask.gallery)
    owners.dead.add(owners.me)
    assert judge(begun, begun.fingerprint, ask.gallery) is Action.CONTINUE
    assert judge(begun, "another request", ask.gallery) is Action.CONTINUE

    mark = publish(ask, "corp/web/2.0.0")
    made = find_version(parse_version("corp/web/2.0.0"), ask.gallery)
    assert judge(made, mark, ask.gallery) is Action.NOTHING
    with pytest.raises(Conflict, match="immutable"):
        judge(made, "another request", ask.gallery)
