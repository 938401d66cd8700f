"""Share: store disks whose content zones hold already. A zone that has the base needs no byte; the
others get it from one that has it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.data.copying import CopyResult
from pipeline.errors import GalleriaError, NotFound, VerificationFailed
from pipeline.placement import Zones
from pipeline.ports import Images, Progress, StoredBase, TransferStats, Zone
from pipeline.stages.convert import Stored, StoredDisk, convert
from pipeline.stages.ingest import Disk


def share(
    digests: Mapping[int | None, str],
    sinks: Mapping[str, Zone],
    donors: Zones,
    work: Path,
    images: Images,
    progress: Progress,
    advance: Callable[[int], None] = lambda _: None,
) -> Stored:
    """Every disk in every zone of `sinks`. Raises NotFound when no zone of `donors` holds one, and
    VerificationFailed when what a donor holds is not what its name says."""
    stored = Stored(bases={name: {} for name in sinks})
    for lun in sorted(digests, key=lambda lun: -1 if lun is None else lun):
        digest = digests[lun]
        lacking = {name: sinks[name] for name in stored.bases}
        for name, base in _there(digest, lacking).items():
            stored.bases[name][lun] = base
            del lacking[name]
        donor = find_donor(digest, donors)
        stats = TransferStats(donor.virtual_size, 0, 0, {}, {})
        if lacking:
            disk = Disk(lun, donor.chain, donor.virtual_size)
            copied = convert(
                [disk], lacking, {lun: (digest,)}, work, _still, images, progress, advance
            )
            stats = _adopt(copied, stored, digest, lun)
        stored.disks.append(StoredDisk(lun, donor.virtual_size, CopyResult(digest, stats)))
    return stored


def find_donor(digest: str, zones: Zones) -> StoredBase:
    for places in zones.values():
        for zone in places:
            base = zone.find_base(digest)
            if base is not None:
                return base
    raise NotFound(
        f"no zone on this host holds the base {digest}",
        hint="galleria doctor shows the zones; galleria verify tells which are sound",
    )


def _there(digest: str, zones: Mapping[str, Zone]) -> dict[str, StoredBase]:
    found = {name: zone.find_base(digest) for name, zone in zones.items()}
    return {name: base for name, base in found.items() if base is not None}


def _adopt(copied: Stored, stored: Stored, digest: str, lun: int | None) -> TransferStats:
    """Take over what was copied, and what failed, of one disk."""
    (made,) = copied.disks
    if made.digest != digest:
        raise VerificationFailed(
            f"the base {digest} reads as {made.digest}",
            hint="galleria verify names the regions that are sound",
        )
    for name, bases in copied.bases.items():
        stored.bases[name][lun] = bases[lun]
    for name, error in copied.failures.items():
        if isinstance(error, OSError | GalleriaError):
            stored.drop(name, error)
    return made.result.stats


def _still() -> None:
    """Bases do not change."""
