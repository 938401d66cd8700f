"""The catalog in a database. SQLAlchemy is imported only when one is opened: it takes longer to
load than most commands need to run."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import URL

    from adapters.catalog.sql import SqlCatalog


def open_catalog(url: "str | URL") -> "SqlCatalog":
    """Open the catalog at a URL (`sqlite:////path/catalog.db`, `postgresql://user@host/name`),
    made or brought up to date when it has to be.

    Raises EnvironmentMissing when it can't be opened or a newer galleria wrote it.
    """
    from adapters.catalog.sql import SqlCatalog

    return SqlCatalog(url)


def catalog_file(url: str) -> Path | None:
    """The file of a catalog in SQLite, there or not; None of one in a server."""
    from sqlalchemy import make_url

    where = make_url(url)
    return Path(where.database or "") if where.get_backend_name() == "sqlite" else None
