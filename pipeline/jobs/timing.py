"""Where the time of a job went: per stage wall clock, CPU, and bytes.

A `Record` stands in for the job's progress: whatever says that it is a stage is measured. It is
kept beside a version's report (`ImageVersion.stats`), not in it: times differ from run to run, and
the same source must give the same report.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.ports import Meter, Progress, TransferStats


@dataclass(slots=True)
class Stage:
    """Seconds, and bytes: read from the source, written to zones, cloned into them, and skipped
    (known to be zero, or in a zone already; of every zone). CPU is that of the process and of its
    children, of whatever job they work for."""

    name: str
    wall: float = 0.0
    cpu: float = 0.0
    read: int = 0
    written: int = 0
    cloned: int = 0
    skipped: int = 0

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "wallSeconds": round(self.wall, 3),
            "cpuSeconds": round(self.cpu, 3),
            "bytesRead": self.read,
            "bytesWritten": self.written,
            "bytesCloned": self.cloned,
            "bytesSkipped": self.skipped,
        }


class Record:
    """A Progress that remembers. A stage that comes again adds to what it was; one inside another
    is a part of that."""

    def __init__(self, progress: Progress, cpu: Callable[[], float]) -> None:
        self._progress = progress
        self._cpu = cpu
        self._stages: dict[str, Stage] = {}
        self._inside = False
        self._began = time.monotonic(), cpu()

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        with self.timed(name), self._progress.stage(name, total, unit) as meter:
            yield meter

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure what nobody waits for long enough to be told of."""
        if self._inside:
            yield
            return
        stage = self._stages.setdefault(name, Stage(name))
        wall, cpu = time.monotonic(), self._cpu()
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
            stage.wall += time.monotonic() - wall
            stage.cpu += self._cpu() - cpu

    def note(self, message: str) -> None:
        self._progress.note(message)

    def warn(self, message: str) -> None:
        self._progress.warn(message)

    def moved(self, name: str, stats: TransferStats) -> None:
        """The bytes of a stage."""
        stage = self._stages.setdefault(name, Stage(name))
        stage.read += stats.read
        stage.written += sum(stats.written.values())
        stage.cloned += sum(stats.cloned.values())
        stage.skipped += stats.zero + sum(stats.kept.values())

    def document(self) -> dict[str, Any]:
        """JSON: the stages in their order, and the whole job until now."""
        wall, cpu = self._began
        return {
            "wallSeconds": round(time.monotonic() - wall, 3),
            "cpuSeconds": round(self._cpu() - cpu, 3),
            "stages": [stage.document() for stage in self._stages.values()],
        }
