"""Manifests: round trip, one form per content, refusal of everything damaged."""

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.chunks import CHUNK_SIZE, ChunkDigest, Tree, zero_chunk
from pipeline.data.manifest import RUN_LEAVES, Cursor, ManifestReader, ManifestWriter
from pipeline.errors import VerificationFailed

Runs = list[tuple[bool, int]]
RUNS = st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=8)


def chunk(index: int) -> ChunkDigest:
    numbers = random.Random(index)  # noqa: S311 - test data
    return ChunkDigest(numbers.randbytes(16), numbers.randbytes(32))


def finished(runs: Runs) -> tuple[bytes, str, list[ChunkDigest | None]]:
    file = io.BytesIO()
    chunks: list[ChunkDigest | None] = []
    for is_zero, count in runs:
        first = len(chunks)
        chunks += [None if is_zero else chunk(index) for index in range(first, first + count)]
    writer = ManifestWriter(file, len(chunks) * CHUNK_SIZE)
    for item in chunks:
        writer.add_zeros(1) if item is None else writer.add(item)
    root = writer.finish()
    return file.getvalue(), root, chunks


@given(RUNS)
def test_what_is_written_is_read(runs: Runs) -> None:
    content, root, chunks = finished(runs)
    reader = ManifestReader(io.BytesIO(content))
    assert reader.virtual_size == len(chunks) * CHUNK_SIZE
    seen: list[ChunkDigest | None] = []
    for run in reader.runs():
        assert run.first == len(seen)
        seen += run.chunks if run.chunks is not None else [None] * run.count
    assert seen == chunks
    assert reader.verify() == root
    assert reader.verify(root) == root


@given(RUNS)
def test_one_content_has_one_manifest(runs: Runs) -> None:
    content, _, chunks = finished(runs)
    file = io.BytesIO()
    writer = ManifestWriter(file, len(chunks) * CHUNK_SIZE)
    position = 0
    while position < len(chunks):
        end = position
        while end < len(chunks) and chunks[end] is None:
            end += 1
        if end > position:
            writer.add_zeros(end - position)
            position = end
        else:
            item = chunks[position]
            assert item is not None
            writer.add(item)
            position += 1
    writer.finish()
    assert file.getvalue() == content


@given(RUNS, st.data())
def test_the_cursor_goes_forward(runs: Runs, data: st.DataObject) -> None:
    content, _, chunks = finished(runs)
    cursor = Cursor(ManifestReader(io.BytesIO(content)))
    position = 0
    while position < len(chunks) + 5:
        count = data.draw(st.integers(1, 20))
        if data.draw(st.booleans()):
            expected = chunks[position] if position < len(chunks) else None
            assert cursor.chunk(position) == expected
        else:
            found = {
                index
                for first, length in cursor.data(position, count)
                for index in range(first, first + length)
            }
            assert found == {
                index
                for index in range(position, min(position + count, len(chunks)))
                if chunks[index] is not None
            }
        position += count


@settings(max_examples=300)
@given(RUNS, st.data())
def test_any_changed_byte_is_refused(runs: Runs, data: st.DataObject) -> None:
    content, _, _ = finished(runs)
    damaged = bytearray(content)
    position = data.draw(st.integers(0, len(content) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(VerificationFailed):
        ManifestReader(io.BytesIO(bytes(damaged))).verify()


@given(RUNS, st.data())
def test_any_other_length_is_refused(runs: Runs, data: st.DataObject) -> None:
    content, _, _ = finished(runs)
    cut = data.draw(st.integers(0, len(content) - 1))
    for damaged in (content[:cut], content + content[cut : cut + 1]):
        with pytest.raises(VerificationFailed):
            ManifestReader(io.BytesIO(damaged)).verify()


def test_another_disks_manifest_is_refused() -> None:
    content, root, _ = finished([(False, 3)])
    other = "0" * 64
    with pytest.raises(VerificationFailed, match=root):
        ManifestReader(io.BytesIO(content)).verify(other)


def test_a_newer_version_is_refused_by_number() -> None:
    content = bytearray(finished([(False, 1)])[0])
    content[8] = 2
    with pytest.raises(VerificationFailed, match="version 2"):
        ManifestReader(io.BytesIO(bytes(content)))


def test_a_large_sparse_disk_costs_bytes() -> None:
    file = io.BytesIO()
    writer = ManifestWriter(file, 2 << 40)
    writer.add_zeros((2 << 40) // CHUNK_SIZE)
    root = writer.finish()
    assert len(file.getvalue()) == 98
    tree = Tree(2 << 40)
    tree.add_zeros((2 << 40) // CHUNK_SIZE)
    assert root == tree.root()


def test_long_data_runs_are_cut_and_read_again() -> None:
    content, root, _ = finished([(False, 2 * RUN_LEAVES + 7)])
    counts = [run.count for run in ManifestReader(io.BytesIO(content)).runs()]
    assert counts == [RUN_LEAVES, RUN_LEAVES, 7]
    assert ManifestReader(io.BytesIO(content)).verify() == root


def test_a_leaf_with_the_digest_of_zeros_is_a_zero() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    writer = ManifestWriter(first, CHUNK_SIZE + 512)
    writer.add(zero_chunk(CHUNK_SIZE))
    writer.add(zero_chunk(512))
    root = writer.finish()
    other = ManifestWriter(second, CHUNK_SIZE + 512)
    other.add_zeros(2)
    assert other.finish() == root
    assert first.getvalue() == second.getvalue()
