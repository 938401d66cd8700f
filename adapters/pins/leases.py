"""Read leases: the kernel says when somebody wants to write to a file that is being read.

fcntl(2), "Leases": F_SETLEASE is refused while a file is open for writing; later openers for
writing (and truncate) wait until the lease is given up, at most /proc/sys/fs/lease-break-time
seconds, and the holder gets a signal. That signal would end a process that does not expect it: it
is directed at a thread of its own, which has it blocked and waits for it.
"""

import errno
import fcntl
import os
import signal
import struct
import threading
from pathlib import Path

_F_SETOWN_EX = 15  # asm-generic/fcntl.h; Python has no name for it
_F_OWNER_TID = 0
_CANNOT = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK}


class WriterPresent(Exception):
    """The file is open for writing somewhere on this host, or mapped for it."""


class Leases:
    """Holds read leases until `close`. One that is broken is given up at once, and remembered."""

    def __init__(self) -> None:
        self._held: dict[int, Path] = {}
        self._lock = threading.Lock()
        self._broken: set[Path] = set()
        self._ending = False
        self._tid = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="leases", daemon=True)
        self._thread.start()
        self._ready.wait()

    def take(self, fd: int, path: Path) -> bool:
        """Lease an open file (the descriptor must stay open until `close`).

        False where leases are not to be had: another user's file, a file system without them.
        Raises WriterPresent when somebody has the file open for writing.
        """
        try:
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGIO)
            fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_TID, self._tid))
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise WriterPresent(str(path)) from None
            if error.errno in _CANNOT:
                return False
            raise
        with self._lock:
            self._held[fd] = path
        return True

    def broken(self) -> set[Path]:
        """The files that somebody has begun to write to since they were leased."""
        self._check()
        with self._lock:
            return set(self._broken)

    def close(self) -> None:
        """Give all leases up. Safe to call twice."""
        if not self._thread.is_alive():
            return
        with self._lock:
            for fd in self._held:
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            self._held.clear()
            self._ending = True
        signal.pthread_kill(self._thread.ident or 0, signal.SIGIO)
        self._thread.join()

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
        self._tid = threading.get_native_id()
        self._ready.set()
        while not self._ending:
            signal.sigwait({signal.SIGIO})
            self._check()

    def _check(self) -> None:
        """Give up the leases that are being broken (F_GETLEASE tells what they shall become)."""
        with self._lock:
            for fd, path in list(self._held.items()):
                if fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
                    self._broken.add(path)
                    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                    del self._held[fd]


def open_noatime(path: Path) -> int:
    """Open a file for reading, without touching its access time where the caller may."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)
