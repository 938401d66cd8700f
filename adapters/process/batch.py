"""Several jobs at once, each in a process of its own.

Processes, not threads: an interrupted one unwinds by itself, none waits for another's Python, and
CPU time is each one's own. Forked, so call it before there are threads or database connections.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from pipeline.errors import GalleriaError

T = TypeVar("T")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FORK = multiprocessing.get_context("fork")


class Ended(GalleriaError):
    """A job's process ended without a word: killed, or out of memory."""


def together(
    jobs: int,
    tasks: Sequence[Callable[[], T]],
    explain: Callable[[BaseException], GalleriaError],
) -> list[T | GalleriaError]:
    """What came of each task, at most `jobs` at a time: what it returned, or its error, as
    `explain` puts it. All of them run, whatever becomes of the others. When this process is
    interrupted they are told to stop, and waited for."""
    waiting = list(enumerate(tasks))
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    results: dict[int, T | GalleriaError] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                index, task = waiting.pop(0)
                with _held_back():  # nobody else would stop what is not noted yet
                    reading, process = _start(task, explain)
                    running[reading] = index, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)  # noqa: S101 - nothing else is waited for
                index, process = running.pop(ready)
                results[index] = _result(ready, process)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()
    return [results[index] for index in range(len(tasks))]


@contextmanager
def _held_back() -> Iterator[None]:
    """The signals that end this process come when the `with` is over."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def _start(
    task: Callable[[], T], explain: Callable[[BaseException], GalleriaError]
) -> tuple[Connection, BaseProcess]:
    reading, writing = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_child, args=(task, explain, writing))
    process.start()
    writing.close()
    return reading, process


def _child(
    task: Callable[[], T], explain: Callable[[BaseException], GalleriaError], writing: Connection
) -> None:
    # a terminal's Ctrl-C reaches every process: the parent's word is enough, and comes once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        writing.send(_Outcome(task()))
    except Exception as error:
        known = explain(error)
        writing.send(_Failure(known))
    except BaseException:
        raise SystemExit(1) from None  # told to stop: everything has been left in order by now


def _result(reading: Connection, process: BaseProcess) -> T | GalleriaError:
    try:
        outcome: _Outcome[T] | _Failure = reading.recv()
    except EOFError:
        process.join()
        return Ended(
            f"a job of the batch ended without a result (status {process.exitcode})",
            hint="run the same command again: what is done is not done again",
        )
    process.join()
    return outcome.error() if isinstance(outcome, _Failure) else outcome.value


class _Outcome(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value


class _Failure:
    """An error on its way between processes: its class may take more than a message."""

    def __init__(self, error: GalleriaError) -> None:
        self._kind = type(error)
        self._message = error.message
        self._words = {"hint": error.hint, "code": error.reason, "plain": error.plain}

    def error(self) -> GalleriaError:
        error = self._kind.__new__(self._kind)
        GalleriaError.__init__(error, self._message, **self._words)
        return error
