"""What files have and what is called free, by hand-made tables: contradictions, loops and trees
that lead to themselves end as damage that is told. The real ones: tests/system/test_hidden_bytes.
"""

import struct
from collections.abc import Callable

import pytest

from adapters.guestfs import accounts, blocks, ext_files, fat, xfs
from adapters.guestfs.ext import Tables
from pipeline.ports.extents import Range


def reader(content: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: content[offset : offset + length]


def test_what_is_in_use_and_free_is_damage() -> None:
    free = (Range(0, 10), Range(30, 10))
    accounts.check([Range(10, 20), Range(40, 60)], free, 100)
    for wrong in (Range(9, 1), Range(0, 1), Range(5, 100), Range(39, 5), Range(20, 11)):
        with pytest.raises(accounts.Damaged, match="calls bytes free"):
            accounts.check([Range(10, 1), wrong], free, 1000)
    with pytest.raises(accounts.Damaged, match="behind its end"):
        accounts.check([Range(90, 11)], (), 100)


# --- ext ----------------------------------------------------------------------------------------

BLOCK = 1024
TABLES = Tables(BLOCK, 128, 16, (2,), ((12, 16),), 11)


def ext_with(map_: bytes, *, flags: int, mode: int = 0x81A4) -> bytearray:
    """A file system of 64 blocks whose inode 11 is mapped so."""
    content = bytearray(64 * BLOCK)
    at = TABLES.where(11)
    struct.pack_into("<H", content, at, mode)
    struct.pack_into("<I", content, at + 0x20, flags)
    content[at + 0x28 : at + 0x28 + len(map_)] = map_
    return content


def tree(depth: int, *items: bytes) -> bytes:
    return struct.pack("<HHHHI", 0xF30A, len(items), 4, depth, 0) + b"".join(items)


def leaf(logical: int, length: int, first: int) -> bytes:
    return struct.pack("<IHHI", logical, length, 0, first)


def index(child: int) -> bytes:
    return struct.pack("<IIHH", 0, child, 0, 0)


def test_extents_are_in_use_and_those_never_written_are_told() -> None:
    content = ext_with(tree(1, index(20)), flags=0x80000)
    content[20 * BLOCK : 20 * BLOCK + 36] = tree(0, leaf(0, 3, 30), leaf(3, 32768 + 2, 40))
    found = ext_files.files(TABLES, reader(bytes(content)), 16)
    assert Range(20 * BLOCK, BLOCK) in found.used
    assert Range(30 * BLOCK, 3 * BLOCK) in found.used
    assert found.unwritten == [Range(40 * BLOCK, 2 * BLOCK)]


@pytest.mark.parametrize("flags", [0x80000, 0], ids=["extents", "pointers"])
def test_a_tree_of_ext_that_leads_to_itself_is_damage(flags: int) -> None:
    map_ = tree(2, index(20)) if flags else struct.pack("<15I", *[0] * 12, 0, 20, 0)
    content = ext_with(map_, flags=flags)
    again = tree(1, index(20)) if flags else struct.pack("<I", 20)
    content[20 * BLOCK : 20 * BLOCK + len(again)] = again
    with pytest.raises(accounts.Damaged):
        ext_files.files(TABLES, reader(bytes(content)), 16)


def test_a_short_link_has_no_blocks() -> None:
    content = ext_with(b"x" * 50, flags=0, mode=0xA1FF)
    struct.pack_into("<I", content, TABLES.where(11) + 4, 50)
    found = ext_files.files(TABLES, reader(bytes(content)), 16)
    assert found.used == [Range(2 * BLOCK, 16 * 128)]


def entry(inode: int, length: int, name: bytes, rest: bytes = b"") -> bytes:
    return (struct.pack("<IHBB", inode, length, len(name), 1) + name + rest).ljust(length, b"?")


def test_only_entries_of_a_directory_are_left() -> None:
    content = entry(11, 64, b"kept") + entry(0, BLOCK - 64, b"removed")
    made = ext_files.without_names(content, signed=False)
    assert made[:12] == content[:12]
    assert set(made[12:64]) == {0}
    assert set(made[72:]) == {0}
    for strange in (entry(0, BLOCK, b""), entry(11, 6, b"") + bytes(BLOCK), bytes(BLOCK)):
        assert ext_files.without_names(strange, signed=False) == strange


# --- FAT ----------------------------------------------------------------------------------------


def fat16(entries: dict[int, int], first: int, size: int) -> bytes:
    """5,000 clusters of 512 bytes; the root has one file."""
    total = 1 + 20 + 1 + 5000
    boot = bytearray(512)
    struct.pack_into("<HBHBHH", boot, 11, 512, 1, 1, 1, 16, total)
    struct.pack_into("<H", boot, 22, 20)
    table = bytearray(20 * 512)
    for number, following in entries.items():
        struct.pack_into("<H", table, 2 * number, following)
    name = b"KEPT    TXT" + bytes(15) + struct.pack("<HI", first, size)
    removed = b"\xe5ONE    TXT" + b"!" * 21
    root = (name + removed).ljust(512, b"\0")
    return bytes(boot + table + root + bytes(5000 * 512))


def test_fat_has_tails_and_removed_names() -> None:
    volume = fat.Volume.opened(reader(fat16({2: 3, 3: 0xFFFF}, 2, 600)))
    found = list(volume.leftovers(len(volume.read(0, 1 << 30)) + 100))
    data = (1 + 20 + 1) * 512
    assert Range(data + 600, 1024 - 600) in found  # behind the end
    assert Range(21 * 512 + 33, 31) in found  # the removed name
    assert Range(data + 5000 * 512, 100) in found  # behind the last cluster
    assert Range(512 + 5002 * 2, 20 * 512 - 5002 * 2) in found  # of the table


@pytest.mark.parametrize(
    ("entries", "first", "size"),
    [
        ({2: 0}, 2, 100),  # free, and a file's
        ({2: 3, 3: 2}, 2, 100),  # a circle
        ({2: 6000}, 2, 100),
        ({2: 0xFFFF}, 2, 600),  # too short
    ],
)
def test_a_fat_that_contradicts_itself_is_damage(
    entries: dict[int, int], first: int, size: int
) -> None:
    with pytest.raises(accounts.Damaged):
        list(fat.Volume.opened(reader(fat16(entries, first, size))).leftovers(0))


# --- XFS ----------------------------------------------------------------------------------------


def xfs_with_root(level: int, block: bytes) -> bytes:
    """One group of blocks of 4 KiB whose tree of inodes begins with this block, number 5."""
    content = bytearray(64 * 4096)
    struct.pack_into(">4sI", content, 0, b"XFSB", 4096)
    struct.pack_into(">II", content, 84, 64, 1)
    struct.pack_into(">HHHH", content, 100, 5, 512, 512, 8)
    content[123:125] = bytes([3, 6])
    struct.pack_into(">4sIIIIII", content, 1024, b"XAGI", 1, 0, 64, 64, 5, level)
    content[5 * 4096 : 5 * 4096 + len(block)] = block
    return bytes(content)


def test_a_tree_of_xfs_that_leads_to_itself_is_told() -> None:
    pointers = 56 + (4096 - 56) // 8 * 4
    node = struct.pack(">4sHH", b"IAB3", 1, 1).ljust(pointers, b"\0") + struct.pack(">I", 5)
    with pytest.raises(blocks.Unsure):
        list(xfs.Volume(reader(xfs_with_root(2, node))).extents())
    for broken in (b"", struct.pack(">4sHH", b"IAB3", 0, 60000)):
        with pytest.raises(blocks.Unsure):
            list(xfs.Volume(reader(xfs_with_root(1, broken))).extents())


# --- btrfs --------------------------------------------------------------------------------------


def test_what_was_preallocated_and_not_written_of_btrfs() -> None:
    superblock = "nodesize\t\t16384\n"
    chunks = (
        "\titem 0 key (FIRST_CHUNK_TREE CHUNK_ITEM 1048576) itemoff 1 itemsize 80\n"
        "\t\tlength 8388608 owner 2 stripe_len 65536 type DATA|single\n"
        "\t\t\tstripe 0 devid 1 offset 2097152\n"
    )
    files = (
        "leaf 1048576 items 11 free space 12709 generation 8 owner ROOT_TREE\n"
        "\t\tprealloc data disk byte 2097152 nr 1048576\n"
        "\t\tprealloc data offset 0 nr 40960\n"
        "\t\textent data disk byte 2097152 nr 1048576\n"
        "\t\textent data offset 40960 nr 12288 ram 1048576\n"
        "\t\tprealloc data disk byte 2097152 nr 1048576\n"
        "\t\tprealloc data offset 36864 nr 32768\n"
        "\t\textent data disk byte 0 nr 0\n"
        "\t\textent data offset 0 nr 4096 ram 4096\n"
    )
    used, unwritten = blocks.btrfs_files(superblock, chunks, files)
    assert set(used) == {Range(2097152, 16384), Range(3145728, 1048576)}
    assert blocks.merge(unwritten) == (Range(3145728, 40960), Range(3145728 + 53248, 16384))
