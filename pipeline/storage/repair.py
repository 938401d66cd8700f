"""Repair: a base is written anew, of whatever is sound in any copy of it.

Its own file, the bases of other zones and the source's file are copies, good or bad: a chunk counts
when its BLAKE3 is the manifest's, and the manifest when its root is the base's name. The new base
takes the bad one's place in one rename; who has the old file open keeps it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from pipeline.data.copying import copy
from pipeline.data.healing import HealedSource
from pipeline.data.manifest import ChunkTable, ManifestReader, ManifestWriter, manifest_of
from pipeline.data.targets import Target
from pipeline.errors import GalleriaError, VerificationFailed
from pipeline.ports import Chain, Source, StoredBase, Zone
from pipeline.ports.extents import Range
from pipeline.storage.convert import Means
from pipeline.storage.soundness import checked_base, read_again, said


class Unrepairable(VerificationFailed):
    """No copy has these ranges of a base (none given: not even its manifest)."""

    def __init__(self, message: str, lost: Sequence[Range] = ()) -> None:
        super().__init__(message, hint="publish the same disk again, or restore a copy of the zone")
        self.lost = tuple(lost)


def repair_base(
    zone: Zone, digest: str, others: Sequence[Zone], sources: Sequence[Chain], means: Means
) -> StoredBase:
    """Make a base of a zone anew, from itself, `others` and `sources`. Raises Unrepairable, with
    nothing changed, for what none of them has."""
    manifest = means.work / f"{digest}.manifest"
    with ExitStack() as stack:
        copies: list[Source] = []
        for chain in (*_chains(digest, (zone, *others)), *sources):
            with suppress(OSError, GalleriaError):
                copies.append(stack.enter_context(means.images.open(chain, cached=False)))
        table = _table(digest, (zone, *others), copies, means)
        if table is None:
            raise Unrepairable(f"no copy of the base {digest} is whole, and no manifest of it")
        source = HealedSource(table, copies)
        staging = zone.restage_base(digest, table.virtual_size, _parents(zone, digest, means))
        stack.callback(staging.abort)
        parent = None
        if staging.parent is not None:
            parent = stack.enter_context(manifest_of(staging.parent, means.files))
        total = sum(extent.length for extent in table.extents())
        with (
            means.progress.stage(f"repair {zone.region} {digest[:12]}", total) as meter,
            means.files.create(manifest) as out,
        ):
            writer = ManifestWriter(out, table.virtual_size)
            result = copy(
                source,
                [Target("repair", staging.sink, parent)],
                writer,
                advance=meter.advance,
            )
        if source.lost or result.root != digest:
            raise Unrepairable(f"no copy of the base {digest} is whole", source.lost)
        base = staging.commit(digest, manifest, replace=True)
    if bad := read_again(base, base.chain, f"check {zone.region}", means, cached=False):
        zone.remember_base(base, said(bad), read=True)
        raise Unrepairable(f"{base.chain[0].path}: what was just written is wrong again", bad)
    zone.remember_base(base, read=True)
    return base


def _chains(digest: str, zones: Sequence[Zone]) -> Iterator[Chain]:
    """What may hold the bytes of a base, whatever its records say."""
    for zone in zones:
        try:
            base = zone.find_base(digest)
            chain = None if base is None else base.chain
        except (OSError, GalleriaError):
            chain = None
            with suppress(OSError, GalleriaError):
                chain = zone.base_remains(digest)
        if chain is not None:
            yield chain


def _table(
    digest: str, zones: Sequence[Zone], copies: Sequence[Source], means: Means
) -> ChunkTable | None:
    """The chunks that a base has to have: by any manifest whose root is its name, else by a copy
    that is whole."""
    for zone in zones:
        path = zone.base_manifest(digest)
        with suppress(OSError, GalleriaError):
            return _read(path, digest, means)
    for source in copies:
        path = means.work / f"{digest}.found"
        with suppress(OSError, GalleriaError):
            with means.files.create(path) as out:
                root = copy(source, [], ManifestWriter(out, source.virtual_size)).root
            if root == digest:
                return _read(path, digest, means)
    return None


def _read(path: Path, digest: str, means: Means) -> ChunkTable:
    with means.files.open(path) as file:
        return ChunkTable(ManifestReader(file, name=str(path)), digest)


def _parents(zone: Zone, digest: str, means: Means) -> Sequence[str]:
    """What the base was started from, if that is sound: where files can be cloned it shares blocks
    with it again."""
    parent = zone.base_parent(digest)
    if parent is not None and checked_base(zone, parent, means, reused=True) is not None:
        return (parent,)
    return ()
