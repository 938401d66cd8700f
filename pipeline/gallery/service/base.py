"""What all operations share: the access of who asks, the owners, the regions, the clock."""

from collections.abc import Callable, Iterable
from datetime import datetime

from pipeline.gallery import rules
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

    def region(self, name: str | None = None) -> str:
        """A region or an edge zone as the configuration spells it; without a name the source
        region, where things are made unless it is said. Raises InvalidParameter for one that is not
        there."""
        wanted = self._source_region if name is None else name
        return rules.known_region(wanted, self._regions, edge_zones=True).name

    def _busy(self, version: ImageVersion | None) -> bool:
        return (
            version is not None and version.owner is not None and self._owners.alive(version.owner)
        )
