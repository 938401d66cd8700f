"""What runs need of the process and the host that they are on."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class RunLog(Protocol):
    """Where a run says what it does."""

    @property
    def path(self) -> Path: ...
    def write(self, line: str) -> None:
        """Add a line, with the time. What can't be written is lost: no job fails by its log."""
        ...


class RunHost(Protocol):
    """This process, on this host."""

    @property
    def name(self) -> str: ...
    @property
    def boot_id(self) -> str:
        """What tells this boot of this host from any other of any host."""
        ...

    @property
    def pid(self) -> int: ...
    def every(self, seconds: float, act: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `act` in a thread of its own, again and again, for the length of the `with`."""
        ...

    def interrupt(self) -> None:
        """Make the main thread of this process unwind, if it waits for something."""
        ...

    def log(self, id: str) -> RunLog:
        """The log of a run: a file of this host, named by the run."""
        ...
