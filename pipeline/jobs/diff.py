"""Diff: what changed between two versions, from what is stored with them. No disk is read:
packages, configuration and accounts come from the inventories in the reports, blocks from the
manifests.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.data.chunks import chunk_count, chunk_length
from pipeline.data.manifest import Cursor, ManifestReader, manifest_of
from pipeline.errors import NotFound
from pipeline.guest.sbom import packages_in
from pipeline.jobs.context import JobContext
from pipeline.jobs.replicate import find_donor
from pipeline.model import ImageDisk, ImageVersion
from pipeline.ports import Package, StoredBase
from pipeline.storage.placement import Zones


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A package of which there is one version before and another one after; it may be older."""

    name: str
    architecture: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Names:
    """What came, went and is not what it was."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DiskChange:
    """The blocks of one disk, in bytes of the guest's view. `before` or `after` is 0 for a disk
    that only one of the versions has."""

    lun: int | None
    before: int
    after: int
    changed: int


@dataclass(frozen=True, slots=True)
class Difference:
    """`compared` is False when one of the versions has no inventory: then only the blocks are."""

    compared: bool
    packages_added: tuple[Package, ...]
    packages_removed: tuple[Package, ...]
    packages_upgraded: tuple[Upgrade, ...]
    files: Names
    users: Names
    disks: tuple[DiskChange, ...]


def difference(
    before: ImageVersion,
    after: ImageVersion,
    old_report: Mapping[str, Any] | None,
    new_report: Mapping[str, Any] | None,
    context: JobContext,
) -> Difference:
    """Raises NotFound when no zone here holds one of the versions."""
    old, new = ((report or {}).get("inventory") or {} for report in (old_report, new_report))
    compared = bool(old and new)
    added, removed, upgraded = packages(old, new) if compared else ((), (), ())
    files = names(old["files"], new["files"]) if compared else Names()
    users = names(old["users"], new["users"]) if compared else Names()
    disks = tuple(_disks(before, after, context))
    return Difference(compared, added, removed, upgraded, files, users, disks)


def packages(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[tuple[Package, ...], tuple[Package, ...], tuple[Upgrade, ...]]:
    """Of two inventories: added, removed, upgraded. Where several versions of a package are
    installed side by side (kernels), those that came were added and those that went removed."""
    was, now = _versions(packages_in(old["sbom"])), _versions(packages_in(new["sbom"]))
    added, removed, upgraded = [], [], []
    for key in sorted(was.keys() | now.keys()):
        gone = was.get(key, {}).keys() - now.get(key, {}).keys()
        come = now.get(key, {}).keys() - was.get(key, {}).keys()
        if len(gone) == len(come) == 1:
            name, architecture = key
            upgraded.append(Upgrade(name, architecture, gone.pop(), come.pop()))
        else:
            removed += [was[key][version] for version in sorted(gone)]
            added += [now[key][version] for version in sorted(come)]
    return tuple(added), tuple(removed), tuple(upgraded)


def names(old: Mapping[str, Any], new: Mapping[str, Any]) -> Names:
    return Names(
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(old.keys() - new.keys())),
        tuple(sorted(key for key in old.keys() & new.keys() if old[key] != new[key])),
    )


def changed_bytes(old: ManifestReader, new: ManifestReader) -> int:
    """Bytes in chunks that differ; beyond the shorter disk's end it counts as zero."""
    size = max(old.virtual_size, new.virtual_size)
    one, other = Cursor(old), Cursor(new)
    return sum(
        chunk_length(index, size)
        for index in range(chunk_count(size))
        if one.chunk(index) != other.chunk(index)
    )


def _versions(listed: Iterable[Package]) -> dict[tuple[str, str], dict[str, Package]]:
    found: dict[tuple[str, str], dict[str, Package]] = {}
    for package in listed:
        found.setdefault((package.name, package.architecture), {})[package.version] = package
    return found


def _disks(before: ImageVersion, after: ImageVersion, context: JobContext) -> Iterable[DiskChange]:
    old = {disk.lun: disk for disk in before.disks}
    new = {disk.lun: disk for disk in after.disks}
    for lun in sorted(old.keys() | new.keys(), key=lambda item: -1 if item is None else item):
        was, now = old.get(lun), new.get(lun)
        if was is None or now is None:
            sizes = (was.virtual_size if was else 0, now.virtual_size if now else 0)
            yield DiskChange(lun, *sizes, max(sizes))
        elif was.digest == now.digest:
            yield DiskChange(lun, was.virtual_size, now.virtual_size, 0)
        else:
            with (
                manifest_of(_base(before, was, context.zones), context.files) as one,
                manifest_of(_base(after, now, context.zones), context.files) as other,
            ):
                count = changed_bytes(one, other)
            yield DiskChange(lun, was.virtual_size, now.virtual_size, count)


def _base(version: ImageVersion, disk: ImageDisk, zones: Zones) -> StoredBase:
    base = find_donor(version, zones).find_base(disk.digest) if disk.digest else None
    if base is None:
        raise NotFound(
            f"no zone here has the content of {version.name} as a base",
            hint="a Shallow version has no bases: it depends on the files of its source",
        )
    return base
