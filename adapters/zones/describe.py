"""Everything that zones say of the catalog that they belong to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.zones import layout, ownership, records, versions
from adapters.zones.ownership import Owner
from pipeline.errors import Conflict, EnvironmentMissing, GalleriaError
from pipeline.gallery.descriptions import Holding
from pipeline.model.audit import AuditHead
from pipeline.model.resources import DiskFile
from pipeline.storage.commit import disk_documents

DISKS = "disks"


@dataclass(frozen=True, slots=True)
class Told:
    """One zone."""

    region: str
    path: Path
    owner: Owner
    described: records.Described


@dataclass(frozen=True, slots=True)
class Zones:
    """All that could be read; `problems` says what could not, for people."""

    told: tuple[Told, ...]
    holdings: tuple[Holding, ...]
    problems: tuple[str, ...]

    @property
    def zones(self) -> Sequence[tuple[str, Path]]:
        return [(item.region, item.path) for item in self.told]

    @property
    def directories(self) -> dict[str, str]:
        """The identity of the zone in each directory."""
        return {str(item.path): item.owner.zone for item in self.told}

    @property
    def head(self) -> AuditHead | None:
        """How far the newest of the zones' records are."""
        heads = [item.described.head for item in self.told if item.described.head is not None]
        return max(heads, key=lambda head: head.seq, default=None)

    @property
    def records(self) -> Mapping[str, Mapping[str, Any]]:
        """What the newest zones say. One that lags is asked for what is damaged in those alone: it
        may have what was deleted since."""
        newest = [item.described for item in self.told if item.described.head == self.head]
        damaged = {name for described in newest for name in described.problems}
        found: dict[str, Mapping[str, Any]] = {}
        for described in newest:
            found = {**described.records, **found}
        for described in (item.described for item in self.told):
            found = {
                **{
                    name: content
                    for name, content in described.records.items()
                    if records.file_name(name) in damaged
                },
                **found,
            }
        return found

    def lost(self, present: str) -> str:
        """The identity of the catalog that is to be made again: the zones', if it is not that of
        the present, empty one. Raises Conflict when they belong to several."""
        others = {item.owner.catalog for item in self.told} - {present}
        if len(others) > 1:
            which = "; ".join(f"{item.path}: {item.owner.catalog[:8]}" for item in self.told)
            raise Conflict(
                f"the zones belong to different catalogs: {which}",
                hint="configure the zones of the one that is to be rebuilt",
            )
        return others.pop() if others else present

    def own(self, catalog: str) -> None:
        """All of them belong to this catalog from now on."""
        for item in self.told:
            if item.owner.catalog != catalog:
                ownership.give(item.path, Owner(item.owner.zone, catalog))


def zones(places: Sequence[tuple[str, Path]]) -> Zones:
    """Read the zones in these directories, by region. Raises EnvironmentMissing when there is
    none."""
    told: list[Told] = []
    holdings: list[Holding] = []
    problems: list[str] = []
    for region, path in places:
        try:
            name = str(layout.decode(path / layout.ZONE_FILE).get("name"))
            owner = ownership.owner_of(path)
            if owner is None:
                problems.append(f"{path}: no catalog has used this zone")
                continue
            described = records.read(path)
            told.append(Told(region, path, owner, described))
            problems += described.problems.values()
            listing = versions.every(path)
            problems += map(str, listing.problems.values())
            holdings += (_holding(path, region, name, found) for found in listing.found)
        except (OSError, GalleriaError) as error:
            problems.append(f"{path}: {error}")
    if not told:
        raise EnvironmentMissing(
            f"no zone tells of a catalog: {'; '.join(problems) or 'none is configured'}",
            hint="configure the zones, and mount them: galleria config show",
        )
    return Zones(tuple(told), tuple(holdings), tuple(problems))


def _holding(path: Path, region: str, name: str, found: versions.Found) -> Holding:
    replicas = tuple({"zone": name, "disks": disk_documents(replica)} for replica in found.replicas)
    document = found.record.document
    return Holding(region, document, replicas, next(_files(path, document), None))


def _files(path: Path, document: Mapping[str, Any]) -> Iterator[DiskFile]:
    """The file of a disk that lies in the zone."""
    resource = document.get("resource")
    unique = resource.get("uniqueId") if isinstance(resource, Mapping) else None
    if not isinstance(unique, str) or not layout.KEY.fullmatch(unique):
        return
    for suffix in layout.SUFFIXES.values():
        file = path / DISKS / unique / f"os{suffix}"
        if layout.is_directory(file.parent) and file.is_file() and not file.is_symlink():
            yield DiskFile(str(file), suffix.removeprefix("."))
