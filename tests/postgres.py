"""A PostgreSQL server for tests: the distribution's, in a temporary directory, on a socket."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.conftest import missing

VERSIONS = Path("/usr/lib/postgresql")
USER = "postgres"
MEMORY = "/dev/shm"  # noqa: S108 - mkdtemp makes a private directory in it


def binaries() -> Path | None:
    """Where the newest installed server's programs are (they are not in PATH)."""
    found = sorted(VERSIONS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run a server; gives the query part of a URL that reaches it. Skips when there is none
    (`tests.conftest.missing`)."""
    programs = binaries()
    if programs is None:
        missing("there is no PostgreSQL server: install postgresql")
    # in memory where possible, for speed; and short: a socket's path has 107 bytes at most
    home = Path(tempfile.mkdtemp(prefix="pg", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    prefix: list[str] = []
    if os.geteuid() == 0:  # the server refuses to be root
        shutil.chown(home, USER)
        prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    data = home / "data"

    def run(*argv: str | Path) -> None:
        _run([*prefix, *map(str, argv)], home)

    try:
        run(programs / "initdb", "-A", "trust", "-U", USER, "-E", "UTF8", "--no-sync", "-D", data)
        options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=on"
        run(programs / "pg_ctl", "-D", data, "-l", home / "log", "-o", options, "-w", "start")
        try:
            yield f"host={home}"
        finally:
            run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home)


def _run(argv: Sequence[str], home: Path) -> None:
    # pg_ctl's child would hold a pipe open, so output goes to a file
    with (home / "output").open("w+") as output:
        done = subprocess.run(argv, stdout=output, stderr=output, cwd="/", check=False, timeout=60)
        output.seek(0)
        assert done.returncode == 0, f"{argv}: {output.read()}"
