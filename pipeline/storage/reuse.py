"""Share: store disks whose content zones hold already. A zone that has the base needs no byte, nor
does one on the file system of a zone that has it; the others get it from there."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pipeline.data.copying import CopyResult
from pipeline.errors import GalleriaError, NotFound, VerificationFailed
from pipeline.ports import Images, Progress, StoredBase, TransferStats, Zone
from pipeline.sources.ingest import Disk
from pipeline.storage.convert import ImmutableBases, Stored, StoredDisk, convert
from pipeline.storage.placement import Zones, every_zone


def share(
    digests: Mapping[int | None, str],
    sinks: Mapping[str, Zone],
    donors: Zones,
    work: Path,
    images: Images,
    progress: Progress,
    advance: Callable[[int], None] = lambda _: None,
    *,
    independent: Collection[str] = (),
) -> Stored:
    """Every disk in every zone of `sinks`; those of `independent` get bytes of their own. Raises
    NotFound when no zone of `donors` holds one, and VerificationFailed when what a donor holds is
    not what its name says."""
    stored = Stored(bases={name: {} for name in sinks})
    for lun in sorted(digests, key=lambda lun: -1 if lun is None else lun):
        digest = digests[lun]
        found = find_donors(digest, donors)
        for name in list(stored.bases):
            base = _at_hand(digest, found, name, sinks[name], stored, clone=name not in independent)
            if base is not None:
                stored.bases[name][lun] = base
        donor = found[0]
        stats = TransferStats(donor.virtual_size, 0, 0, {}, {})
        if lacking := {
            name: sinks[name] for name, bases in stored.bases.items() if lun not in bases
        }:
            disk = Disk(lun, donor.chain, donor.virtual_size)
            copied = convert(
                [disk],
                lacking,
                {lun: (digest,)},
                work,
                ImmutableBases(),
                images,
                progress,
                advance,
                independent=independent,
            )
            stats = _adopt(copied, stored, digest, lun)
        stored.disks.append(StoredDisk(lun, donor.virtual_size, CopyResult(digest, stats)))
    return stored


def find_donors(digest: str, zones: Zones) -> list[StoredBase]:
    """The base in every zone that holds it. Raises NotFound when none does."""
    found = [zone.find_base(digest) for zone in every_zone(zones)]
    if bases := [base for base in found if base is not None]:
        return bases
    raise NotFound(
        f"no zone on this host holds the base {digest}",
        hint="galleria doctor shows the zones; galleria verify tells which are sound",
    )


def _at_hand(
    digest: str,
    donors: Sequence[StoredBase],
    name: str,
    zone: Zone,
    stored: Stored,
    *,
    clone: bool,
) -> StoredBase | None:
    """The base in a zone that holds it, or can take it over without a byte."""
    base = zone.find_base(digest)
    if base is not None or not clone:
        return base
    try:
        clones = (zone.clone_base_from(donor) for donor in donors)
        return next((made for made in clones if made is not None), None)
    except (OSError, GalleriaError) as error:
        stored.drop(name, error)
        return None


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
