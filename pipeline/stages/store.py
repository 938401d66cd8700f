"""Store: the content of disks, as bases in every zone that is to have them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.outside import Ports
from pipeline.placement import Parents, Places, every_zone, independent, sinks
from pipeline.ports import Pin
from pipeline.preflight import check_space, measure
from pipeline.stages.convert import Below, Stored, convert
from pipeline.stages.ingest import Disk
from pipeline.stages.share import share


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


def check_room(material: Material, ports: Ports) -> None:
    """Raise NoSpace when there is no room for it, and EnvironmentMissing when a zone can't be
    written."""
    places = material.places
    donors = every_zone(ports.zones) if material.known else ()
    amounts, zones = measure(material.disks, ports.images), tuple(sinks(places).values())
    check_space(amounts, zones, material.parents, ports.work, donors, independent(places))


def store(material: Material, work: Path, advance: Callable[[int], None], ports: Ports) -> Stored:
    """The disks in every zone: of bases that zones hold already, or converted. `advance` is told
    the bytes that are dealt with. Raises what went wrong when no zone got everything."""
    zones, alone = sinks(material.places), independent(material.places)
    images, progress = ports.images, ports.progress
    if material.known:
        known, donors = material.known, ports.zones
        stored = share(known, zones, donors, work, images, progress, advance, independent=alone)
    else:
        disks, parents, pin, below = material.disks, material.parents, material.pin, material.below
        stored = convert(
            *(disks, zones, parents, work, pin, images, progress, advance),
            independent=alone,
            below=below,
        )
    for disk in stored.disks:
        ports.moved("store", disk.result.stats)
    return stored
