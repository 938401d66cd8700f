"""Bring a catalog's schema up to date, inside the caller's transaction."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from pipeline.errors import EnvironmentMissing


def upgrade(connection: Connection, found: str | None, catalog: str) -> None:
    """Run the migrations after `found` (None: all). A schema that this galleria does not know is
    refused."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if found is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(found)
        except CommandError:
            raise EnvironmentMissing(
                f"the catalog {catalog} has schema {found}, which this galleria does not know",
                hint="a newer galleria made it: use that one",
            ) from None
    command.upgrade(config, "head")
