"""Image files for the pipeline: inspect, open, overlay, export (the `Images` port)."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapters.filesystem.outputs import check_target
from adapters.images import export, inspect, source
from adapters.images.inspect import Policy
from adapters.images.maps import Maps
from adapters.process.sandbox import Sandbox
from adapters.qemu import img, nbd
from pipeline.errors import Conflict
from pipeline.ports import Chain, ImageFacts, ImageFormat, Images, Layer, Source
from pipeline.ports.extents import Range

# An overlay gets small scattered edits (configuration files, logs, deletions): 64 KiB clusters,
# each filled up by one copied cluster on first write. Smaller ones copy less, but make the map
# larger (2 TiB: 2.5 s at 4 KiB, 0.16 s at 64 KiB), and chunks are 256 KiB anyway.
OVERLAY_CLUSTER = 64 << 10


class QemuImages:
    """Images by our own parsers, and qemu in the sandbox for what they can't do."""

    def __init__(self, sandbox: Sandbox, policy: Policy | None = None) -> None:
        self._sandbox = sandbox
        self._maps = Maps(sandbox)
        self._policy = policy or Policy()

    def inspect(self, path: Path, *, declared: ImageFormat | None = None) -> ImageFacts:
        return inspect.inspect(path, self._sandbox, self._policy, self._maps, declared=declared)

    def inspect_chain(
        self, layers: Sequence[tuple[Path, ImageFormat | None]]
    ) -> tuple[ImageFacts, ...]:
        return inspect.inspect_chain(layers, self._sandbox, self._policy, self._maps)

    @contextlib.contextmanager
    def open(
        self, chain: Chain, *, free: Sequence[Range] = (), cached: bool = True
    ) -> Iterator[Source]:
        """Leave the `with` in the thread that entered it, which has to live as long."""
        with source.open_disk(
            chain, self._sandbox, self._policy, self._maps, free=free, cached=cached
        ) as disk:
            yield disk

    def create_overlay(self, chain: Chain, path: Path) -> Chain:
        """A private qcow2 on top of `chain`; its header names the chain as the sandbox sees it.

        An internal snapshot can't be selected by a node tree, and qemu reads no differencing VHD
        or VHDX: these are first copied out, sparsely, to a file beside `path`, and the new chain
        depends on that. Raises Conflict if `path` exists.
        """
        if path.exists():
            raise Conflict(f"{str(path)!r} exists already")
        if chain[0].internal_snapshot is not None:
            chain = self._materialise(chain, path.with_name(f"{path.name}.snapshot"))
        chain = self._readable(chain, path.with_name(f"{path.name}.flat"))
        virtual_size = source.virtual_size(chain, self._policy)
        img.create_qcow2(
            self._sandbox,
            path,
            virtual_size,
            backing=img.backing_name(chain, self._sandbox),
            backing_format=chain[0].format.qemu_name,
            cluster_size=OVERLAY_CLUSTER,
        )
        # libguestfs asks access(2), by the sandbox's user alone; the directory is the run's own
        path.chmod(0o666)
        return (Layer(path, ImageFormat.QCOW2), *chain)

    def zero(self, chain: Chain, ranges: Sequence[Range]) -> None:
        """Zero clusters: the qcow2 on top grows by its tables alone."""
        with nbd.serve(self._sandbox, chain, writable=True) as device:
            for area in ranges:
                device.zero(area.length, area.start)

    def _materialise(self, chain: Chain, path: Path) -> Chain:
        export.convert(self._sandbox, self._policy, chain, path, ImageFormat.QCOW2)
        return (Layer(path, ImageFormat.QCOW2),)

    def _readable(self, chain: Chain, path: Path) -> Chain:
        """The disk as qemu can read it: as it is, or copied out to `path`."""
        if not source.is_ours(chain):
            return chain
        with self.open(chain) as disk:
            export.write_plain(disk, chain, path, footer=False)
        return (Layer(path, ImageFormat.RAW),)

    @contextlib.contextmanager
    def _masked(self, chain: Chain, path: Path, free: Sequence[Range]) -> Iterator[Chain]:
        """The disk with its free ranges read as zero, for qemu-img, which is told of none: an
        overlay beside `path` that holds nothing but zero clusters."""
        check_target(path)
        with tempfile.TemporaryDirectory(prefix=".galleria-", dir=path.parent) as name:
            masked = self.create_overlay(chain, Path(name) / "masked")
            self.zero(masked, free)
            yield masked

    def export(
        self,
        chain: Chain,
        path: Path,
        format: ImageFormat,
        *,
        subformat: str = "",
        free: Sequence[Range] = (),
    ) -> None:
        """Write the disk as one file. `subformat`: vhd fixed|dynamic, vhdx dynamic|fixed,
        qcow2 zlib|zstd (compressed), vmdk monolithicSparse|streamOptimized, vdi dynamic|fixed.

        Raises Conflict if `path` exists. A fixed VHD is padded with zeros to whole MiB, and a GPT's
        backup header moves to its new end; every other format has the disk's exact length.
        """
        if format is ImageFormat.RAW or (format is ImageFormat.VHD and subformat in ("", "fixed")):
            if subformat not in ("", "fixed"):
                export.unknown_subformat(format, subformat)
            with self.open(chain, free=free) as disk:
                export.write_plain(disk, chain, path, footer=format is ImageFormat.VHD)
            return
        if free or source.is_ours(chain):
            with self._masked(chain, path, free) as chain:
                export.convert(self._sandbox, self._policy, chain, path, format, subformat)
            return
        export.convert(self._sandbox, self._policy, chain, path, format, subformat)


__all__ = ["Policy", "QemuImages"]

_: type[Images] = QemuImages
