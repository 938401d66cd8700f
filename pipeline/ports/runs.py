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


class Lease(Protocol):
    """What allows a process to change what others may take over: asked straight before it does."""

    @property
    def tag(self) -> str:
        """What unfinished work is marked with: the run and its token; empty outside of a run."""
        ...

    def check(self) -> None:
        """Raise LeaseLost when another process has taken the run over."""
        ...

    def lost(self, tag: str) -> bool:
        """Whether work that is marked so is nobody's any more: its run has ended, or was taken."""
        ...


class NoLease:
    """Outside of runs: nothing is marked, and nobody's work is taken."""

    tag = ""

    def check(self) -> None:
        return

    def lost(self, tag: str) -> bool:
        return False


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

    def remove_log(self, id: str) -> None:
        """Nothing to do when it is not on this host."""
        ...


_: type[Lease] = NoLease
