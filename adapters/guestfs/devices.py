"""Which devices of the appliance hold file systems, and where on which disk they lie.

libguestfs's own list takes 2 to 5 s under software emulation (it runs parted several times a disk);
sysfs, blkid(8) and pvs(8) say the same in a fraction of it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from adapters.guestfs.process import Helper
from adapters.guestfs.shell import quote, run_script
from pipeline.data.extents import Range
from pipeline.errors import StageFailed

SECTOR = 512  # of sysfs's start and size, whatever the disk's own sectors are

ENCRYPTED = ("crypto_LUKS", "BitLocker")

# kernel name, parent disk ("-": it is one), start and length in sectors, SCSI address of the disk
BLOCK_DEVICES = r"""
for path in /sys/class/block/sd*; do
  name=${path##*/}
  if [ -e $path/partition ]; then
    parent=$(readlink -f $path/..); echo $name ${parent##*/} $(cat $path/start $path/size) -
  else
    address=$(readlink -f $path/device); echo $name - 0 $(cat $path/size) ${address##*/}
  fi
done
"""
LVM_COLUMNS = (
    "pv_name,pe_start,vg_extent_size,pvseg_start,pvseg_size,segtype,vg_name,lv_name,seg_start"
)
LVM_SEGMENTS = (
    f"pvs --segments --noheadings --units b --nosuffix --separator '|' -o {LVM_COLUMNS} 2>/dev/null"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [offset, offset + length) of a device are bytes [start, start + length) of a disk."""

    disk: int
    start: int
    length: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """`name` is libguestfs's, `node` the appliance kernel's, which finds disks in any order:
    libguestfs translates, scripts can't. `kind` is the file system as blkid
    names it, or "unknown". Without `pieces` it isn't known where it lies (striped or encrypted
    volumes, RAID)."""

    name: str
    node: str
    kind: str
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True)
class Devices:
    """All devices that may hold a file system, and each disk's extents that no logical volume
    has."""

    disks: int
    devices: tuple[Device, ...]
    unallocated: tuple[tuple[int, Range], ...]

    def kinds(self) -> dict[str, str]:
        return {device.name: device.kind for device in self.devices}


def survey(helper: Helper) -> Devices:
    """Ask once a session: the set does not change."""
    disks = list(helper.call("list_devices"))
    nodes, places = _partitions(run_script(helper, BLOCK_DEVICES).decode(), disks)
    listing = run_script(helper, LVM_SEGMENTS).decode("utf-8", "replace")
    volumes, unallocated = _volumes(listing, places)
    for name in [*helper.call("lvs"), *helper.call("list_md_devices")]:
        volumes.setdefault(name, [])
    placed = {node: [piece] for node, piece in places.items()} | volumes
    kinds = _kinds(helper, placed)
    found = (
        Device(nodes.get(node, node), node, kinds[node], tuple(pieces))
        for node, pieces in placed.items()
    )
    return Devices(len(disks), tuple(sorted(found, key=lambda item: item.name)), tuple(unallocated))


def project(ranges: Iterable[Range], pieces: Iterable[Piece]) -> Iterator[tuple[int, Range]]:
    """Ranges of a device as ranges of the disks that it lies on."""
    placed = list(pieces)
    for found in ranges:
        for piece in placed:
            start = max(found.start, piece.offset)
            end = min(found.end, piece.offset + piece.length)
            if start < end:
                yield piece.disk, Range(piece.start + start - piece.offset, end - start)


def _partitions(listing: str, disks: list[str]) -> tuple[dict[str, str], dict[str, Piece]]:
    """libguestfs's name, and the place, of every partition and of disks that have none, by node.

    libguestfs gives its disks SCSI targets in the order in which they were added, its own root
    last: that order is also the one of its names.
    """
    rows = [line.split() for line in listing.splitlines()]
    whole = [(_address(row[4]), row[0]) for row in rows if row[1] == "-"]
    kernel = [name for _, name in sorted(whole)]
    if len(kernel) != len(disks) + 1:
        raise StageFailed(
            f"the appliance has {len(kernel)} disks where {len(disks)} and its own were expected"
        )
    index = {name: number for number, name in enumerate(kernel[:-1])}
    nodes, places = {}, {}
    divided = {parent for _, parent, *_ in rows}
    for name, parent, start, length, _ in rows:
        disk = name if parent == "-" else parent
        if disk in index and name not in divided:
            nodes[f"/dev/{name}"] = disks[index[disk]] + name.removeprefix(disk)
            piece = Piece(index[disk], int(start) * SECTOR, int(length) * SECTOR)
            places[f"/dev/{name}"] = piece
    return nodes, places


def _address(scsi: str) -> tuple[int, ...]:
    """host:channel:target:lun in an order that is not the one of text."""
    return tuple(int(part) for part in scsi.split(":"))


def _volumes(
    listing: str, places: dict[str, Piece]
) -> tuple[dict[str, list[Piece]], list[tuple[int, Range]]]:
    """Logical volumes by name, as far as they are linear on known partitions, and free extents."""
    volumes: dict[str, list[Piece]] = {}
    strange = set()
    unallocated = []
    for line in listing.splitlines():
        pv, first, extent, start, count, kind, group, volume, offset = line.strip().split("|")
        if not group:
            continue  # a physical volume of no group: nothing is known of its contents
        length = int(count) * int(extent)
        place = places.get(pv)
        name = f"/dev/{group}/{volume}"
        if place is None or (volume and kind != "linear"):
            strange.add(name)
            continue
        begin = place.start + int(first) + int(start) * int(extent)
        if volume:
            piece = Piece(place.disk, begin, length, int(offset))
            volumes.setdefault(name, []).append(piece)
        else:
            unallocated.append((place.disk, Range(begin, length)))
    return {name: [] if name in strange else found for name, found in volumes.items()}, unallocated


def _kinds(helper: Helper, names: Iterable[str]) -> dict[str, str]:
    """The type of each device. blkid's status 2 means that it knows none."""
    ordered = list(names)
    script = "\n".join(
        f't=$(blkid -p -o value -s TYPE -- {quote(name)}); echo "${{t:-unknown}}"'
        for name in ordered
    )
    kinds = run_script(helper, script).decode(errors="replace").splitlines()
    return dict(zip(ordered, kinds, strict=True))
