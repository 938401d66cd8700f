"""In-memory doubles of the byte ports. The contract suites run over them too, so they can't lie."""

import threading
from collections.abc import Iterator, Sequence

from pipeline.ports import Sink, Source
from pipeline.ports.extents import Extent, Kind, Range


class MemorySource:
    """A disk in memory. Refuses to be read where its extents do not say DATA, as a reader may."""

    def __init__(self, content: bytes, extents: Sequence[Extent] | None = None) -> None:
        self._content = content
        self._extents = (
            [Extent(0, len(content), Kind.DATA)] if extents is None and content else extents or []
        )
        self._lock = threading.Lock()
        self.bytes_read = 0
        self.closed = False

    @property
    def virtual_size(self) -> int:
        return len(self._content)

    def extents(self) -> Iterator[Extent]:
        return iter(self._extents)

    def read_into(self, buf: memoryview, extent: Extent) -> None:
        if len(buf) != extent.length:
            raise ValueError(f"a buffer of {len(buf)} bytes for {extent.length}")
        if not any(
            known.kind is Kind.DATA and known.start <= extent.start and extent.end <= known.end
            for known in self._extents
        ):
            raise ValueError(f"{extent} is not part of a data extent")
        buf[:] = self._content[extent.start : extent.end]
        with self._lock:
            self.bytes_read += extent.length

    def file(self, layer: int) -> int | None:
        return None

    def close(self) -> None:
        self.closed = True


class MemorySink:
    """A disk in memory, `content` being what it reads as before it is written."""

    def __init__(self, virtual_size: int, content: bytes = b"") -> None:
        self.content = bytearray(content[:virtual_size].ljust(virtual_size, b"\0"))
        self._lock = threading.Lock()
        self.written: list[tuple[int, int]] = []
        self.zeroed: list[tuple[int, int]] = []

    def write(self, buf: memoryview, offset: int) -> None:
        self._check(len(buf), offset)
        with self._lock:
            self.content[offset : offset + len(buf)] = buf
            self.written.append((offset, len(buf)))

    def zero(self, length: int, offset: int) -> None:
        self._check(length, offset)
        with self._lock:
            self.content[offset : offset + length] = bytes(length)
            self.zeroed.append((offset, length))

    def reuse_extents(self, file: int, area: Range, offset: int) -> Range | None:
        return None

    def holds(self, file: int | None, area: Range, offset: int) -> bool:
        return False

    def read_into(self, buf: memoryview, offset: int) -> None:
        self._check(len(buf), offset)
        with self._lock:
            buf[:] = self.content[offset : offset + len(buf)]

    def flush(self) -> None:
        """Memory is as durable as it gets."""

    def close(self) -> None:
        """Nothing is held."""

    def _check(self, length: int, offset: int) -> None:
        if offset < 0 or offset + length > len(self.content):
            raise ValueError(f"{length} bytes at {offset} in a disk of {len(self.content)}")


_source: type[Source] = MemorySource
_sink: type[Sink] = MemorySink
