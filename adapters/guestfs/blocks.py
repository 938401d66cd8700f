"""Which blocks a file system calls free, from what its own tools print or its own tables say.

Pure parsing: each function returns Ranges in bytes from the start of the file system, sorted and
merged, or raises Unsure when the tables can't be trusted or are of a kind not known here.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Sequence

from pipeline.data.extents import SECTOR
from pipeline.ports.extents import Range

PAIR = re.compile(r"(\d+)(?:-(\d+))?")
# "(0-8191):131072-139263", "(0-11)[u]:600-611"; indirect and tree blocks have names: "(IND):612"
MAPPED = re.compile(r"\((\d+)(?:-\d+)?\)(?:\[u\])?:(\d+)(?:-(\d+))?")
BTRFS_COPIES = (64 << 10, 64 << 20, 256 << 30)  # of the superblock
BTRFS_EXTENT = re.compile(r"key \((\d+) (EXTENT_ITEM|METADATA_ITEM) (\d+)\)")
SWAP_SIGNATURE = b"SWAPSPACE2"
PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)


class Unsure(Exception):
    """No reliable statement of what is free: it has to be zeroed instead."""


def merge(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Sort, join what touches, and shrink inwards to whole sectors."""
    merged: list[Range] = []
    for found in sorted(ranges, key=lambda item: item.start):
        if merged and found.start <= merged[-1].end:
            last = merged[-1]
            merged[-1] = Range(last.start, max(last.end, found.end) - last.start)
        else:
            merged.append(found)
    aligned = []
    for found in merged:
        start = -(-found.start // SECTOR) * SECTOR
        end = found.end // SECTOR * SECTOR
        if end > start:
            aligned.append(Range(start, end - start))
    return tuple(aligned)


def ext(dumpe2fs: str, journal: str) -> tuple[Range, ...]:
    """Free blocks of ext2/3/4 from dumpe2fs(8), and the journal behind its superblock from
    `debugfs -R 'stat <8>'`: after a clean unmount nothing in it is needed, and old blocks of files
    may lie there."""
    fields = dict(re.findall(r"^([A-Z][\w ]*):[ \t]+(.*)$", dumpe2fs, re.MULTILINE))
    features = fields["Filesystem features"].split()
    if "needs_recovery" in features or fields["Filesystem state"] != "clean":
        raise Unsure(f"its state is {fields['Filesystem state']}, or its journal is not empty")
    if "bigalloc" in features:
        raise Unsure("it allocates clusters of blocks (bigalloc)")
    size = int(fields["Block size"])
    free = list(ext_bitmaps(dumpe2fs))
    if sum(item.length for item in free) != int(fields["Free blocks"]) * size:
        raise Unsure("its bitmaps do not agree with its superblock")
    if "has_journal" in features and fields.get("Journal inode", "").strip() == "8":
        for logical, first, last in MAPPED.findall(journal):
            run = _blocks(first, last, size)
            if int(logical) == 0:  # the journal's superblock stays
                run = Range(run.start + size, run.length - size)
            free.append(run)
    return merge(free)


def ext_bitmaps(dumpe2fs: str) -> Iterator[Range]:
    """What the bitmaps of ext2/3/4 call free."""
    size = int(dict(re.findall(r"^(Block size):[ \t]+(.*)$", dumpe2fs, re.MULTILINE))["Block size"])
    for line in re.findall(r"^  Free blocks: (.*)$", dumpe2fs, re.MULTILINE):
        for first, last in PAIR.findall(line):
            yield _blocks(first, last, size)


def ext_length(dumpe2fs: str) -> int:
    """Bytes of the file system; its device may be longer."""
    fields = dict(re.findall(r"^([A-Z][\w ]*):[ \t]+(.*)$", dumpe2fs, re.MULTILINE))
    return int(fields["Block count"]) * int(fields["Block size"])


def _blocks(first: str, last: str, size: int) -> Range:
    return Range(int(first) * size, (int(last or first) - int(first) + 1) * size)


def xfs(superblock: str, freesp: str) -> tuple[Range, ...]:
    """Free extents of XFS from `xfs_db -r -c 'sb 0' -c 'p blocksize agblocks rextents'` and
    `-c 'freesp -d'` (lines of agno, agbno, length). The log holds no file contents and stays."""
    fields = dict(re.findall(r"^(\w+) = (\d+)$", superblock, re.MULTILINE))
    if fields.get("rextents", "0") != "0":
        raise Unsure("it has a realtime section")
    size, per_group = int(fields["blocksize"]), int(fields["agblocks"])
    free = []
    for line in freesp.splitlines():
        if line.lstrip().startswith("from"):
            break  # the histogram comes after the list
        numbers = line.split()
        if len(numbers) == 3 and all(number.isdigit() for number in numbers):
            group, block, length = map(int, numbers)
            free.append(Range((group * per_group + block) * size, length * size))
    return merge(free)


def btrfs(superblock: str, chunks: str, extents: str, length: int) -> tuple[Range, ...]:
    """What no extent of btrfs has, by `btrfs inspect-internal`: dump-super, dump-tree -t chunk and
    -t extent (its keys). Logical addresses are mapped by chunks, of profiles single and DUP on one
    device; what no chunk has is free too, except the first MiB and the copies of the superblock."""
    fields = dict(re.findall(r"^(\w+)\s+(\S+)", superblock, re.MULTILINE))
    if fields.get("num_devices") != "1" or fields.get("log_root", "0") != "0":
        raise Unsure("it has several devices, or a log that is not replayed")
    used = [Range(0, 1 << 20), *(Range(copy, 64 << 10) for copy in BTRFS_COPIES)]
    mapped = _btrfs_chunks(chunks)
    node = int(fields["nodesize"])
    for address, kind, number in BTRFS_EXTENT.findall(extents):
        start, size_ = int(address), node if kind == "METADATA_ITEM" else int(number)
        used += _btrfs_places(mapped, start, size_)
    free, at = [], 0
    for found in sorted(used, key=lambda item: item.start):
        if found.start > at:
            free.append(Range(at, min(found.start, length) - at))
        at = max(at, found.end)
    if at < length:
        free.append(Range(at, length - at))
    return merge(item for item in free if item.length > 0)


def btrfs_trees(superblock: str, chunks: str, extents: str) -> list[Range]:
    """Where the blocks of btrfs's trees lie, one copy of each."""
    fields = dict(re.findall(r"^(\w+)\s+(\S+)", superblock, re.MULTILINE))
    mapped, node = _btrfs_chunks(chunks), int(fields["nodesize"])
    return [
        next(_btrfs_places(mapped, int(address), node))
        for address, kind, _ in BTRFS_EXTENT.findall(extents)
        if kind == "METADATA_ITEM"
    ]


def _btrfs_places(
    mapped: Sequence[tuple[int, int, list[int]]], start: int, length: int
) -> Iterator[Range]:
    """Where on its device a range of btrfs's addresses lies, each copy."""
    home = next((c for c in mapped if c[0] <= start < c[0] + c[1]), None)
    if home is None:
        raise Unsure("an extent lies in no chunk")
    yield from (Range(place + start - home[0], length) for place in home[2])


def _btrfs_chunks(chunks: str) -> list[tuple[int, int, list[int]]]:
    """Address, length and places of each chunk."""
    mapped = []
    for chunk in re.split(r"^\titem ", chunks, flags=re.MULTILINE)[1:]:
        key = re.search(r"CHUNK_ITEM (\d+)\)", chunk)
        size = re.search(r"length (\d+) .*type (\S+)", chunk)
        if key is None or size is None:
            continue
        if "RAID" in size[2]:
            raise Unsure("it is striped")
        places = [int(at) for at in re.findall(r"stripe \d+ devid \d+ offset (\d+)", chunk)]
        mapped.append((int(key[1]), int(size[1]), places))
    if not mapped:
        raise Unsure("its chunks can't be read")
    return mapped


def swap(header: bytes, length: int) -> tuple[Range, ...]:
    """Everything but the first page (signature, UUID, label). The page size is the one of the
    machine that made it (mkswap(8)): its signature ends that page."""
    for page in PAGE_SIZES:
        if header[page - len(SWAP_SIGNATURE) : page] == SWAP_SIGNATURE:
            return merge([Range(page, length - page)])
    raise Unsure("it has no swap signature (a hibernated system?)")


def fat_table(boot: bytes) -> Range:
    """Where the first FAT lies. (Microsoft, FAT: General Overview of On-Disk Format, 1.03)"""
    sector, _, reserved = struct.unpack_from("<HBH", boot, 11)
    sectors = struct.unpack_from("<H", boot, 22)[0] or struct.unpack_from("<I", boot, 36)[0]
    if sector not in (512, 1024, 2048, 4096) or not reserved or not sectors:
        raise Unsure("its boot sector is none of FAT")
    return Range(reserved * sector, sectors * sector)


def fat(boot: bytes, table: bytes) -> tuple[Range, ...]:
    """Free clusters of FAT16 and FAT32: those whose entry is 0."""
    sector, per_cluster, reserved, tables, roots = struct.unpack_from("<HBHBH", boot, 11)
    total = struct.unpack_from("<H", boot, 19)[0] or struct.unpack_from("<I", boot, 32)[0]
    cluster = sector * per_cluster
    data = reserved * sector + tables * fat_table(boot).length + -(-roots * 32 // sector) * sector
    if not cluster or total * sector <= data:
        raise Unsure("its boot sector is none of FAT")
    count = (total * sector - data) // cluster
    if count < 4085:
        raise Unsure("it is FAT12")
    code, width, mask = ("<H", 2, 0xFFFF) if count < 65525 else ("<I", 4, 0x0FFFFFFF)
    if len(table) < (count + 2) * width:
        raise Unsure("its table is shorter than its clusters")
    free = []
    for index, (entry,) in enumerate(struct.iter_unpack(code, table[: (count + 2) * width])):
        if index >= 2 and entry & mask == 0:
            free.append(Range(data + (index - 2) * cluster, cluster))
    return merge(free)


def bitmap(bits: bytes, cluster: int, length: int) -> tuple[Range, ...]:
    """Free clusters of NTFS from the contents of $Bitmap: bit n, lowest first, is cluster n."""
    count = min(len(bits) * 8, length // cluster)
    free = []
    # most bytes are all free or all in use, in long runs: only the others are looked into
    for run in re.finditer(rb"\x00+|[^\x00\xff]", bits):
        if bits[run.start()] == 0:
            free.append((run.start() * 8, run.end() * 8))
        else:
            byte, first = bits[run.start()], run.start() * 8
            free += [(first + bit, first + bit + 1) for bit in range(8) if not byte >> bit & 1]
    return merge(
        Range(first * cluster, (min(last, count) - first) * cluster)
        for first, last in free
        if first < count
    )
