"""This process as a host of runs: its name, its heartbeat, its logs."""

import contextlib
import functools
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipeline.ports.runs import RunHost, RunLog

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ProcessRunHost:
    """`logs` is where the logs of runs are."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs

    @property
    def name(self) -> str:
        return os.uname().nodename

    @property
    def boot_id(self) -> str:
        return _boot_id()

    @property
    def pid(self) -> int:
        return os.getpid()

    @contextmanager
    def every(self, seconds: float, act: Callable[[], None]) -> Iterator[None]:
        over = threading.Event()

        def beat() -> None:
            while not over.wait(seconds):
                act()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def interrupt(self) -> None:
        """By the signal that ends galleria in good order."""
        os.kill(os.getpid(), signal.SIGTERM)

    def log(self, id: str) -> "FileLog":
        return FileLog(self._logs / "runs" / f"{id}.log")

    def remove_log(self, id: str) -> None:
        with contextlib.suppress(OSError):
            self.log(id).path.unlink(missing_ok=True)


class FileLog:
    """Lines in a file, each with its time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._lock, contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(f"{moment} {part}\n" for part in line.splitlines()))


def build_log(logs: Path, name: str) -> FileLog:
    """A new log of a build of that name."""
    return FileLog(logs / f"build-{name}-{uuid.uuid4().hex}.log")


@functools.cache
def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


_host: type[RunHost] = ProcessRunHost
_log: type[RunLog] = FileLog
