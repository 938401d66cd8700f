"""Compressed clusters: where they lie, and what inflates them, on honest and on hostile bytes."""

import ctypes
import os
import random
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.formats import Window
from adapters.formats.packed import Codec, Packed, Qcow2Clusters, VmdkGrains, layout
from adapters.images import inflater
from pipeline.errors import UnsafeImage
from pipeline.ports import ImageFormat

CLUSTER = 4096
SIZE = 8 * CLUSTER
TEXT = (b"It was a dark and stormy night. " * 200)[:CLUSTER]
NOISE = random.Random(3).randbytes(CLUSTER)  # noqa: S311 - the same on every run
L1, L2, DATA = CLUSTER, 2 * CLUSTER, 3 * CLUSTER


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-12)
    return packer.compress(content) + packer.flush()


def zstandard(content: bytes) -> bytes:
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_compress.restype = ctypes.c_size_t
    target = ctypes.create_string_buffer(len(content) + 1024)
    room = ctypes.c_size_t(len(target))
    length = library.ZSTD_compress(target, room, content, ctypes.c_size_t(len(content)), 3)
    return target.raw[:length]


def descriptor(offset: int, length: int) -> int:
    """An L2 entry: bit 62, the offset, and the sectors after the first (cluster_bits is 12)."""
    sectors = (offset % 512 + length - 1) // 512
    return 1 << 62 | sectors << (62 - 4) | offset


def qcow2(entries: Sequence[int], data: bytes, *, version: int = 3, features: int = 0) -> bytes:
    """Header, L1 and one L2 table (of wide entries with extended_l2), and then `data`."""
    head = struct.pack(">4sIQIIQIIQ", b"QFI\xfb", version, 0, 0, 12, SIZE, 0, 1, L1)
    file = bytearray(head.ljust(DATA, b"\0"))
    struct.pack_into(">Q", file, 72, features)
    struct.pack_into(">Q", file, L1, 1 << 63 | L2)
    step = 16 if features & 16 else 8
    for index, entry in enumerate(entries):
        struct.pack_into(">Q", file, L2 + step * index, entry)
    return bytes(file) + data


def vmdk(grains: Sequence[tuple[int, bytes]], capacity: int = SIZE) -> bytes:
    """A header, a grain directory, a grain table, and grains with their markers: (lba, packed)."""
    sectors = (capacity // 512, CLUSTER // 512, 0, 0, 512, 0, 1, 8)
    head = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", 3, 0x30001, *sectors, 0, b"\n \r\n", 1)
    file = bytearray(head.ljust(6 * 512, b"\0"))
    struct.pack_into("<I", file, 512, 2)
    for index, (lba, packed) in enumerate(grains):
        struct.pack_into("<I", file, 1024 + 4 * index, len(file) // 512)
        file += struct.pack("<QI", lba, len(packed)) + packed
        file += bytes(-len(file) % 512)
    return bytes(file)


@pytest.fixture
def opened() -> Iterator[Callable[[bytes], Window]]:
    files = []

    def open_window(content: bytes) -> Window:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        files.append(file)
        file.write(content)
        file.flush()
        return Window(file.fileno())

    yield open_window
    for file in files:
        file.close()


@pytest.fixture
def slot() -> Iterator[tuple[inflater.Slot, int]]:
    memory = os.memfd_create("slot")
    os.ftruncate(memory, 4 * CLUSTER)
    yield inflater.Slot(memory, 0, 4 * CLUSTER), memory
    os.close(memory)


def inflate(
    slot: tuple[inflater.Slot, int],
    window: Window,
    codec: Codec,
    clusters: Sequence[Packed],
    most: int = CLUSTER,
) -> bytes:
    """What the inflater makes of clusters; raises ValueError with its reason."""
    jobs = b"".join(
        inflater.JOB.pack(codec, 0, item.size, most, index * most, item.length, item.offset)
        for index, item in enumerate(clusters)
    )
    answer = inflater.perform(jobs, slot[0], [window.fd], {codec: inflater.MAKERS[codec]()})
    if answer != "+":
        raise ValueError(answer)
    return os.pread(slot[1], len(clusters) * most, 0)


def test_the_numbers_of_the_codecs_are_the_inflaters() -> None:
    names = {codec.name: codec.value for codec in Codec}
    assert names == {name: getattr(inflater, name) for name in ("DEFLATE", "ZLIB", "ZSTD")}


@pytest.mark.parametrize(
    ("codec", "pack", "features"),
    [
        (Codec.DEFLATE, deflated, 0),
        (Codec.ZSTD, zstandard, 8),
        (Codec.ZSTD, zstandard, 8 | 16),  # extended_l2
    ],
)
def test_clusters_of_a_qcow2_are_found_and_inflated(
    codec: Codec,
    pack: Callable[[bytes], bytes],
    features: int,
    opened: Callable[[bytes], Window],
    slot: tuple[inflater.Slot, int],
) -> None:
    """Side by side and sharing a sector, the last one cut by the end of the file."""
    first, second = pack(TEXT), pack(NOISE[:100] * 40 + bytes(96))
    entries = [descriptor(DATA, len(first)), descriptor(DATA + len(first), len(second))]
    window = opened(qcow2(entries, first + second, features=features))
    found = layout(window, ImageFormat.QCOW2)
    assert (found.unit, found.codec) == (CLUSTER, codec)
    clusters = list(found.clusters(100, CLUSTER + 1))
    assert [item.start for item in clusters] == [0, CLUSTER]
    assert clusters[1].offset + clusters[1].length == window.size
    want = TEXT + NOISE[:100] * 40 + bytes(96)
    assert inflate(slot, window, codec, clusters) == want
    assert list(found.clusters(CLUSTER, CLUSTER + 512)) == clusters[1:]


def test_version_2_knows_deflate_alone(opened: Callable[[bytes], Window]) -> None:
    found = Qcow2Clusters(opened(qcow2([], b"", version=2, features=8 | 16)))
    assert found.codec is Codec.DEFLATE


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (0, "disagree"),
        (1 << 63 | DATA, "disagree"),  # a plain cluster
        (descriptor(1 << 40, 100), "lies outside of the file"),
        (descriptor(DATA + 100, 100), "lies outside of the file"),
    ],
)
def test_an_entry_that_leads_nowhere_is_refused(
    entry: int, reason: str, opened: Callable[[bytes], Window]
) -> None:
    found = Qcow2Clusters(opened(qcow2([entry], b"x" * 100)))
    with pytest.raises(UnsafeImage, match=reason):
        list(found.clusters(0, CLUSTER))


def test_a_table_that_is_not_there_is_refused(opened: Callable[[bytes], Window]) -> None:
    content = bytearray(qcow2([], b""))
    content[L1 : L1 + 8] = bytes(8)
    with pytest.raises(UnsafeImage, match="disagree"):
        list(Qcow2Clusters(opened(bytes(content))).clusters(0, 1))
    struct.pack_into(">Q", content, L1, 1 << 50)
    with pytest.raises(UnsafeImage, match="outside of the file"):
        list(Qcow2Clusters(opened(bytes(content))).clusters(0, 1))
    with pytest.raises(UnsafeImage, match="too short"):
        list(Qcow2Clusters(opened(bytes(content))).clusters(1 << 40, (1 << 40) + 1))


def test_grains_of_a_vmdk_are_found_and_inflated(
    opened: Callable[[bytes], Window], slot: tuple[inflater.Slot, int]
) -> None:
    """The last grain of the disk is a short one."""
    size = 2 * CLUSTER + 512
    content = (TEXT, NOISE, TEXT[:512])
    grains = [(8 * index, zlib.compress(part)) for index, part in enumerate(content)]
    window = opened(vmdk(grains, size))
    found = layout(window, ImageFormat.VMDK)
    clusters = list(found.clusters(5, size))
    assert [(item.start, item.size) for item in clusters] == [
        (0, CLUSTER),
        (CLUSTER, CLUSTER),
        (2 * CLUSTER, 512),
    ]
    assert inflate(slot, window, Codec.ZLIB, clusters)[:size] == b"".join(content)


@pytest.mark.parametrize(
    ("grain", "reason"),
    [
        ((8, zlib.compress(TEXT)), "that of another byte"),
        ((0, b""), "lies outside of the file"),
        ((0, bytes(2 * CLUSTER + 1)), "lies outside of the file"),
    ],
)
def test_a_marker_that_lies_is_refused(
    grain: tuple[int, bytes], reason: str, opened: Callable[[bytes], Window]
) -> None:
    with pytest.raises(UnsafeImage, match=reason):
        list(VmdkGrains(opened(vmdk([grain]))).clusters(0, 1))


def test_what_a_map_says_of_no_grain_is_refused(opened: Callable[[bytes], Window]) -> None:
    whole = vmdk([(0, zlib.compress(TEXT))])
    with pytest.raises(UnsafeImage, match="disagree"):  # not allocated
        list(VmdkGrains(opened(whole)).clusters(CLUSTER, CLUSTER + 1))
    with pytest.raises(UnsafeImage, match="outside of the file"):  # its marker is cut
        list(VmdkGrains(opened(whole[:3080])).clusters(0, 1))
    with pytest.raises(UnsafeImage, match="no place for data of its vdi layer"):
        layout(opened(whole), ImageFormat.VDI)


PACKERS = [(Codec.DEFLATE, deflated), (Codec.ZLIB, zlib.compress), (Codec.ZSTD, zstandard)]


@pytest.mark.parametrize(("codec", "pack"), PACKERS)
def test_no_stream_writes_past_its_cluster(
    codec: Codec,
    pack: Callable[[bytes], bytes],
    opened: Callable[[bytes], Window],
    slot: tuple[inflater.Slot, int],
) -> None:
    """Bombs of a byte and of 64 MiB; streams that are cut, too short, or none at all."""
    for content in (TEXT + b"!", bytes(64 << 20)):
        bomb = pack(content)
        with pytest.raises(ValueError, match=r"longer than a cluster|too small|Unspecified"):
            inflate(slot, opened(bomb), codec, [Packed(0, CLUSTER, 0, min(len(bomb), 8192))])
        assert not any(os.pread(slot[1], 3 * CLUSTER, CLUSTER))
    whole = pack(NOISE)
    for wrong in (whole[:-20], pack(NOISE[:-1]), NOISE, b"\0"):
        with pytest.raises(ValueError, match="of the file"):
            inflate(slot, opened(wrong), codec, [Packed(0, CLUSTER, 0, len(wrong))])
    # the inflater's own bounds, whatever it is told
    good = opened(whole)
    for cluster, most in (
        (Packed(0, CLUSTER, 0, len(whole) + 1), CLUSTER),
        (Packed(0, CLUSTER, 0, 9 * CLUSTER), CLUSTER),
        (Packed(0, CLUSTER, 0, len(whole)), 4 * CLUSTER + 1),
    ):
        with pytest.raises(ValueError, match=r"read whole|not in the slot"):
            inflate(slot, good, codec, [cluster], most)
    assert inflate(slot, good, codec, [Packed(0, CLUSTER, 0, len(whole))]) == NOISE


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_tables_are_refused_or_stay_in_the_file(data: st.DataObject) -> None:
    packed = deflated(TEXT)
    good = {
        ImageFormat.QCOW2: qcow2([descriptor(DATA, len(packed))] * 8, packed),
        ImageFormat.VMDK: vmdk([(8 * index, zlib.compress(TEXT)) for index in range(8)]),
    }
    format = data.draw(st.sampled_from(sorted(good, key=lambda item: item.value)))
    content = bytearray(good[format])
    interesting = st.sampled_from([0, 1, 0x3F, 0x7F, 0x80, 0xFF])
    place = st.integers(0, 127) | st.integers(0, len(content) - 1) | st.integers(L1, L1 + 7)
    for at in data.draw(st.lists(place, max_size=6)):
        content[at % len(content)] = data.draw(interesting)
    start = data.draw(st.integers(0, SIZE - 1))
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        window = Window(file.fileno())
        try:
            for item in layout(window, format).clusters(start, SIZE):
                assert item.length > 0
                assert window.holds(item.offset, item.length)
                assert 0 < item.size <= 1 << 24
        except UnsafeImage:
            pass
