"""What is free, from the text that file-system tools print and the tables that they keep."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.guestfs import blocks
from adapters.guestfs.blocks import Unsure
from adapters.guestfs.devices import Piece, project
from pipeline.ports.extents import Range

DUMPE2FS = """\
Filesystem volume name:   root
Filesystem features:      has_journal ext_attr extent 64bit metadata_csum
Filesystem state:         clean
Block count:              4096
Free blocks:              13
First block:              1
Block size:               1024
Journal inode:            8


Group 0: (Blocks 1-2048) csum 0x1
  3 free blocks, 0 free inodes, 2 directories
  Free blocks: 10-12
  Free inodes: 14-500
Group 1: (Blocks 2049-4095)
  Free blocks: 3000, 3002-3010
  Free inodes: 
"""  # noqa: W291 - as the tool prints it
JOURNAL = """\
Inode: 8   Type: regular    Mode:  0600   Flags: 0x80000
EXTENTS:
(ETB0):90, (0-1):100-101, (2-5)[u]:200-203
"""


def ranges(size: int, *pairs: tuple[int, int]) -> tuple[Range, ...]:
    return tuple(Range(start * size, length * size) for start, length in pairs)


def test_ext_lists_free_blocks_and_the_journal_behind_its_superblock() -> None:
    found = blocks.ext(DUMPE2FS, JOURNAL)
    assert found == ranges(1024, (10, 3), (101, 1), (200, 4), (3000, 1), (3002, 9))


def test_ext3_journal_has_indirect_blocks_that_stay() -> None:
    journal = "BLOCKS:\n(0-11):600-611, (IND):612, (12-13):613-614, (DIND):615\nTOTAL: 16\n"
    found = blocks.ext(DUMPE2FS, journal)
    assert ranges(1024, (601, 11))[0] in found
    assert ranges(1024, (613, 2))[0] in found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("state:         clean", "state:         clean with errors"),
        ("extent 64bit", "extent needs_recovery"),
        ("extent 64bit", "bigalloc"),
        ("Free blocks:              13", "Free blocks:              14"),
    ],
)
def test_ext_that_may_be_wrong_is_not_trusted(old: str, new: str) -> None:
    with pytest.raises(Unsure):
        blocks.ext(DUMPE2FS.replace(old, new), JOURNAL)


def test_xfs_maps_groups_to_the_device() -> None:
    superblock = "blocksize = 4096\nagblocks = 1000\nrextents = 0\n"
    listed = "    0     12      5\n    1      7      1\n   from      to extents  blocks    pct\n"
    assert blocks.xfs(superblock, listed) == ranges(4096, (12, 5), (1007, 1))
    with pytest.raises(Unsure):
        blocks.xfs(superblock.replace("rextents = 0", "rextents = 9"), listed)


@pytest.mark.parametrize("page", [4096, 65536])
def test_swap_keeps_its_first_page(page: int) -> None:
    header = bytearray(65536)
    header[page - 10 : page] = b"SWAPSPACE2"
    assert blocks.swap(bytes(header), 1 << 20) == (Range(page, (1 << 20) - page),)


def test_hibernated_swap_is_not_trusted() -> None:
    with pytest.raises(Unsure):
        blocks.swap(bytes(4086) + b"S1SUSPEND\0" + bytes(61440), 1 << 20)


def fat16() -> tuple[bytes, bytes]:
    """5000 clusters of 2 sectors, of which 2, 3 and 5001 are in use."""
    boot = bytearray(512)
    struct.pack_into("<HBHBHHBH", boot, 11, 512, 2, 4, 2, 512, 10_076, 0xF8, 20)
    table = bytearray(20 * 512)
    for index in (0, 1, 2, 3, 5001):
        struct.pack_into("<H", table, index * 2, 0xFFFF)
    return bytes(boot), bytes(table)


def test_fat_lists_clusters_whose_entry_is_zero() -> None:
    boot, table = fat16()
    assert blocks.fat_table(boot) == Range(4 * 512, 20 * 512)
    data = (4 + 2 * 20 + 32) * 512
    assert blocks.fat(boot, table) == (Range(data + 2 * 1024, 4997 * 1024),)


def test_broken_fat_is_not_trusted() -> None:
    boot, table = fat16()
    with pytest.raises(Unsure):
        blocks.fat(boot, table[:5000])
    with pytest.raises(Unsure):
        blocks.fat_table(bytes(512))


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 5_000)), max_size=20))
def test_merged_ranges_cover_whole_sectors_and_nothing_else(pairs: list[tuple[int, int]]) -> None:
    merged = blocks.merge(Range(start, length) for start, length in pairs)
    free = {byte for start, length in pairs for byte in range(start, start + length)}
    covered = {byte for found in merged for byte in range(found.start, found.end)}
    whole = {
        byte
        for sector in range(60)
        if all(b in free for b in range(sector * 512, sector * 512 + 512))
        for byte in range(sector * 512, sector * 512 + 512)
    }
    assert covered == whole
    assert list(merged) == sorted(merged, key=lambda item: item.start)


def test_projection_splits_at_the_pieces_of_a_volume() -> None:
    pieces = [Piece(0, 1000, 500, 0), Piece(1, 0, 500, 500)]
    assert list(project([Range(400, 200)], pieces)) == [(0, Range(1400, 100)), (1, Range(0, 100))]
