"""NTFS's own records, made by hand: the state of a volume, and which clusters are free."""

import random
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.guestfs import blocks, ntfs
from pipeline.ports.extents import Range

CLUSTER, RECORD, MFT = 4096, 1024, 4
SECTORS = 2048


def boot() -> bytes:
    made = bytearray(512)
    made[3:11] = b"NTFS    "
    struct.pack_into("<HB", made, 11, 512, CLUSTER // 512)
    struct.pack_into("<QQ", made, 0x28, SECTORS, MFT)
    struct.pack_into("<b", made, 0x40, -10)  # 2 to the 10th
    return bytes(made)


def protect(raw: bytes, at: int = 0x30) -> bytes:
    """Give a record its update sequence: the last two bytes of each 512 are moved there."""
    made = bytearray(raw)
    count = len(raw) // 512 + 1
    struct.pack_into("<HH", made, 4, at, count)
    made[at : at + 2] = b"\x07\x00"
    for index in range(1, count):
        end = index * 512
        made[at + 2 * index : at + 2 * index + 2] = made[end - 2 : end]
        made[end - 2 : end] = b"\x07\x00"
    return bytes(made)


def record(*attributes: bytes) -> bytes:
    head = bytearray(0x38)
    head[:4] = b"FILE"
    struct.pack_into("<H", head, 0x14, 0x38)
    body = bytes(head) + b"".join(attributes) + struct.pack("<I", ntfs.END)
    return protect(body.ljust(RECORD, b"\0"))


def resident(kind: int, content: bytes) -> bytes:
    length = 24 + -(-len(content) // 8) * 8
    head = struct.pack("<IIBBHHHIHH", kind, length, 0, 0, 24, 0, 0, len(content), 24, 0)
    return (head + content).ljust(length, b"\0")


def spread(kind: int, runs: bytes, size: int) -> bytes:
    length = 64 + -(-len(runs) // 8) * 8
    head = bytearray(64)
    struct.pack_into("<IIBB", head, 0, kind, length, 1, 0)
    struct.pack_into("<H", head, 32, 64)
    struct.pack_into("<QQQ", head, 40, size, size, size)
    return (bytes(head) + runs).ljust(length, b"\0")


def restart(number: int, *, clean: bool, client: int = 0) -> bytes:
    page = bytearray(4096)
    page[:4] = b"RSTR"
    struct.pack_into("<H", page, 0x18, 0x40)
    flags = ntfs.CLEAN if clean else 0
    struct.pack_into("<QHHHH", page, 0x40, number, 1, 0, client, flags)
    return protect(bytes(page), 0x1E)


def volume(
    *, flags: int = 0, log: bytes = b"\xff" * 8192, bits: bytes = b"\x0f" * 32
) -> ntfs.Volume:
    """Clusters 4 and 5 are the MFT, 20 and 21 the log (in two runs), 30 the bitmap."""
    made = bytearray(SECTORS * 512)
    made[:512] = boot()
    records = {
        2: record(spread(ntfs.DATA, bytes([0x11, 1, 20, 0x11, 1, 1]), 8192)),
        3: record(resident(ntfs.VOLUME_INFORMATION, struct.pack("<QBBH", 0, 3, 1, flags))),
        6: record(spread(ntfs.DATA, bytes([0x11, 1, 30]), len(bits))),
    }
    for number, raw in records.items():
        start = MFT * CLUSTER + number * RECORD
        made[start : start + RECORD] = raw
    made[20 * CLUSTER : 22 * CLUSTER] = log
    made[30 * CLUSTER : 30 * CLUSTER + len(bits)] = bits
    return ntfs.Volume(lambda offset, length: bytes(made[offset : offset + length]))


def test_the_dirty_bit() -> None:
    assert not volume().is_dirty()
    assert volume(flags=1).is_dirty()
    assert not volume(flags=0x80).is_dirty()  # another flag


@pytest.mark.parametrize(
    ("pages", "journal"),
    [
        (b"\xff" * 8192, False),  # empty, as ntfs-3g leaves it
        (restart(5, clean=True) + restart(4, clean=False), False),  # the newer one counts
        (restart(5, clean=True) + restart(6, clean=False), True),
        (restart(5, clean=False, client=ntfs.NO_CLIENT) * 2, False),
        (restart(5, clean=True) + b"torn".ljust(4096, b"\1"), False),
        (bytes(8192), True),
        (b"\xff" * 4096 + bytes(4096), True),
    ],
)
def test_the_log(pages: bytes, journal: bool) -> None:
    assert volume(log=pages).has_journal() is journal


def test_the_bitmap() -> None:
    found = volume(bits=b"\x0f\x00\xff\x80")
    assert found.bitmap() == b"\x0f\x00\xff\x80"
    ranges = blocks.bitmap(found.bitmap(), found.cluster, found.length)
    assert ranges == (Range(4 * CLUSTER, 12 * CLUSTER), Range(24 * CLUSTER, 7 * CLUSTER))


@given(st.binary(max_size=64), st.integers(0, 600))
def test_free_clusters_bit_by_bit(bits: bytes, clusters: int) -> None:
    found = blocks.bitmap(bits, 512, clusters * 512)
    free = {start for item in found for start in range(item.start, item.end, 512)}
    every = range(min(len(bits) * 8, clusters))
    assert free == {n * 512 for n in every if not bits[n // 8] >> n % 8 & 1}


def test_a_large_bitmap_takes_no_time() -> None:
    """A disk of 127 GiB has 33 million clusters."""
    noise = random.Random(1).randbytes(4096)  # noqa: S311 - a pattern
    started = time.process_time()
    blocks.bitmap(bytes(2 << 20) + noise + b"\xff" * (2 << 20), 4096, 127 << 30)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (3, b"EXFAT   "),  # another file system
        (0x40, b"\x05"),  # records of five clusters
        (13, b"\x03"),  # clusters of three sectors
        (0x30, b"\xff" * 8),  # an MFT that lies behind the end
        (MFT * CLUSTER + 6 * RECORD, b"BAAD"),
        (MFT * CLUSTER + 6 * RECORD + 510, b"\x08\x00"),  # not written to its end
        (MFT * CLUSTER + 6 * RECORD + 0x38 + 4, b"\x00\x00\x00\x00"),  # an attribute of no length
        (MFT * CLUSTER + 6 * RECORD + 0x38 + 64, b"\x00"),  # no runs
        (MFT * CLUSTER + 6 * RECORD + 0x38 + 48, b"\xff" * 8),  # a bitmap of exbibytes
    ],
)
def test_what_makes_no_sense_is_not_trusted(at: int, value: bytes) -> None:
    good = volume()
    made = bytearray(good._read(0, SECTORS * 512))
    made[at : at + len(value)] = value
    with pytest.raises(blocks.Unsure):
        ntfs.Volume(lambda offset, length: bytes(made[offset : offset + length])).bitmap()


@given(st.data())
def test_noise_is_an_answer_or_unsure(data: st.DataObject) -> None:
    good = volume()._read(0, SECTORS * 512)
    made = bytearray(good)
    for _ in range(data.draw(st.integers(1, 8))):
        tables = st.integers(MFT * CLUSTER, MFT * CLUSTER + 7 * RECORD - 1)
        at = data.draw(st.integers(0, 511) | tables)
        made[at] = data.draw(st.integers(0, 255))
    read = lambda offset, length: bytes(made[offset : offset + length])  # noqa: E731
    try:
        found = ntfs.Volume(read)
        found.is_dirty(), found.has_journal(), found.bitmap()
    except blocks.Unsure:
        return
