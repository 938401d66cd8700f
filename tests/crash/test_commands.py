"""Every command that changes something, killed at each step: the catalog is whole, and the same
command again leads to what it would have led to without the kill.

A step is an event of a file (it is made, renamed, removed ...), one of `durable`'s primitives, or
the end of a transaction.
"""

import contextlib
import io
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters import cli
from tests.crash.world import DIED, die_at, interpose
from tests.home import DEFINE, Session, deletable

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(7200)]

Args = tuple[str, ...]
Prepared = Callable[[Session], None]

EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
PLAIN = ("--no-generalize", "--force", "--os-type", "Linux")
DEFINE_API = (*("definition", "create", "corp/api"), *DEFINE[3:-2], "--sku", "back")

# What is killed; what stands before the name is done first.
COMMANDS: dict[str, tuple[Args, ...]] = {
    "gallery create": (("gallery", "create", "lab"),),
    "gallery update": (("gallery", "update", "corp", "--description", "all of it"),),
    "gallery delete": (("gallery", "delete", "corp", "--cascade", "--yes"),),
    "definition create": (DEFINE_API,),
    "definition update": (("definition", "update", "corp/web", "--description", "front"),),
    "definition delete": (("definition", "delete", "corp/web", "--cascade", "--yes"),),
    "publish": (("publish", "corp/web/3.0.0", "--os-disk", "big.raw"),),
    "publish shallow": (
        ("publish", "corp/web/3.0.0", "--os-disk", "big.raw", "--replication-mode", "Shallow"),
    ),
    "version update": (
        ("version", "update", "corp/web/2.0.0", "--add-region", "eu=3", "--remove-region", "us"),
    ),
    "version delete": (("version", "delete", "corp/web/2.0.0"),),
    "version undelete": (
        ("gallery", "update", "corp", "--soft-delete", "true"),
        ("version", "delete", "corp/web/2.0.0"),
        ("version", "undelete", "corp/web/2.0.0"),
    ),
    "replicate": (
        ("version", "update", "corp/web/2.0.0", "--remove-region", "us"),
        ("replicate", "corp/web/2.0.0", "--region", "us=2"),
    ),
    "promote": (("promote", "corp/web/2.0.0", "--channel", "prod"),),
    "retention": (("retention", "apply", "corp/web", "--keep-last", "1"),),
    "snapshot create": (("snapshot", "create", "big.raw", "-n", "t"),),
    "snapshot delete": (("snapshot", "delete", "s"),),
    "disk create": (("disk", "create", "-n", "e", "--source", "s", "--out", "vms/e"),),
    "disk delete": (("disk", "delete", "d"),),
    "image create": (("image", "create", "-n", "j", "--os-disk", "big.raw", *PLAIN),),
    "image delete": (("image", "delete", "i"),),
    "deploy": (
        ("deploy", "corp/web", "--region", "eu", "--name", "n", "--count", "3", "--out", "vms"),
    ),
    "release": (("deployed", "release", "vm"),),
    "scale-set create": (
        (
            *("scale-set", "create", "new", "--image", "corp/web", "--region", "eu"),
            *("--out", "vms", "--count", "2"),
        ),
    ),
    "scale out": (("scale-set", "scale", "set", "--count", "3"),),
    "scale in": (("scale-set", "scale", "set", "--count", "0"),),
    "scale-set delete": (("scale-set", "delete", "set"),),
    "share": (("share", "set-permissions", "corp", "Groups"),),
    "export": (("export", "corp/web/2.0.0", "--to", "vhd", "--out", "out.vhd"),),
    "backup": (("catalog", "backup", "backup.db"),),
    "scrub": (("scrub",),),
    "repair": (("repair",),),
    "gc": (("gc", "--grace", "0min"),),
}
BOUNDED = 6  # points of each command, spread over all that it has, in every run of the suite

# How the state is asked, and what in it differs each time.
STATE: tuple[Args, ...] = (
    ("gallery", "list"),
    ("list",),
    ("snapshot", "list"),
    ("disk", "list"),
    ("image", "list"),
    ("deployed", "list"),
    ("scale-set", "list"),
)
CHANGING = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}"
    r"|\d{4}-\d{2}-\d{2}T[0-9:.]+(?:Z|\+00:00)|(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"
)
VOLATILE = {"attempt", "bytesRead", "bytesWritten", "bytesShared", "changeTime", "inode", "stats"}
VOLATILE |= {"owner"}  # of a run that was killed when all was done


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One of everything; a copy of it is put back after each kill."""
    home = tmp_path_factory.mktemp("commands") / "home"
    home.mkdir()
    (home / "vms").mkdir()
    for name, size in (("small.raw", 1 << 20), ("big.raw", 3 << 20)):
        (home / name).write_bytes(os.urandom(300_000) + bytes(size - 300_000))
    with Session.begun(home, GALLERIA_IMMUTABLE="false") as made:
        made.run("init", "--region", f"eu={home}/eu", "--region", f"us={home}/us")
        made.run("gallery", "create", "corp")
        made.run(*DEFINE)
        made.run("publish", "corp/web/1.0.0", "--os-disk", "small.raw")
        made.run("publish", "corp/web/2.0.0", "--os-disk", "big.raw", "--target-region", "eu", "us")
        made.run("snapshot", "create", "small.raw", "-n", "s")
        made.run("disk", "create", "-n", "d", "--source", "s")
        made.run("image", "create", "-n", "i", "--os-disk", "small.raw", *PLAIN)
        made.run("deploy", "corp/web", "--region", "eu", "--name", "vm", "--out", "vms")
        from_web = ("--image", "corp/web", "--region", "eu", "--out", "vms", "--count", "1")
        made.run("scale-set", "create", "set", *from_web)
        yield made


def put_back(home: Session, kept: Path) -> None:
    deletable(home.path)
    for path in home.path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(kept, home.path, symlinks=True, dirs_exist_ok=True)


def state(home: Session) -> dict[str, Any]:
    """What the catalog says, without what differs each time; and which files there are. Zones that
    lag behind the catalog are brought up by any change."""
    home.run("principal", "create", "last")
    told = {" ".join(args): _lasting(home.json(*args)) for args in STATE}
    found = sorted(
        CHANGING.sub("#", str(path.relative_to(home.path)))
        for region in ("eu", "us", "vms")
        for path in (home.path / region).rglob("*")
        # staging is empty when nothing runs; a disk's mark goes last of all
        if not {"staging", ".galleria-staging"} & set(path.parts)
        and not path.name.startswith(".galleria-")
    )
    return told | {"files": found}


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two documents differ, in words."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(one.keys() | other.keys())
        pairs = [(f"{place}.{name}", one.get(name), other.get(name)) for name in names]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"{place}[{n}]", *pair) for n, pair in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, list) and isinstance(other, list):
        more, less = (
            [x for x in a if a.count(x) > b.count(x)] for a, b in ((one, other), (other, one))
        )
        return [f"{place}: more: {more}; less: {less}"]
    else:
        return [] if one == other else [f"{place}: {one!r} instead of {other!r}"]
    return [text for name, mine, its in pairs for text in differences(mine, its, name)]


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_lasting(item) for item in value]
    return CHANGING.sub("#", value) if isinstance(value, str) else value


def dies(home: Session, args: Sequence[str], k: int) -> bool:
    """Run a command in a fork that is killed at its k-th step; False if it came to its end."""
    pid = os.fork()
    if pid == 0:
        _child(home, args, k)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, DIED), status
    return status == DIED


def _child(home: Session, args: Sequence[str], k: int) -> None:
    step = die_at(k)
    root = str(home.path)

    def event(name: str, values: tuple[object, ...]) -> None:
        made = name == "open" and isinstance(values[2], int) and bool(values[2] & os.O_CREAT)
        if (made or name in EVENTS) and str(values[0]).startswith((root, "/proc/self/fd")):
            step(name)

    status = 1
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
            interpose(patch, step)
            sys.addaudithook(event)
            status = cli.run(args)
    finally:
        os._exit(status)


def check_catalog(home: Session) -> None:
    (file,) = (home.path / "state" / "galleria").glob("*.db")
    with contextlib.closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def finish(home: Session, args: Sequence[str]) -> None:
    """The same command once more. Done already is as good: it is there (5), or it is gone (4)."""
    status = cli.run(args)
    assert status in (0, 4, 5), (args, status)


def steps(home: Session, kept: Path, args: Sequence[str], points: int | None) -> Iterator[int]:
    """At which steps to kill: all, or so many that are spread over them."""
    if points is None:
        yield from range(1, 100_000)
        return
    count = 1
    while dies(home, args, count):  # how many there are, to within a half
        put_back(home, kept)
        count *= 2
    put_back(home, kept)
    yield from sorted({max(1, count * index // points) for index in range(1, points)})


@pytest.mark.parametrize("points", [BOUNDED, pytest.param(None, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed(
    furnished: Session, tmp_path: Path, name: str, points: int | None
) -> None:
    home, kept = furnished, tmp_path / "kept"
    original = tmp_path / "original"
    shutil.copytree(home.path, original, symlinks=True)
    *before, args = COMMANDS[name]
    try:
        for each in before:
            home.run(*each)
        shutil.copytree(home.path, kept, symlinks=True)
        home.run(*args)
        home.run("gc", "--grace", "0min")
        wanted = state(home)
        put_back(home, kept)
        killed = 0
        for k in steps(home, kept, args, points):
            died = dies(home, args, k)
            killed += died
            try:
                check_catalog(home)
                home.run("list")
                finish(home, args)
                home.run("gc", "--grace", "0min")
                home.run("catalog", "check")
                assert differences(state(home), wanted) == []
            except BaseException as wrong:
                wrong.add_note(f"{name}, killed at step {k}")
                raise
            put_back(home, kept)
            if not died:
                break
        assert killed > 0
    finally:
        put_back(home, original)
