"""Space: whether there is room for a version, before anything is written."""

from collections.abc import Collection, Mapping, Sequence

from pipeline.data.extents import data_bytes
from pipeline.errors import GalleriaError, NoSpace
from pipeline.ports import Images, Work, Zone
from pipeline.sources.ingest import Disk
from pipeline.storage.placement import Parents, sink_name, usable_base

# Beside its data a base needs a manifest, records, qcow2 tables and what the file system takes.
OVERHEAD = 64 << 20
# Generalization edits an overlay: file-system metadata, journals and truncated logs, not data.
WORK_SPACE = 256 << 20

Amounts = Mapping[int | None, int]  # by LUN, the bytes of a disk that have to be read


def measure(disks: Sequence[Disk], images: Images) -> Amounts:
    """How much there is to read; no content is."""
    amounts = {}
    for disk in disks:
        with images.open(disk.chain, free=disk.free) as source:
            amounts[disk.lun] = data_bytes(source.extents())
    return amounts


def check_space(
    amounts: Amounts,
    zones: Sequence[Zone],
    parents: Parents,
    work: Work,
    donors: Sequence[Zone] = (),
    independent: Collection[str] = (),
) -> dict[str, GalleriaError | OSError]:
    """Of zones, by their `sink_name`: EnvironmentMissing when one can't be written at all, and
    NoSpace when its file system can't hold what will be written to it. Raises NoSpace when the work
    directory has no room.

    A disk that starts from an older base costs what changed, which nobody knows yet: only the
    overhead is asked for then, and a zone that fills up fails alone. The same holds for one that
    can be cloned from a zone of `donors`. Of zones that clone from each other, all but those in
    `independent`, one needs the room.
    """
    needs: dict[str, int] = {}
    written: set[str] = set()  # the file systems whose clones are of one zone's base
    places: dict[str, list[Zone]] = {}
    free: dict[str, int] = {}
    failures: dict[str, GalleriaError | OSError] = {}
    for zone in zones:
        try:
            zone.check_writable()
            file_system = zone.file_system
            free[file_system] = zone.free_bytes()
        except (OSError, GalleriaError) as error:
            failures[sink_name(zone)] = error
            continue
        places.setdefault(file_system, []).append(zone)
        needs[file_system] = needs.get(file_system, 0) + OVERHEAD
        alone = not zone.reflink or sink_name(zone) in independent
        if not alone and zone.file_system in written:
            continue
        if not alone:
            written.add(zone.file_system)
        near = [zone, *(d for d in donors if zone.reflink and d.file_system == zone.file_system)]
        for lun, amount in amounts.items():
            digests = parents.get(lun, ())
            if not any(usable_base(place, digest) for digest in digests for place in near):
                needs[file_system] += amount
    for file_system, need in needs.items():
        for zone in places[file_system]:
            if lack := _lack(need, free[file_system], f"zone {zone.path}"):
                failures[sink_name(zone)] = lack
    if lack := _lack(WORK_SPACE, work.free_bytes(), "the work directory"):
        raise lack
    return failures


def _size(amount: int) -> str:
    return f"{amount / 2**30:.1f} GiB" if amount >= 1 << 30 else f"{amount >> 20} MiB"


def _lack(need: int, free: int, place: str) -> NoSpace | None:
    if free >= need:
        return None
    return NoSpace(
        f"{place} has {_size(free)} free and about {_size(need)} are needed",
        hint="make room there, or leave the region out; --no-preflight tries all the same",
    )
