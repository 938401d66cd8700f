"""Which version `latest` is."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pipeline.gallery.latest import latest, newest_first, usable
from pipeline.model import (
    AggregatedState,
    ImageVersion,
    ProvisioningState,
    RegionStatus,
    ReplicationState,
    TargetRegion,
)
from tests.samples import NOW, version


def of(number: str, **changes: Any) -> ImageVersion:
    return version(f"corp/web/{number}", **changes)


def number(found: ImageVersion | None) -> str | None:
    return None if found is None else str(found.number)


def without(number: str, region: str) -> ImageVersion:
    """A version that is not Completed in one of its two regions."""
    made = of(number)
    regions = tuple(
        replace(s, state=ReplicationState.REPLICATING) if s.region == region else s
        for s in made.regions
    )
    return replace(made, regions=regions)


def test_numbers_are_compared_as_integers() -> None:
    numbers = ["1.0.10", "1.0.9", "1.10.0", "1.9.0", "10.0.0", "9.0.0", "2147483647.0.0", "0.0.1"]
    versions = [of(text) for text in numbers]
    random.shuffle(versions)
    expected = "2147483647.0.0 10.0.0 9.0.0 1.10.0 1.9.0 1.0.10 1.0.9 0.0.1"
    assert " ".join(str(v.number) for v in newest_first(versions)) == expected


def test_the_date_and_the_end_of_life_change_nothing() -> None:
    later = of("1.0.5", published_date=NOW.replace(year=2027))
    ended = of("2.0.0", end_of_life_date=NOW.replace(year=2020))
    assert number(latest(newest_first([later, ended]), "eu")) == "2.0.0"


def test_excluded_versions_are_passed_over() -> None:
    not_in_eu = (TargetRegion("eu", exclude_from_latest=True), TargetRegion("us"))
    versions = [
        of("1.0.2", exclude_from_latest=True),
        of("1.0.1", target_regions=not_in_eu),
        of("1.0.0"),
    ]
    assert number(latest(versions, "eu")) == "1.0.0"
    assert number(latest(versions, "us")) == "1.0.1"
    assert number(latest(versions)) == "1.0.1"


def test_only_what_is_completed_in_the_region_counts() -> None:
    versions = [without("1.0.1", "us"), of("1.0.0")]
    assert number(latest(versions, "US")) == "1.0.0"
    assert number(latest(versions, "eu")) == "1.0.1"
    assert latest(versions, "mars") is None
    assert latest([], "eu") is None


def test_a_region_completed_but_excluded_does_not_make_it_the_latest_anywhere() -> None:
    only_us = replace(
        without("1.0.1", "eu"),
        target_regions=(TargetRegion("eu"), TargetRegion("us", exclude_from_latest=True)),
    )
    assert number(latest([only_us, of("1.0.0")])) == "1.0.0"


@pytest.mark.parametrize("state", list(ProvisioningState))
def test_a_completed_region_is_usable_unless_the_version_is_being_deleted(
    state: ProvisioningState,
) -> None:
    made = of("1.0.0", provisioning_state=state)
    assert usable(made, "eu") is (state is not ProvisioningState.DELETING)
    assert usable(made) is (state is not ProvisioningState.DELETING)


def test_no_more_is_read_than_needed() -> None:
    def endless() -> Iterator[ImageVersion]:
        yield of("2.0.0")
        raise AssertionError("read on")

    assert number(latest(endless(), "eu")) == "2.0.0"


@pytest.mark.parametrize(
    ("states", "aggregated"),
    [
        ("UU", "Unknown"),
        ("UR", "InProgress"),
        ("CU", "InProgress"),
        ("CR", "InProgress"),
        ("CC", "Completed"),
        ("CF", "Failed"),
        ("RF", "Failed"),
    ],
)
def test_the_aggregated_state(states: str, aggregated: str) -> None:
    by_letter = {state.value[0]: state for state in ReplicationState}
    regions = tuple(RegionStatus(f"r{i}", by_letter[c]) for i, c in enumerate(states))
    assert of("1.0.0", regions=regions).aggregated_state is AggregatedState(aggregated)
