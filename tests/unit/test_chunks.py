"""Roots against an independent computation by the format's own words (chunks.py)."""

import os

import pytest
import xxhash
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import chunks as format
from pipeline.data.chunks import CHUNK_SIZE, Tree, chunk_length


def top(chunks: list[bytes]) -> bytes:
    """RFC 6962's recursive definition, with galleria's node hash."""
    if not chunks:
        return blake3(b"").digest()
    if len(chunks) == 1:
        return chunks[0]
    split = 1 << ((len(chunks) - 1).bit_length() - 1)
    both = top(chunks[:split]) + top(chunks[split:])
    return blake3(both, derive_key_context="galleria disk tree node 1").digest()


def root(chunks: list[bytes], virtual_size: int) -> str:
    content = virtual_size.to_bytes(8, "little") + (262144).to_bytes(4, "little") + top(chunks)
    return blake3(content, derive_key_context="galleria disk root 1").hexdigest()


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=8),
    st.integers(0, CHUNK_SIZE - 1),
)
def test_root_is_that_of_the_recursive_definition(runs: list[tuple[bool, int]], short: int) -> None:
    count = sum(length for _, length in runs)
    virtual_size = max(0, count * CHUNK_SIZE - short)
    tree = Tree(virtual_size)
    chunks: list[bytes] = []
    for is_zero, length in runs:
        first = len(chunks)
        if is_zero:
            tree.add_zeros(length)
        for index in range(first, first + length):
            size = chunk_length(index, virtual_size)
            if is_zero:
                chunks.append(blake3(bytes(size)).digest())
            else:
                chunks.append(blake3(b"chunk %d" % index).digest())
                tree.add(chunks[-1])
    assert tree.root() == root(chunks, virtual_size)


def test_zero_runs_cost_as_much_as_the_tree_is_high(monkeypatch: pytest.MonkeyPatch) -> None:
    format.zero_subtree(40)
    calls = 0
    node = format.node

    def counted(left: bytes, right: bytes) -> bytes:
        nonlocal calls
        calls += 1
        return node(left, right)

    monkeypatch.setattr(format, "node", counted)
    tree = Tree(1 << 50)
    tree.add(bytes(32))
    tree.add_zeros((1 << 32) - 1)
    tree.root()
    assert calls < 200


def test_a_missing_leaf_has_no_root() -> None:
    tree = Tree(3 * CHUNK_SIZE)
    tree.add_zeros(2)
    with pytest.raises(ValueError, match="2 chunks of 3"):
        tree.root()


def test_the_size_is_part_of_the_name() -> None:
    roots = set()
    for virtual_size in (CHUNK_SIZE, CHUNK_SIZE - 512, 2 * CHUNK_SIZE, 2 * CHUNK_SIZE - 512):
        tree = Tree(virtual_size)
        tree.add_zeros(format.chunk_count(virtual_size))
        roots.add(tree.root())
    assert len(roots) == 4


def test_leaf_digests_are_the_libraries_own() -> None:
    content = os.urandom(CHUNK_SIZE)
    chunk = format.digest(memoryview(content))
    assert chunk is not None
    assert chunk.xxh3 == xxhash.xxh3_128(content).digest()
    assert chunk.blake3 == blake3(content).digest()


@pytest.mark.parametrize("length", [1, 512, CHUNK_SIZE - 1, CHUNK_SIZE])
def test_only_zeros_are_zero(length: int) -> None:
    assert format.digest(memoryview(bytes(length))) is None
    for position in {0, length // 2, length - 1}:
        content = bytearray(length)
        content[position] = 1
        assert format.digest(memoryview(content)) is not None


def test_a_forged_zero_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """XXH3 can be forged: a chunk with the digest of zeros is still compared."""
    forged = bytearray(os.urandom(CHUNK_SIZE))
    zero = format.zero_chunk(CHUNK_SIZE)
    monkeypatch.setattr(xxhash, "xxh3_128_digest", lambda _: zero.xxh3)
    chunk = format.digest(memoryview(forged))
    assert chunk is not None
    assert chunk.blake3 == blake3(forged).digest()
