"""What the stages do with a zone, in short: copy a disk into a base and commit it."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from pipeline.data import copying
from pipeline.data.chunks import CHUNK_SIZE
from pipeline.data.copying import CopyResult
from pipeline.data.manifest import ManifestReader, ManifestWriter
from pipeline.data.targets import Target
from pipeline.ports import BaseStaging, Source, StoredBase, Zone
from tests.contract.memory import MemorySource


def pattern(seed: int, length: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return blake3(seed.to_bytes(8, "little")).digest(length)


def changed(content: bytes, *chunks: int, seed: int = 99) -> bytes:
    """`content` with these chunks replaced."""
    result = bytearray(content)
    for index in chunks:
        area = slice(index * CHUNK_SIZE, min((index + 1) * CHUNK_SIZE, len(content)))
        result[area] = pattern(seed + index, area.stop - area.start)
    return bytes(result)


@contextlib.contextmanager
def staged(
    zone: Zone, source: Source, manifest: Path, parents: Sequence[str] = ()
) -> Iterator[tuple[BaseStaging, CopyResult]]:
    staging = zone.stage_base(source.virtual_size, parents)
    try:
        with contextlib.ExitStack() as files:
            reader = None
            if staging.parent is not None:
                file = files.enter_context(staging.parent.manifest.open("rb"))
                reader = ManifestReader(file)
                reader.verify(staging.parent.digest)
            with manifest.open("wb") as out:
                result = copying.copy(
                    source,
                    [Target(zone.name, staging.sink, reader)],
                    ManifestWriter(out, source.virtual_size),
                )
        yield staging, result
    finally:
        staging.abort()


def store(
    zone: Zone, content: bytes | Source, work: Path, parents: Sequence[str] = ()
) -> tuple[StoredBase, CopyResult]:
    """Put a disk into a zone as a base."""
    source = MemorySource(content) if isinstance(content, bytes) else content
    work.mkdir(parents=True, exist_ok=True)
    manifest = work / "manifest"
    with staged(zone, source, manifest, parents) as (staging, result):
        return staging.commit(result.root, manifest), result


def files(directory: Path) -> list[str]:
    """Every name below a directory, relative."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def collect(zone: Zone, *needed: str) -> list[str]:
    """Remove the bases that nobody needs, but for these; returns the others' digests."""
    found = zone.garbage_collect(lambda _: dict.fromkeys(needed, "somebody"))
    return [item.name for item in found.freed]
