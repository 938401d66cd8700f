"""What all operations share: the access of who asks, the owners, the regions, the clock."""

from collections.abc import Callable, Iterable
from datetime import datetime

from pipeline.gallery.access.subjects import Access
from pipeline.gallery.access.views import SharedViews
from pipeline.gallery.rules import Limits
from pipeline.model import ImageVersion, Region
from pipeline.model.clock import utc_now
from pipeline.ports.owners import Owners


class Operations:
    """Each operation says which action on which object it is, and reads, checks and writes in one
    transaction: there is no other way to the catalog."""

    def __init__(
        self,
        access: Access,
        views: SharedViews,
        owners: Owners,
        regions: Iterable[Region],
        source_region: str = "",
        clock: Callable[[], datetime] = utc_now,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._access = access
        self._views = views
        self._owners = owners
        self._regions = tuple(regions)
        self._source_region = source_region
        self._clock = clock
        self._limits = limits

    def _busy(self, version: ImageVersion | None) -> bool:
        return (
            version is not None and version.owner is not None and self._owners.alive(version.owner)
        )
