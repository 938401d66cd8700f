"""Store: the content of disks, as bases in every zone that is to have them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.ports import Images, Pin, Work, Zone
from pipeline.sources.ingest import Disk
from pipeline.storage.convert import Below, Conversion, Failures, Means, Stored, convert
from pipeline.storage.placement import (
    Parents,
    Places,
    Zones,
    every_zone,
    independent,
    sink_name,
    sinks,
)
from pipeline.storage.reuse import reuse_bases
from pipeline.storage.space import check_space, measure


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the content of disks goes. New bases start from the first of `parents` that a zone
    holds; `known` are the digests of disks that zones hold already: nothing is to be read."""

    places: Places
    parents: Parents
    known: Mapping[int | None, str] = field(default_factory=dict)

    @property
    def zones(self) -> dict[str, Zone]:
        """Every zone that gets bases, by its `sink_name`."""
        return sinks(self.places)

    @property
    def independent(self) -> frozenset[str]:
        """The zones whose bases may not be clones of another zone's."""
        return independent(self.places)


@dataclass(frozen=True, slots=True)
class Material:
    """Disks that are held still, and where their content goes. What lies in the bases of `below` is
    not read."""

    disks: tuple[Disk, ...]
    pin: Pin
    destination: Destination
    below: Below = field(default_factory=dict)
    failures: Failures = field(default_factory=dict)  # zones that nothing is to be stored in


def check_room(material: Material, zones: Zones, images: Images, work: Work) -> Failures:
    """The zones that have no room for it, or can't be written, and why. Raises the first of these
    errors when no region is left, and NoSpace for the work directory."""
    goal = material.destination
    donors = every_zone(zones) if goal.known else ()
    written = tuple(goal.zones.values())
    failures = check_space(
        measure(material.disks, images), written, goal.parents, work, donors, goal.independent
    )
    failing = [
        any(sink_name(item.zone) in failures for item in placements)
        for placements in goal.places.values()
    ]
    if all(failing):
        raise next(iter(failures.values()))
    return failures


def store(material: Material, zones: Zones, means: Means) -> Stored:
    """The disks in every zone of their destination: of bases that `zones` hold already, or
    converted. Raises what went wrong when no zone got everything."""
    goal = material.destination
    conversion = Conversion(
        goal.zones,
        goal.parents,
        material.pin,
        goal.independent,
        material.below,
        material.failures,
    )
    if goal.known:
        stored = reuse_bases(goal.known, zones, conversion, means)
    else:
        stored = convert(material.disks, conversion, means)
    for disk in stored.disks:
        means.moved(disk.result.stats)
    return stored
