"""A publish that hangs just before each step that makes something visible, while another process
takes its work over: when it goes on, it changes nothing, and says so."""

import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from adapters.catalog import open_catalog
from adapters.filesystem import durable
from pipeline.errors import Busy, Conflict, LeaseLost
from pipeline.jobs.garbage import garbage_collect
from pipeline.model.runs import RunState
from tests.contract.storing import pattern
from tests.crash.test_publish import check_finished
from tests.crash.world import EVERY, World, interpose

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1800)]

LIMIT = 100
VISIBLE = ("before rename_new", "before exchange", "before replace", "before commit")
OVERTAKEN = 5


def stop_at(k: int) -> Callable[[str], None]:
    """A step that stops the process at the k-th call that makes something visible."""
    left = iter(range(k))

    def step(name: str) -> None:
        if name in VISIBLE and next(left, None) == k - 1:
            os.kill(os.getpid(), signal.SIGSTOP)

    return step


class Terminated(BaseException):
    """By its own heartbeat, that finds the lease lost: the process unwinds, as the command does."""


def terminate(*_: object) -> None:
    raise Terminated


def start(job: Callable[[], object], step: Callable[[str], None]) -> int:
    """Do a job in a forked process: 0 when it came to its end, OVERTAKEN when it was told that its
    work is another's."""
    pid = os.fork()
    if pid == 0:
        status = 1
        signal.signal(signal.SIGTERM, terminate)
        try:
            with pytest.MonkeyPatch.context() as patch:
                interpose(patch, step)
                job()
            status = 0
        except (LeaseLost, Terminated):
            status = OVERTAKEN
        finally:
            os._exit(status)
    return pid


def let_leases_end(world: World) -> None:
    catalog = open_catalog(world.config.catalog)
    with catalog.write() as writer:
        past = writer.now() - timedelta(seconds=1)
        for run in writer.runs():
            writer.put_run(replace(run, lease=past, heartbeat=past))
    catalog.close()


def change_source(world: World) -> None:
    """Other content: what the hanging process commits now is not what the next one publishes."""
    world.source.unlink()
    with world.source.open("wb") as file:
        file.write(pattern(77, 900_000))
        file.truncate(4 << 20)


@EVERY
def test_hung_before_every_visible_step_while_another_publishes(tmp_path: Path, every: int) -> None:
    overtaken = 0
    for k in range(random.randint(1, every), LIMIT, every):  # noqa: S311 - no secret
        place = tmp_path / str(k)
        place.mkdir()
        world = World(place)
        pid = start(lambda world=world: world.publish("1.0.0"), stop_at(k))  # type: ignore[misc]
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFEXITED(status):  # it came to its end before a k-th step
            assert os.WEXITSTATUS(status) == 0
            break
        try:
            let_leases_end(world)
            change_source(world)
            mine = world.publish("1.0.0")
        except Busy:  # another thread of it is within a transaction: SQLite lets nobody else write
            os.kill(pid, signal.SIGCONT)
            os.waitpid(pid, 0)
            continue
        except Conflict:  # it is usable already, from another source: the hanging one goes on
            os.kill(pid, signal.SIGCONT)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            continue
        os.kill(pid, signal.SIGCONT)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        # before its run is recorded it has taken nothing, and finds the number taken
        assert ended in (OVERTAKEN, 1), f"at step {k}: {ended}"
        overtaken += ended == OVERTAKEN
        with world.app() as app:
            zones = {str(zone.path): zone for zones in app.zones.values() for zone in zones}
            garbage_collect(zones, app.context)  # bases that the hanging one had stored
            now = app.gallery.get_version(mine.name)
            assert now == mine, f"at step {k}"
        check_finished(world)
    assert overtaken >= 5 // every


def test_a_directory_of_a_run_that_was_taken_over_is_moved_away(tmp_path: Path) -> None:
    """And that of one that goes on stays."""

    class Lease:
        def __init__(self, tag: str) -> None:
            self.tag = tag

        def check(self) -> None:
            return

        def lost(self, tag: str) -> bool:
            return tag == "aaaa:1"

    root = tmp_path / "staging"
    with (
        durable.Staging(root, Lease("aaaa:1")) as gone,
        durable.Staging(root, Lease("aaaa:2")) as stays,
        durable.Staging(root) as unmarked,
    ):
        (gone.path / "file").write_bytes(b"x")
        assert durable.sweep(root, Lease("bbbb:1")) == [gone.path]
        assert not gone.path.exists()
        with pytest.raises(FileNotFoundError):
            gone.commit(tmp_path / "public")
        with pytest.raises(FileNotFoundError):
            gone.give("file", tmp_path / "public")
        (tmp_path / "taken").mkdir()
        with pytest.raises(FileNotFoundError):
            gone.take(tmp_path / "taken", "x")
        assert stays.path.exists()
        assert unmarked.path.exists()
        stays.commit(tmp_path / "public")
    assert list(root.iterdir()) == []


def test_a_cancelled_run_undoes_what_it_began(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.app() as app:

        def step(name: str) -> None:
            if name == "before rename_new" and app.job_runs.current is None:
                for run in app.runs.list_runs():
                    app.runs.cancel_run(run.id)
                os.kill(os.getpid(), signal.SIGINT)

        pid = start(lambda: world.publish("1.0.0"), step)
        os.waitpid(pid, 0)
        assert {run.state for run in app.runs.list_runs(ended=True)} == {RunState.CANCELLED}
    assert world.debris() == []
