"""Roots against an independent computation by the format's own words (chunks.py)."""

import os

import pytest
import xxhash
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import chunks
from pipeline.data.chunks import LEAF, Tree


def top(leaves: list[bytes]) -> bytes:
    """RFC 6962's recursive definition, with galleria's node hash."""
    if not leaves:
        return blake3(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    both = top(leaves[:split]) + top(leaves[split:])
    return blake3(both, derive_key_context="galleria disk tree node 1").digest()


def root(leaves: list[bytes], virtual_size: int) -> str:
    content = virtual_size.to_bytes(8, "little") + (262144).to_bytes(4, "little") + top(leaves)
    return blake3(content, derive_key_context="galleria disk root 1").hexdigest()


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=8), st.integers(0, LEAF - 1))
def test_root_is_that_of_the_recursive_definition(runs: list[tuple[bool, int]], short: int) -> None:
    count = sum(length for _, length in runs)
    virtual_size = max(0, count * LEAF - short)
    tree = Tree(virtual_size)
    leaves: list[bytes] = []
    for is_zero, length in runs:
        first = len(leaves)
        if is_zero:
            tree.add_zeros(length)
        for index in range(first, first + length):
            size = chunks.leaf_length(index, virtual_size)
            if is_zero:
                leaves.append(blake3(bytes(size)).digest())
            else:
                leaves.append(blake3(b"leaf %d" % index).digest())
                tree.add(leaves[-1])
    assert tree.root() == root(leaves, virtual_size)


def test_zero_runs_cost_as_much_as_the_tree_is_high(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks.zero_subtree(40)
    calls = 0
    node = chunks.node

    def counted(left: bytes, right: bytes) -> bytes:
        nonlocal calls
        calls += 1
        return node(left, right)

    monkeypatch.setattr(chunks, "node", counted)
    tree = Tree(1 << 50)
    tree.add(bytes(32))
    tree.add_zeros((1 << 32) - 1)
    tree.root()
    assert calls < 200


def test_a_missing_leaf_has_no_root() -> None:
    tree = Tree(3 * LEAF)
    tree.add_zeros(2)
    with pytest.raises(ValueError, match="2 leaves of 3"):
        tree.root()


def test_the_size_is_part_of_the_name() -> None:
    roots = set()
    for virtual_size in (LEAF, LEAF - 512, 2 * LEAF, 2 * LEAF - 512):
        tree = Tree(virtual_size)
        tree.add_zeros(chunks.leaf_count(virtual_size))
        roots.add(tree.root())
    assert len(roots) == 4


def test_leaf_digests_are_the_libraries_own() -> None:
    content = os.urandom(LEAF)
    leaf = chunks.digest(memoryview(content))
    assert leaf is not None
    assert leaf.xxh3 == xxhash.xxh3_128(content).digest()
    assert leaf.blake3 == blake3(content).digest()


@pytest.mark.parametrize("length", [1, 512, LEAF - 1, LEAF])
def test_only_zeros_are_zero(length: int) -> None:
    assert chunks.digest(memoryview(bytes(length))) is None
    for position in {0, length // 2, length - 1}:
        content = bytearray(length)
        content[position] = 1
        assert chunks.digest(memoryview(content)) is not None


def test_a_forged_zero_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """XXH3 can be forged: a leaf with the digest of zeros is still compared."""
    forged = bytearray(os.urandom(LEAF))
    zero = chunks.zero_leaf(LEAF)
    monkeypatch.setattr(xxhash, "xxh3_128_digest", lambda _: zero.xxh3)
    leaf = chunks.digest(memoryview(forged))
    assert leaf is not None
    assert leaf.blake3 == blake3(forged).digest()
