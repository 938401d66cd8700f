"""How far a job is: tqdm bars on a terminal, plain lines elsewhere, JSON lines for machines.

Everything goes to stderr; regions report from threads of their own at the same time.
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import IO

from adapters.text import bytes_text, printable, seconds_text
from pipeline.ports import Meter, Progress

SCHEMA_VERSION = 1
PLAIN_STEP = 0.10  # of the total
PLAIN_SECONDS = 15.0
PLAIN_PAUSE = 1.0  # a stage that takes no time needs no lines on its way
JSON_SECONDS = 1.0


class Mode(Enum):
    """`AUTO` is bars on a terminal and plain lines elsewhere."""

    AUTO = "auto"
    BAR = "bar"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


def open_progress(mode: Mode, stream: IO[str] | None = None) -> Progress:
    """The progress of one command, on `stream` (stderr)."""
    stream = sys.stderr if stream is None else stream
    if mode is Mode.AUTO:
        mode = Mode.BAR if stream.isatty() else Mode.PLAIN
    if mode is Mode.BAR:
        from adapters.progress.bars import BarProgress  # only now: tqdm takes long to load

        return BarProgress(stream)
    if mode is Mode.JSON:
        return JsonProgress(stream)
    return PlainProgress(stream, quiet=mode is Mode.NONE)


class Measured:
    """A meter that counts, and now and then tells `report`. Safe from many threads."""

    def __init__(
        self,
        name: str,
        total: int,
        unit: str,
        *,
        step: float,
        seconds: float,
        report: Callable[["Measured"], None],
    ) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = 0
        self.started = time.monotonic()
        self._step = max(1, int(total * step)) if total and step else 0
        self._seconds = seconds
        self._report = report
        self._next_done = self._step
        self._last_time = self.started
        self._lock = threading.Lock()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def advance(self, amount: int) -> None:
        with self._lock:
            self.done += amount
            now = time.monotonic()
            # the last step is left to the line that says it is finished
            step = self._step and self._next_done <= self.done < self.total
            if now < (self._last_time + PLAIN_PAUSE if step else self._last_time + self._seconds):
                return
            if self._step:
                self._next_done = (self.done // self._step + 1) * self._step
            self._last_time = now
            self._report(self)


class PlainProgress:
    """A line per 10 % or 15 s of a stage, and one when it is finished. `quiet` leaves warnings;
    `label` is put before each line."""

    def __init__(self, stream: IO[str], *, quiet: bool = False, label: str = "") -> None:
        self._stream = stream
        self._quiet = quiet
        self._label = f"{printable(label)}: " if label else ""

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        meter = Measured(
            name, total, unit, step=PLAIN_STEP, seconds=PLAIN_SECONDS, report=self._moved
        )
        yield meter
        amount = f" {_amount(meter.done, unit)}" if meter.done else ""
        self._line(f"{name}:{amount} done in {seconds_text(meter.elapsed)}")

    def note(self, message: str) -> None:
        self._line(message)

    def warn(self, message: str) -> None:
        _write(self._stream, f"galleria: warning: {self._label}{printable(message)}")

    def _moved(self, meter: Measured) -> None:
        self._line(f"{meter.name}: {_position(meter)}")

    def _line(self, message: str) -> None:
        if not self._quiet:
            _write(self._stream, self._label + printable(message))


class JsonProgress:
    """One JSON object a line: stage started, progress (at most once a second), finished, failed.
    Each has the members of `about`, too."""

    def __init__(self, stream: IO[str], **about: object) -> None:
        self._stream = stream
        self._about = about

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        meter = Measured(name, total, unit, step=0, seconds=JSON_SECONDS, report=self._moved)
        self._stage("started", meter)
        try:
            yield meter
        except BaseException:
            self._stage("failed", meter)
            raise
        self._stage("finished", meter)

    def note(self, message: str) -> None:
        self.event("note", message=message)

    def warn(self, message: str) -> None:
        self.event("warning", message=message)

    def _moved(self, meter: Measured) -> None:
        self._stage("progress", meter)

    def _stage(self, event: str, meter: Measured) -> None:
        self.event(
            event,
            stage=meter.name,
            done=meter.done,
            total=meter.total or None,
            unit=meter.unit,
            seconds=round(meter.elapsed, 3),
        )

    def event(self, event: str, **values: object) -> None:
        document = {"schemaVersion": SCHEMA_VERSION, "event": event, **self._about, **values}
        _write(self._stream, json.dumps(document))


_write_lock = threading.Lock()


def _write(stream: IO[str], line: str) -> None:
    # whoever watched has left (`galleria ... 2>&1 | head`), or its log's disk is full: the job is
    # not its hostage
    with _write_lock, contextlib.suppress(OSError):
        stream.write(line + "\n")
        stream.flush()


def _amount(count: int, unit: str) -> str:
    return bytes_text(count) if unit == "B" else f"{count} {unit}{'s' * (count != 1)}"


def _position(meter: Measured) -> str:
    done, total = meter.done, meter.total
    share = f"{100 * done // total:3d} %  " if total else ""
    if meter.unit != "B":
        return f"{share}{done} of {_amount(total, meter.unit)}" if total else f"{done}"
    of = f" of {bytes_text(total)}" if total else ""
    rate = bytes_text(done / max(meter.elapsed, 1e-3))
    return f"{share}{bytes_text(done)}{of}, {rate}/s"


_adapters: tuple[type[Progress], ...] = (PlainProgress, JsonProgress)
