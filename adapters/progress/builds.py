"""How far the builds of a batch are: a line for each on a terminal, labelled lines elsewhere, JSON
lines for machines.

A build runs in a process of its own: `TellingProgress` sends what it says to the batch's, which
alone writes to the terminal. `LoggedProgress` keeps all of it in the build's own log.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from adapters.process.batch import Outcome, Tell, Watcher
from adapters.process.runs import FileLog
from adapters.progress import JsonProgress, Measured, Mode, PlainProgress
from adapters.text import bytes_text, printable, seconds_text
from pipeline.errors import GalleriaError
from pipeline.ports import Meter, Progress

SECONDS = 0.25  # between two words of a build on how far it is
NAME_WIDTH = 28
_CLEAR, _UP, _NO_WRAP, _WRAP = "\x1b[J", "\x1b[{}A", "\x1b[?7l", "\x1b[?7h"


@dataclass(frozen=True, slots=True)
class Said:
    """What a build says: `event` is started, progress, finished or failed, of a stage; or note, or
    warning."""

    event: str
    text: str  # the stage, or the message
    done: int = 0
    total: int = 0
    unit: str = "B"
    seconds: float = 0.0


class TellingProgress:
    """Tells another process."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        meter = Measured(
            name, total, unit, step=0, seconds=SECONDS, report=lambda m: self._moved("progress", m)
        )
        self._moved("started", meter)
        try:
            yield meter
        except BaseException:
            self._moved("failed", meter)
            raise
        self._moved("finished", meter)

    def note(self, message: str) -> None:
        self._tell(Said("note", message))

    def warn(self, message: str) -> None:
        self._tell(Said("warning", message))

    def _moved(self, event: str, meter: Measured) -> None:
        said = Said(event, meter.name, meter.done, meter.total, meter.unit, meter.elapsed)
        self._tell(said)


class LoggedProgress:
    """A Progress that is written down, too, each line with its time."""

    def __init__(self, progress: Progress, log: FileLog) -> None:
        self._progress = progress
        self._log = log

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        started = time.monotonic()
        self._log.write(f"{name}: begins")
        try:
            with self._progress.stage(name, total, unit) as meter:
                counting = _Counting(meter)
                yield counting
        except BaseException as error:
            self._log.write(f"{name}: failed: {type(error).__name__}")
            raise
        amount = bytes_text(counting.done) if unit == "B" else f"{counting.done} {unit}"
        took = seconds_text(time.monotonic() - started)
        self._log.write(f"{name}: {f'{amount} ' * bool(counting.done)}done in {took}")

    def note(self, message: str) -> None:
        self._log.write(printable(message))
        self._progress.note(message)

    def warn(self, message: str) -> None:
        self._log.write(f"warning: {printable(message)}")
        self._progress.warn(message)


class _Counting:
    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.done = 0

    def advance(self, amount: int) -> None:
        self.done += amount
        self._meter.advance(amount)


def open_view(
    mode: Mode, stream: IO[str], names: Sequence[str], describe: Callable[[Any], str]
) -> Watcher[Any]:
    """The view of a batch. `describe` says in a few words what a build returned."""
    if mode is Mode.AUTO:
        lively = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        mode = Mode.BAR if lively else Mode.PLAIN
    if mode is Mode.BAR:
        return LiveView(stream, names, describe)
    if mode is Mode.JSON:
        return JsonView(stream, names)
    return PlainView(stream, names, describe, quiet=mode is Mode.NONE)


class PlainView(Watcher[Any]):
    """The lines of each build behind its name, as `PlainProgress` writes them."""

    def __init__(
        self,
        stream: IO[str],
        names: Sequence[str],
        describe: Callable[[Any], str],
        *,
        quiet: bool = False,
    ) -> None:
        self._describe = describe
        self._lines = [PlainProgress(stream, quiet=quiet, label=name) for name in names]
        self._stages: list[dict[str, tuple[Measured, Callable[[], None]]]] = [{} for _ in names]

    def told(self, index: int, message: object) -> None:
        assert isinstance(message, Said)  # noqa: S101 - builds send nothing else
        lines, stages = self._lines[index], self._stages[index]
        if message.event == "note":
            lines.note(message.text)
        elif message.event == "warning":
            lines.warn(message.text)
        elif message.event == "started":
            stages[message.text] = _opened(lines, message)
        elif message.text in stages:
            meter, close = stages[message.text]
            if message.done > meter.done:
                meter.advance(message.done - meter.done)
            if message.event != "progress":
                del stages[message.text]
                if message.event == "finished":
                    close()

    def again(self, index: int, error: GalleriaError, seconds: float) -> None:
        self._stages[index].clear()
        self._lines[index].warn(f"{error.plain}; trying again in {seconds:.0f} s")

    def ended(self, index: int, outcome: Outcome[Any]) -> None:
        took = seconds_text(outcome.seconds)
        if outcome.error is None:
            self._lines[index].note(f"{self._describe(outcome.value)} in {took}")


def _opened(progress: PlainProgress, said: Said) -> tuple[Measured, Callable[[], None]]:
    """A stage of a build as one of this process: its meter, and what ends it."""
    stack = contextlib.ExitStack()
    meter = stack.enter_context(progress.stage(said.text, said.total, said.unit))
    assert isinstance(meter, Measured)  # noqa: S101 - a PlainProgress has no others
    return meter, stack.close


class JsonView(Watcher[Any]):
    """An object a line, as `JsonProgress` writes them, with the name of the build."""

    def __init__(self, stream: IO[str], names: Sequence[str]) -> None:
        self._lines = [JsonProgress(stream, build=name) for name in names]

    def begun(self, index: int) -> None:
        self._lines[index].event("begun")

    def told(self, index: int, message: object) -> None:
        assert isinstance(message, Said)  # noqa: S101 - builds send nothing else
        if message.event in ("note", "warning"):
            self._lines[index].event(message.event, message=message.text)
            return
        self._lines[index].event(
            message.event,
            stage=message.text,
            done=message.done,
            total=message.total or None,
            unit=message.unit,
            seconds=round(message.seconds, 3),
        )

    def again(self, index: int, error: GalleriaError, seconds: float) -> None:
        self._lines[index].event("retry", message=error.plain, seconds=seconds)

    def ended(self, index: int, outcome: Outcome[Any]) -> None:
        error = None if outcome.error is None else outcome.error.document()
        self._lines[index].event("ended", seconds=round(outcome.seconds, 3), error=error)


# --- on a terminal -------------------------------------------------------------------------------

GREEN, RED, YELLOW, DIM = "32", "31", "33", "2"


@dataclass(slots=True)
class _Row:
    name: str
    state: str = "waiting"
    amount: str = ""
    colour: str = DIM
    rank: int = 3  # those that run are shown first, then those that failed, are done, and wait
    started: float = 0.0
    spent: float = 0.0
    stages: dict[str, Said] = field(default_factory=dict)  # those that go on, the newest last

    @property
    def seconds(self) -> float:
        now = time.monotonic() - self.started if self.started else 0.0
        return self.spent + now


class LiveView(Watcher[Any]):
    """A line for each build, written again and again in its place: its state or stage, bytes and
    time. Where there are more than fit, those that run come first."""

    def __init__(
        self, stream: IO[str], names: Sequence[str], describe: Callable[[Any], str]
    ) -> None:
        self._stream = stream
        self._describe = describe
        self._rows = [_Row(printable(name)) for name in names]
        self._width = min(NAME_WIDTH, max(len(row.name) for row in self._rows))
        self._coloured = not os.environ.get("NO_COLOR")
        self._shown = 0  # lines that are on the screen
        self._began = time.monotonic()
        self._drawn = 0.0

    def begun(self, index: int) -> None:
        row = self._rows[index]
        row.state, row.colour, row.rank, row.started = "begins", "", 0, time.monotonic()

    def told(self, index: int, message: object) -> None:
        assert isinstance(message, Said)  # noqa: S101 - builds send nothing else
        row = self._rows[index]
        if message.event == "note":
            return  # in the build's log
        if message.event == "warning":
            self._above(f"galleria: warning: {row.name}: {printable(message.text)}")
            return
        if message.event in ("started", "progress"):
            row.stages.pop(message.text, None)
            row.stages[message.text] = message
        else:
            row.stages.pop(message.text, None)
        if row.stages:
            newest = next(reversed(row.stages.values()))
            row.state, row.amount = printable(newest.text), _amount(newest)

    def again(self, index: int, error: GalleriaError, seconds: float) -> None:
        row = self._rows[index]
        self._stop(row)
        row.state, row.colour, row.rank = f"again in {seconds:.0f} s", YELLOW, 0
        self._above(f"galleria: warning: {row.name}: {_short(error)}; trying again")

    def ended(self, index: int, outcome: Outcome[Any]) -> None:
        row = self._rows[index]
        self._stop(row)
        if outcome.error is None:
            row.state, row.colour, row.rank = self._describe(outcome.value), GREEN, 2
        elif outcome.begun:
            row.state, row.colour, row.rank = f"failed: {_short(outcome.error)}", RED, 1
        else:
            row.state, row.colour, row.rank = _short(outcome.error), YELLOW, 1
        self._drawn = 0.0
        if all(row.rank in (1, 2) for row in self._rows):
            self._erase()  # the closing table says all of it
            self._stream.flush()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._drawn < SECONDS or all(row.rank in (1, 2) for row in self._rows):
            return
        self._drawn = now
        with contextlib.suppress(OSError):
            self._draw()

    def _stop(self, row: _Row) -> None:
        row.spent, row.started, row.amount = row.seconds, 0.0, ""
        row.stages.clear()

    def _draw(self) -> None:
        columns, lines = self._size()
        rows, room = self._rows, max(1, lines - 2)
        if len(rows) > room:
            rows = sorted(rows, key=lambda row: row.rank)[:room]
        parts = [self._line(row, columns) for row in rows]
        parts.append(self._sum(columns))
        self._erase()
        self._stream.write(_NO_WRAP + "".join(part + "\n" for part in parts) + _WRAP)
        self._stream.flush()
        self._shown = len(parts)

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24

    def _line(self, row: _Row, columns: int) -> str:
        name = _fit(row.name, self._width).ljust(self._width)
        seconds = seconds_text(row.seconds) if row.seconds else ""
        right = f"{row.amount}  {seconds:>6}" if row.amount else f"{seconds:>6}"
        room = columns - self._width - len(right) - 5
        state = _fit(row.state, room).ljust(max(0, room))
        return f" {name}  {self._in(row.colour, state)}  {right}"

    def _sum(self, columns: int) -> str:
        counts = [
            (sum(row.rank == rank for row in self._rows), word)
            for rank, word in ((2, "done"), (1, "failed"), (0, "running"), (3, "waiting"))
        ]
        told = ", ".join(f"{count} {word}" for count, word in counts if count)
        seconds = seconds_text(time.monotonic() - self._began)
        return _fit(f" {len(self._rows)} builds: {told}", columns - 9).ljust(columns - 9) + (
            f"  {seconds:>6}"
        )

    def _in(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if colour and self._coloured else text

    def _above(self, line: str) -> None:
        """Say something that stays."""
        with contextlib.suppress(OSError):
            self._erase()
            self._stream.write(line + "\n")
            self._stream.flush()
        self._drawn = 0.0

    def _erase(self) -> None:
        if self._shown:
            self._stream.write(_UP.format(self._shown) + "\r" + _CLEAR)
            self._shown = 0


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _amount(said: Said) -> str:
    if not said.done:
        return ""
    amount = bytes_text(said.done) if said.unit == "B" else f"{said.done} {said.unit}"
    return f"{amount}  {100 * said.done // said.total:3d} %" if said.total else amount


def _short(error: GalleriaError) -> str:
    return printable(error.plain.split("\n")[0])


_: tuple[type[Progress], ...] = (TellingProgress, LoggedProgress)
