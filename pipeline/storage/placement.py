"""Placement: which zones of a region store a version, and how many replicas each gets.

Standard_LRS   one zone has the base and all replicas
Standard_ZRS   every zone of the region (three or more) has a base of its own, written to it and
               never a clone; the replicas are spread over them
Premium_LRS    as Standard_LRS, in a zone that is marked premium, where nothing else goes
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import EnvironmentMissing, GalleriaError, Refused
from pipeline.model import StorageAccountType, TargetRegion
from pipeline.ports import Replica, StoredBase, Zone

Zones = Mapping[str, tuple[Zone, ...]]  # by region
Parents = Mapping[int | None, Sequence[str]]  # by LUN, root digests a new base may start from

ZRS_ZONES = 3


@dataclass(frozen=True, slots=True)
class Placement:
    """What one zone has of a version: always the bases, and this many replicas."""

    zone: Zone
    replicas: int


Places = Mapping[str, tuple[Placement, ...]]  # by region


def storage_types(premium: Sequence[bool]) -> tuple[StorageAccountType, ...]:
    """What a region can offer whose zones are marked so."""
    standard = len(premium) - sum(premium)
    offered = {
        StorageAccountType.STANDARD_LRS: standard > 0,
        StorageAccountType.STANDARD_ZRS: standard >= ZRS_ZONES,
        StorageAccountType.PREMIUM_LRS: any(premium),
    }
    return tuple(kind for kind, possible in offered.items() if possible)


def place(
    targets: Iterable[TargetRegion],
    parents: Parents,
    zones: Zones,
    *,
    replica_count: int | None = None,
    key: str = "",
    zrs_same_filesystem: bool = False,
) -> dict[str, tuple[Placement, ...]]:
    """Where each of these regions stores a version: `key` in the zones, with `replica_count` where
    a region gives none. Raises EnvironmentMissing when a zone that is needed is not on this host,
    and Refused for Standard_ZRS on zones that would fail together."""
    places = {}
    for target in targets:
        here = zones.get(target.name, ())
        placements: list[Placement] = []
        for kind, count in _sets(target, replica_count):
            if kind is StorageAccountType.STANDARD_ZRS:
                chosen = _independent(target.name, here, zrs_same_filesystem=zrs_same_filesystem)
            else:
                premium = kind is StorageAccountType.PREMIUM_LRS
                chosen = (choose_zone(target.name, parents, here, premium=premium, key=key),)
            placements += spread(chosen, count)
        places[target.name] = tuple(placements)
    return places


def _sets(
    target: TargetRegion, replica_count: int | None
) -> list[tuple[StorageAccountType | None, int]]:
    """The region's own replicas, and the additional ones: they lie in zones of the other sort."""
    own = (target.storage_account_type, target.own_count(replica_count))
    more = target.additional_replica_sets
    return [own, *((item.storage_account_type, item.regional_replica_count) for item in more)]


def placed_again(
    target: TargetRegion, replica_count: int | None, holding: Sequence[Zone]
) -> tuple[Placement, ...]:
    """The replicas of a region over the zones that hold the version already. Raises
    EnvironmentMissing when those are not on this host."""
    placements: list[Placement] = []
    for kind, count in _sets(target, replica_count):
        premium = kind is StorageAccountType.PREMIUM_LRS
        mine = [zone for zone in holding if zone.premium == premium]
        if not mine:
            raise EnvironmentMissing(
                f"no zone of region {target.name} on this host holds the version",
                hint="galleria doctor shows the zones",
            )
        placements += spread(mine, count)
    return tuple(placements)


def choose_zone(
    region: str, parents: Parents, zones: Sequence[Zone], *, premium: bool = False, key: str = ""
) -> Zone:
    """The zone that has the version `key` already, else one with bases to start from, else the one
    with most room."""
    candidates = [zone for zone in zones if zone.premium == premium]
    if not candidates:
        kind = "premium zone" if premium else "zone"
        raise EnvironmentMissing(
            f"region {region} has no {kind} on this host",
            hint="name a directory for it in the configuration; galleria doctor shows all",
        )

    def merit(zone: Zone) -> tuple[bool, bool, int]:
        holds = bool(key) and usable_version(zone, key) is not None
        try:
            return holds, has_parent(zone, parents), zone.free_bytes()
        except OSError:  # it is told of when something is to be stored in it
            return False, False, 0

    return max(candidates, key=merit)


def has_parent(zone: Zone, parents: Parents) -> bool:
    """Whether a zone has a base to start from."""
    return any(usable_base(zone, digest) for digests in parents.values() for digest in digests)


def usable_base(zone: Zone, digest: str) -> StoredBase | None:
    """A base of a zone that can be read from, as far as its files show. One that is damaged, or a
    zone that can't be read, is as good as none: other zones may have it."""
    with suppress(OSError, GalleriaError):
        base = zone.find_base(digest)
        if base is not None and not zone.base_changes(base):
            return base
    return None


def usable_version(zone: Zone, key: str) -> tuple[Replica, ...] | None:
    """The replicas of a version in a zone; None also when its record, or the zone, can't be
    read."""
    with suppress(OSError, GalleriaError):
        return zone.find_version(key)
    return None


def spread(zones: Sequence[Zone], count: int) -> tuple[Placement, ...]:
    """So many replicas over these zones, as evenly as it goes."""
    each, rest = divmod(count, len(zones))
    return tuple(Placement(zone, each + (index < rest)) for index, zone in enumerate(zones))


def _independent(
    region: str, zones: Sequence[Zone], *, zrs_same_filesystem: bool
) -> tuple[Zone, ...]:
    chosen = tuple(zone for zone in zones if not zone.premium)
    if len(chosen) < ZRS_ZONES:
        raise EnvironmentMissing(
            f"region {region} has {len(chosen)} zones on this host, and Standard_ZRS needs "
            f"{ZRS_ZONES}",
            hint="mount the others: galleria doctor shows all; or use Standard_LRS",
        )
    seen: dict[str, Zone] = {}
    for zone in chosen:
        twin = seen.setdefault(zone.file_system, zone)
        if twin is not zone and not zrs_same_filesystem:
            raise Refused(
                f"the zones {twin.path} and {zone.path} of region {region} are on one file system: "
                "they would fail together, which Standard_ZRS is to prevent",
                hint="give each a file system of its own, use Standard_LRS, or set "
                "zrs_same_filesystem = true in the configuration (a lab)",
            )
    return chosen


def every_zone(zones: Zones) -> tuple[Zone, ...]:
    """The zones of all regions."""
    return tuple(zone for places in zones.values() for zone in places)


def independent(places: Places) -> frozenset[str]:
    """The zones, by their `sink_name`, whose bases have to be written and may not be clones: those
    of regions that have more than one (Standard_ZRS). A premium zone for additional replicas is
    not there to survive the others."""
    several = [[one for one in placed if not one.zone.premium] for placed in places.values()]
    return frozenset(sink_name(one.zone) for placed in several if len(placed) > 1 for one in placed)


def sinks(places: Places) -> dict[str, Zone]:
    """Every zone that gets bases, by the name that `convert` knows it by."""
    return {sink_name(one.zone): one.zone for placed in places.values() for one in placed}


def sink_name(zone: Zone) -> str:
    """One that no other zone on this host has; names of zones are free."""
    return str(zone.path)
