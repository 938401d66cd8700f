"""Kill `galleria disk create` at every step that it takes on the file system: the same command
again makes the disk, and a deletion instead of it leaves nothing."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.world import DIED
from tests.home import Session

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

STEPS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.utime"}
PLAIN = ("disk", "create", "-n", "d", "--size-gb", "1", "--out", "vms/d")
FILLED = ("disk", "create", "-n", "d", "--source", "s", "--out", "vms/d")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "disk.raw").write_bytes(b"content" * 512 + bytes(1 << 20))
    (tmp_path / "vms").mkdir()
    with Session.begun(tmp_path, GALLERIA_IMMUTABLE="false") as made:
        made.run("init", "--region", f"eu={tmp_path}/eu")
        made.run("snapshot", "create", "disk.raw", "-n", "s")
        yield made


def dies(home: Session, args: tuple[str, ...], step: int) -> bool:
    """Run a command in a fork that is killed before its `step`-th step in the disk's directory,
    or in the zone's; False if it came to its end."""
    child = os.fork()
    if child == 0:
        left = step

        def kill(event: str, values: tuple[object, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(values[2], int) and values[2] & os.O_CREAT
            if not (event in STEPS or writes) or not isinstance(values[0], str | Path):
                return
            if "vms" in Path(values[0]).parts or "eu" in Path(values[0]).parts:
                left -= 1
                if left < 0:
                    os._exit(DIED)

        sys.addaudithook(kill)
        try:
            home.run(*args)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, DIED)
    return status == DIED


def debris(home: Session) -> list[str]:
    found = [*(home.path / "vms").iterdir(), *(home.path / "eu" / "staging").iterdir()]
    found += (home.path / "eu" / "disks").iterdir() if (home.path / "eu" / "disks").exists() else []
    return [str(path) for path in found]


@pytest.mark.parametrize("create", [PLAIN, FILLED], ids=["empty", "filled"])
def test_a_disk_that_is_killed(home: Session, create: tuple[str, ...]) -> None:
    step = 0
    while dies(home, create, step):
        if step % 2 and home.json("disk", "list")["disks"]:
            home.run("disk", "delete", "d")
            assert debris(home) == [], step
        there = [disk["provisioningState"] for disk in home.json("disk", "list")["disks"]]
        if there != ["Succeeded"]:
            home.run(*create)
        made = home.json("disk", "show", "d")
        assert made["provisioningState"] == "Succeeded"
        file = Path(made["file"]["path"])
        names = {path.name for path in file.parent.iterdir()}
        # its last step is to take its mark away
        assert names - {f".galleria-{made['uniqueId']}"} == {file.name}, step
        assert there == ["Succeeded"] or names == {file.name}, step
        home.run("disk", "delete", "d")
        assert debris(home) == [], step
        step += 1
    assert step >= 5
    # killed after its last step it is there, and a directory that is somebody's is never touched
    home.run("disk", "delete", "d")
    mine = home.path / "vms" / "d" / "os.raw"
    mine.parent.mkdir()
    mine.write_text("mine")
    home.run(*create, status=5)
    assert mine.read_text() == "mine"
