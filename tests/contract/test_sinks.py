"""The Sink contract, over every sink there is and the in-memory double."""

import contextlib
import mmap
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.filesystem import calls
from adapters.filesystem.profile import Writing
from adapters.filesystem.sinks import RawSink
from adapters.process.sandbox import Sandbox
from adapters.qemu import img, nbd
from pipeline.data.chunks import CHUNK_SIZE
from pipeline.ports import ImageFormat, Layer, Sink
from tests.contract.memory import MemorySink
from tests.contract.storing import pattern

SIZE = 8 * CHUNK_SIZE + 512
PARENT = pattern(7, SIZE)


@dataclass
class Subject:
    """A sink, and a way to read back by other means what it holds once it is closed."""

    sink: Sink
    content: Callable[[], bytes]
    before: bytes


@contextlib.contextmanager
def memory(path: Path, before: bytes) -> Iterator[Subject]:
    sink = MemorySink(SIZE, before)
    yield Subject(sink, lambda: bytes(sink.content), before)


def raw(writing: Writing) -> "Kind":
    @contextlib.contextmanager
    def made(path: Path, before: bytes) -> Iterator[Subject]:
        file = path / "disk.raw"
        if any(before):
            file.write_bytes(before)
        sink = RawSink(file, SIZE, writing)
        try:
            yield Subject(sink, file.read_bytes, before)
        finally:
            sink.close()

    return made


@contextlib.contextmanager
def delta(path: Path, before: bytes) -> Iterator[Subject]:
    parent, top, flat = path / "parent.raw", path / "top.qcow2", path / "flat.raw"
    parent.write_bytes(before)
    sandbox = Sandbox()
    img.create_qcow2(sandbox, top, SIZE, backing="parent.raw", backing_format="raw")
    chain = (Layer(top, ImageFormat.QCOW2), Layer(parent, ImageFormat.RAW))

    def content() -> bytes:
        server.close()
        subprocess.run(
            ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(top), str(flat)], check=True
        )
        return flat.read_bytes()

    with contextlib.ExitStack() as server:
        device = server.enter_context(nbd.serve(sandbox, chain, writable=True))
        yield Subject(device, content, before)


Kind = Callable[[Path, bytes], contextlib.AbstractContextManager[Subject]]
KINDS: dict[str, Kind] = {
    "memory": memory,
    **{writing.value: raw(writing) for writing in Writing},
    "delta": delta,
}


@pytest.fixture(params=["memory", *Writing, pytest.param("delta", marks=pytest.mark.system)])
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[str(request.param)]


@pytest.fixture(params=["fresh", "over a parent"])
def subject(request: pytest.FixtureRequest, kind: Kind, tmp_path: Path) -> Iterator[Subject]:
    with kind(tmp_path, bytes(SIZE) if request.param == "fresh" else PARENT) as made:
        yield made


def test_it_reads_as_before_until_it_is_written(subject: Subject) -> None:
    subject.sink.flush()
    assert subject.content() == subject.before


def test_all_that_is_written_is_there(subject: Subject) -> None:
    data = pattern(1, 3 * CHUNK_SIZE)
    expected = bytearray(subject.before)
    for offset, piece in ((CHUNK_SIZE, data), (SIZE - 512, data[:512]), (0, data[:1024])):
        subject.sink.write(memoryview(piece), offset)
        expected[offset : offset + len(piece)] = piece
    subject.sink.flush()
    assert subject.content() == expected


def test_zero_reads_back_as_zero(subject: Subject) -> None:
    expected = bytearray(subject.before)
    subject.sink.write(memoryview(pattern(2, 2 * CHUNK_SIZE)), 4 * CHUNK_SIZE)
    for offset, length in (
        (4 * CHUNK_SIZE, CHUNK_SIZE),
        (CHUNK_SIZE, 512),
        (SIZE - 512, 512),
        (0, 0),
    ):
        subject.sink.zero(length, offset)
    expected[4 * CHUNK_SIZE : 6 * CHUNK_SIZE] = pattern(2, 2 * CHUNK_SIZE)
    for offset, length in ((4 * CHUNK_SIZE, CHUNK_SIZE), (CHUNK_SIZE, 512), (SIZE - 512, 512)):
        expected[offset : offset + length] = bytes(length)
    subject.sink.flush()
    assert subject.content() == expected


def test_many_threads_may_write(subject: Subject) -> None:
    data = pattern(3, 8 * CHUNK_SIZE)
    view = memoryview(mmap.mmap(-1, len(data)))  # page-aligned, as the buffers of a copy are
    view[:] = data
    with ThreadPoolExecutor(4) as pool:
        pieces = range(0, 8 * CHUNK_SIZE, CHUNK_SIZE // 2)
        for _ in pool.map(
            lambda at: subject.sink.write(view[at : at + CHUNK_SIZE // 2], at), pieces
        ):
            continue
    subject.sink.flush()
    assert subject.content() == data + subject.before[8 * CHUNK_SIZE :]


def test_it_reads_what_it_holds(subject: Subject) -> None:
    data = memoryview(mmap.mmap(-1, 2 * CHUNK_SIZE))
    data[:] = pattern(5, 2 * CHUNK_SIZE)
    subject.sink.write(data, CHUNK_SIZE)
    found = memoryview(bytearray(4 * CHUNK_SIZE))
    subject.sink.read_into(found, 0)
    assert (
        found
        == subject.before[:CHUNK_SIZE]
        + data.tobytes()
        + subject.before[3 * CHUNK_SIZE : 4 * CHUNK_SIZE]
    )


def test_nothing_is_written_beyond_the_end(subject: Subject) -> None:
    with pytest.raises(ValueError, match="disk of"):
        subject.sink.write(memoryview(bytes(1024)), SIZE - 512)
    with pytest.raises(ValueError, match="disk of"):
        subject.sink.zero(1024, SIZE - 512)
    assert subject.content() == subject.before


def test_a_raw_sink_leaves_holes(tmp_path: Path) -> None:
    sink = RawSink(tmp_path / "disk.raw", 1 << 30)
    sink.write(memoryview(pattern(1, CHUNK_SIZE)), 512 << 20)
    sink.write(memoryview(pattern(1, CHUNK_SIZE)), 256 << 20)
    sink.zero(CHUNK_SIZE, 256 << 20)
    sink.flush()
    sink.close()
    sink.close()
    facts = (tmp_path / "disk.raw").stat()
    assert facts.st_size == 1 << 30
    assert facts.st_blocks * 512 == CHUNK_SIZE


def test_zeros_are_written_where_holes_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "punch_hole", lambda *_: False)
    (tmp_path / "disk.raw").write_bytes(PARENT)
    sink = RawSink(tmp_path / "disk.raw", SIZE)
    sink.zero(6 * CHUNK_SIZE + 1024, CHUNK_SIZE)
    sink.close()
    expected = PARENT[:CHUNK_SIZE] + bytes(6 * CHUNK_SIZE + 1024) + PARENT[7 * CHUNK_SIZE + 1024 :]
    assert (tmp_path / "disk.raw").read_bytes() == expected


def test_a_closed_raw_sink_refuses(tmp_path: Path) -> None:
    sink = RawSink(tmp_path / "disk.raw", CHUNK_SIZE)
    sink.close()
    with pytest.raises(OSError, match="closed"):
        sink.write(memoryview(bytes(512)), 0)


def test_a_raw_sink_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "disk.raw").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        RawSink(tmp_path / "disk.raw", CHUNK_SIZE)
    assert (tmp_path / "other").read_bytes() == b"precious"
