"""Words of this process's command line, made unreadable for who lists processes."""

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path


def scrub(secrets: Sequence[str]) -> None:
    """Write `x` over every letter of these, where the kernel keeps the arguments (proc(5), `stat`:
    fields 48 and 49). Until then they could be read."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        arguments = Path("/proc/self/cmdline").read_bytes()
        # the name, field 2, may hold anything; what is behind it begins with field 3
        fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        for secret in filter(None, map(os.fsencode, secrets)):
            place = arguments.find(secret)
            while place >= 0 and start and start + place + len(secret) <= end:
                ctypes.memset(start + place, ord("x"), len(secret))
                place = arguments.find(secret, place + len(secret))
