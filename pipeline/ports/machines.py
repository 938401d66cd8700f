"""Running virtual machines: what a capture of their disks is asked for, and what it gives.

A capture is one point in time of all disks of a machine that goes on running. Its `mark` names it
for good: the machine remembers, under that name, what was written since, and a later capture asks
for only that.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.ports import Chain, Progress


@dataclass(frozen=True, slots=True)
class MachineDisk:
    """A disk of a running machine. `lun` None is the first, the OS disk. `marks` are the captures
    since which every change is known; `data_bytes` is what it occupies where it lies."""

    name: str
    lun: int | None
    virtual_size: int
    data_bytes: int
    format: str
    writable: bool
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """`uuid` and `name` are empty when the machine has none."""

    uuid: str
    name: str
    running: bool
    disks: tuple[MachineDisk, ...]


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """How one disk is captured: whole, or what was written since the capture `since`, whose content
    is read from the chain `below`."""

    name: str
    since: str | None = None
    below: Chain = ()


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """`mark`: 32 hexadecimal digits. The same one again goes on with a capture that was cut off.
    `agent` is the socket of the guest agent. `remember`: keep track of what is written from now on.
    """

    socket: Path
    mark: str
    disks: tuple[DiskPlan, ...]
    agent: Path | None = None
    remember: bool = True


@dataclass(frozen=True, slots=True)
class Stall:
    """How long the guest may have waited, in seconds. `file_systems` were frozen meanwhile; when
    none were, `reason` says why."""

    frozen_seconds: float = 0.0
    command_seconds: float = 0.0
    file_systems: int = 0
    reason: str = ""

    @property
    def seconds(self) -> float:
        return max(self.frozen_seconds, self.command_seconds)


@dataclass(frozen=True, slots=True)
class CapturedDisk:
    """One disk's point in time. `chain` reads it; `transferred` bytes were read from the machine's
    disk for it. An incremental one has its changes in the top layer."""

    disk: MachineDisk
    chain: Chain
    transferred: int
    incremental: bool


class Capture(Protocol):
    @property
    def disks(self) -> tuple[CapturedDisk, ...]: ...
    @property
    def stall(self) -> Stall: ...
    @property
    def resumed(self) -> bool:
        """Whether it is the point in time of an earlier run that was cut off."""
        ...

    def keep(self) -> None:
        """Its content is stored: later captures may start from it, the machine forgets `since`."""
        ...


class RunningMachines(Protocol):
    """Machines that run on this host. They are never stopped, and never left with anything of
    galleria's but the marks of captures that were kept."""

    def facts(self, socket: Path) -> MachineFacts:
        """Raises NotFound when nothing answers on the socket."""
        ...

    def capture(
        self, request: CaptureRequest, progress: Progress
    ) -> AbstractContextManager[Capture]:
        """Capture disks at one point in time; files are there for the length of the `with`. Left
        without `keep`, everything is taken back. Raises NoSpace before the machine is touched when
        the files might not fit: a full file system would be the guest's trouble."""
        ...


def whole(disks: Sequence[MachineDisk]) -> tuple[DiskPlan, ...]:
    return tuple(DiskPlan(disk.name) for disk in disks)
