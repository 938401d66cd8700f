"""Parents: whether an older base is worth starting from. One that has nothing in common with a disk
would only make a base that depends on it for nothing."""

from collections.abc import Iterator, Sequence
from itertools import islice
from mmap import mmap

from pipeline.data.extents import data_bytes
from pipeline.data.manifest import Cursor, manifest_of
from pipeline.data.reading import REQUEST_SIZE, ChunkDigests, Work, load, plan
from pipeline.errors import VerificationFailed
from pipeline.ports import Files, Source, StoredBase, Zone
from pipeline.storage.placement import usable_base

SAMPLES = 16  # requests, spread over the data: 64 chunks


def related(
    source: Source, parents: Sequence[str], zones: Sequence[Zone], files: Files
) -> tuple[str, ...]:
    """Those of `parents` (root digests) that share a chunk with a sample of the disk's data. Only
    the first that a zone holds counts there, and only those are looked at."""
    candidates: dict[str, StoredBase] = {}
    for zone in zones:
        found = (usable_base(zone, digest) for digest in parents)
        base = next((base for base in found if base is not None), None)
        if base is not None:
            candidates.setdefault(base.digest, base)
    if not candidates:
        return ()
    sample = tuple(_sample(source))
    return tuple(
        digest
        for digest in parents
        if digest in candidates and _has_any(candidates[digest], sample, files)
    )


def _sample(source: Source) -> Iterator[tuple[Work, ChunkDigests]]:
    step = max(1, data_bytes(source.extents()) // REQUEST_SIZE // SAMPLES)
    buf = memoryview(mmap(-1, REQUEST_SIZE))
    works = (work for work in plan(source) if work.parts)
    for work in islice(works, 0, None, step):
        yield work, load(source.read_into, work, buf)


def _has_any(base: StoredBase, sample: Sequence[tuple[Work, ChunkDigests]], files: Files) -> bool:
    """Whether any chunk of the sample is in a base, in its place. Of a sample without data, too; of
    a damaged manifest none is."""
    known = [
        (work.first + index, chunk)
        for work, chunks in sample
        for index, chunk in enumerate(chunks)
        if chunk is not None
    ]
    try:
        with manifest_of(base, files) as manifest:
            cursor = Cursor(manifest)
            return not known or any(cursor.chunk(index) == chunk for index, chunk in known)
    except (OSError, VerificationFailed):
        return False
