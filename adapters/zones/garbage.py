"""What a zone holds and nobody needs: bases, damaged ones that were replaced, and what killed runs
left in staging."""

import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from adapters.filesystem import durable, leftovers
from adapters.zones import bases, guard, layout, records, versions
from pipeline.errors import VerificationFailed
from pipeline.model.garbage import Collected, Freed, Garbage, Keep, Kept
from pipeline.ports.runs import Lease
from pipeline.ports.zones import Needed

_QUARANTINED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*-[0-9a-f]{32}")


def collect_bases(
    zone: Path,
    digests: Collection[str],
    needed: Needed,
    files: Iterable[Path],
    keep: Keep,
    lease: Lease,
) -> Collected:
    """Remove bases of a zone that nobody else writes to; see `Zone.garbage_collect`."""
    listing = versions.every(zone)
    for problem in listing.problems.values():
        raise problem  # nobody knows what it needs
    used = {digest for found in listing.found for digest in found.bases.values()}
    place = zone / layout.BASES
    used |= {path.relative_to(place).parts[0] for path in files if place in path.parents}
    loose = sorted(set(digests) - bases.needed(zone, used))
    why = dict(needed(loose))
    now = time.time()
    for digest in loose:
        age = now - layout.base_directory(zone, digest).lstat().st_mtime
        if keep.unused is None or age < keep.unused:
            why.setdefault(digest, "it was made just now")
    stay = bases.needed(zone, used | set(why))
    going = [digest for digest in loose if digest not in stay]
    removed = []
    for digest in _children_first(zone, going)[: keep.limit]:
        size = leftovers.size_of(layout.base_directory(zone, digest))
        if not keep.dry_run:
            _remove(zone, layout.base_directory(zone, digest), lease)
        removed.append(Freed(Garbage.BASE, digest, size))
    kept = [
        Kept(Garbage.BASE, digest, why.get(digest, "another base, that stays, is a delta of it"))
        for digest in loose
        if digest in stay
    ]
    return Collected(str(zone), tuple(removed), tuple(kept))


def collect_rest(zone: Path, keep: Keep, lease: Lease) -> Collected:
    """Remove what killed runs left in staging, and what is too old or too much in quarantine."""
    staging = leftovers.stale(zone / layout.STAGING, Garbage.STAGING, keep)
    place = zone / layout.QUARANTINE
    with leftovers.named(place, _QUARANTINED, trees=True) as found:
        entries = [
            replace(item, remove=partial(_remove, zone, place / item.name, lease)) for item in found
        ]
        old = leftovers.collect(
            str(zone), Garbage.QUARANTINE, entries, keep.quarantine, keep.quarantine_size, keep
        )
    begun = _temporaries(zone, keep)
    return Collected(str(zone), (*staging.freed, *old.freed, *begun), (*staging.kept, *old.kept))


def _temporaries(zone: Path, keep: Keep) -> list[Freed]:
    """Remove records that a killed run had begun to write beside those that they replace."""
    freed: list[Freed] = []
    for place in (zone, zone / records.CATALOG, *sorted((zone / layout.BASES).iterdir())):
        with leftovers.named(place, durable.TEMPORARY) as found:
            gone = leftovers.collect(str(place), Garbage.STAGING, found, keep.unused, None, keep)
        freed += gone.freed
    return freed


def _children_first(zone: Path, digests: Sequence[str]) -> list[str]:
    """Deepest deltas first: after a crash no delta is left without its parent."""

    def depth(digest: str) -> int:
        try:
            base = bases.find(zone, digest)
        except VerificationFailed:  # it can't be read, with or without its parent
            return bases.MAX_DEPTH + 1
        return 0 if base is None else len(base.chain)

    return sorted(digests, key=depth, reverse=True)


def _remove(zone: Path, directory: Path, lease: Lease) -> str:
    """Take a base away: gone at once, then its files."""
    if layout.is_directory(directory):
        bases.freeze(directory, on=False)
    with layout.room(zone), durable.Staging(zone / layout.STAGING, lease) as staging:
        with guard.names(directory.parent):
            staging.take(directory, "removed")
        durable.sync_directory(directory.parent)
    return ""
