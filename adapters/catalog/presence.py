"""Whether the process that works on a run is there: by a lock that goes with it.

In SQLite it is a lock on a byte of a file beside the catalog, whose place is the run's: the kernel
lets it go when the process ends, in whatever container it was. In PostgreSQL it is an advisory lock
of a session, which the server lets go when the connection ends: the process has ended then, or the
server was started again.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, exc

from pipeline.model.runs import Presence

SUFFIX = ".runs"
RUNS_LOCK = 0x67616C6D  # of PostgreSQL's advisory locks: the first of two numbers
# struct flock of fcntl(2) on 64 bits: type, whence, start, length, pid
_LOCK = "hhqqi4x"


@contextlib.contextmanager
def attend_file(catalog: Path, run: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of a run beside a catalog in SQLite; if another process has it, that one is
    what is seen: whose the run is, its record says."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(_beside(catalog), flags, 0o666 & ~_umask())
    try:
        # of the open file and not of the process: closing another descriptor does not let it go
        with contextlib.suppress(BlockingIOError):
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, run))
        yield lambda: None
    finally:
        os.close(fd)


def presence_by_file(catalog: Path, run: str) -> Presence:
    try:
        fd = os.open(_beside(catalog), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return Presence.GONE
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, run))
    finally:
        os.close(fd)
    free = struct.unpack(_LOCK, answer)[0] == fcntl.F_UNLCK
    return Presence.GONE if free else Presence.THERE


@contextlib.contextmanager
def attend_server(
    engine: Engine, run: str, attending: set[Connection]
) -> Iterator[Callable[[], None]]:
    """Hold the lock of a run on a connection of its own, which is in `attending` meanwhile."""
    held = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    attending.add(held)

    def keep() -> None:
        nonlocal held
        try:
            held.execute(sa.select(1))
        except exc.DBAPIError:
            leave(held, attending)
            held = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            attending.add(held)
            _hold(held, run)

    try:
        _hold(held, run)
        yield keep
    finally:
        leave(held, attending)


def leave(held: Connection, attending: set[Connection]) -> None:
    """End the session, and with it the lock."""
    attending.discard(held)
    with contextlib.suppress(exc.SQLAlchemyError):
        held.invalidate()
    held.close()


def _hold(connection: Connection, run: str) -> None:
    connection.execute(sa.select(sa.func.pg_try_advisory_lock(RUNS_LOCK, _number(run))))


def presence_by_server(connection: Connection, run: str) -> Presence:
    held = sa.text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND classid = :lock AND objid = :number AND objsubid = 2"
    )
    keys = {"lock": RUNS_LOCK, "number": _number(run) & 0xFFFFFFFF}
    return Presence.THERE if connection.scalar(held, keys) else Presence.UNSEEN


def _beside(catalog: Path) -> Path:
    return catalog.with_name(catalog.name + SUFFIX)


def _flock(kind: int, run: str) -> bytes:
    return struct.pack(_LOCK, kind, os.SEEK_SET, _number(run) & 0xFFFFFFFF, 1, 0)


def _number(run: str) -> int:
    """A run as a number of 32 bits, with its sign. That two runs have the same is improbable, and
    means only that one seems to be there while the other is."""
    return int.from_bytes(blake2b(run.encode(), digest_size=4).digest(), "big", signed=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
