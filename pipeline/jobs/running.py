"""A job that is a run: its steps and bytes are told to the run's record and log."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pipeline.gallery.service.running import OwnRun
from pipeline.jobs.context import JobContext
from pipeline.model.runs import RunKind
from pipeline.ports import Meter, Progress


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
