"""Image files: what is known of them, their bytes, and holding them still."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.model import SourceFile
from pipeline.model.images import ImageFormat
from pipeline.ports.extents import Extent, Range


@dataclass(frozen=True, slots=True)
class Layer:
    """One image file of a disk. `internal_snapshot` names one of a qcow2, to read instead of the
    present. `original` is another file with the same bytes, of which more may be in memory: data is
    read from it (`Pin.page_cached`). With `fd` the file is open, and read from there: what its path
    leads to may be another file by now."""

    path: Path
    format: ImageFormat
    internal_snapshot: str | None = None
    original: Path | None = None
    fd: int | None = field(default=None, compare=False)

    @property
    def opened(self) -> Path:
        """By what this process opens the file."""
        return self.path if self.fd is None else Path(f"/proc/self/fd/{self.fd}")


Chain = tuple[
    Layer, ...
]  # a disk: its layers, top first; every one declared, none taken from a header


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What bounded inspection of one image file found. `refusals` empty means safe to open;
    `unread`: they say only that galleria does not read such a file, and nothing against it."""

    path: Path
    format: ImageFormat
    variant: (
        str  # "dynamic", "fixed", "monolithicSparse", "streamOptimized", "v3 zstd extended_l2", ...
    )
    virtual_size: int
    file_size: int
    allocated_size: int
    logical_sector_size: int = 512
    snapshots: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unread: bool = False


class Source(Protocol):
    """The bytes of one disk, as its guest sees them. Offsets in every call; safe from many
    threads."""

    @property
    def virtual_size(self) -> int: ...
    def extents(self) -> Iterator[Extent]:
        """Cover [0, virtual_size) in order. What is not known to be zero is data."""
        ...

    def read_into(self, buf: memoryview, extent: Extent) -> None:
        """Fill `buf` (extent.length bytes) with a DATA extent, or a part of one, of `extents()`."""
        ...

    def file(self, layer: int) -> int | None:
        """The open file that extents of this layer with an `offset` lie in; None when there is
        none. Only for `Sink.reuse_extents` and `Sink.holds`."""
        ...

    def close(self) -> None: ...


class Sink(Protocol):
    """Where the bytes of one disk go. A new sink reads as zero, or as the base that it was started
    from."""

    def write(self, buf: memoryview, offset: int) -> None: ...
    def zero(self, length: int, offset: int) -> None:
        """Make the range read as zero; may punch a hole."""
        ...

    def reuse_extents(self, file: int, area: Range, offset: int) -> Range | None:
        """Instead of `write`: let the sink from `offset` on have the very blocks of `area` of an
        open file, where the file system can. Returns the range of the sink that has them now, which
        may lack what are not whole blocks; None, with nothing changed, where it can't."""
        ...

    def holds(self, file: int | None, area: Range, offset: int) -> bool:
        """Whether the sink has from `offset` on the very blocks of `area` of an open file, or, of
        no file, none. To be asked before anything there is written; no is always a right answer."""
        ...

    def read_into(self, buf: memoryview, offset: int) -> None:
        """Fill `buf` with what the sink reads as now."""
        ...

    def flush(self) -> None:
        """Durable on return."""
        ...

    def close(self) -> None: ...


class Images(Protocol):
    """Image files: inspect, open, make."""

    def inspect(self, path: Path, *, declared: ImageFormat | None = None) -> ImageFacts:
        """Tell a file's format by its content. Never opens another file. Raises NotFound, or
        UnsafeImage for one of no known format; an unsafe file is returned with its `refusals`."""
        ...

    def inspect_chain(
        self, layers: Sequence[tuple[Path, ImageFormat | None]]
    ) -> tuple[ImageFacts, ...]:
        """Inspect every declared layer of a disk, top first, each by itself. That one depends on
        another file is refused unless the next layer is the very file that its header means."""
        ...

    def open(
        self, chain: Chain, *, free: Sequence[Range] = (), cached: bool = True
    ) -> AbstractContextManager[Source]:
        """The disk of a chain. `free` (sorted) is what its guest does not use. Not `cached`: its
        bytes come from the medium, whatever the page cache holds of them."""
        ...

    def create_overlay(self, chain: Chain, path: Path) -> Chain:
        """Make a qcow2 at `path` over `chain`; returns the new chain (the overlay on top)."""
        ...

    def zero(self, chain: Chain, ranges: Sequence[Range]) -> None:
        """Make ranges of a disk read as zero, in its top layer, which is a private overlay."""
        ...

    def export(
        self,
        chain: Chain,
        path: Path,
        format: ImageFormat,
        *,
        subformat: str = "",
        free: Sequence[Range] = (),
    ) -> None:
        """Write the disk as one stand-alone file of the format, complete and durable, or nothing.
        VHD: fixed unless subformat is "dynamic"; a fixed VHD is padded to whole MiB."""
        ...


class Pin(Protocol):
    """A held point in time of source files: read `chains`, then ask `verify` whether it held
    still."""

    chains: tuple[Chain, ...]
    method: str  # "reflink" or "lease"

    @property
    def detects_changes(self) -> bool:
        """Whether `verify` notices every change: what was read before it passes is what the files
        hold. False when it may miss one."""
        ...

    def page_cached(self, chain: Chain) -> Chain:
        """The same disk, read from the files that were cloned: a clone has nothing in memory. What
        was read so counts only if they are `unchanged` afterwards."""
        ...

    def unchanged(self) -> bool:
        """Whether the files that were cloned are still what the clones are."""
        ...

    def verify(self) -> None:
        """Raise SourceChanged when a source file is not what it was when it was pinned."""
        ...


class Pins(Protocol):
    def fingerprint(self, layer: Layer) -> SourceFile:
        """What a file is now, for `changes` at any later time. Raises NotFound."""
        ...

    def changes(self, file: SourceFile) -> list[str]:
        """What of a file is not as it was, for people; empty when it is the same."""
        ...

    def pin(self, chains: Sequence[Chain], work: Path) -> AbstractContextManager[Pin]: ...
