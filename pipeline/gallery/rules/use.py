"""Why a version can't be used, and what its users should be told."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from pipeline.errors import Conflict, InvalidParameter, NotFound
from pipeline.gallery.latest import usable
from pipeline.model import ImageDefinition, ImageVersion
from pipeline.model.names import VersionName
from pipeline.model.spelling import did_you_mean


def not_in_region(name: VersionName, region: str) -> NotFound:
    return NotFound(
        f"The gallery image '{name}' is not available in {region} region. Please contact image "
        "owner to replicate to this region, or change your requested region.",
        plain=f"{name} is not available in region {region}",
        hint=f"galleria show {name} lists its regions; galleria replicate brings it to another",
        code="GalleryImageNotFound",
    )


def no_latest(name: object, region: str | None) -> NotFound:
    place = f" in {region} region" if region else ""
    return NotFound(
        f"There is no latest image version exists for '{name}'{place}.",
        plain=f"{name} has no usable version" + (f" in region {region}" * bool(region)),
        hint="galleria list shows its versions; those that are excluded from latest, or not "
        "complete in the region, do not count",
        code="GalleryImageNotFound",
    )


def no_channel(name: object, channel: str, known: list[str]) -> NotFound:
    return NotFound(
        f"The image definition '{name}' has no channel '{channel}'.",
        plain=f"{name} has no channel {channel!r}{did_you_mean(channel, known)}",
        hint=f"it has: {', '.join(known)}" if known else "galleria promote makes one",
        code="ChannelNotFound",
    )


def not_out_of_use(version: ImageVersion, now: datetime) -> None:
    """A soft-deleted version can be used for a while."""
    deletion = version.soft_deleted
    if deletion is not None and deletion.consumption_end_time <= now:
        raise NotFound(
            f"The gallery image '{version.name}' is deleted and could be used until "
            f"{deletion.consumption_end_time.isoformat()}.",
            plain=f"{version.name} is deleted, and can't be used since "
            f"{deletion.consumption_end_time:%Y-%m-%d}",
            hint="galleria version undelete brings it back",
            code="GalleryImageNotFound",
        )


def promotable(version: ImageVersion) -> None:
    if version.soft_deleted is not None or not usable(version):
        raise Conflict(
            f"The image version '{version.name}' can't be promoted: it is not Completed in any "
            "region, or deleted.",
            code="OperationNotAllowed",
        )


def no_disk(name: object, luns: Iterable[int | None], lun: int | None) -> InvalidParameter:
    """A version has disks of these LUNs (None: the OS disk), and none of that one."""
    listed = ", ".join(str(item) for item in luns if item is not None)
    return InvalidParameter(
        f"The value of parameter imageReference is invalid: '{name}' has no data disk with LUN "
        f"{lun}.",
        plain=f"{name} has no data disk with LUN {lun}",
        hint=f"it has LUN {listed}" if listed else "it has only an OS disk",
    )


def cautions(
    version: ImageVersion, definition: ImageDefinition | None, now: datetime, name: str = ""
) -> Iterator[str]:
    """What whoever uses a version should know, by `name` if that is not its own. End of life never
    keeps anybody from it."""
    called = name or str(version.name)
    for what, end in (
        (called, version.end_of_life_date),
        (
            f"the definition of {name}" if name else str(version.name.definition),
            definition.end_of_life_date if definition else None,
        ),
    ):
        if end is not None and end <= now:
            yield f"{what} reached its end of life on {end:%Y-%m-%d}"
    deletion = version.soft_deleted
    if deletion is not None:
        yield (
            f"{called} is deleted and can be used until "
            f"{deletion.consumption_end_time:%Y-%m-%d %H:%M}Z: galleria version undelete keeps it"
        )
    if version.unverified:
        yield f"{called}: not verified when published: {', '.join(version.unverified)}"
