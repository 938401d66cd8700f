"""What a boot check needs from outside: an emulator that starts a throw-away machine."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.model import Architecture
from pipeline.ports import Chain


@dataclass(frozen=True, slots=True)
class MachineKind:
    """What a machine is, whatever is on its disks. `nvram` are a UEFI machine's variables, where
    the image has some of its own."""

    uefi: bool
    architecture: Architecture = Architecture.X64
    windows: bool = False
    nvram: bytes | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What is to be booted: disks that may be written, OS disk first."""

    disks: tuple[Chain, ...]
    kind: MachineKind


class Running(Protocol):
    """A machine that has been started."""

    def console(self) -> str:
        """What it has said so far on its serial console."""
        ...

    def firmware(self) -> str:
        """The end of what its firmware has said elsewhere than on the console."""
        ...

    def agent_answers(self) -> bool:
        """Whether a guest agent runs in it (asked again at each call)."""
        ...

    def wait(self, seconds: float) -> str:
        """Let time pass. When it has ended meanwhile: what the emulator says; else nothing."""
        ...


class Boots(Protocol):
    def accelerator(self, architecture: Architecture) -> str:
        """What a machine is run by here: "kvm" where that works, else "tcg"."""
        ...

    def check(self, kind: MachineKind) -> None:
        """Raise EnvironmentMissing when this host can't start such a machine."""
        ...

    def start(self, machine: Machine, work: Path) -> AbstractContextManager[Running]:
        """Start a machine, without network; it is gone when the `with` ends, whatever happens."""
        ...
