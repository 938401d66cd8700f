"""A job that is a run: its steps and bytes are told to the run's record and log."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from pipeline.errors import HeldByRun
from pipeline.gallery.service.running import OwnRun
from pipeline.jobs.context import JobContext
from pipeline.model.runs import Run, RunKind
from pipeline.ports import Meter, Progress

T = TypeVar("T")

PAUSE = 1.0  # seconds between two looks at a silent run


@contextmanager
def running(
    context: JobContext,
    kind: RunKind,
    object: str,
    request: Mapping[str, Any] | None = None,
    digest: str = "",
) -> Iterator[JobContext]:
    """What a job works with when it is a run; inside of another run it is a part of that."""
    if context.runs.current is not None:
        yield context
        return
    with context.runs.opened(kind, object, request, digest) as run:
        yield replace(context, progress=RunProgress(context.progress, run))


@contextmanager
def going_on(context: JobContext, run: Run) -> Iterator[JobContext]:
    """What a job works with that goes on with a run."""
    with context.runs.resumed(run) as own:
        yield replace(context, progress=RunProgress(context.progress, own))


def when_free(begin: Callable[[], T], context: JobContext) -> T:
    """What `begin` takes. When a run that is not to be seen any more holds it, perhaps on a host
    that has died, that is waited for until it is free, or heard of again."""
    heard: tuple[str, object] | None = None
    while True:
        try:
            return begin()
        except HeldByRun as error:
            if error.free_in is None or heard not in (None, (error.run, error.heard)):
                raise
            if heard is None:
                context.progress.note(
                    f"run {error.run} is not to be seen any more: its work is taken over in "
                    f"{error.free_in:.0f} s if it stays silent"
                )
            heard = error.run, error.heard
            context.sleep(min(error.free_in + 0.1, PAUSE))


class RunProgress:
    """A Progress that tells a run, too."""

    def __init__(self, progress: Progress, run: OwnRun) -> None:
        self._progress = progress
        self._run = run

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        self._run.tell(name, total if unit == "B" else 0)
        self._run.log.write(name)
        with self._progress.stage(name, total, unit) as meter:
            yield _RunMeter(meter, self._run) if unit == "B" else meter

    def note(self, message: str) -> None:
        self._run.log.write(message)
        self._progress.note(message)

    def warn(self, message: str) -> None:
        self._run.log.write(f"warning: {message}")
        self._progress.warn(message)


class _RunMeter:
    def __init__(self, meter: Meter, run: OwnRun) -> None:
        self._meter = meter
        self._run = run

    def advance(self, amount: int) -> None:
        self._run.done += amount
        self._meter.advance(amount)


_: type[Progress] = RunProgress
