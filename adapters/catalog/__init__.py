"""The catalog in a database. SQLAlchemy is imported only when one is opened: it takes longer to
load than most commands need to run."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapters.catalog.sql import SqlCatalog


def open_catalog(url: str) -> "SqlCatalog":
    """Open the catalog at a URL (`sqlite:////path/catalog.db`, `postgresql://user@host/name`),
    made or brought up to date when it has to be.

    Raises EnvironmentMissing when it can't be opened or a newer galleria wrote it.
    """
    from adapters.catalog.sql import SqlCatalog

    return SqlCatalog(url)
