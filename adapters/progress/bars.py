"""Progress as tqdm bars, on a terminal."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Never

from tqdm import tqdm

from adapters.text import printable
from pipeline.ports import Meter, Progress


class BarProgress:
    """A tqdm bar a stage, several at once when regions work at the same time."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        # tqdm's own default also makes a semaphore for processes, which galleria has no use for
        tqdm.set_lock(threading.RLock())
        tqdm.monitor_interval = 0

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        with tqdm(
            desc=printable(name),
            total=total or None,
            unit=unit,
            unit_scale=unit == "B",
            unit_divisor=1024,
            file=self._stream,
            dynamic_ncols=True,
            leave=True,
            miniters=1,
        ) as bar:
            yield _Bar(bar)

    def note(self, message: str) -> None:
        tqdm.write(printable(message), file=self._stream)

    def warn(self, message: str) -> None:
        tqdm.write(f"galleria: warning: {printable(message)}", file=self._stream)


class _Bar:
    def __init__(self, bar: "tqdm[Never]") -> None:
        self._bar = bar
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        with self._lock:
            self._bar.update(amount)


_: type[Progress] = BarProgress
