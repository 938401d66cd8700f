"""A catalog in SQLite or PostgreSQL: connections, transactions, durability, schema.

SQLite runs in rollback-journal mode with full synchronisation, not in WAL: before 3.51.3 a WAL
database with several writers can be corrupted (https://www.sqlite.org/changes.html).
"""

import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

from adapters.catalog import presence, tables
from adapters.catalog.changes import Writer
from adapters.catalog.queries import Reader
from adapters.catalog.tables import SCHEMA
from pipeline.errors import (
    Busy,
    Conflict,
    ConnectionLost,
    EnvironmentMissing,
    GalleriaError,
    NoSpace,
    NotFound,
    VerificationFailed,
)
from pipeline.gallery import audit
from pipeline.model.resource_names import ResourceKind
from pipeline.ports.catalog import Catalog, CatalogHealth, CatalogReader, CatalogWriter

BUSY_SECONDS = 90.0  # that a writer is waited for, or a server that was there
PAUSE_SECONDS = 0.5
WRITERS_LOCK = 0x67616C6C  # PostgreSQL advisory lock: writers take turns, as they do in SQLite

_PRAGMAS = (
    "journal_mode = TRUNCATE",
    "synchronous = EXTRA",
    "foreign_keys = ON",
)


class SqlCatalog:
    def __init__(self, url: str | URL, *, make: bool = True) -> None:
        """Open, and bring the schema up to date. See `adapters.catalog.open_catalog`."""
        parsed = _dialect(url)
        self._name = parsed.render_as_string(hide_password=True)
        self._sqlite = parsed.get_backend_name() == "sqlite"
        # to connect to a file makes it
        if self._sqlite and not make and not Path(parsed.database or "").exists():
            raise _missing(parsed.database)
        self._attending: set[sa.Connection] = set()
        self._opened = False
        self._engine = _sqlite(parsed) if self._sqlite else _postgresql(parsed)
        try:
            self._bring_up_to_date(make=make)
        except BaseException:
            self._engine.dispose()
            raise
        self._opened = True

    @contextlib.contextmanager
    def read(self) -> Iterator[CatalogReader]:
        with self._transaction(write=False) as connection:
            yield Reader(connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[CatalogWriter]:
        with self._transaction(write=True) as connection:
            yield Writer(connection)

    def attend(self, run: str) -> contextlib.AbstractContextManager[Callable[[], None]]:
        if self._sqlite:
            return presence.attend_file(Path(str(self._engine.url.database)), run)
        return self._attend_server(run)

    @contextlib.contextmanager
    def _attend_server(self, run: str) -> Iterator[Callable[[], None]]:
        with contextlib.ExitStack() as stack:
            with self._explained():
                attended = presence.attend_server(self._engine, run, self._attending)
                keep = stack.enter_context(attended)

            def kept() -> None:
                with self._explained():
                    keep()

            yield kept

    def check(self) -> CatalogHealth:
        """Read the whole database and look for damage."""
        with self._transaction(write=False) as connection:
            schema = _schema_of(connection) or "none"
            found = (_check_sqlite if self._sqlite else _check_postgresql)(connection, schema)
            if found.problems:
                return found
            return replace(found, problems=_check_audit(connection))

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Copy a catalog in SQLite as it is at one moment; others may go on using it."""
        with self._explained(), self._engine.connect() as connection:
            source: Any = connection.connection.driver_connection
            source.backup(target)

    @contextlib.contextmanager
    def rebuild(self, identity: str, zones: Mapping[str, str]) -> Iterator[CatalogWriter]:
        """A transaction that fills an empty catalog, which has that identity, and these zones in
        their directories, from then on. Raises Conflict for one that has content."""
        with self._transaction(write=True) as connection:
            writer = Writer(connection)
            if found := _content(writer):
                raise Conflict(
                    f"the catalog {self._name} has content: {found}",
                    hint="move it away, or name an empty one; galleria catalog restore puts a "
                    "backup in its place",
                )
            yield writer
            connection.execute(sa.update(tables.identity).values(id=identity))
            connection.execute(sa.delete(tables.zones))
            rows = [{"directory": path, "zone_id": zone} for path, zone in zones.items()]
            connection.execute(sa.insert(tables.zones), rows)
        self.__dict__.pop("identity", None)

    @functools.cached_property
    def identity(self) -> str:
        """What tells this catalog from any other; a copy of it has the same."""
        with self._transaction(write=False) as connection:
            return str(connection.scalar(sa.select(tables.identity.c.id)))

    def zones_seen(self) -> dict[str, str]:
        """The identity of the zone that each directory had."""
        with self._transaction(write=False) as connection:
            rows = connection.execute(sa.select(tables.zones.c.directory, tables.zones.c.zone_id))
            return {row.directory: row.zone_id for row in rows}

    def zone_file_systems(self) -> dict[str, str]:
        """On which file system each zone was, by its directory."""
        with self._transaction(write=False) as connection:
            c = tables.zones.c
            rows = connection.execute(sa.select(c.directory, c.file_system))
            return {row.directory: row.file_system for row in rows}

    def see_zone(self, directory: str, zone: str, file_system: str = "") -> None:
        """A directory has this zone from now on, and is on that file system."""
        with self._transaction(write=True) as connection:
            mine = tables.zones.c.directory == directory
            connection.execute(sa.delete(tables.zones).where(mine))
            row = {"directory": directory, "zone_id": zone, "file_system": file_system}
            connection.execute(sa.insert(tables.zones), row)

    def close(self) -> None:
        for held in list(self._attending):
            presence.leave(held, self._attending)
        self._engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, *, write: bool) -> Iterator[sa.Connection]:
        with self._explained(), self._connect() as connection:
            if self._sqlite:
                connection.execution_options(write=write)
            elif not write:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin() as transaction:
                if write and not self._sqlite:
                    lock = sa.func.pg_advisory_xact_lock(WRITERS_LOCK)
                    connection.execute(sa.select(lock))
                yield connection
                if not write:  # nothing to commit, and on a damaged database that fails
                    transaction.rollback()

    def _connect(self) -> sa.Connection:
        """A connection. A server that was there, and is being started again, is waited for: a job
        of hours does not fail by it."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return self._engine.connect()
            except exc.OperationalError:
                if self._sqlite or not self._opened or time.monotonic() > until:
                    raise
            time.sleep(PAUSE_SECONDS)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the database says into errors that tell what to do."""
        try:
            yield
        except exc.IntegrityError as error:
            raise Conflict(
                f"the catalog {self._name} refuses a change that breaks its structure: {error.orig}"
            ) from error
        except exc.DBAPIError as error:
            raise self._explain(error) from error

    def _explain(self, error: exc.DBAPIError) -> GalleriaError:
        text = str(error.orig).strip()
        if "database is locked" in text:
            return Busy(
                f"the catalog {self._name} was busy for {BUSY_SECONDS:.0f} s",
                hint="another galleria process holds it; try again when that one is done",
            )
        if "disk is full" in text or "No space left" in text:
            return NoSpace(f"no room for the catalog {self._name}: {text}")
        if error.connection_invalidated:
            return ConnectionLost(
                f"the connection to the catalog {self._name} was lost: {text}",
                hint="the same command continues",
            )
        if isinstance(error, exc.OperationalError):
            return EnvironmentMissing(
                f"the catalog {self._name} can't be used: {text}",
                hint="check that it is there, writable and, if a server, running",
            )
        return GalleriaError(
            f"the catalog {self._name} failed: {text}",
            hint="galleria doctor checks it",
            code="CatalogFailed",
        )

    def _bring_up_to_date(self, *, make: bool) -> None:
        with self._transaction(write=False) as connection:
            found = _schema_of(connection)
        if found == SCHEMA:
            return
        if found is None and not make:
            raise _missing(self._name)
        # only now: alembic takes a tenth of a second to load
        from adapters.catalog.migrations import upgrade

        with self._transaction(write=True) as connection:
            found = _schema_of(connection)  # another process may have been quicker
            if found != SCHEMA:
                upgrade(connection, found, self._name)


def _missing(name: str | None) -> NotFound:
    return NotFound(
        f"there is no catalog {name}",
        hint="galleria init makes a new one; if there was one, mount its file system, put a backup "
        "there (galleria catalog restore), or make it again from the zones (galleria catalog "
        "rebuild)",
    )


def _dialect(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except exc.ArgumentError:
        backend = ""
    if backend not in ("sqlite", "postgresql"):
        raise EnvironmentMissing(
            "the catalog's URL is not understood",
            hint="sqlite:////absolute/path/catalog.db or postgresql://user@host/database",
        )
    return parsed.set(drivername="postgresql+psycopg") if backend == "postgresql" else parsed


def _sqlite(url: URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise EnvironmentMissing("the catalog needs a file: sqlite:////absolute/path/catalog.db")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _postgresql(url: URL) -> sa.Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise EnvironmentMissing(
            f"the PostgreSQL driver is not installed: {error}",
            hint="install galleria with its extra: galleria[postgres]",
        ) from error


def _configure(connection: Any, record: object) -> None:
    """Durability first; and transactions begin where this program says (see `_begin`)."""
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    """A writer takes its lock at once: one that upgrades later can meet another, and then both have
    read what one of them changes."""
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _check_sqlite(connection: sa.Connection, schema: str) -> CatalogHealth:
    def ask(question: str) -> Any:
        return connection.scalar(sa.text(question))

    try:
        found = list(connection.scalars(sa.text("PRAGMA integrity_check")))
    except exc.DatabaseError as error:  # it gives up on some damage
        found = [error.orig]
    problems = [str(problem) for problem in found if problem != "ok"]
    if not problems:  # a damaged table can't be walked
        problems = [
            f"row {row[1]} of {row[0]} refers to a missing row of {row[2]}"
            for row in connection.execute(sa.text("PRAGMA foreign_key_check"))
        ]
    journal, sync = ask("PRAGMA journal_mode"), ask("PRAGMA synchronous")
    return CatalogHealth(
        f"SQLite {ask('SELECT sqlite_version()')}",
        f"journal_mode={journal} synchronous={sync}",
        schema,
        tuple(problems),
    )


def _check_postgresql(connection: sa.Connection, schema: str) -> CatalogHealth:
    def ask(setting: str) -> Any:
        return connection.scalar(sa.text(f"SHOW {setting}"))

    problems = [] if ask("fsync") == "on" else ["fsync is off: a power cut loses data"]
    sync = ask("synchronous_commit")
    if sync == "off":
        problems.append("synchronous_commit is off: a crash loses what was just published")
    return CatalogHealth(
        f"PostgreSQL {ask('server_version')}",
        f"synchronous_commit={sync}",
        schema,
        tuple(problems),
    )


def _check_audit(connection: sa.Connection) -> tuple[str, ...]:
    reader = Reader(connection)
    try:
        audit.verify(reader.audit(), reader.audit_head(), base=reader.audit_base())
    except VerificationFailed as error:
        return (error.message,)
    return ()


def _content(reader: CatalogReader) -> str:
    """What is in a catalog, for people; empty when nothing is."""
    found: dict[str, list[Any]] = {
        "galleries": reader.galleries(),
        "resources": [item for kind in ResourceKind for item in reader.resources(kind)],
        "deployed VMs": reader.deployments(),
        "scale sets": reader.scale_sets(),
        "principals": reader.principals(),
        "roles": reader.assignments(),
        "tenants": reader.tenants(),
        "subscriptions": reader.subscriptions(),
    }
    return ", ".join(f"{len(items)} {what}" for what, items in found.items() if items)


def _schema_of(connection: sa.Connection) -> str | None:
    """The migration that the database is at; None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


_: type[Catalog] = SqlCatalog
