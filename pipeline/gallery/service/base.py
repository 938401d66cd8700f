"""What all operations share: the catalog, the owners, the regions, the clock."""

from collections.abc import Callable, Iterable
from datetime import datetime

from pipeline.errors import Conflict
from pipeline.gallery.rules import Limits
from pipeline.model import ImageVersion, Region
from pipeline.model.clock import utc_now
from pipeline.ports.catalog import Catalog, CatalogReader
from pipeline.ports.owners import Owners


class Operations:
    """Each operation reads, checks and writes in one transaction."""

    def __init__(
        self,
        catalog: Catalog,
        owners: Owners,
        regions: Iterable[Region],
        clock: Callable[[], datetime] = utc_now,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._catalog = catalog
        self._owners = owners
        self._regions = tuple(regions)
        self._clock = clock
        self._limits = limits

    def _busy(self, version: ImageVersion | None) -> bool:
        return (
            version is not None and version.owner is not None and self._owners.alive(version.owner)
        )

    def _mine(self, catalog: CatalogReader, version: ImageVersion) -> ImageVersion:
        """The version as it is now; refuses when another process has taken it over since."""
        current = catalog.version(version.name)
        if current is None or (current.uid, current.attempt) != (version.uid, version.attempt):
            raise Conflict(
                f"The work on '{version.name}' was taken over by another process, or the version "
                "was deleted.",
                hint="galleria show tells who works on it",
            )
        return current

    def _change(
        self, version: ImageVersion, change: Callable[[ImageVersion], ImageVersion]
    ) -> ImageVersion:
        with self._catalog.write() as catalog:
            changed = change(self._mine(catalog, version))
            catalog.put_version(changed)
            return changed
