"""Encryption of a version's replicas, region by region.

No zone holds encrypted bases: they would share no blocks and clone nothing, and a key on the same
host keeps nobody out. There are no disk encryption sets, so each that is named is missing; scripts
that name none (`null`) work as they are.
"""

from collections.abc import Sequence

from pipeline.errors import InvalidParameter

NOTHING = "null"


def region_encryption(items: Sequence[str], regions: Sequence[str], parameter: str) -> None:
    """`items` are those of `--target-region-encryption`, one for each of `regions`: disk encryption
    sets, or `null`."""
    if not items:
        return
    if len(items) != len(regions):
        raise InvalidParameter(
            f"Cannot bind parameter {parameter}: {len(items)} values for {len(regions)} target "
            "regions. One for each is expected, in their order.",
            plain=f"{len(items)} encryption sets are given for {len(regions)} target regions: give "
            "one for each region, in the same order",
        )
    named = [(item, region) for item, region in zip(items, regions, strict=True) if _names(item)]
    if named and len(named) < len(items):
        missing = next(
            region for item, region in zip(items, regions, strict=True) if not _names(item)
        )
        raise InvalidParameter(
            "If a disk is encrypted in one region it has to be in every region: no disk encryption "
            f"set is given for '{missing}'."
        )
    for item, region in named:
        raise InvalidParameter(
            f"The disk encryption set '{item}' is not found in region '{region}'.",
            hint="zones hold no encrypted bases: put the zones of that region on an encrypted "
            "volume (LUKS), which covers replicas and deployed disks too",
            code="DiskEncryptionSetNotFound",
        )


def _names(item: str) -> bool:
    return item.strip().lower() != NOTHING
