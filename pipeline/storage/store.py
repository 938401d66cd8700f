"""Store: the content of disks, as bases in every zone that is to have them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.ports import Images, Pin, Progress, Work
from pipeline.sources.ingest import Disk
from pipeline.storage.convert import Below, Stored, convert
from pipeline.storage.placement import Parents, Places, Zones, every_zone, independent, sinks
from pipeline.storage.reuse import share
from pipeline.storage.space import check_space, measure


@dataclass(frozen=True, slots=True)
class Material:
    """Disks that are held still, and where their content goes. `known` are the digests of disks
    that zones hold already: nothing is to be read. New bases start from the first of `parents`
    that a zone holds; what lies in the bases of `below` is not read either."""

    disks: tuple[Disk, ...]
    pin: Pin
    known: Mapping[int | None, str]
    parents: Parents
    places: Places
    below: Below = field(default_factory=dict)


def check_room(material: Material, zones: Zones, images: Images, work: Work) -> None:
    """Raise NoSpace when there is no room for it, and EnvironmentMissing when a zone can't be
    written."""
    places = material.places
    donors = every_zone(zones) if material.known else ()
    amounts, written = measure(material.disks, images), tuple(sinks(places).values())
    check_space(amounts, written, material.parents, work, donors, independent(places))


def store(
    material: Material,
    work: Path,
    advance: Callable[[int], None],
    zones: Zones,
    images: Images,
    progress: Progress,
) -> Stored:
    """The disks in every zone: of bases that zones hold already, or converted. `advance` is told
    the bytes that are dealt with. Raises what went wrong when no zone got everything."""
    written, alone = sinks(material.places), independent(material.places)
    if material.known:
        known = material.known
        return share(known, written, zones, work, images, progress, advance, independent=alone)
    disks, parents, pin, below = material.disks, material.parents, material.pin, material.below
    return convert(
        *(disks, written, parents, work, pin, images, progress, advance),
        independent=alone,
        below=below,
    )
