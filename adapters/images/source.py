"""Opening a disk for reading: where its bytes are, and the two ways to them.

    extents    raw: SEEK_HOLE; VHDX: its block table; other formats and chains: one `qemu-img map`
    bytes      an extent with an offset: preadv of the layer's file into the caller's buffer
               one without: inflaters (compressed clusters), or qemu-nbd (an internal snapshot)

Whatever a map says, a range is read directly only if it lies inside the file of its layer.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from adapters.filesystem import rawfile
from adapters.formats import Window, packed, vhd, vhdx
from adapters.formats.layering import Layered, combine
from adapters.formats.vhdx_blocks import Layout
from adapters.formats.window import Findings
from adapters.images import chains, inspect
from adapters.images.inflating import inflating
from adapters.images.inspect import Policy
from adapters.images.maps import Maps
from adapters.process.sandbox import Sandbox
from adapters.qemu import img, nbd
from pipeline.data.extents import mask_free
from pipeline.errors import InvalidParameter, NotFound, StageFailed, UnsafeImage
from pipeline.ports import Chain, ImageFormat, Source
from pipeline.ports.extents import Extent, Kind, Range

Extents = Callable[[], Iterable[Extent]]
Reader = Callable[[memoryview, Extent], None]  # of extents without an offset


class DiskSource:
    """A `Source` over the open files of a chain, and perhaps a reader of what has no place in
    them; thread-safe."""

    def __init__(
        self,
        virtual_size: int,
        extents: Extents,
        fds: Sequence[int],
        page_cached: Sequence[int],
        reader: Reader | None,
        free: Sequence[Range],
        direct: Sequence[int] = (),
    ) -> None:
        self._virtual_size = virtual_size
        self._extents = extents
        self._fds = fds
        self._page_cached = page_cached
        self._reader = reader
        self._direct = direct
        self._free = free

    @property
    def virtual_size(self) -> int:
        return self._virtual_size

    def extents(self) -> Iterator[Extent]:
        return mask_free(self._extents(), self._free)

    def read_into(self, buf: memoryview, extent: Extent) -> None:
        if len(buf) != extent.length:
            raise ValueError(f"a buffer of {len(buf)} bytes for an extent of {extent.length}")
        if extent.offset is not None:
            self._read(buf, extent.layer, extent.offset)
        elif self._reader is not None:
            self._reader(buf, extent)
        else:
            raise ValueError(f"the extent at byte {extent.start} is not one of this disk's data")

    def _read(self, buf: memoryview, layer: int, offset: int) -> None:
        if self._direct and rawfile.read_direct(self._direct[layer], buf, offset):
            return
        if self._page_cached[layer] != self._fds[layer]:
            # an original that was cut does not count, as the pin will say
            with contextlib.suppress(StageFailed):
                rawfile.read_exactly(self._page_cached[layer], buf, offset)
                return
        rawfile.read_exactly(self._fds[layer], buf, offset)

    def file(self, layer: int) -> int | None:
        return self._fds[layer]

    def close(self) -> None:
        """Nothing: the files belong to the `with` of `open_disk`."""


def virtual_size(chain: Chain, policy: Policy) -> int:
    """The length of a disk in bytes: its top layer's."""
    with contextlib.ExitStack() as stack:
        return _open_layers(chain, policy, stack)[1]


def _open_layers(
    chain: Chain, policy: Policy, stack: contextlib.ExitStack
) -> tuple[list[int], int]:
    """Open every file of a chain once, and parse it again: a header may have changed since it was
    inspected, and a raw layer is raw because its record says so, whatever its guest wrote there."""
    if not chain:
        raise InvalidParameter("a disk has at least one layer")
    fds, size = [], 0
    for depth, layer in enumerate(chain):
        if layer.internal_snapshot is not None and depth:
            raise InvalidParameter("only the top layer of a disk can be read at a snapshot")
        fd = rawfile.open_readonly(layer.opened)
        stack.callback(os.close, fd)
        fds.append(fd)
        if layer.format is ImageFormat.RAW:
            layer_size = os.fstat(fd).st_size
        else:
            layer_size = _checked(inspect.inspect_as(fd, layer.format, policy), chain, depth)
        size = size if depth else layer_size
    return fds, size


def _originals(chain: Chain, fds: Sequence[int], stack: contextlib.ExitStack) -> list[int]:
    """The files to read each layer's data from: its original, if it has one that is still there."""
    page_cached = list(fds)
    for depth, layer in enumerate(chain):
        if layer.original is not None:
            with contextlib.suppress(NotFound, UnsafeImage, PermissionError):
                page_cached[depth] = rawfile.open_readonly(layer.original)
                stack.callback(os.close, page_cached[depth])
    return page_cached


def _checked(findings: Findings, chain: Chain, depth: int) -> int:
    layer = chain[depth]
    refusals = list(findings.refusals)
    if depth == len(chain) - 1:
        refusals += findings.references
    elif not findings.references:
        refusals.append("it has no backing file, but one was given for it")
    if layer.internal_snapshot is not None and layer.internal_snapshot not in findings.snapshots:
        refusals.append(f"it has no snapshot {layer.internal_snapshot!a} that can be selected")
    if refusals:
        raise UnsafeImage(f"{str(layer.path)!r} can't be opened: {'; '.join(refusals)}")
    return findings.virtual_size


@contextlib.contextmanager
def open_disk(
    chain: Chain,
    sandbox: Sandbox,
    policy: Policy,
    maps: Maps,
    *,
    free: Sequence[Range] = (),
    cached: bool = True,
) -> Iterator[Source]:
    """Open a disk for the length of a `with`. Raises UnsafeImage when a layer is not safe."""
    with contextlib.ExitStack() as stack:
        fds, size = _open_layers(chain, policy, stack)
        direct: list[int] = []
        for fd in () if cached else fds:
            rawfile.forget(fd)
            direct.append(rawfile.open_direct(fd))
            stack.callback(os.close, direct[-1])
        reader: Reader | None = None
        if chain[0].internal_snapshot is not None:
            device = _serve(chain, sandbox, size, stack)
            extents: Extents = device.extents
            reader = _served(device)
        else:
            extents = _extents(chain, maps, size, fds, stack)
            # now, and not at first need: they live and die with this thread
            if indirect := _validate(extents(), fds, size):
                layouts = {
                    layer: packed.layout(Window(fds[layer]), chain[layer].format)
                    for layer in indirect
                }
                reader = stack.enter_context(inflating(chain, layouts, sandbox)).read_into
        page_cached = _originals(chain, fds, stack)
        yield DiskSource(size, extents, fds, page_cached, reader, free, direct)


def _serve(chain: Chain, sandbox: Sandbox, size: int, stack: contextlib.ExitStack) -> nbd.NbdDevice:
    device = stack.enter_context(nbd.serve(sandbox, chain))
    if device.size != size:
        raise UnsafeImage(
            f"{str(chain[0].path)!r}: qemu serves {device.size} bytes, its header says {size}"
        )
    return device


def _served(device: nbd.NbdDevice) -> Reader:
    def read_into(buf: memoryview, extent: Extent) -> None:
        device.read_into(buf, extent.start)

    return read_into


def is_ours(chain: Chain) -> bool:
    """Whether qemu can't read a chain: differencing VHDs and VHDXs."""
    return any(layer.format in chains.OWN_CHAINS for layer in chain[:-1])


def _own_extents(chain: Chain, size: int, fds: Sequence[int]) -> Extents:
    """Of a chain of differencing disks: where each block and sector lies, by our own parsers."""
    if len({layer.format for layer in chain}) > 1:
        raise UnsafeImage(
            f"{str(chain[0].path)!r}: a chain with a differencing VHD or VHDX has no other formats"
        )
    layers: list[Layered] = []
    for layer, fd in zip(chain, fds, strict=True):
        parse = vhd.layout if layer.format is ImageFormat.VHD else vhdx.layout
        layers.append(parse(Window(fd), Findings(layer.format)))
    return lambda: combine(layers, 0, size)


def _extents(
    chain: Chain, maps: Maps, size: int, fds: Sequence[int], stack: contextlib.ExitStack
) -> Extents:
    if is_ours(chain):
        return _own_extents(chain, size, fds)
    bottom = chain[-1]
    if len(chain) == 1 and bottom.format is ImageFormat.RAW:
        return lambda: rawfile.extents(fds[0], size)
    blocks: Layout | None = None
    if bottom.format is ImageFormat.VHDX:
        blocks = vhdx.layout(Window(fds[-1]), Findings(ImageFormat.VHDX))
        if len(chain) == 1:
            return blocks.extents
    output = stack.enter_context(maps.of(chain, fds))
    if blocks is None:
        return lambda: img.parse_map(output, size)
    table, depth = blocks, len(chain) - 1
    return lambda: _with_blocks(img.parse_map(output, size), table, depth)


def _with_blocks(mapped: Iterable[Extent], table: Layout, depth: int) -> Iterator[Extent]:
    """Replace what a map says of its VHDX layer (all is data, nowhere) by the VHDX's own table."""
    for extent in mapped:
        if extent.kind is not Kind.DATA or extent.layer != depth:
            yield extent
            continue
        yield from table.extents_between(extent.start, extent.end, depth)


def _validate(extents: Iterable[Extent], fds: Sequence[int], size: int) -> set[int]:
    """Check every range against its file; the layers of those that have no place in it."""
    lengths = [os.fstat(fd).st_size for fd in fds]
    position, indirect = 0, set()
    for extent in extents:
        if extent.start != position:
            raise UnsafeImage(f"the map of the disk has a gap at byte {position}")
        position = extent.end
        if extent.kind is not Kind.DATA:
            continue
        if not 0 <= extent.layer < len(lengths):
            raise UnsafeImage(f"data at byte {extent.start} lies in no layer of the disk")
        if extent.offset is None:
            indirect.add(extent.layer)
        elif extent.offset < 0 or extent.offset + extent.length > lengths[extent.layer]:
            raise UnsafeImage(f"data at byte {extent.start} lies outside of its file")
    if position != size:
        raise UnsafeImage(f"the map of the disk ends at byte {position} of {size}")
    return indirect
