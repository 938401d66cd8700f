"""Preflight: where a version will be stored, and whether there is room, before anything is
written."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.data.extents import data_bytes
from pipeline.errors import EnvironmentMissing, NoSpace
from pipeline.ports import Images, Work, Zone
from pipeline.stages.convert import Parents
from pipeline.stages.ingest import Disk
from pipeline.stages.replicate import Zones

# Beside its data a base needs a manifest, records, qcow2 tables and what the file system takes.
OVERHEAD = 64 << 20
# Generalization edits an overlay: file-system metadata, journals and truncated logs, not data.
WORK_SPACE = 256 << 20


def choose_zones(regions: Iterable[str], parents: Parents, zones: Zones) -> dict[str, Zone]:
    """One zone for each region: the one that has bases to start from, else the one with most
    room."""
    chosen = {}
    for region in regions:
        candidates = zones.get(region, ())
        if not candidates:
            raise EnvironmentMissing(
                f"region {region} has no zone on this host",
                hint="name a directory for it in the configuration; galleria doctor shows all",
            )
        chosen[region] = max(
            candidates, key=lambda zone: (has_parent(zone, parents), zone.free_bytes())
        )
    return chosen


def has_parent(zone: Zone, parents: Parents) -> bool:
    return any(zone.find_base(digest) for digests in parents.values() for digest in digests)


def check_space(
    disks: Sequence[Disk],
    zones: Mapping[str, Zone],
    parents: Parents,
    work: Work,
    images: Images,
) -> None:
    """Raise NoSpace when a file system can't hold what will be written to it.

    A disk that starts from an older base costs what changed, which nobody knows yet: only the
    overhead is asked for then, and a zone that fills up fails alone.
    """
    needs: dict[int, int] = {}
    places: dict[int, tuple[Path, int]] = {}
    for zone in zones.values():
        device = device_of(zone.path)
        places[device] = (zone.path, zone.free_bytes())
        needs[device] = needs.get(device, 0) + OVERHEAD
    for disk in disks:
        with images.open(disk.chain, free=disk.free) as source:
            amount = data_bytes(source.extents())
        for zone in zones.values():
            if not any(zone.find_base(digest) for digest in parents.get(disk.lun, ())):
                needs[device_of(zone.path)] += amount
    for device, need in needs.items():
        path, free = places[device]
        _require(need, free, f"zone {path}")
    _require(WORK_SPACE, work.free_bytes(), "the work directory")


def device_of(path: Path) -> int:
    """Zones on one file system share its room."""
    return path.stat().st_dev


def _require(need: int, free: int, place: str) -> None:
    if free < need:
        raise NoSpace(
            f"{place} has {free / 2**30:.1f} GiB free and about {need / 2**30:.1f} GiB are needed",
            hint="make room there, or leave the region out; --no-preflight tries all the same",
        )
