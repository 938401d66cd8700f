"""What a base is written to while it is staged: a raw file, or a delta behind a qemu of its own."""

import contextlib
from pathlib import Path

from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from adapters.zones import layout
from pipeline.data.chunks import CHUNK_SIZE
from pipeline.errors import GalleriaError
from pipeline.ports import Chain, ImageFormat, Layer, Sink, StoredBase
from pipeline.ports.extents import Range


class Opened:
    """An open sink, and what has to end with it."""

    def __init__(
        self,
        sink: Sink,
        format: ImageFormat,
        method: str,
        server: contextlib.ExitStack | None = None,
    ) -> None:
        self.sink = sink
        self.format = format
        self.method = method
        self._server = server

    def finish(self) -> None:
        """Flush and close; every error of it counts."""
        self.sink.flush()
        if self._server is None:
            self.sink.close()
        else:
            self._server.close()

    def drop(self) -> None:
        """Close without a care for the content."""
        if self._server is None:
            self.sink.close()
            return
        error = _Dropped("the base is not wanted")
        self._server.__exit__(_Dropped, error, None)


class _Dropped(GalleriaError):
    """Tells a server's `with` that it ends without success."""


def open_delta(
    sandbox: Sandbox, path: Path, virtual_size: int, parent: StoredBase | None
) -> Opened:
    """A qcow2 over the parent's base, or (None) one that needs no other. Its clusters are chunks:
    no write is half of one."""
    from adapters.qemu import nbd  # libnbd is loaded for what is written, not for each look

    chain: Chain = (Layer(path, ImageFormat.QCOW2),)
    backing = driver = None
    if parent is not None:
        below = parent.chain[0]
        backing, driver = f"../{parent.digest}/{below.path.name}", below.format.qemu_name
        chain += parent.chain
    img.create_qcow2(
        sandbox,
        path,
        virtual_size,
        backing=backing,
        backing_format=driver,
        cluster_size=CHUNK_SIZE,
    )
    with contextlib.ExitStack() as server:
        device = server.enter_context(nbd.serve(sandbox, chain, writable=True))
        method = "copy" if parent is None else "delta"
        return Opened(device, ImageFormat.QCOW2, method, server.pop_all())


class ZoneSink:
    """A sink in a zone: when the file system is full, the error says which."""

    def __init__(self, zone: Path, sink: Sink) -> None:
        self._zone = zone
        self._sink = sink

    def write(self, buf: memoryview, offset: int) -> None:
        with layout.room(self._zone):
            self._sink.write(buf, offset)

    def zero(self, length: int, offset: int) -> None:
        with layout.room(self._zone):
            self._sink.zero(length, offset)

    def reuse_extents(self, file: int, area: Range, offset: int) -> Range | None:
        with layout.room(self._zone):
            return self._sink.reuse_extents(file, area, offset)

    def holds(self, file: int | None, area: Range, offset: int) -> bool:
        return self._sink.holds(file, area, offset)

    def read_into(self, buf: memoryview, offset: int) -> None:
        self._sink.read_into(buf, offset)

    def flush(self) -> None:
        with layout.room(self._zone):
            self._sink.flush()

    def close(self) -> None:
        """The staging closes what it opened, when it is committed or aborted."""
