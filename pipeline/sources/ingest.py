"""Ingest: recognise every image file by its content and refuse what is unsafe, before anything
opens it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.extents import SECTOR
from pipeline.errors import NotFound, Refused, UnsafeImage
from pipeline.model.disks import disk_name
from pipeline.model.sources import DiskSource
from pipeline.ports import Chain, ImageFacts, Images, Layer
from pipeline.ports.extents import Range
from pipeline.sources.supply import check_luns


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk on its way through the stages. `free` ranges are read as zero; `facts` are those of
    the
    file that it came in (a stored base has none)."""

    lun: int | None
    chain: Chain
    virtual_size: int
    facts: ImageFacts | None = None
    free: tuple[Range, ...] = ()

    @property
    def name(self) -> str:
        return disk_name(self.lun)


def ingest(sources: Sequence[DiskSource], images: Images) -> tuple[Disk, ...]:
    """Inspect every source; the OS disk comes first. Raises UnsafeImage with every reason, or
    NotFound."""
    check_luns([source.lun for source in sources])
    ordered = sorted(sources, key=lambda source: (source.lun is not None, source.lun or 0))
    return tuple(recognise(source, images) for source in ordered)


def recognise(source: DiskSource, images: Images) -> Disk:
    """Inspect every layer of one source and give it the format that its content has."""
    found = images.inspect_chain([(layer.path, layer.declared) for layer in source.layers])
    for layer in found:
        if layer.refusals:
            raise UnsafeImage(
                f"{layer.path} is refused: " + "; ".join(layer.refusals),
                hint="galleria inspect shows what was found; nothing of the file was opened by "
                "qemu",
            )
    facts = found[0]
    refuse_large_sectors(str(source.path), max(source.sector_size, facts.logical_sector_size))
    if source.virtual_size not in (None, facts.virtual_size):
        raise UnsafeImage(
            f"{source.path} has {facts.virtual_size} bytes, and its description says "
            f"{source.virtual_size}"
        )
    if facts.virtual_size == 0:
        raise Refused(f"{source.path} has a virtual size of 0 bytes: there is nothing to publish")
    if source.snapshot is not None and source.snapshot not in facts.snapshots:
        known = ", ".join(facts.snapshots) or "none"
        raise NotFound(
            f"{source.path} has no internal snapshot {source.snapshot!r}", hint=f"it has: {known}"
        )
    top = Layer(source.path, facts.format, source.snapshot)
    below = (Layer(layer.path, layer.format) for layer in found[1:])
    return Disk(source.lun, (top, *below), facts.virtual_size, facts)


def refuse_large_sectors(name: str, size: int) -> None:
    """A 4Kn disk's partition table counts in sectors of 4096 bytes: as the 512-byte disk that it
    would be deployed as, it has none and does not boot."""
    if size != SECTOR:
        raise Refused(
            f"{name} was used with logical sectors of {size} bytes: galleria publishes disks with "
            "sectors of 512",
            hint="convert it to 512e where it comes from",
        )
