"""What a capture keeps of itself on disk, so that the next run can go on with it or clean up after
it.

    captures/<mark>/lock           held by flock as long as its owner lives
    captures/<mark>/capture.json   what was asked of QEMU; written before QEMU is asked
    captures/<mark>/<number>.qcow2 what QEMU writes a disk to
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from adapters.filesystem import durable
from pipeline.errors import Conflict

STATE_FILE = "capture.json"
LOCK_FILE = "lock"
_MARK = re.compile(r"[0-9a-f]{32}")


class Phase(Enum):
    BEGUN = "begun"  # QEMU may have been asked for some of it
    RUNNING = "running"  # the point in time is taken, QEMU copies
    COMPLETE = "complete"  # the files hold it


@dataclass(frozen=True, slots=True)
class DiskState:
    """One disk of a capture. `node` is QEMU's name of what is read, `since` an older mark."""

    name: str
    node: str
    lun: int | None
    virtual_size: int
    format: str
    since: str | None
    bitmap: bool  # whether QEMU was asked to remember writes from now on


@dataclass(frozen=True, slots=True)
class CaptureState:
    mark: str
    socket: str
    agent: str
    phase: Phase
    disks: tuple[DiskState, ...]
    stall: dict[str, Any] = dataclasses.field(default_factory=dict)

    def job(self, number: int) -> str:
        """The name of a disk's job and of its target node (QEMU: at most 31 characters)."""
        return f"galleria-{self.mark[:16]}-{number}"

    def fdset(self, number: int) -> int:
        """Sets of descriptors have numbers; these are unlikely to be somebody else's."""
        return (int(self.mark[:6], 16) << 6) + number

    @property
    def bitmap(self) -> str:
        return bitmap_name(self.mark)


def bitmap_name(mark: str) -> str:
    return f"galleria-{mark}"


def mark_of(bitmap: str) -> str | None:
    """The capture that a dirty bitmap belongs to, if it is galleria's."""
    prefix, _, mark = bitmap.partition("-")
    return mark if prefix == "galleria" and len(mark) == 32 else None


def save(directory: Path, state: CaptureState) -> None:
    document = {**dataclasses.asdict(state), "phase": state.phase.value}
    content = json.dumps(document, indent=2).encode()
    durable.write_file(directory / STATE_FILE, content, mode=0o600, overwrite=True)


def load(directory: Path) -> CaptureState | None:
    """None when the capture had not begun, or its file can't be understood."""
    try:
        document = json.loads((directory / STATE_FILE).read_bytes())
        disks = tuple(DiskState(**disk) for disk in document.pop("disks"))
        phase = Phase(document.pop("phase"))
        return CaptureState(phase=phase, disks=disks, **document)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Own a capture's directory (made if absent). Raises Conflict when another process does."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = durable.lock(directory / LOCK_FILE, create=True)
    if fd is None:
        raise Conflict(
            "another process captures this machine under the same name",
            hint="wait until it has ended",
        )
    try:
        yield
    finally:
        os.close(fd)


def abandoned(root: Path, socket: str) -> Iterator[tuple[Path, CaptureState]]:
    """The captures of a machine whose owners are dead; each is held while it is dealt with. A
    directory without its lock, or under another name than a mark, is somebody else's."""
    if not root.is_dir():
        return
    for directory in sorted(root.iterdir()):
        known = _MARK.fullmatch(directory.name) and not directory.is_symlink()
        if not known or not (directory / LOCK_FILE).is_file():
            continue
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held(directory))
            except Conflict:
                continue
            state = load(directory)
            if state is not None and state.socket == socket:
                yield directory, state
