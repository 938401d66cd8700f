"""What a disk is called: digests of its chunks, and one root over them.

The format, version 1, so that another program can compute the same names:

* The content is (virtual_size, bytes) as the guest sees them. It is cut into chunks of exactly
  262,144 bytes (CHUNK_SIZE); the last one may be shorter. The chunk is a constant of the format:
  it does not follow I/O sizes, formats, holes or file systems.
* Each chunk has two digests: XXH3-128 with seed 0 (16 bytes, big-endian as the library's canonical
  form) to notice rot quickly, and BLAKE3 (32 bytes, plain hash mode) which alone says that two
  chunks are the same. XXH3 can be forged in under a millisecond.
* Interior node = BLAKE3 in derive-key mode, context NODE_CONTEXT, over left || right (64 bytes).
  The shape is that of RFC 6962: the left child of n chunks holds the largest power of two below n.
  No node of one chunk exists: a tree of one chunk is the chunk's BLAKE3.
* Root = BLAKE3 in derive-key mode, context ROOT_CONTEXT, over virtual_size (u64, little-endian) ||
  CHUNK_SIZE (u32, little-endian) || the tree's top. The top of an empty disk is BLAKE3 of nothing.

The derive-key contexts keep a chunk from being passed off as a node, and a node as a root. A root
is written as 64 lower-case hexadecimal digits.
"""

from functools import lru_cache
from typing import NamedTuple

import xxhash
from blake3 import blake3

CHUNK_SIZE = 256 * 1024
XXH3_LENGTH = 16
BLAKE3_LENGTH = 32
NODE_CONTEXT = "galleria disk tree node 1"
ROOT_CONTEXT = "galleria disk root 1"

_ZEROS = bytes(CHUNK_SIZE)
# Setting up derive-key mode costs as much as hashing a node; a copy of a prepared hasher does not.
_NODE = blake3(derive_key_context=NODE_CONTEXT)
_ROOT = blake3(derive_key_context=ROOT_CONTEXT)


class ChunkDigest(NamedTuple):
    """The two digests of one chunk."""

    xxh3: bytes
    blake3: bytes


def chunk_count(virtual_size: int) -> int:
    return -(-virtual_size // CHUNK_SIZE)


def chunk_length(index: int, virtual_size: int) -> int:
    """Bytes of chunk `index` of a disk: CHUNK_SIZE, except for the last one."""
    return min(CHUNK_SIZE, virtual_size - index * CHUNK_SIZE)


@lru_cache(maxsize=16)
def zero_chunk(length: int = CHUNK_SIZE) -> ChunkDigest:
    """The digests of `length` zero bytes."""
    zeros = memoryview(_ZEROS)[:length]
    return ChunkDigest(xxhash.xxh3_128_digest(zeros), blake3(zeros).digest())


def digest(buf: memoryview) -> ChunkDigest | None:
    """The digests of one chunk; None if all its bytes are zero.

    Both libraries release the GIL for buffers above 64 KiB. XXH3 only hints that a chunk is zero:
    the bytes are compared, so a forged chunk is hashed like any other.
    """
    fast = xxhash.xxh3_128_digest(buf)
    if fast == zero_chunk(len(buf)).xxh3 and bytes(buf) == _ZEROS[: len(buf)]:
        return None
    return ChunkDigest(fast, blake3(buf).digest())


def node(left: bytes, right: bytes) -> bytes:
    hasher = _NODE.copy()
    hasher.update(left)
    hasher.update(right)
    return hasher.digest()


@lru_cache(maxsize=64)
def zero_subtree(height: int) -> bytes:
    """The node over 2**height whole zero chunks."""
    if height == 0:
        return zero_chunk().blake3
    below = zero_subtree(height - 1)
    return node(below, below)


class Tree:
    """Computes a root from chunks that arrive in order. Holds one digest per level.

    The peaks are the roots of full subtrees, highest first:  [ 2**k chunks | 2**j | ... | 1 ].
    """

    def __init__(self, virtual_size: int) -> None:
        self._virtual_size = virtual_size
        self._expected = chunk_count(virtual_size)
        self._peaks: list[tuple[int, bytes]] = []
        self.count = 0

    def add(self, chunk: bytes) -> None:
        """Append the BLAKE3 of the next chunk."""
        self._push(0, chunk)

    def add_zeros(self, count: int) -> None:
        """Append `count` zero chunks, of which the last may be the short one; O(log count)."""
        end = self.count + count
        last = end == self._expected and chunk_length(end - 1, self._virtual_size) < CHUNK_SIZE
        whole = end - 1 if last and count else end
        while self.count < whole:
            height = (whole - self.count).bit_length() - 1
            if self.count:
                height = min(height, (self.count & -self.count).bit_length() - 1)
            self._push(height, zero_subtree(height))
        if self.count < end:
            self._push(0, zero_chunk(chunk_length(self.count, self._virtual_size)).blake3)

    def root(self) -> str:
        """The root digest, when every chunk has been added."""
        if self.count != self._expected:
            raise ValueError(f"{self.count} chunks of {self._expected} were added")
        top = self._peaks[-1][1] if self._peaks else blake3(b"").digest()
        for _, peak in reversed(self._peaks[:-1]):
            top = node(peak, top)
        hasher = _ROOT.copy()
        hasher.update(self._virtual_size.to_bytes(8, "little"))
        hasher.update(CHUNK_SIZE.to_bytes(4, "little"))
        hasher.update(top)
        return hasher.hexdigest()

    def _push(self, height: int, digest: bytes) -> None:
        self.count += 1 << height
        while self._peaks and self._peaks[-1][0] == height:
            digest = node(self._peaks.pop()[1], digest)
            height += 1
        self._peaks.append((height, digest))
