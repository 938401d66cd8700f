"""Backups of a catalog in SQLite: made while it is used, and put in its place.

A server's catalog is backed up by the server's own tools.
"""

import contextlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL

from adapters.catalog import catalog_file, open_catalog
from adapters.catalog.sql import BUSY_SECONDS, SqlCatalog
from adapters.filesystem import durable
from pipeline.errors import (
    Conflict,
    EnvironmentMissing,
    GalleriaError,
    NoSpace,
    NotFound,
    Refused,
    VerificationFailed,
)

_JOURNAL = "-journal"
_OF_EVERY_CATALOG = {"alembic_version", "galleries", "definitions", "versions"}


def place_of(url: str, tool: str) -> Path:
    """The file of a catalog in SQLite. Raises EnvironmentMissing for one in a server, for which
    `tool` does the same."""
    place = catalog_file(url)
    if place is None:
        raise EnvironmentMissing(
            "the catalog is in a PostgreSQL server, not in a file",
            hint=f"{tool} does that, while galleria runs too",
        )
    return place


def backup(catalog: SqlCatalog, target: Path) -> None:
    """Write a catalog in SQLite as it is at one moment to a new file, that only this user may read;
    others may use it meanwhile. The file is complete, checked and durable, or not there."""
    with _private(target) as staged:
        with _explained(target), contextlib.closing(sqlite3.connect(staged)) as copy:
            catalog.copy_to(copy)
        if problems := _damage(staged):
            raise VerificationFailed(
                f"no backup was made: the catalog is damaged: {'; '.join(problems)}",
                hint="galleria catalog check; galleria catalog restore puts an older backup in "
                "its place",
            )
        durable.sync_file(staged)
        try:
            durable.rename_new(staged, target)
        except FileExistsError:
            raise _exists(target) from None
        durable.sync_directory(target.parent)


def restore(
    url: str, file: Path, note: Callable[[SqlCatalog], None], *, force: bool
) -> Path | None:
    """Put the catalog of a backup in the place of the present one, brought up to date; `note`
    records it there. Returns where the present one is kept (None: there was none).

    Raises NotFound; Refused for what is no catalog; VerificationFailed for one that is damaged, or
    (unless `force`) whose audit record is broken; EnvironmentMissing for one of a newer galleria.
    """
    place = place_of(url, "pg_restore or psql")
    place.parent.mkdir(parents=True, exist_ok=True)
    with _private(place) as staged:
        _copy(file, staged)
        if problems := _damage(staged):
            raise _damaged(file, problems)
        staged_url = URL.create("sqlite", database=str(staged))
        with contextlib.closing(open_catalog(staged_url)) as catalog:
            if not force and (broken := catalog.check().problems):
                raise VerificationFailed(
                    f"{file} is not whole: {'; '.join(broken)}",
                    hint="take another backup, or with --force this one as it is",
                )
            note(catalog)
        durable.sync_file(staged)
        return _put(staged, place)


def _put(staged: Path, place: Path) -> Path | None:
    """Give a new database the place of another one, which is kept beside it."""
    kept = place.with_name(f"{place.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    journal = place.with_name(place.name + _JOURNAL)
    with contextlib.suppress(FileNotFoundError):
        if journal.stat().st_size:  # of a database that can't be opened: it is for no other one
            durable.rename_new(journal, kept.with_name(kept.name + _JOURNAL))
    try:
        durable.rename_new(staged, place)
        durable.sync_directory(place.parent)
        return None
    except FileExistsError:
        # Who has it open still can read it; whoever writes is told by SQLite that it was moved.
        durable.exchange(staged, place)
        durable.rename_new(staged, kept)
        durable.sync_directory(place.parent)
        return kept


@contextlib.contextmanager
def _private(target: Path) -> Iterator[Path]:
    """An empty file of this user alone beside `target`; what is left of it is removed."""
    staged = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        durable.fill(staged, b"", mode=0o600)
        yield staged
    except FileNotFoundError as error:
        raise NotFound(f"{target.parent} is not there: {error.strerror}") from error
    finally:
        staged.unlink(missing_ok=True)
        staged.with_name(staged.name + _JOURNAL).unlink(missing_ok=True)


def _copy(file: Path, staged: Path) -> None:
    """Copy a database that somebody says is a catalog; it is not written to."""
    if not file.is_file():
        raise NotFound(f"there is no file {file}", hint="galleria catalog backup makes one")
    location = f"file:{quote(str(file.absolute()))}?mode=ro"
    with (
        _explained(file),
        contextlib.closing(sqlite3.connect(location, uri=True, timeout=BUSY_SECONDS)) as source,
        contextlib.closing(sqlite3.connect(staged)) as copy,
    ):
        try:
            found = source.execute("SELECT name FROM sqlite_schema").fetchall()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise _no_catalog(file, str(error)) from error
            raise _damaged(file, [str(error)]) from error
        if not {name for (name,) in found} >= _OF_EVERY_CATALOG:
            raise _no_catalog(file, "it has not the tables of one")
        source.backup(copy)


def _damage(file: Path) -> list[str]:
    """What is wrong with the structure of a database; empty when it is whole."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        try:
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check")]
            if found != ["ok"]:
                return found
            return [
                f"row {row[1]} of {row[0]} refers to a missing row of {row[2]}"
                for row in database.execute("PRAGMA foreign_key_check")
            ]
        except sqlite3.DatabaseError as error:  # it gives up on some damage
            return [str(error)]


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turn what SQLite says of a file into errors that tell what to do."""
    try:
        yield
    except sqlite3.Error as error:
        if "full" in str(error):
            raise NoSpace(f"no room for a copy of the catalog beside {file}: {error}") from error
        if isinstance(error, sqlite3.OperationalError):
            raise EnvironmentMissing(
                f"{file} can't be used: {error}", hint="check that it is there and readable"
            ) from error
        raise GalleriaError(
            f"the catalog can't be copied: {error}", hint="galleria catalog check"
        ) from error


def _no_catalog(file: Path, why: str) -> Refused:
    return Refused(
        f"{file} is no catalog of galleria: {why}", hint="give a file of galleria catalog backup"
    )


def _damaged(file: Path, problems: list[str]) -> VerificationFailed:
    return VerificationFailed(
        f"{file} is damaged: {'; '.join(problems)}",
        hint="take another backup; the present catalog is as it was",
    )


def _exists(target: Path) -> Conflict:
    return Conflict(f"{target} exists already", hint="name a new file, or remove that one")
