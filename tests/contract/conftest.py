"""Databases for the contract of catalogs: the in-memory double, SQLite and PostgreSQL."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from adapters.catalog import open_catalog
from pipeline.ports.catalog import Catalog
from tests import postgres
from tests.memory_catalog import MemoryCatalog

POSTGRES = pytest.param("postgresql", marks=pytest.mark.system)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres.server() as query:
        yield query


def new_database(kind: str, tmp_path: Path, get: Callable[[str], str]) -> str:
    """The URL of an empty database of that kind."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/catalog.db"
    query, name = get("postgres_server"), f"t{uuid.uuid4().hex}"
    engine = sa.create_engine(
        f"postgresql+psycopg://postgres@/postgres?{query}", isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"postgresql://postgres@/{name}?{query}"


@pytest.fixture(params=["sqlite", POSTGRES])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return new_database(request.param, tmp_path, request.getfixturevalue)


@pytest.fixture(params=["memory", "sqlite", POSTGRES])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    if request.param == "memory":
        yield MemoryCatalog()
        return
    made = open_catalog(new_database(request.param, tmp_path, request.getfixturevalue))
    yield made
    made.close()
