"""Scripted faults for any port: `Faulty(sink, "..E")` fails the third call, as borg's chunker does.

`.` lets a call through; `E` raises EIO, `N` ENOSPC, both instead of the call; after the end of the
script every call is let through. Calls of all methods count, from all threads.
"""

import errno
import os
import threading
from typing import Any

FAULTS = {"E": errno.EIO, "N": errno.ENOSPC}


class Faulty:
    """Wraps a port. `methods` limits which of its methods count and fail (default: all)."""

    def __init__(self, port: object, script: str, *, methods: tuple[str, ...] = ()) -> None:
        self._port = port
        self._script = iter(script)
        self._methods = methods
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if not callable(value) or (self._methods and name not in self._methods):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                step = next(self._script, ".")
            if step in FAULTS:
                raise OSError(FAULTS[step], os.strerror(FAULTS[step]), f"scripted, in {name}")
            return value(*args, **kwargs)

        return call
