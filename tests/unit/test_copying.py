"""The one loop against a naive model: random extents, free ranges, parents, sizes and faults."""

import errno
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data import copying, reading
from pipeline.data.chunks import CHUNK_SIZE, ChunkDigest, digest
from pipeline.data.copying import CopyResult, Known
from pipeline.data.extents import mask_free
from pipeline.data.manifest import ManifestReader, ManifestWriter
from pipeline.data.targets import Target
from pipeline.errors import StageFailed, VerificationFailed
from pipeline.ports.extents import Extent, Kind, Range
from tests.contract.memory import MemorySink, MemorySource
from tests.faults import Faulty

SECTOR = 512
MAX_SECTORS = 9 * CHUNK_SIZE // SECTOR


@dataclass
class Disk:
    """A disk in sectors: `content` is what a guest sees when free ranges read as zero."""

    extents: list[Extent]
    raw: bytes
    content: bytes

    def source(self) -> MemorySource:
        return MemorySource(self.raw, self.extents)


def pattern(seed: int, length: int) -> bytes:
    return blake3(seed.to_bytes(8, "little")).digest(length)


@st.composite
def disks(draw: st.DrawFn, other: Disk | None = None) -> Disk:
    """A random disk; if there is another one, it may share chunks with it."""
    raw, extents = bytearray(), []
    pieces = st.one_of(
        st.integers(1, 40),  # within a chunk
        st.sampled_from([CHUNK_SIZE // SECTOR, 2 * CHUNK_SIZE // SECTOR, CHUNK_SIZE // SECTOR - 1]),
        st.integers(1, 3 * CHUNK_SIZE // SECTOR),
    )
    for _ in range(draw(st.integers(0, 7))):
        length = min(draw(pieces), MAX_SECTORS - len(raw) // SECTOR) * SECTOR
        if not length:
            break
        kind = draw(st.sampled_from(["data", "data", "same", "zeros", "zero", "free"]))
        start = len(raw)
        if kind == "same" and other is not None:
            raw += other.content[start : start + length].ljust(length, b"\0")
        elif kind in ("data", "free", "same"):
            raw += pattern(draw(st.integers(0, 3)), length)
        else:
            raw += bytes(length)
        known = {"zero": Kind.ZERO, "free": Kind.FREE}.get(kind, Kind.DATA)
        extents.append(Extent(start, length, known))
    content = bytearray(raw)
    for extent in extents:
        if extent.kind is Kind.FREE:
            content[extent.start : extent.end] = bytes(extent.length)
    return Disk(extents, bytes(raw), bytes(content))


def copied(source: Any, targets: list[Target], **options: Any) -> tuple[CopyResult, bytes]:
    file = io.BytesIO()
    result = copying.copy(source, targets, ManifestWriter(file, source.virtual_size), **options)
    return result, file.getvalue()


def manifest_of(content: bytes) -> ManifestReader:
    return ManifestReader(io.BytesIO(copied(MemorySource(content), [])[1]))


def chunks(content: bytes) -> list[bytes]:
    return [content[at : at + CHUNK_SIZE] for at in range(0, len(content), CHUNK_SIZE)]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Disk, Disk]:
    parent = draw(disks())
    return parent, draw(disks(parent))


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow],
)
@given(pairs(), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 3]))
def test_every_target_becomes_the_disk(
    pair: tuple[Disk, Disk], request_leaves: int, threads: int
) -> None:
    parent, disk = pair
    fresh, child = (
        MemorySink(len(disk.content)),
        MemorySink(len(disk.content), parent.content),
    )
    source = disk.source()
    advanced: list[int] = []
    result, manifest = copied(
        source,
        [Target("fresh", fresh), Target("child", child, manifest_of(parent.content))],
        threads=threads,
        request_size=request_leaves * CHUNK_SIZE,
        advance=advanced.append,
    )
    assert bytes(fresh.content) == disk.content
    assert bytes(child.content) == disk.content
    assert not result.failures

    # the root and the manifest depend on the content alone
    plain, other = copied(MemorySource(disk.content), [], threads=1, request_size=CHUNK_SIZE)
    assert (result.root, manifest) == (plain.root, other)

    # nothing known to be zero was read (the double refuses it), all data was, once
    data = sum(extent.length for extent in disk.extents if extent.kind is Kind.DATA)
    assert source.bytes_read == data == result.stats.read == sum(advanced)

    # a new sink gets exactly the chunks that are not zero, one that has a parent what differs
    now = chunks(disk.content)
    before = chunks(parent.content.ljust(len(disk.content), b"\0"))
    filled = [chunk for chunk in now if any(chunk)]
    assert result.stats.written["fresh"] == sum(map(len, filled))
    assert sum(length for _, length in fresh.written) == sum(map(len, filled))
    assert not fresh.zeroed
    assert result.stats.zero == len(disk.content) - sum(map(len, filled))
    assert result.stats.kept["fresh"] == 0

    cut = chunks(parent.content)
    same = [
        chunk
        for index, chunk in enumerate(now)
        if any(chunk) and index < len(cut) and cut[index] == chunk
    ]
    assert result.stats.kept["child"] == sum(map(len, same))
    assert result.stats.written["child"] == sum(map(len, filled)) - sum(map(len, same))
    assert sum(length for _, length in child.written) == result.stats.written["child"]
    cleared = sum(
        len(chunk)
        for index, chunk in enumerate(now)
        if not any(chunk) and index < len(cut) and any(cut[index])
    )
    assert sum(length for _, length in child.zeroed) == cleared
    assert len(before) >= len(now)


@settings(max_examples=100)
@given(disks(), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 900)), max_size=5))
def test_free_ranges_are_zero(disk: Disk, gaps: list[tuple[int, int]]) -> None:
    free, position = [], 0
    for gap, length in gaps:
        start = position + gap * SECTOR
        free.append(Range(start, length * SECTOR))
        position = free[-1].end + SECTOR
    content = bytearray(disk.content)
    for area in free:
        stop = min(area.end, len(content))
        if area.start < stop:
            content[area.start : stop] = bytes(stop - area.start)
    masked = MemorySource(disk.raw, list(mask_free(disk.extents, free)))
    sink = MemorySink(len(content))
    result, _ = copied(masked, [Target("a", sink)])
    assert sink.content == content
    assert result.root == copied(MemorySource(bytes(content)), [])[0].root


@settings(max_examples=100)
@given(disks(), st.integers(0, MAX_SECTORS * SECTOR - 1), st.sampled_from([1, 4]))
def test_verify_finds_the_leaf_that_changed(disk: Disk, position: int, request: int) -> None:
    manifest = manifest_of(disk.content)
    size = request * CHUNK_SIZE
    assert copying.verify(disk.source(), manifest, request_size=size) == ()
    if not disk.content:
        return
    position %= len(disk.content)
    rotten = bytearray(disk.content)
    rotten[position] ^= 0x40
    start = position // CHUNK_SIZE * CHUNK_SIZE
    bad = copying.verify(MemorySource(bytes(rotten)), manifest, request_size=size)
    assert bad == (Range(start, min(CHUNK_SIZE, len(rotten) - start)),)
    # a hole where data should be is found without reading
    whole = [Extent(0, len(rotten), Kind.ZERO)]
    lost = copying.verify(MemorySource(bytes(rotten), whole), manifest, request_size=size)
    assert sum(area.length for area in lost) == sum(
        len(chunk) for chunk in chunks(disk.content) if any(chunk)
    )


BLOCK = CHUNK_SIZE // 8


def layered(base: bytes, writes: list[tuple[int, int, bool]]) -> tuple[bytes, list[Extent]]:
    """An overlay on a base whose zero chunks are holes: what a guest sees, and where it lies.
    Writes are of blocks, of data or (False) of zeros."""
    content, count = bytearray(base), len(base) // BLOCK
    states = [
        (Kind.DATA if any(chunk) else Kind.ZERO, 1)
        for chunk in chunks(base)
        for _ in range(len(chunk) // BLOCK)
    ]
    for start, length, data in writes:
        for block in range(min(start, count), min(start + length, count)):
            states[block] = (Kind.DATA if data else Kind.ZERO, 0)
            at = slice(block * BLOCK, (block + 1) * BLOCK)
            content[at] = pattern(block, BLOCK) if data else bytes(BLOCK)
    extents: list[Extent] = []
    for block, (kind, layer) in enumerate(states):
        last = extents[-1] if extents else None
        if last is not None and (last.kind, last.layer) == (kind, layer):
            extents[-1] = Extent(last.start, last.length + BLOCK, kind, layer)
        else:
            extents.append(Extent(block * BLOCK, BLOCK, kind, layer))
    return bytes(content), extents


WRITES = st.lists(st.tuples(st.integers(0, 6 * 8), st.integers(1, 12), st.booleans()), max_size=4)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), WRITES, WRITES, st.booleans())
def test_what_lies_in_a_known_base_is_not_read(
    seeds: list[int],
    writes: list[tuple[int, int, bool]],
    others: list[tuple[int, int, bool]],
    fresh: bool,
) -> None:
    """Whatever the target holds, it becomes the disk; over the base itself only what lies above it
    is read, in works of whole chunks."""
    base = b"".join(pattern(seed, CHUNK_SIZE) if seed else bytes(CHUNK_SIZE) for seed in seeds)
    content, extents = layered(base, writes)
    known = Known(manifest_of(base), 1)
    _, expected = copied(MemorySource(content), [])
    # over another child of the base, and perhaps into nothing as well
    older, _ = layered(base, others)
    child = MemorySink(len(content), older)
    targets = [Target("child", child, manifest_of(older))]
    if fresh:
        targets.append(Target("fresh", MemorySink(len(content))))
    result, manifest = copied(
        MemorySource(content, extents), targets, known=known, request_size=CHUNK_SIZE
    )
    assert (manifest, bytes(child.content), result.failures) == (expected, content, {})
    # over the base itself
    child, source = MemorySink(len(content), base), MemorySource(content, extents)
    result, manifest = copied(
        source,
        [Target("child", child, manifest_of(base))],
        known=Known(manifest_of(base), 1),
        request_size=CHUNK_SIZE,
    )
    assert (manifest, bytes(child.content)) == (expected, content)
    touched = {
        chunk
        for extent in extents
        if extent.layer == 0
        for chunk in range(extent.start // CHUNK_SIZE, -(-extent.end // CHUNK_SIZE))
    }
    assert result.stats.read == source.bytes_read <= len(touched) * CHUNK_SIZE


def forged(content: bytes, *, xxh3: bool, blake: bool) -> ManifestReader:
    """A manifest whose chunks keep only one of the true digests."""
    file = io.BytesIO()
    writer = ManifestWriter(file, len(content))
    for data in chunks(content):
        chunk = digest(memoryview(data))
        assert chunk is not None
        writer.add(
            ChunkDigest(chunk.xxh3 if xxh3 else bytes(16), chunk.blake3 if blake else b"f" * 32)
        )
    writer.finish()
    return ManifestReader(file)


class Beside(MemorySource):
    """All of its data lies in one file, in the same place."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(
            disk.raw,
            [
                replace(extent, offset=extent.start) if extent.kind is Kind.DATA else extent
                for extent in disk.extents
            ],
        )

    def file(self, layer: int) -> int | None:
        return 7


class Twin(MemorySink):
    """What is the same bytes, is the same blocks; what is zero, is a hole."""

    def __init__(self, parent: bytes, file: bytes) -> None:
        super().__init__(len(file), parent)
        self._file = file

    def holds(self, file: int | None, area: Range, offset: int) -> bool:
        wanted = bytes(area.length) if file is None else self._file[area.start : area.end]
        return self.content[offset : offset + area.length] == wanted


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(pairs(), st.sampled_from([1, 2, 4]))
def test_what_is_in_blocks_of_the_parent_too_is_not_read(
    pair: tuple[Disk, Disk], request_leaves: int
) -> None:
    parent, disk = pair
    source, sink = Beside(disk), Twin(parent.content, disk.raw)
    target = Target("twin", sink, manifest_of(parent.content))
    result, _ = copied(source, [target], request_size=request_leaves * CHUNK_SIZE)
    assert bytes(sink.content) == disk.content
    assert result.root == copied(MemorySource(disk.content), [])[0].root
    assert result.stats.read == source.bytes_read
    if parent.content == disk.content:
        assert source.bytes_read == 0


def test_of_a_disk_that_changed_or_grew_the_rest_is_not_read() -> None:
    old = pattern(1, 3 * CHUNK_SIZE) + pattern(2, 1024)
    grown, changed = old + bytes(SECTOR), bytearray(old)
    changed[CHUNK_SIZE + 7] ^= 1
    for content, read in ((old, 0), (bytes(changed), CHUNK_SIZE), (grown, len(grown))):
        disk = Disk([Extent(0, len(content), Kind.DATA)], content, content)
        source, sink = Beside(disk), Twin(old, content)
        target = Target("twin", sink, manifest_of(old))
        result, _ = copied(source, [target], request_size=CHUNK_SIZE)
        assert source.bytes_read == read
        assert bytes(sink.content) == content
        assert result.root == copied(MemorySource(content), [])[0].root


@pytest.mark.parametrize("hole", [Range(0, 1024), Range(2048, 512), Range(CHUNK_SIZE - 512, 512)])
def test_a_hole_where_the_parent_has_blocks_is_a_change(hole: Range) -> None:
    """Before, between and after data that is in blocks of both."""
    old = pattern(1, CHUNK_SIZE)
    content = old[: hole.start] + bytes(hole.length) + old[hole.end :]
    data = [Range(0, hole.start), Range(hole.end, CHUNK_SIZE - hole.end)]
    extents = [Extent(area.start, area.length, Kind.DATA) for area in data if area.length]
    extents.append(Extent(hole.start, hole.length, Kind.ZERO))
    disk = Disk(sorted(extents, key=lambda extent: extent.start), content, content)
    sink = Twin(old, content)
    result, _ = copied(Beside(disk), [Target("twin", sink, manifest_of(old))])
    assert bytes(sink.content) == content
    assert result.root == copied(MemorySource(content), [])[0].root


def test_an_equal_xxh3_never_keeps_a_leaf() -> None:
    content = pattern(1, 3 * CHUNK_SIZE)
    sink = MemorySink(len(content), pattern(2, len(content)))
    parent = forged(content, xxh3=True, blake=False)
    result, _ = copied(MemorySource(content), [Target("a", sink, parent)])
    assert sink.content == content
    assert result.stats.kept["a"] == 0


def test_an_equal_blake3_is_enough_to_keep_a_leaf() -> None:
    content = pattern(1, 3 * CHUNK_SIZE)
    sink = MemorySink(len(content), content)
    parent = forged(content, xxh3=False, blake=True)
    result, _ = copied(MemorySource(content), [Target("a", sink, parent)])
    assert result.stats.written["a"] == 0


@pytest.mark.parametrize(("xxh3", "blake"), [(True, False), (False, True)])
def test_verify_wants_both_digests(xxh3: bool, blake: bool) -> None:
    content = pattern(1, 3 * CHUNK_SIZE)
    bad = copying.verify(MemorySource(content), forged(content, xxh3=xxh3, blake=blake))
    assert bad == (Range(0, 3 * CHUNK_SIZE),)


def test_verify_of_another_length_is_bad_from_there_on() -> None:
    manifest = manifest_of(pattern(1, 3 * CHUNK_SIZE))
    shorter = MemorySource(pattern(1, 2 * CHUNK_SIZE))
    assert copying.verify(shorter, manifest) == (Range(2 * CHUNK_SIZE, CHUNK_SIZE),)


def test_verify_refuses_a_damaged_manifest() -> None:
    content = pattern(1, 3 * CHUNK_SIZE)
    file = bytearray(copied(MemorySource(content), [])[1])
    file[-1] ^= 1
    with pytest.raises(VerificationFailed):
        copying.verify(MemorySource(content), ManifestReader(io.BytesIO(bytes(file))))


@pytest.mark.parametrize("script", ["E", ".N", "...E"])
def test_a_failing_target_is_dropped_and_the_others_complete(script: str) -> None:
    content = pattern(1, 8 * CHUNK_SIZE)
    good, bad = MemorySink(len(content)), MemorySink(len(content))
    targets = [Target("good", good), Target("bad", Faulty(bad, script))]
    result, _ = copied(MemorySource(content), targets, request_size=CHUNK_SIZE)
    assert bytes(good.content) == content
    assert list(result.failures) == ["bad"]
    assert isinstance(result.failures["bad"], OSError)
    assert result.stats.written["good"] == len(content)
    assert len(bad.written) < 8


def test_a_sink_that_cannot_zero_is_dropped() -> None:
    parent = pattern(1, 4 * CHUNK_SIZE)
    zeros = MemorySource(bytes(4 * CHUNK_SIZE), [Extent(0, 4 * CHUNK_SIZE, Kind.ZERO)])
    sink = Faulty(MemorySink(4 * CHUNK_SIZE, parent), "E")
    with pytest.raises(OSError, match="scripted"):
        copied(zeros, [Target("only", sink, manifest_of(parent))])


def test_a_target_whose_parent_is_damaged_is_dropped() -> None:
    content = pattern(1, 4 * CHUNK_SIZE)
    file = copied(MemorySource(content), [])[1]
    cut = ManifestReader(io.BytesIO(file[: len(file) // 2]))
    child, fresh = MemorySink(len(content), content), MemorySink(len(content))
    result, _ = copied(MemorySource(content), [Target("child", child, cut), Target("fresh", fresh)])
    assert isinstance(result.failures.pop("child"), VerificationFailed)
    assert not result.failures
    assert bytes(fresh.content) == content


def test_when_all_targets_failed_the_first_error_is_raised() -> None:
    content = pattern(1, 64 * CHUNK_SIZE)
    source = MemorySource(content)
    targets = [
        Target("a", Faulty(MemorySink(len(content)), "N")),
        Target("b", Faulty(MemorySink(len(content)), "..E")),
    ]
    with pytest.raises(OSError, match="scripted") as caught:
        copied(source, targets, request_size=CHUNK_SIZE, threads=2)
    assert caught.value.errno == errno.ENOSPC
    assert source.bytes_read < len(content)


def test_an_error_of_the_source_stops_everything() -> None:
    content = pattern(1, 200 * CHUNK_SIZE)
    source = Faulty(MemorySource(content), "." * 5 + "E", methods=("read_into",))
    before = set(threading.enumerate())
    sink = MemorySink(len(content))
    with pytest.raises(OSError, match="read_into"):
        copied(source, [Target("a", sink)], request_size=CHUNK_SIZE, threads=3)
    assert set(threading.enumerate()) <= before
    assert len(sink.written) < 50


def test_an_error_of_the_caller_joins_the_threads() -> None:
    content = pattern(1, 50 * CHUNK_SIZE)
    before = set(threading.enumerate())

    def advance(amount: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copied(MemorySource(content), [], request_size=CHUNK_SIZE, advance=advance)
    assert set(threading.enumerate()) <= before


def test_the_window_is_bounded() -> None:
    """A slow first request does not let the others run away."""
    content = pattern(1, 100 * CHUNK_SIZE)
    seen = threading.Event()

    class Slow(MemorySource):
        def read_into(self, buf: memoryview, extent: Extent) -> None:
            if extent.start == 0:
                seen.wait()
            super().read_into(buf, extent)

    source = Slow(content)
    thread = threading.Thread(target=copied, args=(source, []), kwargs={"request_size": CHUNK_SIZE})
    thread.start()
    try:
        before, ahead = -1, 0
        while not ahead or ahead != before:  # until the others have come to a stop
            time.sleep(0.1)
            before, ahead = ahead, source.bytes_read // CHUNK_SIZE
    finally:
        seen.set()
        thread.join()
    assert 0 < ahead <= 2 * reading.THREADS + 2


def test_what_is_settled_goes_ahead_of_a_slow_request_but_not_without_end() -> None:
    slow = threading.Event()
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(3 * reading.WINDOW):
            taken.append(number)
            yield number

    def perform(number: int, _: memoryview) -> reading.ChunkDigests:
        if number == 0:
            slow.wait()
        return ()

    results = reading.in_order(tasks(), perform, settled=lambda number: number > 0)
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.extend(number for number, _ in results))
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while len(taken) <= reading.WINDOW and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        ahead = len(taken)
    finally:
        slow.set()
        thread.join()
    assert ahead == reading.WINDOW + 1
    assert done == list(range(3 * reading.WINDOW))


@pytest.mark.parametrize(
    "extents",
    [
        [Extent(0, 10, Kind.DATA)],
        [Extent(0, CHUNK_SIZE, Kind.DATA), Extent(CHUNK_SIZE + 512, CHUNK_SIZE - 512, Kind.DATA)],
        [Extent(0, CHUNK_SIZE, Kind.DATA), Extent(CHUNK_SIZE - 512, CHUNK_SIZE + 512, Kind.ZERO)],
        [Extent(0, 4 * CHUNK_SIZE, Kind.DATA)],
        [],
    ],
)
def test_a_map_that_does_not_cover_the_disk_is_refused(extents: list[Extent]) -> None:
    class Lying(MemorySource):
        def extents(self) -> Iterator[Extent]:
            return iter(extents)

    with pytest.raises(StageFailed, match="map of the source"):
        copied(Lying(bytes(2 * CHUNK_SIZE)), [])


def test_a_request_size_must_be_whole_leaves() -> None:
    with pytest.raises(ValueError, match="multiple"):
        copied(MemorySource(bytes(CHUNK_SIZE)), [], request_size=CHUNK_SIZE + 512)


def test_a_large_sparse_disk_is_planned_in_few_works() -> None:
    class Sparse(MemorySource):
        @property
        def virtual_size(self) -> int:
            return 2 << 40

        def extents(self) -> Iterator[Extent]:
            yield Extent(0, 2 << 40, Kind.ZERO)

    result, manifest = copied(Sparse(b""), [])
    assert len(manifest) < 1024
    assert result.stats.zero == 2 << 40
