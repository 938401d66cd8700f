"""Which devices of the appliance hold file systems, and where on which disk they lie.

libguestfs's own lists take 2 to 5 s under software emulation (it runs parted several times a disk);
sysfs, blkid(8) and pvs(8) say the same in one script, in a fraction of it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.guestfs.process import Helper
from adapters.guestfs.shell import run_script
from pipeline.errors import StageFailed
from pipeline.ports.extents import Range

SECTOR = 512  # of sysfs's start and size, whatever the disk's own sectors are
MIB = 1 << 20

ENCRYPTED = ("crypto_LUKS", "BitLocker")
LDM = ("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "af9b60a0-1431-4f62-bc68-3311714a69ad")
EXTENDED = ("0x5", "0xf", "0x85")  # their tables lie in a chain between the logical partitions
# Windows's dynamic disks: a database lies at the end
DYNAMIC = ("0x42", *LDM)
# MBR types whose partitions, or whose disks' ends, hold more than the table says
SHAPELESS = (*EXTENDED, *DYNAMIC)
MOST_TABLES = 128  # of an extended partition

LVM_COLUMNS = (
    "pv_name,pe_start,vg_extent_size,pvseg_start,pvseg_size,segtype,vg_name,lv_name,seg_start,"
    "pv_pe_count,pv_mda_count,dev_size"
)
LVM_TOOL = "--noheadings --units b --nosuffix --separator '|'"
# Three parts: kernel name, parent disk ("-": it is one), start and length in sectors, SCSI address
# of the disk; what blkid knows of each node; the segments of LVM. Builtins where possible: under
# software emulation starting a program costs 30 ms.
SURVEY = rf"""
for name in $(cd /sys/class/block && echo sd* md*); do
  cd -P /sys/class/block/$name 2>/dev/null || continue
  nodes="$nodes /dev/$name"
  read length < size
  if [ -e partition ]; then
    read start < start; parent=${{PWD%/*}}; echo $name ${{parent##*/}} $start $length -
  elif [ -e device ]; then
    cd -P device; echo $name - 0 $length ${{PWD##*/}}
  fi
done
cd /
echo =
for node in /dev/mapper/luks-*; do [ ! -e $node ] || nodes="$nodes $node"; done
known=$(blkid -p -o export $nodes 2>/dev/null; true); echo "$known"
if [[ $known == *LVM2_member* ]]; then
  volumes=$(lvs {LVM_TOOL.replace("'|'", "/")} -o vg_name,lv_name,vg_uuid,lv_uuid 2>/dev/null)
  paths=; for volume in $volumes; do paths="$paths /dev/${{volume%/*/*}}"; done
  echo; [ -z "$paths" ] || blkid -p -o export $paths 2>/dev/null || true
  for volume in $volumes; do
    ids=${{volume#*/*/}}; ids=${{ids//-/}}
    echo; echo "DEVNAME=/dev/${{volume%/*/*}}"; echo "LVM_UUID=${{ids/\//}}"
  done
  echo =; pvs --segments {LVM_TOOL} -o {LVM_COLUMNS} 2>/dev/null || true
fi
"""


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
    names it, or "unknown"; `tags` is what blkid says besides (UUID, LABEL, PARTUUID...). Without
    `pieces` it isn't known where it lies (striped or encrypted volumes, RAID)."""

    name: str
    node: str
    kind: str
    pieces: tuple[Piece, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return sum(piece.length for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Devices:
    """All devices that may hold a file system; each disk's extents that neither a partition nor a
    logical volume has; and each disk's partition table ("dos", "gpt", "") with its types."""

    disks: int
    devices: tuple[Device, ...]
    unallocated: tuple[tuple[int, Range], ...]
    tables: tuple[tuple[str, tuple[str, ...]], ...] = ()
    # the same inside encryption: ranges of nodes of which it is not known where they lie
    inside: tuple[tuple[str, Range], ...] = ()
    # what becomes of the gaps of each disk with partitions, in a line
    gaps: tuple[str, ...] = ()

    def kinds(self) -> dict[str, str]:
        return {device.name: device.kind for device in self.devices}

    def of(self, disks: Sequence[int]) -> "Devices":
        """Only what lies on these disks. The others are another guest's."""
        devices = tuple(
            device
            for device in self.devices
            if device.pieces and {piece.disk for piece in device.pieces} <= set(disks)
        )
        free = tuple((disk, found) for disk, found in self.unallocated if disk in disks)
        names = tuple(f"{drive_name(disk)} " for disk in disks)
        gaps = tuple(line for line in self.gaps if line.startswith(names))
        tables = tuple(self.tables[disk] for disk in disks)
        return Devices(self.disks, devices, free, tables, gaps=gaps)

    def find(self, name: str) -> Device | None:
        return next((device for device in self.devices if device.name == name), None)


@dataclass(frozen=True, slots=True)
class _Node:
    """One block device of the appliance. `disk` is its index, None for the appliance's own."""

    path: str
    name: str
    disk: int | None
    place: Piece | None
    whole: bool


def drive_name(index: int) -> str:
    """libguestfs's name of the disk that was added as number `index`."""
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return f"/dev/sd{letters}"


def survey(helper: Helper, disks: int) -> Devices:
    """Ask once a session: the set does not change."""
    listing = run_script(helper, SURVEY).decode("utf-8", "replace")
    nodes_part, known_part, *lvm_part = re.split(r"^=$", listing, flags=re.MULTILINE)
    nodes = _nodes(nodes_part, disks)
    known = _known(known_part)
    parents = {node.path for node in nodes if _divided(node, nodes)}
    places = {node.path: [node.place] if node.place else [] for node in nodes}
    own = {node.path for node in nodes if node.disk is None and node.place is not None}
    names = {node.path: node.name for node in nodes}
    volumes, unallocated, inside = _volumes("".join(lvm_part), places)
    for path in known:  # striped volumes, RAID, what was opened of encrypted ones
        if path not in places:
            volumes.setdefault(path, [])
    placed = {path: found for path, found in places.items() if path not in parents | own} | volumes
    devices = []
    for path, pieces in placed.items():
        tags = known.get(path, {})
        devices.append(
            Device(names.get(path, path), path, tags.get("TYPE", "unknown"), tuple(pieces), tags)
        )
    gaps = []
    for node in nodes:
        if node.path in parents and node.disk is not None:
            found, how = _unpartitioned(helper, node, nodes, known)
            unallocated += found
            gaps.append(f"{node.name} (between partitions): {how}")
    tables = []
    for disk in range(disks):
        own_nodes = [node for node in nodes if node.disk == disk]
        kinds = (known.get(node.path, {}).get("PART_ENTRY_TYPE", "") for node in own_nodes)
        whole = next((node.path for node in own_nodes if node.path in parents), "")
        tables.append((known.get(whole, {}).get("PTTYPE", ""), tuple(k for k in kinds if k)))
    return Devices(
        disks,
        tuple(sorted(devices, key=lambda item: item.name)),
        tuple(unallocated),
        tuple(tables),
        tuple(inside),
        tuple(gaps),
    )


def project(ranges: Iterable[Range], pieces: Iterable[Piece]) -> Iterator[tuple[int, Range]]:
    """Ranges of a device as ranges of the disks that it lies on."""
    placed = list(pieces)
    for found in ranges:
        for piece in placed:
            start = max(found.start, piece.offset)
            end = min(found.end, piece.offset + piece.length)
            if start < end:
                yield piece.disk, Range(piece.start + start - piece.offset, end - start)


def _nodes(listing: str, disks: int) -> list[_Node]:
    """Every block device.

    libguestfs gives its disks SCSI targets in the order in which they were added, its own root
    last: that order is also the one of its names.
    """
    rows = [line.split() for line in listing.splitlines() if line]
    kernel = [
        row[0] for row in sorted((r for r in rows if r[1] == "-"), key=lambda r: _address(r[4]))
    ]
    if len(kernel) != disks + 1:
        raise StageFailed(
            f"the appliance has {len(kernel)} disks where {disks} and its own were expected"
        )
    index = {name: number for number, name in enumerate(kernel[:-1])}
    found = []
    for name, parent, start, length, _ in rows:
        disk = name if parent == "-" else parent
        place = Piece(index.get(disk, disks), int(start) * SECTOR, int(length) * SECTOR)
        if disk in index:
            libguestfs = drive_name(index[disk]) + name.removeprefix(disk)
            found.append(_Node(f"/dev/{name}", libguestfs, index[disk], place, parent == "-"))
        else:
            found.append(_Node(f"/dev/{name}", f"/dev/{name}", None, place, parent == "-"))
    return found


def _divided(node: _Node, nodes: Iterable[_Node]) -> bool:
    """Whether it is a disk with partitions."""
    return node.whole and any(
        not other.whole and other.path.startswith(node.path) for other in nodes
    )


def _address(scsi: str) -> tuple[int, ...]:
    """host:channel:target:lun in an order that is not the one of text."""
    return tuple(int(part) for part in scsi.split(":"))


def _known(listing: str) -> dict[str, dict[str, str]]:
    """blkid's export format: blocks of KEY=value by DEVNAME, unsafe characters after a
    backslash."""
    known: dict[str, dict[str, str]] = {}
    tags: dict[str, str] = {}
    for line in listing.splitlines():
        key, mark, value = line.partition("=")
        if key == "DEVNAME" and mark:
            tags = known.setdefault(value, {})
        elif mark:
            tags[key] = re.sub(r"\\(.)", r"\1", value)
    return known


def _unpartitioned(
    helper: Helper,
    node: _Node,
    nodes: Iterable[_Node],
    known: Mapping[str, Mapping[str, str]],
) -> tuple[list[tuple[int, Range]], str]:
    """What lies between partitions and behind the last one, where deleted ones were, and a line
    about it. Boot loaders live before the first one, a GPT's copy and some RAIDs' labels in the
    last MiB: these stay, and so do the tables of logical partitions."""
    parts = [
        other
        for other in nodes
        if not other.whole and other.disk == node.disk and other.place is not None
    ]
    types = {part.path: known.get(part.path, {}).get("PART_ENTRY_TYPE", "") for part in parts}
    kinds = set(types.values())
    if node.place is None or node.disk is None or kinds & {"", *DYNAMIC}:
        return [], "left as they are: it is a dynamic disk, or its table is not understood"
    spans = [
        (part.place.start, part.place.length)
        for part in parts
        if part.place and types[part.path] not in EXTENDED
    ]
    for part in parts:
        if part.place and types[part.path] in EXTENDED:
            spans += _tables(helper, node.name, part.place.start)
    spans.sort()
    gaps = []
    end = spans[0][0] + spans[0][1]
    for start, length in [*spans[1:], (node.place.length - MIB, 0)]:
        if start > end:
            gaps.append((node.disk, Range(end, start - end)))
        end = max(end, start + length)
    freed = sum(found.length for _, found in gaps)
    kept = f"{spans[0][0]} bytes before the first one and the last MiB left as they are"
    return gaps, f"{freed} bytes free; {kept}"


def _tables(helper: Helper, disk: str, first: int) -> Iterator[tuple[int, int]]:
    """The sectors with the tables of an extended partition that begins at byte `first`: each names
    a logical partition, and the next table by its distance from the first one."""
    at = first
    for _ in range(MOST_TABLES):
        yield at, SECTOR
        sector = helper.call("pread_device", disk, SECTOR, at)
        following = int.from_bytes(sector[470:474], "little")
        if sector[510:512] != b"\x55\xaa" or sector[466] not in (5, 0xF, 0x85) or not following:
            return
        at = first + following * SECTOR


def _volumes(
    listing: str, places: Mapping[str, list[Piece]]
) -> tuple[dict[str, list[Piece]], list[tuple[int, Range]], list[tuple[str, Range]]]:
    """Logical volumes by name, as far as they are linear on known partitions, and what no volume
    has: free extents, and the rest of a physical volume that makes no whole extent. The last: the
    same of physical volumes that are no known partition."""
    volumes: dict[str, list[Piece]] = {}
    strange = set()
    unallocated = []
    inside = []
    for line in listing.splitlines():
        if not line.strip():
            continue
        pv, first, extent, start, count, kind, group, volume, offset, extents, areas, size = (
            line.strip().split("|")
        )
        if not group:
            continue  # a physical volume of no group: nothing is known of its contents
        place = next(iter(places.get(pv, [])), None)
        within = Range(int(first) + int(start) * int(extent), int(count) * int(extent))
        name = f"/dev/{group}/{volume}"
        if volume and (place is None or kind != "linear"):
            strange.add(name)
        elif volume and place is not None:
            piece = Piece(place.disk, place.start + within.start, within.length, int(offset))
            volumes.setdefault(name, []).append(piece)
        end = int(first) + int(extents) * int(extent)
        rest = [] if volume else [within]
        if int(areas) < 2 and end < int(size):  # a second metadata area lies at the end
            rest.append(Range(end, int(size) - end))
        for found in rest:
            if place is None:
                inside.append((pv, found))
            else:
                unallocated.append((place.disk, Range(place.start + found.start, found.length)))
    linear = {name: [] if name in strange else found for name, found in volumes.items()}
    return linear, unallocated, inside
