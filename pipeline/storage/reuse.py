"""Reuse: store disks whose content zones hold already. A zone that has the base needs no byte, nor
does one on the file system of a zone that has it; the others get it from there."""

from collections.abc import Mapping, Sequence

from pipeline.data.copying import CopyResult
from pipeline.errors import GalleriaError, NotFound, VerificationFailed
from pipeline.ports import StoredBase, TransferStats, Zone
from pipeline.sources.ingest import Disk
from pipeline.storage.convert import Conversion, Means, Stored, StoredDisk, begun, convert
from pipeline.storage.placement import Zones, every_zone, usable_base
from pipeline.storage.soundness import checked_base

Donors = Sequence[tuple[Zone, StoredBase]]  # who has a base


def reuse_bases(
    digests: Mapping[int | None, str], donors: Zones, conversion: Conversion, means: Means
) -> Stored:
    """Every disk in every zone of a conversion; those of `independent` get bytes of their own.
    Raises NotFound when no zone of `donors` holds one, and VerificationFailed when none holds one
    that is sound."""
    zones = conversion.zones
    stored = begun(conversion)
    for lun in sorted(digests, key=lambda lun: -1 if lun is None else lun):
        digest = digests[lun]
        found = find_donors(digest, donors, means)
        for name in list(stored.bases):
            base = checked_base(zones[name], digest, means, reused=True)
            if base is None and name not in conversion.independent:
                base = _cloned(found, name, zones[name], stored, means)
            if base is not None:
                stored.bases[name][lun] = base
        lacking = {name: zones[name] for name, bases in stored.bases.items() if lun not in bases}
        size = found[0][1].virtual_size
        stats = TransferStats(size, 0, 0, {}, {})
        if lacking:
            donor = _sound(digest, found, means)
            disk = Disk(lun, donor.chain, size)
            copied = convert([disk], _of_base(lacking, disk, digest, conversion), means)
            stats = _adopt(copied, stored, digest, lun)
        stored.disks.append(StoredDisk(lun, size, CopyResult(digest, stats)))
    return stored


def _sound(digest: str, donors: Donors, means: Means) -> StoredBase:
    """The first base of `donors` that is sound. Raises the first one's VerificationFailed."""
    for zone, _ in donors:
        if (base := checked_base(zone, digest, means, reused=True)) is not None:
            return base
    raise VerificationFailed(
        f"no zone on this host holds a sound base {digest}",
        hint="galleria repair says what is wrong with it, and mends what can be mended",
    )


def _of_base(
    zones: Mapping[str, Zone], disk: Disk, digest: str, conversion: Conversion
) -> Conversion:
    """The conversion of a base into the zones that lack it."""
    return Conversion(zones, {disk.lun: (digest,)}, independent=conversion.independent)


def find_donors(digest: str, zones: Zones, means: Means) -> Donors:
    """The base in every zone that holds it as it was stored. Raises NotFound when none does."""
    every = every_zone(zones)
    found = [(zone, usable_base(zone, digest)) for zone in every]
    if not any(base for _, base in found):  # what has changed may be right all the same: it is read
        found = [(zone, checked_base(zone, digest, means)) for zone in every]
    if donors := [(zone, base) for zone, base in found if base is not None]:
        return donors
    raise NotFound(
        f"no zone on this host holds the base {digest}",
        hint="galleria doctor shows the zones; galleria verify tells which are sound",
    )


def _cloned(
    donors: Donors, name: str, zone: Zone, stored: Stored, means: Means
) -> StoredBase | None:
    """The base in a zone that can take it over without a byte, of a donor whose base is sound."""
    try:
        for place, donor in donors:
            if donor.method == "delta":
                parent = donor.parent
                possible = bool(parent and checked_base(zone, parent, means, reused=True))
            else:
                possible = zone.reflink and zone.file_system == place.file_system
            if not possible or not checked_base(place, donor.digest, means, reused=True):
                continue
            made = zone.clone_base_from(donor, replace=_is_there(zone, donor.digest))
            if made is not None:
                return made
    except (OSError, GalleriaError) as error:
        stored.drop(name, error)
    return None


def _is_there(zone: Zone, digest: str) -> bool:
    """Whether a zone holds something under a base's name, which is not sound."""
    try:
        return zone.find_base(digest) is not None
    except VerificationFailed:
        return True


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
