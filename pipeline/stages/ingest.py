"""Ingest: recognise every image file by its content and refuse what is unsafe, before anything
opens it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.extents import Range
from pipeline.errors import InvalidParameter, NotFound, Refused, UnsafeImage
from pipeline.ports import Chain, ImageFacts, ImageFormat, Images, Layer


@dataclass(frozen=True, slots=True)
class DiskSource:
    """A disk as the user names it. `lun` None is the OS disk; `snapshot` a qcow2 internal
    snapshot."""

    lun: int | None
    path: Path
    snapshot: str | None = None
    declared: ImageFormat | None = None


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


def disk_name(lun: int | None) -> str:
    """What a disk is called on screen and in file names."""
    return "os" if lun is None else f"data-{lun}"


def parse_disk(text: str, lun: int | None = None) -> DiskSource:
    """`FILE` or `FILE@NAME`: an existing file whose name holds an @ is meant before a snapshot
    is."""
    path = Path(text)
    if "@" in path.name and not path.exists():
        file, _, snapshot = text.rpartition("@")
        return DiskSource(lun, Path(file), snapshot)
    return DiskSource(lun, path)


def ingest(sources: Sequence[DiskSource], images: Images) -> tuple[Disk, ...]:
    """Inspect every source; the OS disk comes first. Raises UnsafeImage with every reason, or
    NotFound."""
    luns = [source.lun for source in sources]
    if luns.count(None) != 1:
        raise InvalidParameter("a version has exactly one OS disk", code="OSDiskRequired")
    if len(set(luns)) != len(luns):
        raise InvalidParameter(f"data disk LUNs must be unique, got {sorted_luns(luns)}")
    ordered = sorted(sources, key=lambda source: (source.lun is not None, source.lun or 0))
    return tuple(recognise(source, images) for source in ordered)


def recognise(source: DiskSource, images: Images) -> Disk:
    """Inspect one source and give it the format that its content has."""
    facts = images.inspect(source.path, declared=source.declared)
    if facts.refusals:
        raise UnsafeImage(
            f"{source.path} is refused: " + "; ".join(facts.refusals),
            hint="galleria inspect shows what was found; nothing of the file was opened by qemu",
        )
    if facts.virtual_size == 0:
        raise Refused(f"{source.path} has a virtual size of 0 bytes: there is nothing to publish")
    if source.snapshot is not None and source.snapshot not in facts.snapshots:
        known = ", ".join(facts.snapshots) or "none"
        raise NotFound(
            f"{source.path} has no internal snapshot {source.snapshot!r}", hint=f"it has: {known}"
        )
    layer = Layer(source.path, facts.format, source.snapshot)
    return Disk(source.lun, (layer,), facts.virtual_size, facts)


def sorted_luns(luns: Sequence[int | None]) -> list[int]:
    return sorted(lun for lun in luns if lun is not None)
