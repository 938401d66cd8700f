"""What a publish would be: new, the rest of an interrupted one, nothing, or a conflict; and which
number is next."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import Conflict, InvalidParameter
from pipeline.gallery.services import Services
from pipeline.jobs.batch import Wanted, already_there, numbered, order_of
from pipeline.jobs.plan import Action, find_version, judge, next_patch
from pipeline.jobs.prepare import PublishRequest, fingerprinted
from pipeline.model import RegionStatus, ReplicationState
from pipeline.model.names import MAX_NUMBER, parse_definition, parse_gallery, parse_version
from pipeline.model.sources import DiskSource, VersionSource
from tests.samples import become_another, definition, die, disk, request, services

WEB = parse_definition("corp/web")


@pytest.fixture
def ask() -> Services:
    made = services()
    made.gallery.create_gallery(parse_gallery("corp"), "eu")
    made.gallery.create_definition(definition())
    return made


def publish(ask: Services, name: str, **asked: Any) -> str:
    """A whole version; returns its fingerprint."""
    begun = ask.gallery.begin_version(request(name, **asked))
    version = ask.records.record_contents(begun, [disk()], {})
    for target in version.target_regions:
        status = RegionStatus(target.name, ReplicationState.COMPLETED, 100)
        version = ask.records.set_regions(version, status)
    return ask.records.finish_version(version).fingerprint


def following(ask: Services, fingerprint: str) -> str:
    return str(next_patch(WEB, fingerprint, ask.gallery.list_versions(WEB)).number)


def test_the_next_number(ask: Services) -> None:
    assert following(ask, "any") == "1.0.0"
    mark = publish(ask, "corp/web/1.9.9")
    made = publish(ask, "corp/web/1.10.0", fingerprint="another request")
    assert following(ask, "any") == "1.10.1"
    assert following(ask, mark) == "1.10.1"
    assert following(ask, made) == "1.10.0"  # which is there already
    found = ask.gallery.list_versions(WEB)
    assert str(next_patch(WEB, mark, found, {made}).number) == "1.9.9"


def test_an_unfinished_number_is_taken_up_again(ask: Services) -> None:
    publish(ask, "corp/web/1.0.0")
    left = ask.gallery.begin_version(request("corp/web/1.0.1"))
    assert following(ask, left.fingerprint) == "1.0.1"
    assert following(ask, "another request") == "1.0.2"


def test_numbers_end(ask: Services) -> None:
    publish(ask, f"corp/web/1.0.{MAX_NUMBER}")
    with pytest.raises(InvalidParameter):
        following(ask, "any")


def test_what_a_publish_would_be(ask: Services) -> None:
    name = parse_version("corp/web/1.0.0")
    assert find_version(name, ask.gallery) is None
    assert judge(None, "any", ask.gallery) is Action.PUBLISH

    begun = ask.gallery.begin_version(request("corp/web/1.0.0"))
    become_another(ask)
    with pytest.raises(Conflict, match="has been working on it"):
        judge(begun, begun.fingerprint, ask.gallery)
    die(ask, begun.owner)
    assert judge(begun, begun.fingerprint, ask.gallery) is Action.CONTINUE
    assert judge(begun, "another request", ask.gallery) is Action.CONTINUE

    mark = publish(ask, "corp/web/2.0.0")
    made = find_version(parse_version("corp/web/2.0.0"), ask.gallery)
    assert judge(made, mark, ask.gallery) is Action.NOTHING
    with pytest.raises(Conflict, match="immutable"):
        judge(made, "another request", ask.gallery)


def wanted(name: str, *, next_patch: bool = False) -> Wanted:
    source = DiskSource(None, Path("/d/web.raw"))
    return Wanted(PublishRequest(request(name), (source,), None), next_patch=next_patch)


def test_a_batch_asks_for_numbers_and_skips_what_is_there(ask: Services) -> None:
    sources: Any = SimpleNamespace(identity=lambda source: source)
    context: Any = SimpleNamespace(gallery=ask.gallery, sources=sources)
    fixed, following = wanted("corp/web/2.0.0"), wanted("corp/web/0.0.0", next_patch=True)
    assert numbered(fixed, context) is fixed.request
    assert already_there(fixed.request, context) is None
    publish(ask, "corp/web/1.4.7")
    assert str(numbered(following, context).version.name) == "corp/web/1.4.8"
    with pytest.raises(Conflict):  # from other sources
        already_there(wanted("corp/web/1.4.7").request, context)
    mark = fingerprinted(fixed.request, sources).fingerprint
    made = publish(ask, "corp/web/2.0.0", fingerprint=mark)
    there = already_there(fixed.request, context)
    assert there is not None
    assert there.fingerprint == made == mark


def waiting(*builds: tuple[str, str]) -> list[list[int]]:
    """What each of a batch of (version, source) waits for."""
    order = order_of(batch(*builds))
    return [sorted(order.waits_for(index)) for index in range(len(builds))]


def batch(*builds: tuple[str, str]) -> list[Wanted]:
    made = []
    for index, (name, reference) in enumerate(builds):
        source = VersionSource(reference) if reference else DiskSource(None, Path("/d/web.raw"))
        number = name if name.count("/") == 2 else f"{name}/0.0.0"
        asked = PublishRequest(request(number), (source,), None)
        made.append(Wanted(asked, next_patch=number != name, name=f"b{index}"))
    return made


def test_builds_wait_for_what_they_start_from_and_for_earlier_ones_of_their_image() -> None:
    files = (("corp/a/1.0.0", ""), ("corp/b/1.0.0", ""), ("corp/a/1.0.1", ""), ("corp/c/1.0.0", ""))
    assert waiting(*files) == [[], [], [0], []]
    assert waiting(("corp/b", "corp/a/latest"), ("corp/a", "")) == [[1], []]
    assert waiting(("corp/b", "corp/a/1.0.0"), ("corp/a/1.0.0", ""), ("corp/a/2.0.0", "")) == [
        *([1], []),
        [1],
    ]
    assert waiting(("corp/b", "corp/a@prod"), ("corp/a", "")) == [[], []]  # a channel moves by hand
    assert waiting(("corp/a", "corp/a"), ("corp/a", "corp/a/latest")) == [[], [0]]
    assert waiting(("corp/a/1.0.1", "corp/a/1.0.0"), ("corp/a/1.0.0", "")) == [[1], []]
    order = order_of(batch(("corp/c", "corp/b"), ("corp/b", "corp/a"), ("corp/a", ""), ("d/e", "")))
    assert order.ordered()[-3:] == [2, 1, 0] or order.ordered().index(2) < order.ordered().index(0)
    assert order.needed([1]) == {1, 2}


@pytest.mark.parametrize(
    ("builds", "names"),
    [
        ([("corp/a", "corp/b"), ("corp/b", "corp/a")], "b0 -> b1 -> b0"),
        (
            [
                ("corp/a", "corp/b"),
                ("corp/b", "corp/c"),
                ("corp/d", "corp/a"),
                ("corp/c", "corp/a"),
            ],
            "b0 -> b1 -> b3 -> b0",
        ),
        # the second of its image waits for the first, which waits for it
        (
            [("corp/a/1.0.0", "corp/x"), ("corp/x", "corp/a/1.0.1"), ("corp/a/1.0.1", "")],
            "b0 -> b1 -> b2 -> b0",
        ),
    ],
)
def test_builds_that_wait_for_each_other_are_refused(
    builds: list[tuple[str, str]], names: str
) -> None:
    with pytest.raises(InvalidParameter, match=f"wait for each other: {names}$"):
        order_of(batch(*builds))


@pytest.mark.timeout(20)
def test_a_long_row_of_builds_is_ordered_in_no_time() -> None:
    builds = [(f"corp/a{n}", f"corp/a{n + 1}") for n in range(400)]
    assert order_of(batch(*builds)).ordered() == list(range(399, -1, -1))
