"""Processes as owners of work: who this one is, and whether another one still runs (proc(5))."""

import functools
import os
from pathlib import Path

from pipeline.model import OwnerToken
from pipeline.ports.owners import Owners

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ProcessOwners:
    """Owners by process number, start time and boot: a reused number is not the same process."""

    def current(self) -> OwnerToken:
        pid = os.getpid()
        ticks = _start_ticks(pid)
        if ticks is None:
            raise ProcessLookupError(f"/proc/{pid}/stat does not describe this process")
        return OwnerToken(os.uname().nodename, _boot_id(), _pid_namespace(), pid, ticks)

    def alive(self, token: OwnerToken) -> bool:
        """A process of another host or PID namespace can't be seen, so it counts as alive; one of
        this host before its last boot has ended."""
        if token.boot_id != _boot_id():
            return token.host != os.uname().nodename
        if token.pid_namespace != _pid_namespace():
            return True
        return _start_ticks(token.pid) == token.start_ticks


def _start_ticks(pid: int) -> int | None:
    """Clock ticks after boot when a process started; None when it has ended (a zombie has)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the command, field 2, is in parentheses and may hold anything, also parentheses
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


@functools.cache
def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


@functools.cache
def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


_: type[Owners] = ProcessOwners
