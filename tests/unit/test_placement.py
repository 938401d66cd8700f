"""Which zones of a region store a version."""

from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.errors import EnvironmentMissing, Refused
from pipeline.model import StorageAccountType, TargetRegion
from pipeline.ports import Zone
from pipeline.storage.placement import (
    Parents,
    Places,
    independent,
    place,
    sinks,
    spread,
    storage_types,
)

LRS = StorageAccountType.STANDARD_LRS
ZRS = StorageAccountType.STANDARD_ZRS
PREMIUM = StorageAccountType.PREMIUM_LRS


class Place:
    """As much of a zone as placement asks for."""

    def __init__(
        self,
        name: str,
        *,
        premium: bool = False,
        free: int = 0,
        disk: str = "",
        bases: tuple[str, ...] = (),
        keys: tuple[str, ...] = (),
    ) -> None:
        self.name, self.premium, self.free = name, premium, free
        self.path = Path("/", name)
        self.file_system = disk or name
        self.bases, self.keys = bases, keys

    def free_bytes(self) -> int:
        return self.free

    def find_base(self, digest: str) -> object | None:
        return digest if digest in self.bases else None

    def base_changes(self, base: object) -> str:
        return ""

    def find_version(self, key: str) -> object | None:
        return () if key in self.keys else None


def placed(kind: StorageAccountType, count: int, *zones: Place, **options: Any) -> Places:
    target = TargetRegion("eu", count, kind)
    parents: Parents = {None: ("d1",)}
    return place([target], parents, {"eu": cast(tuple[Zone, ...], zones)}, **options)


def names(places: Places) -> dict[str, int]:
    return {placement.zone.name: placement.replicas for placement in places["eu"]}


def test_lrs_is_one_zone_with_all_replicas() -> None:
    assert names(placed(LRS, 3, Place("a", free=1), Place("b", free=2))) == {"b": 3}
    assert names(placed(LRS, 3, Place("a", bases=("d1",)), Place("b", free=2))) == {"a": 3}
    there = Place("c", keys=("k",))
    assert names(placed(LRS, 1, Place("a", bases=("d1",)), there, key="k")) == {"c": 1}


def test_premium_zones_are_for_premium_alone() -> None:
    fast, slow = Place("fast", premium=True, free=9), Place("slow")
    assert names(placed(LRS, 1, fast, slow)) == {"slow": 1}
    assert names(placed(PREMIUM, 2, fast, slow)) == {"fast": 2}
    with pytest.raises(EnvironmentMissing, match="region eu has no premium zone"):
        placed(PREMIUM, 1, slow)
    with pytest.raises(EnvironmentMissing, match="region eu has no zone"):
        placed(LRS, 1, fast)


def test_zrs_is_every_zone_and_replicas_spread_over_them() -> None:
    zones = [Place(name) for name in "abcd"]
    fast = Place("fast", premium=True)
    places = placed(ZRS, 6, *zones, fast)
    assert names(places) == {"a": 2, "b": 2, "c": 1, "d": 1}
    assert sorted(sinks(places)) == ["/a", "/b", "/c", "/d"]
    assert independent(places) == {"/a", "/b", "/c", "/d"}
    assert independent(placed(LRS, 6, *zones)) == set()
    placements = (*placed(LRS, 1, *zones)["eu"], *placed(PREMIUM, 1, fast)["eu"])
    assert independent({"eu": placements}) == set()
    # a base in each zone, even where no replica goes
    assert names(placed(ZRS, 1, *zones)) == {"a": 1, "b": 0, "c": 0, "d": 0}


def test_zrs_needs_three_zones_that_do_not_fail_together() -> None:
    with pytest.raises(EnvironmentMissing, match="has 2 zones on this host"):
        placed(ZRS, 1, Place("a"), Place("b"), Place("fast", premium=True))
    twins = [Place("a"), Place("b", disk="sda"), Place("c", disk="sda")]
    with pytest.raises(Refused, match="/b and /c of region eu are on one file system"):
        placed(ZRS, 1, *twins)
    assert len(placed(ZRS, 1, *twins, zrs_same_filesystem=True)["eu"]) == 3


@pytest.mark.parametrize(
    ("premium", "kinds"),
    [
        ([False], (LRS,)),
        ([False] * 3, (LRS, ZRS)),
        ([False] * 3 + [True], (LRS, ZRS, PREMIUM)),
        ([True], (PREMIUM,)),
        ([False, False, True], (LRS, PREMIUM)),
    ],
)
def test_what_a_region_can_offer(
    premium: list[bool], kinds: tuple[StorageAccountType, ...]
) -> None:
    assert storage_types(premium) == kinds


def test_replicas_are_spread_evenly() -> None:
    zones = cast(tuple[Zone, ...], [Place("a"), Place("b"), Place("c")])
    for count in range(8):
        counts = [placement.replicas for placement in spread(zones, count)]
        assert sum(counts) == count
        assert max(counts) - min(counts) <= 1
