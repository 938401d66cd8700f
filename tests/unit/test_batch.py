"""Jobs of a batch: at most so many at once, each with its own end."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from adapters.cli import explain
from adapters.process.batch import together
from pipeline.errors import CommandFailed, GalleriaError, NotFound


def number(value: int) -> int:
    return value * value


def mark(directory: Path, name: str, jobs: int) -> int:
    """How many are there with this one. The first wait until so many have begun as may run."""
    (directory / f"begun-{name}").touch()
    (directory / f"runs-{name}").touch()
    while len(list(directory.glob("begun-*"))) < jobs:
        time.sleep(0.01)
    time.sleep(0.1)  # for one that should not run
    there = len(list(directory.glob("runs-*")))
    (directory / f"runs-{name}").unlink()
    return there


def fail() -> int:
    raise CommandFailed(["qemu-img", "convert"], 1, "no room", hint="make some")


def die() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_results_are_in_the_order_of_the_tasks() -> None:
    tasks = [partial(number, value) for value in range(7)]
    assert together(3, tasks, explain) == [0, 1, 4, 9, 16, 25, 36]


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_more_than_that_many_run_at_once(tmp_path: Path, jobs: int) -> None:
    tasks = [partial(mark, tmp_path, str(index), jobs) for index in range(4)]
    assert max(int(str(found)) for found in together(jobs, tasks, explain)) == jobs


def test_one_that_fails_fails_alone_and_says_why() -> None:
    tasks: list[Callable[[], int]] = [fail, partial(number, 3), die]
    failed, there, killed = together(2, tasks, explain)
    assert there == 9
    assert isinstance(failed, CommandFailed)
    assert "qemu-img exited with status 1: no room" in failed.message
    assert (failed.hint, failed.reason) == ("make some", "CommandFailed")
    assert isinstance(killed, GalleriaError)
    assert "ended without a result (status -9)" in killed.message


def test_interrupted_all_are_stopped(tmp_path: Path) -> None:
    def stubborn() -> int:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)
        return 0

    def interrupt() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    # a shell's background jobs are born deaf to it
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    before = time.monotonic()
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            together(2, [stubborn, stubborn, stubborn], explain)
    finally:
        signal.signal(signal.SIGINT, old)
    thread.join()
    assert time.monotonic() - before < 20
    assert len(list(tmp_path.iterdir())) == 2
    for left in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(left.name), 0)


def test_errors_of_every_kind_cross() -> None:
    def absent() -> int:
        raise NotFound("there is no such thing", hint="look elsewhere")

    (error,) = together(1, [absent], explain)
    assert isinstance(error, NotFound)
    assert (error.message, error.hint, error.exit_status) == (
        "there is no such thing",
        "look elsewhere",
        4,
    )
