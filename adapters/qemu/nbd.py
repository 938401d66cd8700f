"""qemu-nbd in the sandbox, and a thread-safe client: the way to bytes that have no plain offset
(internal snapshots) and to a writable qcow2 (delta bases)."""

import contextlib
import errno
import os
import queue
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import nbd

from adapters.process import command
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from pipeline.errors import StageFailed
from pipeline.ports import Chain
from pipeline.ports.extents import Extent, Kind, Range

REQUEST = 32 << 20  # the most that every NBD server takes in one request (NBD protocol, proto.md)
CONNECTIONS = 8  # clients that the server lets in at once
START_SECONDS = 30.0
END_SECONDS = 60.0
REQUEST_SECONDS = 300.0  # one request; a disk that needs longer is gone
# qemu's per-connection zeroing may be slow (no hole punching): short steps stay below timeouts
ZERO_STEP = 128 << 20
EXTENTS_WINDOW = 1 << 30
CONTEXT = "base:allocation"  # bit 0: hole, bit 1: reads as zero (NBD protocol, "base:" namespace)
STATE_ZERO = 2


class NbdDevice:
    """One export. Calls may come from many threads: each takes one of a few connections."""

    def __init__(self, socket: Path, alive: Callable[[], bool], *, writable: bool) -> None:
        self._socket = socket
        self._alive = alive
        self._idle: queue.LifoQueue[nbd.NBD] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._opened: list[nbd.NBD] = []
        self._silent = False  # a request was not answered in time
        first = self._connect()
        self._idle.put(first)
        self.size: int = first.get_size()
        self._can_zero: bool = writable and first.can_zero()

    def _connect(self) -> nbd.NBD:
        deadline = time.monotonic() + START_SECONDS
        while True:
            handle = nbd.NBD()
            handle.add_meta_context(CONTEXT)
            # set before connecting: a reading client never even asks for more
            handle.set_request_structured_replies(True)
            # the reader fills the buffer or raises: zeroing it first would be wasted
            handle.set_pread_initialize(False)
            try:
                handle.connect_unix(str(self._socket))
            except nbd.Error as error:
                # the socket is there before the server listens on it
                late = time.monotonic() > deadline or not self._alive()
                if late or error.errno != "ECONNREFUSED":
                    raise StageFailed(f"could not connect to qemu-nbd: {error.string}") from None
                time.sleep(0.005)
                continue
            self._opened.append(handle)
            return handle

    def _take(self) -> nbd.NBD:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        with self._lock:
            if len(self._opened) < CONNECTIONS:
                return self._connect()
        return self._idle.get()

    @contextlib.contextmanager
    def _handle(self) -> Iterator[nbd.NBD]:
        """Borrow a connection; made on first need, up to CONNECTIONS."""
        handle = self._take()
        try:
            yield handle
        except nbd.Error as error:
            if error.errno == "ENOSPC":
                # callers treat a full file system the same, whoever wrote to it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
            raise StageFailed(f"qemu-nbd failed a request: {error.string}") from None
        finally:
            self._idle.put(handle)

    def _complete(self, handle: nbd.NBD, cookie: int) -> None:
        deadline = time.monotonic() + REQUEST_SECONDS
        while not handle.aio_command_completed(cookie):
            left = deadline - time.monotonic()
            if left <= 0:
                self._silent = True
                _hang_up(handle)
                # libnbd gives up what it was asked, and with it the caller's memory
                with contextlib.suppress(nbd.Error):
                    while not handle.aio_command_completed(cookie):
                        handle.poll(1000)
                raise StageFailed(
                    f"qemu-nbd did not answer within {REQUEST_SECONDS:.0f} s",
                    hint="the storage of the disk hangs or is far too slow: look at it (dmesg, "
                    "iostat), then run the same command again",
                )
            handle.poll(int(left * 1000) + 1)

    def _check(self, length: int, offset: int) -> None:
        if offset < 0 or offset + length > self.size:
            raise ValueError(
                f"[{offset}, {offset + length}) is outside a disk of {self.size} bytes"
            )

    def read_into(self, buf: memoryview, offset: int) -> None:
        """Fill `buf` from `offset`, straight into the caller's memory."""
        self._check(len(buf), offset)
        with self._handle() as handle:
            for at in range(0, len(buf), REQUEST):
                # released before the caller's buffer can go away
                with buf[at : at + REQUEST] as part:
                    target = nbd.Buffer.from_buffer(part)
                    self._complete(handle, handle.aio_pread(target, offset + at))
                    del target

    def write(self, buf: memoryview, offset: int) -> None:
        self._check(len(buf), offset)
        with self._handle() as handle:
            for at in range(0, len(buf), REQUEST):
                with buf[at : at + REQUEST] as part:
                    source = nbd.Buffer.from_buffer(part)
                    self._complete(handle, handle.aio_pwrite(source, offset + at))
                    del source

    def zero(self, length: int, offset: int) -> None:
        """Make a range read as zero; over a backing file that has data there, too."""
        self._check(length, offset)
        if not self._can_zero:
            raise StageFailed("qemu-nbd's export can't write zeroes")
        with self._handle() as handle:
            for at in range(0, length, ZERO_STEP):
                handle.zero(min(ZERO_STEP, length - at), offset + at)

    def reuse_extents(self, file: int, area: Range, offset: int) -> Range | None:
        """Never: qemu writes its own file."""
        return None

    def holds(self, file: int | None, area: Range, offset: int) -> bool:
        """Not that anybody knew."""
        return False

    def flush(self) -> None:
        """Durable on return: qemu flushes what all connections have written (multi-conn)."""
        with self._handle() as handle:
            handle.flush()

    def extents(self) -> Iterator[Extent]:
        """What the server knows of [0, size): DATA without offsets, and ZERO. In order."""
        position = 0
        while position < self.size:
            runs: list[int] = []
            with self._handle() as handle:
                length = min(EXTENTS_WINDOW, self.size - position)
                handle.block_status(length, position, _collector(runs))
            if not runs:
                # a server that says nothing knows nothing: data
                runs = [length, 0]
            for run, state in zip(runs[::2], runs[1::2], strict=True):
                # the server may tell more than it was asked for
                run = min(run, self.size - position)
                if run <= 0:
                    break
                yield Extent(position, run, Kind.ZERO if state & STATE_ZERO else Kind.DATA)
                position += run

    def close(self) -> None:
        """Disconnect. Does not flush: a writer has called `flush`, and heard of its failure."""
        for handle in self._opened:
            if self._silent:
                # `shutdown` waits, without end, for a server that does not answer
                _hang_up(handle)
                continue
            with contextlib.suppress(nbd.Error):
                handle.shutdown()
        # the binding has no close: a handle ends with its last reference
        self._opened.clear()
        self._idle = queue.LifoQueue()


def _hang_up(handle: nbd.NBD) -> None:
    """Let a connection end now, whatever the server does."""
    with (
        contextlib.suppress(nbd.Error, OSError),  # it has ended
        socket.fromfd(handle.aio_get_fd(), socket.AF_UNIX, socket.SOCK_STREAM) as connection,
    ):
        connection.shutdown(socket.SHUT_RDWR)


def _collector(runs: list[int]) -> Callable[[str, int, Sequence[int], int], int]:
    def collect(context: str, _offset: int, entries: Sequence[int], _error: int) -> int:
        if context == CONTEXT:
            runs.extend(entries)
        return 0

    return collect


@contextlib.contextmanager
def serve(sandbox: Sandbox, chain: Chain, *, writable: bool = False) -> Iterator[NbdDevice]:
    """Serve a disk for the length of a `with`; only the top layer is ever written.

    The server dies with the thread that entered: enter from one that lives as long as the `with`.
    Leaving a writable one without an error flushes it and raises when that, or the server's own
    end (it closes the image then), fails.
    """
    with tempfile.TemporaryDirectory(prefix="galleria-nbd-") as name:
        directory = Path(name)
        argv = _argv(sandbox, chain, directory, writable=writable)
        # stderr to a file: a pipe that nobody reads would one day block the server
        with (
            tempfile.TemporaryFile() as stderr,
            command.spawn(argv, stdout=subprocess.DEVNULL, stderr=stderr) as process,
        ):
            socket = directory / "s"
            if not command.wait_for(socket, process, START_SECONDS):
                raise StageFailed(f"qemu-nbd did not start: {_tail(stderr)}")
            try:
                device = NbdDevice(socket, lambda: process.poll() is None, writable=writable)
            except StageFailed as error:
                # the socket is there before the image has been opened: the server knows better
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                raise StageFailed(f"qemu-nbd did not start: {_tail(stderr) or error}") from None
            try:
                yield device
                if writable:
                    device.flush()
            finally:
                device.close()
            # without --persistent the server closes the image and ends when its last client has
            # left; it could not be asked by a signal, which bubblewrap does not hand on
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                raise StageFailed(f"qemu-nbd did not end within {END_SECONDS:.0f} s") from None
            if process.returncode:
                raise StageFailed(f"qemu-nbd ended with {process.returncode}: {_tail(stderr)}")


def _tail(stderr: IO[bytes]) -> str:
    stderr.seek(0)
    return stderr.read()[-2000:].decode(errors="replace").strip()


def _argv(sandbox: Sandbox, chain: Chain, directory: Path, *, writable: bool) -> list[str]:
    argv = ["qemu-nbd", f"--shared={CONNECTIONS}", "--cache=writeback"]
    argv += ["--discard=unmap", f"--socket={sandbox.out(directory, 's')}"]
    if not writable:
        argv.append("--read-only")
    if chain[0].internal_snapshot is not None:
        argv.append("--load-snapshot=" + img.snapshot_option(chain[0].internal_snapshot))
    argv.append(img.json_name(img.node(chain, sandbox, writable=writable)))
    return sandbox.wrap(
        argv,
        read=chain[1:] if writable else chain,
        edit=[chain[0].path] if writable else [],
        out=directory,
        env=img.ENVIRONMENT,
        limits=img.WORKING,
    )
