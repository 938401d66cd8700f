"""Whether a base still is what its name says: by its files' fingerprint, and where that says
nothing or no, or the last reading is long ago, by every chunk of it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from pipeline.data.copying import verify
from pipeline.data.extents import data_bytes
from pipeline.data.manifest import manifest_of
from pipeline.data.reading import THREADS
from pipeline.errors import GalleriaError, VerificationFailed
from pipeline.model.clock import utc_now
from pipeline.ports import Chain, Files, Images, Progress, StoredBase, Zone
from pipeline.ports.extents import Range

SHOWN_RANGES = 3
RECHECK_AFTER = timedelta(days=7)


class Reading(Protocol):
    """What stored bytes are read with. A base that was last read from its medium longer than
    `recheck_after` ago, or never, is read before it is reused."""

    @property
    def images(self) -> Images: ...
    @property
    def files(self) -> Files: ...
    @property
    def progress(self) -> Progress: ...
    @property
    def recheck_after(self) -> timedelta: ...


@dataclass(frozen=True, slots=True)
class Readers:
    """The same, alone."""

    images: Images
    files: Files
    progress: Progress
    recheck_after: timedelta = RECHECK_AFTER


def read_again(
    base: StoredBase,
    chain: Chain,
    label: str,
    reading: Reading,
    *,
    cached: bool = True,
    paced: Callable[[int], None] = lambda _: None,
) -> tuple[Range, ...]:
    """Read all of a disk that has a base's content; the ranges that are not what the manifest says.
    `paced` is told the bytes before they are read, and may wait. Raises what makes it unreadable,
    VerificationFailed for the manifest."""
    threads = THREADS if cached else THREADS * 2  # whoever waits for the medium does not hash
    with (
        manifest_of(base, reading.files) as manifest,
        reading.images.open(chain, cached=cached) as source,
    ):
        with reading.progress.stage(label, data_bytes(source.extents())) as meter:

            def advance(amount: int) -> None:
                meter.advance(amount)
                paced(amount)

            bad = verify(source, manifest, threads=threads, advance=advance)
        manifest.verify(base.digest)
    return bad


def problem_of(base: StoredBase, zone: Zone, reading: Reading) -> str:
    """Why a base is not what its name says, for people; empty when it is. Reads all of it, from the
    medium, and notes what comes of it."""
    label = f"check {zone.region}"
    try:
        problem = said(read_again(base, base.chain, label, reading, cached=False))
        problem = problem or zone.base_problem(base, cached=False)
    except VerificationFailed as error:
        problem = error.message
    except (OSError, GalleriaError) as error:  # a tool or the storage failed: that may pass
        return str(error)
    zone.remember_base(base, problem, read=True)
    return problem


def said(bad: tuple[Range, ...]) -> str:
    """Ranges that are wrong, for people."""
    if not bad:
        return ""
    some = ", ".join(f"{area.start}-{area.end}" for area in bad[:SHOWN_RANGES])
    more = f" and {len(bad) - SHOWN_RANGES} more" if len(bad) > SHOWN_RANGES else ""
    return f"bytes {some}{more} are not what was published"


def check_base(
    zone: Zone, digest: str, reading: Reading, *, reused: bool = False
) -> StoredBase | None:
    """A base of a zone that is as it was when it was last known to be sound, or that has just been
    read and is. One that is to be `reused` (it becomes part of something else) was read from its
    medium not long ago, or is now: rot changes no fingerprint. Raises VerificationFailed for one
    that is not sound."""
    base = zone.find_base(digest)
    if base is None:
        return None
    if zone.base_changes(base) == "" and not (reused and _stale(base, zone, reading)):
        return base
    if problem := problem_of(base, zone, reading):
        raise VerificationFailed(
            f"{base.chain[0].path} is not sound: {problem}",
            hint="galleria repair makes it again from a copy that is sound; galleria verify names "
            "the regions that are",
        )
    return base


def _stale(base: StoredBase, zone: Zone, reading: Reading) -> bool:
    """Whether a base was not read from its medium lately."""
    last = zone.base_read(base)
    return last is None or utc_now() - last >= reading.recheck_after


def checked_base(
    zone: Zone, digest: str, reading: Reading, *, reused: bool = False
) -> StoredBase | None:
    """The same; None also for one that is not sound, and when the zone can't be read."""
    with suppress(OSError, GalleriaError):
        return check_base(zone, digest, reading, reused=reused)
    return None
