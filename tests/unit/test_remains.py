"""What files have and what is called free, by hand-made tables: contradictions, loops and trees
that lead to themselves end as damage that is told. The real ones: tests/system/test_hidden_bytes.
"""

import random
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.guestfs import accounts, blocks, btrfs_files, ext_files, fat, touch, xfs
from adapters.guestfs.devices import Device
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


LARGE = b"large" * 20_000
CHUNK = re.compile(
    r"CHUNK_ITEM (\d+)\).*\n\s+length (\d+) .*\n.*\n.*\n((?:\s+stripe .*\n|.*uuid.*\n)+)"
)


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file system of many small files and a large one."""
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("needs mkfs.btrfs")
    place = tmp_path_factory.mktemp("btrfs")
    files, path = place / "files", place / "disk"
    files.mkdir()
    for number in range(600):
        (files / f"{number}").write_bytes(f"{number}".encode() * (number % 50))
    (files / "large").write_bytes(LARGE)
    argv = ["mkfs.btrfs", "-q", "-b", str(128 << 20), "--rootdir", str(files), str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    return path


def told(path: Path) -> set[Range]:
    """What btrfs's own program says that trees and files have, on the device."""
    argv = ["btrfs", "inspect-internal", "dump-tree", str(path)]
    text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    chunks = {
        (int(start), int(length), tuple(map(int, re.findall(r"offset (\d+)", stripes))))
        for start, length, stripes in CHUNK.findall(text)
    }
    assert chunks
    found = [(int(at), 16384) for at in re.findall(r"^(?:leaf|node) (\d+) ", text, re.MULTILINE)]
    extents = re.findall(r"extent data disk byte (\d+) nr (\d+)", text)
    found += [(int(at), int(length)) for at, length in extents if int(at)]
    return {
        Range(place + at - start, length)
        for at, length in found
        for start, whole, places in chunks
        if start <= at < start + whole
        for place in places
    }


def test_what_the_trees_and_files_of_btrfs_have(btrfs: Path) -> None:
    content = btrfs.read_bytes()
    found = btrfs_files.files(reader(content))
    wanted = told(btrfs)
    assert len(wanted) > 20
    assert set(found.used) == wanted
    assert Range(content.index(LARGE), 102400) in wanted
    assert found.unwritten == []


def preallocated(content: bytes, part: tuple[int, int]) -> bytes:
    """With the large file's extent as one that was preallocated, of which it has a part."""
    at = content.index(LARGE)  # data lies at its addresses
    item = re.compile(re.escape(struct.pack("<BQQ", 1, at, 102400)))
    made = bytearray(content)
    for match in item.finditer(content):
        struct.pack_into("<BQQQQ", made, match.start(), 2, at, 102400, *part)
    assert made != content
    return bytes(made)


def test_what_was_preallocated_and_not_written_of_btrfs(btrfs: Path) -> None:
    content = btrfs.read_bytes()
    at = content.index(LARGE)
    found = btrfs_files.files(reader(preallocated(content, (4096, 8192))))
    assert found.unwritten == [Range(at + 4096, 8192)]
    zeroed: list[Range] = []
    device = Device("/dev/sda", "/dev/sda", "btrfs")
    work = touch.BtrfsFiles(device, (), len(content))
    work.perform(reader(preallocated(content, (0, 102400))), nothing, zeroed.append)
    assert zeroed == [Range(at, 102400)]


def test_parts_that_others_wrote_are_kept() -> None:
    ranges, kept = [Range(0, 100), Range(200, 50)], [Range(10, 20), Range(40, 10), Range(190, 20)]
    left = list(btrfs_files.without(ranges, kept))
    assert left == [Range(0, 10), Range(30, 10), Range(50, 50), Range(210, 40)]


def test_a_btrfs_that_calls_a_live_file_free_is_refused(btrfs: Path) -> None:
    content = btrfs.read_bytes()
    device = Device("/dev/sda", "/dev/sda", "btrfs")
    free = (Range(content.index(LARGE) + 4096, 4096),)
    with pytest.raises(accounts.Damaged, match="calls bytes free"):
        touch.BtrfsFiles(device, free, len(content)).perform(reader(content), nothing, nothing)


def test_a_damaged_btrfs_is_told(btrfs: Path) -> None:
    """Bytes changed where trees lie: refused, or read to an end."""
    content = bytearray(btrfs.read_bytes())
    blocks_ = sorted(item.start for item in told(btrfs) if item.length == 16384)
    chance = random.Random(1)  # noqa: S311 - the same damage on every run
    told_ = 0
    for _ in range(400):
        at = chance.choice([*blocks_, 64 << 10]) + chance.randrange(300)
        before = content[at : at + 8]
        content[at : at + 8] = chance.choice([bytes(8), b"\xff" * 8, chance.randbytes(8)])
        try:
            btrfs_files.files(lambda offset, length: bytes(content[offset : offset + length]))
        except (blocks.Unsure, struct.error, IndexError):  # which the caller tells as damage
            told_ += 1
        content[at : at + 8] = before
    assert told_ > 50


def nothing(*_: object) -> None:
    raise AssertionError("nothing is changed")
