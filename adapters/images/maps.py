"""qemu's maps of disks, kept for as long as no file of a disk changes: one publication asks for the
same map half a dozen times, and a VMDK's takes 20 ms."""

import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import IO

from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from pipeline.ports import Chain

KEPT = 4
# A file that was changed just now may be changed again at what its file system takes for the same
# time: the coarsest clocks tick every 10 ms.
TICKS = 0.03

Key = tuple[object, ...]


class Maps:
    """Safe from many threads."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._kept: dict[Key, int] = {}  # descriptors of unlinked files, oldest first
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._kept)

    def of(self, chain: Chain, fds: Sequence[int]) -> IO[bytes]:
        """`qemu.map_extents` of a chain whose files are open as `fds`; the caller closes it."""
        key = _key(chain, fds)
        with self._lock:
            if key in self._kept:
                return os.fdopen(os.dup(self._kept[key]), "rb")
        output = img.map_extents(self._sandbox, chain)
        if _at_rest(fds) and _key(chain, fds) == key:
            with self._lock:
                if key not in self._kept:
                    self._kept[key] = os.dup(output.fileno())
                if len(self._kept) > KEPT:
                    os.close(self._kept.pop(next(iter(self._kept))))
        return output


def _key(chain: Chain, fds: Sequence[int]) -> Key:
    files = tuple(
        (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        for facts in map(os.fstat, fds)
    )
    return (*files, *((layer.format, layer.internal_snapshot) for layer in chain))


def _at_rest(fds: Sequence[int]) -> bool:
    last = max(max(facts.st_mtime, facts.st_ctime) for facts in map(os.fstat, fds))
    return not 0 <= time.time() - last < TICKS


def _close(kept: dict[Key, int]) -> None:
    for fd in kept.values():
        os.close(fd)
    kept.clear()
