"""Jobs of a batch: at most so many at once, each with its own end, those that need others behind
them, and again where that may help."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.cli import explain
from adapters.process.batch import Rules, Task, Tell, Watcher, together
from pipeline.errors import Busy, CommandFailed, GalleriaError, NotBegun, NotFound
from pipeline.jobs.retry import transient


def number(value: int, _tell: Tell) -> int:
    return value * value


def mark(directory: Path, name: str, jobs: int, _tell: Tell) -> int:
    """How many are there with this one. The first wait until so many have begun as may run."""
    (directory / f"begun-{name}").touch()
    (directory / f"runs-{name}").touch()
    while len(list(directory.glob("begun-*"))) < jobs:
        time.sleep(0.01)
    time.sleep(0.1)  # for one that should not run
    there = len(list(directory.glob("runs-*")))
    (directory / f"runs-{name}").unlink()
    return there


def fail(_tell: Tell) -> int:
    raise CommandFailed(["qemu-img", "convert"], 1, "no room", hint="make some")


def die(_tell: Tell) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_results_are_in_the_order_of_the_tasks() -> None:
    tasks = [partial(number, value) for value in range(7)]
    assert [item.value for item in together(3, tasks, explain)] == [0, 1, 4, 9, 16, 25, 36]


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_more_than_that_many_run_at_once(tmp_path: Path, jobs: int) -> None:
    tasks = [partial(mark, tmp_path, str(index), jobs) for index in range(4)]
    assert max(found.value or 0 for found in together(jobs, tasks, explain)) == jobs


def test_one_that_fails_fails_alone_and_says_why() -> None:
    tasks: list[Task[int]] = [fail, partial(number, 3), die]
    failed, there, killed = (item.error or item.value for item in together(2, tasks, explain))
    assert there == 9
    assert isinstance(failed, CommandFailed)
    assert "qemu-img exited with status 1: no room" in failed.message
    assert (failed.hint, failed.reason) == ("make some", "CommandFailed")
    assert isinstance(killed, GalleriaError)
    assert "ended without a result (status -9)" in killed.message


def test_interrupted_all_are_stopped(tmp_path: Path) -> None:
    def stubborn(_tell: Tell) -> int:
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
    def absent(_tell: Tell) -> int:
        raise NotFound("there is no such thing", hint="look elsewhere")

    (outcome,) = together(1, [absent], explain)
    error = outcome.error
    assert isinstance(error, NotFound)
    assert (error.message, error.hint, error.exit_status) == (
        "there is no such thing",
        "look elsewhere",
        4,
    )


def sources(waiting: dict[int, set[int]]) -> Callable[[int], frozenset[int]]:
    return lambda index: frozenset(waiting.get(index, ()))


class Heard(Watcher[Any]):
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def begun(self, index: int) -> None:
        self.events.append(("begun", index))

    def told(self, index: int, message: object) -> None:
        self.events.append(("told", index, message))

    def again(self, index: int, error: GalleriaError, seconds: float) -> None:
        self.events.append(("again", index, seconds))

    def ended(self, index: int, outcome: Any) -> None:
        self.events.append(("ended", index, outcome.error is None))


def test_what_a_job_needs_is_over_before_it_begins() -> None:
    def say(index: int, tell: Tell) -> int:
        tell(f"{index} is at it")
        return index

    heard = Heard()
    rules = Rules(sources=sources({0: {2}}), before=sources({2: {1}}))
    tasks = [partial(say, index) for index in range(3)]
    assert [item.value for item in together(3, tasks, explain, rules, heard)] == [0, 1, 2]
    for first, then in ((1, 2), (2, 0)):
        assert heard.events.index(("ended", first, True)) < heard.events.index(("begun", then))
    assert ("told", 2, "2 is at it") in heard.events


def test_without_its_source_a_job_is_not_begun(tmp_path: Path) -> None:
    """One that only comes after a failed one is."""

    def touch(name: str, _tell: Tell) -> int:
        (tmp_path / name).touch()
        return 0

    tasks: list[Task[int]] = [partial(touch, "a"), partial(touch, "b"), fail, partial(touch, "c")]
    rules = Rules(
        sources=sources({0: {1}, 1: {2}}), before=sources({3: {2}}), name="abxc".__getitem__
    )
    one, two, failed, after = together(2, tasks, explain, rules)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert after.error is None
    assert failed.begun
    for outcome, of in ((one, "b"), (two, "x")):
        assert isinstance(outcome.error, NotBegun)
        assert outcome.error.message == f"not begun: what it starts from failed: {of}"
        assert not outcome.begun


def test_what_may_pass_is_tried_again_and_a_killed_job_too(tmp_path: Path) -> None:
    def flaky(name: str, kill: bool, _tell: Tell) -> int:
        with (tmp_path / name).open("a") as file:
            file.write("x")
        if (tries := (tmp_path / name).stat().st_size) < 3:
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Busy("in use")
        return tries

    heard = Heard()
    rules = Rules(delays=(0.0, 0.1), transient=transient)
    tasks: list[Task[int]] = [partial(flaky, "a", True), partial(flaky, "b", False), fail]
    one, two, failed = together(2, tasks, explain, rules, heard)
    assert (one.value, one.attempts, two.value, two.attempts) == (3, 3, 3, 3)
    assert failed.attempts == 1  # a command that failed for good
    again = [event[1:] for event in heard.events if event[0] == "again"]
    assert sorted(again) == [(0, 0.0), (0, 0.1), (1, 0.0), (1, 0.1)]


def test_attempts_end() -> None:
    (outcome,) = together(1, [die], explain, Rules(delays=(0.0,)))
    assert isinstance(outcome.error, GalleriaError)
    assert outcome.attempts == 2


def test_fail_fast_stops_the_others_and_begins_no_more(tmp_path: Path) -> None:
    def long(_tell: Tell) -> int:
        (tmp_path / "runs").touch()
        time.sleep(60)
        return 0

    def fail_then(_tell: Tell) -> int:
        while not (tmp_path / "runs").exists():
            time.sleep(0.01)
        raise NotFound("gone")

    before = time.monotonic()
    rules = Rules(fail_fast=True, name="abc".__getitem__)
    tasks: list[Task[int]] = [long, fail_then, partial(number, 2)]
    stopped, failed, never = together(2, tasks, explain, rules)
    assert time.monotonic() - before < 20
    assert isinstance(failed.error, NotFound)
    assert (str(stopped.error), stopped.begun) == ("stopped: b failed", True)
    assert (str(never.error), never.begun) == ("not begun: b failed", False)


def test_a_job_ends_with_its_batch(tmp_path: Path) -> None:
    """Killed, the batch can tell nobody to stop: the kernel does."""

    def long(_tell: Tell) -> int:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)
        return 0

    child = os.fork()
    if child == 0:
        together(1, [long], explain)
        os._exit(0)
    while not (found := list(tmp_path.iterdir())):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(int(found[0].name), 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the job goes on")
