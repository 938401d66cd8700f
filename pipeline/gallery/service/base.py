"""What all operations share: the access of who asks, the runs, the regions, the clock."""

from collections.abc import Callable, Iterable
from datetime import datetime

from pipeline.gallery.access.subjects import Access
from pipeline.gallery.access.views import SharedViews
from pipeline.gallery.audited import Changes
from pipeline.gallery.rules import Limits
from pipeline.gallery.service.running import JobRuns
from pipeline.model import ImageVersion, Region
from pipeline.model.clock import utc_now
from pipeline.model.runs import Held
from pipeline.ports.catalog import CatalogReader


class Operations:
    """Each operation says which action on which object it is, and reads, checks and writes in one
    transaction: there is no other way to the catalog."""

    def __init__(
        self,
        access: Access,
        views: SharedViews,
        runs: JobRuns,
        regions: Iterable[Region],
        source_region: str = "",
        clock: Callable[[], datetime] = utc_now,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._access = access
        self._views = views
        self._runs = runs
        self._regions = tuple(regions)
        self._source_region = source_region
        self._clock = clock
        self._limits = limits

    def _holder(self, catalog: CatalogReader, version: ImageVersion | None) -> Held | None:
        """The run of another process that works on a version."""
        return None if version is None else self._runs.holder(catalog, version.owner)

    def _take(self, catalog: CatalogReader, changes: Changes, version: ImageVersion | None) -> None:
        """What another run has left of a version is this one's from now on."""
        if version is not None:
            self._runs.take(catalog, changes, version.owner)
