"""The catalog in a database. SQLAlchemy is imported only when one is opened: it takes longer to
load than most commands need to run."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import URL

    from adapters.catalog.sql import SqlCatalog
    from pipeline.ports.catalog import Catalog, CatalogHealth, CatalogReader, CatalogWriter


def open_catalog(url: "str | URL", *, make: bool = True) -> "SqlCatalog":
    """Open the catalog at a URL (`sqlite:////path/catalog.db`, `postgresql://user@host/name`),
    made or brought up to date when it has to be.

    Raises EnvironmentMissing when it can't be opened or a newer galleria wrote it, and NotFound
    when there is none and it is not to be made.
    """
    from adapters.catalog.sql import SqlCatalog

    return SqlCatalog(url, make=make)


class LateCatalog:
    """A catalog that is opened when it is first asked, and never made: files are inspected and
    converted without one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._opened: SqlCatalog | None = None

    @property
    def opened(self) -> "SqlCatalog":
        """Raises NotFound when there is none."""
        with self._lock:
            if self._opened is None:
                self._opened = open_catalog(self._url, make=False)
            return self._opened

    def read(self) -> "AbstractContextManager[CatalogReader]":
        return self.opened.read()

    def write(self) -> "AbstractContextManager[CatalogWriter]":
        return self.opened.write()

    def attend(self, run: str) -> "AbstractContextManager[Callable[[], None]]":
        return self.opened.attend(run)

    def check(self) -> "CatalogHealth":
        return self.opened.check()

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


def catalog_file(url: str) -> Path | None:
    """The file of a catalog in SQLite, there or not; None of one in a server."""
    from sqlalchemy import make_url

    where = make_url(url)
    return Path(where.database or "") if where.get_backend_name() == "sqlite" else None


if TYPE_CHECKING:
    _: type[Catalog] = LateCatalog
