"""Why disks can't become a version, in Azure's words."""

from collections.abc import Hashable, Iterable, Mapping, Sequence

from pipeline.errors import InvalidParameter, NotFound, TooManyRequests
from pipeline.model import HostCaching


def source_missing(name: object, why: str, *, gone: bool = True) -> NotFound:
    """A file that is not there; or (not `gone`) one that can't be read, and why."""
    return NotFound(
        f"Source '{name}' is not found. Please check source exists, and is in the same region as "
        f"gallery image version being created ({why}).",
        plain=f"no such file: {name}" if gone else f"can't read {name}: {why}",
    )


def source_throttled(name: object, why: str) -> TooManyRequests:
    return TooManyRequests(
        f"Too many requests on source '{name}'. Please reduce the number of requests ({why}).",
        plain=f"{name} is asked too often: {why}",
        hint="give the command again later",
    )


def one_kind_of_source() -> InvalidParameter:
    return InvalidParameter(
        "The gallery artifact version source can only be specified either directly under "
        "storageProfile or within individual OS or data disks. One and only one source type (user "
        "image, snapshot, disk, virtual machine) can be provided.",
        plain="sources of two kinds are given for one version",
        hint="give one whole source (a VM, a box, an OVA, a managed image, another version), or "
        "one source for each disk",
        code="InvalidSource",
    )


def wrong_source(id: str, *, single: bool) -> InvalidParameter:
    """An id of another kind than a source is; `single`: one disk is wanted."""
    wanted = (
        "be a managed disk or snapshot"
        if single
        else "either be a managed image, virtual machine or another gallery image version"
    )
    return InvalidParameter(
        f"The source id '{id}' must {wanted}.",
        plain=f"{id} is neither a disk nor a snapshot"
        if single
        else f"{id} is neither a managed image nor a VM nor an image version",
        hint="/subscriptions/ID/resourceGroups/RG/providers/Microsoft.Compute/KIND/NAME, or the "
        "name alone",
    )


def distinct_luns(luns: Sequence[int]) -> None:
    for lun in luns:
        if lun < 0:
            raise InvalidParameter(
                f"The value {lun} of parameter lun is out of range. The value must not be "
                "negative.",
                plain=f"a LUN can't be negative: {lun}",
            )
        if luns.count(lun) > 1:
            raise InvalidParameter(
                f"Duplicated lun numbers have been detected: {lun}. Each data disk has its own.",
                plain=f"two data disks have LUN {lun}: each needs its own",
            )


def distinct_sources(sources: Sequence[tuple[int | None, Hashable, object]]) -> None:
    """By LUN (None: the OS disk), what tells a source from others, and its name."""
    seen: dict[Hashable, int | None] = {}
    for lun, identity, name in sources:
        if identity in seen and None in (lun, seen[identity]):
            raise InvalidParameter(
                f"OSDiskImage and DataDiskImage cannot point to same blob: '{name}'.",
                plain=f"{name} is given as OS disk and as data disk",
            )
        if identity in seen:
            raise InvalidParameter(
                f"Duplicated source ids have been detected: '{name}'.",
                plain=f"{name} is given for two disks",
            )
        seen[identity] = lun


def caching(wanted: Mapping[int | None, HostCaching], luns: Iterable[int | None]) -> None:
    """Host caching is of disks that are there; `luns` are theirs (None: the OS disk)."""
    for lun in set(wanted) - set(luns):
        raise InvalidParameter(
            f"Cannot bind parameter dataDiskImages.hostCaching: there is no data disk with LUN "
            f"{lun} among the sources.",
            plain=f"host caching is given for LUN {lun}, and no data disk has that LUN",
        )
