"""Several jobs at once, each in a process of its own.

Processes, not threads: an interrupted one unwinds by itself, none waits for another's Python, and
CPU time is each one's own. Forked, so call it before there are threads or database connections.
"""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar, cast

from pipeline.errors import GalleriaError, NotBegun

T = TypeVar("T")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK = 0.25  # seconds between two looks at a view that moves by itself
_FORK = multiprocessing.get_context("fork")
_PDEATHSIG = 1  # linux/prctl.h

Tell = Callable[[object], None]
Task = Callable[[Tell], T]


class Ended(GalleriaError):
    """A job's process ended without a word: killed, or out of memory."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of a task: what it returned, or its error. `begun`: whether it was tried."""

    value: T | None = None
    error: GalleriaError | None = None
    seconds: float = 0.0
    attempts: int = 1
    begun: bool = True


class Watcher(Generic[T]):
    """What is told of tasks, by their numbers. This one says nothing."""

    def begun(self, index: int) -> None:
        """It runs."""

    def told(self, index: int, message: object) -> None:
        """It says something of itself."""

    def again(self, index: int, error: GalleriaError, seconds: float) -> None:
        """It failed, and is tried again in so many seconds."""

    def ended(self, index: int, outcome: Outcome[T]) -> None:
        """It is over."""

    def tick(self) -> None:
        """Time has passed."""


def never(_index: int) -> frozenset[int]:
    """Tasks that wait for no other."""
    return frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """`sources` are the tasks without which one can't be done, `before` those that have to be over;
    `delays` are the seconds before each new attempt of one that failed for what may pass, as
    `transient` says; `fail_fast` stops all of them when one fails."""

    sources: Callable[[int], frozenset[int]] = never
    before: Callable[[int], frozenset[int]] = never
    delays: Sequence[float] = ()
    transient: Callable[[BaseException], bool] = lambda _: False
    fail_fast: bool = False
    name: Callable[[int], str] = str


def together(
    jobs: int,
    tasks: Sequence[Task[T]],
    explain: Callable[[BaseException], GalleriaError],
    rules: Rules | None = None,
    watcher: Watcher[T] | None = None,
) -> list[Outcome[T]]:
    """What became of each task, at most `jobs` at a time: what it returned, or its error, as
    `explain` puts it. When this process is interrupted they are told to stop, and waited for."""
    return _Batch(jobs, tasks, explain, rules or Rules(), watcher or Watcher()).run()


@dataclass(slots=True)
class _Running:
    index: int
    process: BaseProcess
    reading: Connection
    started: float = field(default_factory=time.monotonic)


class _Batch(Generic[T]):
    def __init__(
        self,
        jobs: int,
        tasks: Sequence[Task[T]],
        explain: Callable[[BaseException], GalleriaError],
        rules: Rules,
        watcher: Watcher[T],
    ) -> None:
        self._jobs = jobs
        self._tasks = tasks
        self._explain = explain
        self._rules = rules
        self._watcher = watcher
        self._waiting = list(range(len(tasks)))
        self._running: dict[Connection, _Running] = {}
        self._outcomes: dict[int, Outcome[T]] = {}
        self._tried = [0] * len(tasks)
        self._spent = [0.0] * len(tasks)
        self._not_before: dict[int, float] = {}  # of those that are tried again

    def run(self) -> list[Outcome[T]]:
        try:
            while self._waiting or self._running:
                self._begin()
                ready = wait(list(self._running), timeout=TICK) if self._running else []
                if not (self._running or ready):
                    time.sleep(TICK)  # all that is left waits to be tried again
                for reading in ready:
                    assert isinstance(reading, Connection)  # noqa: S101 - nothing else is there
                    self._hear(self._running[reading])
                self._watcher.tick()
        finally:
            self._stop()
        return [self._outcomes[index] for index in range(len(self._tasks))]

    def _begin(self) -> None:
        """Start what may run now; what can't be done any more is over."""
        for index in list(self._waiting):
            failed = [i for i in sorted(self._rules.sources(index)) if self._failed(i)]
            if failed:
                self._waiting.remove(index)
                names = ", ".join(map(self._rules.name, failed))
                self._over(index, _skipped(f"not begun: what it starts from failed: {names}"))
            elif len(self._running) < self._jobs and self._may_begin(index):
                self._waiting.remove(index)
                self._tried[index] += 1
                self._watcher.begun(index)
                with _held_back():  # nobody else would stop what is not noted yet
                    started = _start(index, self._tasks[index], self._explain, self._rules)
                    self._running[started.reading] = started

    def _failed(self, index: int) -> bool:
        outcome = self._outcomes.get(index)
        return outcome is not None and outcome.error is not None

    def _may_begin(self, index: int) -> bool:
        over = self._outcomes.keys()
        ready = self._rules.sources(index) | self._rules.before(index) <= over
        return ready and time.monotonic() >= self._not_before.get(index, 0.0)

    def _hear(self, running: _Running) -> None:
        """Take what a task says: something of itself, or what became of it."""
        try:
            message = running.reading.recv()
        except (EOFError, OSError):
            message = None
        if isinstance(message, _Told):
            self._watcher.told(running.index, message.what)
            return
        del self._running[running.reading]
        running.process.join()
        running.reading.close()
        self._spent[running.index] += time.monotonic() - running.started
        if isinstance(message, _Value):
            self._over(running.index, Outcome(cast(T, message.what)))
            return
        if isinstance(message, _Failure):
            self._fail(running.index, message.error(), transient=message.transient)
            return
        status = running.process.exitcode
        error = Ended(
            f"a job of the batch ended without a result (status {status})",
            hint="run the same command again: what is done is not done again",
        )
        # killed, by whoever was short of memory perhaps; one that was told to stop ends by itself
        killed = status is not None and status < 0
        self._fail(running.index, error, transient=killed)

    def _fail(self, index: int, error: GalleriaError, *, transient: bool) -> None:
        delays = self._rules.delays
        if transient and self._tried[index] <= len(delays):
            seconds = delays[self._tried[index] - 1]
            self._not_before[index] = time.monotonic() + seconds
            self._waiting.append(index)
            self._waiting.sort()
            self._watcher.again(index, error, seconds)
            return
        self._over(index, Outcome(error=error))
        if self._rules.fail_fast:
            self._abandon(index)

    def _abandon(self, culprit: int) -> None:
        """Begin nothing more, and stop what runs."""
        name = self._rules.name(culprit)
        stopped = list(self._running.values())
        self._stop()
        for running in stopped:
            self._spent[running.index] += time.monotonic() - running.started
            self._over(running.index, _skipped(f"stopped: {name} failed", begun=True))
        for index in self._waiting:
            self._over(index, _skipped(f"not begun: {name} failed"))
        self._waiting.clear()

    def _over(self, index: int, outcome: Outcome[T]) -> None:
        told = Outcome(
            outcome.value,
            outcome.error,
            self._spent[index],
            max(1, self._tried[index]),
            outcome.begun,
        )
        self._outcomes[index] = told
        self._watcher.ended(index, told)

    def _stop(self) -> None:
        for running in self._running.values():
            running.process.terminate()
        for running in self._running.values():
            running.process.join()
            running.reading.close()
        self._running.clear()


def _skipped(message: str, *, begun: bool = False) -> Outcome[T]:
    hint = "the same command makes it, once the other one can be made"
    return Outcome(error=NotBegun(message, hint=hint), begun=begun)


@contextmanager
def _held_back() -> Iterator[None]:
    """The signals that end this process come when the `with` is over."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def _start(
    index: int,
    task: Task[T],
    explain: Callable[[BaseException], GalleriaError],
    rules: Rules,
) -> _Running:
    reading, writing = _FORK.Pipe(duplex=False)
    arguments = task, explain, rules.transient, writing, os.getpid()
    process = _FORK.Process(target=_child, args=arguments)
    process.start()
    writing.close()
    return _Running(index, process, reading)


def _child(
    task: Task[T],
    explain: Callable[[BaseException], GalleriaError],
    transient: Callable[[BaseException], bool],
    writing: Connection,
    parent: int,
) -> None:
    # a terminal's Ctrl-C reaches every process: the parent's word is enough, and comes once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = _Pipe(writing)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        _die_with(parent)
        value = task(lambda what: pipe.send(_Told(what)))
        pipe.send(_Value(value))
    except Exception as error:
        pipe.send(_Failure(explain(error), transient=transient(error)))
    except BaseException:
        raise SystemExit(1) from None  # told to stop: everything has been left in order by now


def _die_with(parent: int) -> None:
    """Be told to stop when the parent is killed: nobody would hear of this job any more."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


class _Pipe:
    """To the parent, from any thread. A parent that is gone is told nothing."""

    def __init__(self, writing: Connection) -> None:
        self._writing = writing
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        with self._lock, suppress(OSError):
            self._writing.send(message)


@dataclass(frozen=True, slots=True)
class _Told:
    what: object


@dataclass(frozen=True, slots=True)
class _Value:
    what: object


class _Failure:
    """An error on its way between processes: its class may take more than a message."""

    def __init__(self, error: GalleriaError, *, transient: bool) -> None:
        self.transient = transient
        self._kind = type(error)
        self._message = error.message
        self._words = {"hint": error.hint, "code": error.reason, "plain": error.plain}

    def error(self) -> GalleriaError:
        error = self._kind.__new__(self._kind)
        GalleriaError.__init__(error, self._message, **self._words)
        return error
