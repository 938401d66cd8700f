"""Ingest: inspect every image file by its content and refuse what is unsafe, before anything
opens it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from pipeline.data.extents import SECTOR
from pipeline.errors import NotFound, Refused, UnsafeImage
from pipeline.model.disks import disk_name
from pipeline.model.sources import DiskSource
from pipeline.ports import Chain, ImageFacts, ImageFormat, Images, Layer, Source
from pipeline.ports.extents import Range
from pipeline.sources.contents import Contents, read_contents
from pipeline.sources.supply import check_luns


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk on its way through the stages. `free` ranges are read as zero; `facts` are those of
    the file that it came in (a stored base has none)."""

    lun: int | None
    chain: Chain
    virtual_size: int
    facts: ImageFacts | None = None
    free: tuple[Range, ...] = ()

    @property
    def name(self) -> str:
        return disk_name(self.lun)


def file_name(disk: Disk) -> str:
    """What people know the file of a disk by; its chain's may be that of a pin, or of a scratch
    directory."""
    return str(disk.chain[0].path if disk.facts is None else disk.facts.path)


def ingest(sources: Sequence[DiskSource], images: Images) -> tuple[Disk, ...]:
    """Inspect every source; the OS disk comes first. Raises UnsafeImage with every reason, or
    NotFound."""
    check_luns([source.lun for source in sources])
    ordered = sorted(sources, key=lambda source: (source.lun is not None, source.lun or 0))
    found = [_checked(source, inspected(source, images), images) for source in ordered]
    for disk, contents in found:
        if disk.lun is None and contents.optical and disk.facts is not None:
            raise Refused(
                f"{disk.facts.path} is no OS disk: it looks like {contents.optical}",
                hint="install a machine from it, and publish that machine's disk",
            )
    return tuple(disk for disk, _ in found)


def inspect_disk(source: DiskSource, images: Images) -> Disk:
    """Inspect every layer of one source and give it the format that its content has."""
    return inspected_disk(source, inspected(source, images), images)


def inspected_disk(source: DiskSource, layers: Sequence[ImageFacts], images: Images) -> Disk:
    """The disk that layers make which were inspected, the top first. Raises as `ingest` does."""
    return _checked(source, layers, images)[0]


@contextmanager
def _by_name(source: DiskSource) -> Iterator[None]:
    """Let errors name a file as people know it, and not where galleria unpacked it to."""
    try:
        yield
    except UnsafeImage as error:
        message = error.message.replace(str(source.path), source.shown)
        raise UnsafeImage(message, hint=error.hint) from None


def _checked(
    source: DiskSource, layers: Sequence[ImageFacts], images: Images
) -> tuple[Disk, Contents]:
    facts, *below = layers
    for layer in layers:
        if layer.refusals:
            raise UnsafeImage(
                f"{layer.path} is refused: " + "; ".join(layer.refusals), hint=_advice(layer)
            )
    refuse_large_sectors(source.shown, max(source.sector_size, facts.logical_sector_size))
    if source.virtual_size not in (None, facts.virtual_size):
        raise UnsafeImage(
            f"{source.shown} has {facts.virtual_size} bytes, and its description says "
            f"{source.virtual_size}"
        )
    if facts.virtual_size == 0:
        raise Refused(f"{source.shown} has a virtual size of 0 bytes: there is nothing to publish")
    if source.internal_snapshot is not None and source.internal_snapshot not in facts.snapshots:
        known = ", ".join(facts.snapshots) or "none"
        raise NotFound(
            f"{source.shown} has no internal snapshot {source.internal_snapshot!r}",
            hint=f"it has: {known}",
        )
    top = Layer(source.path, facts.format, source.internal_snapshot)
    chain = (top, *(Layer(layer.path, layer.format) for layer in below))
    with _by_name(source), images.open(chain) as content:
        contents = read_contents(content)
    check_whole(facts, contents, declared=source.declared)
    return Disk(source.lun, chain, facts.virtual_size, facts), contents


def _advice(layer: ImageFacts) -> str:
    if layer.unread and layer.format is not ImageFormat.RAW:
        return "name every file below it, the bottom last: --backing FILE"
    return "galleria inspect shows what was found; nothing of the file was opened by qemu"


def inspected(source: DiskSource, images: Images) -> tuple[ImageFacts, ...]:
    """What inspection finds of every layer, the top first: by the name that people know it by."""
    layers = [(layer.path, layer.declared) for layer in source.layers]
    with _by_name(source):
        facts, *below = images.inspect_chain(layers)
    return (replace(facts, path=Path(source.shown)), *below)


def check_whole(
    facts: ImageFacts, contents: Contents, *, declared: ImageFormat | None = None
) -> None:
    """Raise UnsafeImage for a disk that lost its end, and for one whose name promises a format of
    which its content shows nothing: that is what is left of a file that was cut, or a page that
    somebody saved under a disk's name."""
    if contents.cut:
        raise UnsafeImage(
            f"{facts.path} was cut: {contents.cut}",
            hint="copy or download it again, whole; compare its length with the original's",
        )
    if contents.known or contents.optical or declared is ImageFormat.RAW:
        return
    if promised := promised_format(facts):
        raise UnsafeImage(
            f"{facts.path} is named as a {promised}, but nothing in it is one, and it holds no "
            "partition table or file system as a raw disk would: it was cut, or damaged",
            hint="copy or download it again; if it is a raw disk, name it .raw",
        )


def promised_format(facts: ImageFacts) -> str:
    """The format that the name of a file promises whose content is a raw disk; of a VMDK in parts,
    NAME-flat.vmdk is a raw disk."""
    name = facts.path.name.lower()
    suffix = PurePath(name).suffix.lstrip(".")
    if facts.format is not ImageFormat.RAW or name.endswith("-flat.vmdk"):
        return ""
    return suffix.upper() if suffix in SUFFIXES else ""


def content_notes(facts: ImageFacts, source: Source) -> list[str]:
    """What a look into a disk tells that is no reason to refuse it."""
    contents = read_contents(source)
    notes = []
    if contents.optical:
        notes.append(f"it looks like {contents.optical}, and not like a disk")
    if promised := promised_format(facts):
        notes.append(f"it is named as a {promised}, but by its content it is a raw disk")
    return notes


SUFFIXES = {"vhd", "vhdx", "qcow2", "vmdk", "vdi"}


def refuse_large_sectors(name: str, size: int) -> None:
    """A 4Kn disk's partition table counts in sectors of 4096 bytes: as the 512-byte disk that it
    would be deployed as, it has none and does not boot."""
    if size != SECTOR:
        raise Refused(
            f"{name} was used with logical sectors of {size} bytes: galleria publishes disks with "
            "sectors of 512",
            hint="convert it to 512e where it comes from",
        )
