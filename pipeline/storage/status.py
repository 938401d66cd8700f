"""Status: how far each region is, kept in the catalog while the bytes flow."""

import time
from collections.abc import Callable, Sequence

from pipeline.gallery.service.taken import JobRecords, TakenVersion
from pipeline.model import RegionStatus, ReplicationState

STEP = 2  # per cent
SECONDS = 1.0  # between two records: each is a durable transaction
LAST = 99  # 100 is for a region that can be used


class RegionMeter:
    """Tells the catalog of bytes that all of `regions` get in one read, of `total`."""

    def __init__(
        self,
        version: TakenVersion,
        regions: Sequence[str],
        total: int,
        records: JobRecords,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._version = version
        self._regions = tuple(regions)
        self._total = total
        self._records = records
        self._clock = clock
        self._done = self._shown = 0
        self._at = clock()
        self._record(0)

    def advance(self, amount: int) -> None:
        """Called from one thread."""
        self._done += amount
        percent = min(LAST, 100 * self._done // self._total) if self._total else 0
        if percent >= self._shown + STEP and self._clock() >= self._at + SECONDS:
            self._record(percent)

    def _record(self, percent: int) -> None:
        state = ReplicationState.REPLICATING
        statuses = (RegionStatus(region, state, percent) for region in self._regions)
        self._records.set_regions(self._version, *statuses)
        self._shown, self._at = percent, self._clock()
