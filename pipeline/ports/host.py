"""The rest of the world: progress, and room to work."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol


class Progress(Protocol):
    """Where a person, or a machine, sees how far a job is."""

    def stage(
        self, name: str, total: int = 0, unit: str = "B"
    ) -> AbstractContextManager["Meter"]: ...
    def note(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...


class Meter(Protocol):
    def advance(self, amount: int) -> None: ...


@dataclass(frozen=True, slots=True)
class TransferStats:
    """Bytes of one disk: read from the source and known zero, and per zone written, kept from the
    parent and shared with the source's file or another zone's (cloned, not copied)."""

    virtual_size: int
    read: int
    zero: int
    written: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    cloned: Mapping[str, int] = field(default_factory=dict)


class Files(Protocol):
    """Files of galleria's own as bytes: manifests, logs. Disks are opened by `Images`."""

    def open(self, path: Path) -> BinaryIO:
        """Open a file to read it."""
        ...

    def create(self, path: Path) -> BinaryIO:
        """Make a file, in the place of one that is there, to write it; its directory is made too.
        Nothing of it is durable."""
        ...


class Work(Protocol):
    """The host's scratch space. What a killed process left there goes when the next run begins."""

    def directory(self) -> AbstractContextManager[Path]:
        """A private directory for one run, removed at its end."""
        ...

    def free_bytes(self) -> int: ...
