"""Whose a zone is: it belongs to one catalog, and the catalog knows its zones by identities.

`galleria-owner.json` in a zone says which zone it is and which catalog's. A catalog keeps which
zone it has seen in which directory. So a zone of another catalog, whose disks nobody here knows of,
is not touched; and a directory whose file system is not mounted, or in which another zone is
mounted, is noticed. A zone of an earlier version has no such file: the first catalog that uses it
owns it.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from adapters.filesystem import durable
from adapters.zones import layout, schema
from pipeline.errors import Conflict, EnvironmentMissing, VerificationFailed

OWNER_FILE = "galleria-owner.json"
_ID = r"[0-9a-f]{32}"
ADOPT = "galleria init --adopt"


class Registry(Protocol):
    """What a catalog knows of zones."""

    @property
    def identity(self) -> str: ...
    def zones_seen(self) -> Mapping[str, str]:
        """The identity of the zone that each directory had."""
        ...

    def zone_file_systems(self) -> Mapping[str, str]:
        """On which file system each zone was (`file_system_of`), by its directory."""
        ...

    def see_zone(self, directory: str, zone: str, file_system: str) -> None:
        """A directory has this zone from now on, and is on that file system."""
        ...


@dataclass(frozen=True, slots=True)
class Owner:
    zone: str
    catalog: str


def owner_of(path: Path) -> Owner | None:
    """Raises VerificationFailed when the record is damaged."""
    file = path / OWNER_FILE
    try:
        record = layout.decode(file)
        return Owner(schema.text(record, "zone_id", _ID), schema.text(record, "catalog_id", _ID))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise layout.damaged(file, f"a property is wrong: {error}") from None


def file_system_of(path: Path) -> str:
    """What tells the file system of a directory from others, as long as it is mounted; some keep it
    over a reboot."""
    return f"{os.statvfs(path).f_fsid:x}"


def is_lost(path: Path, registry: Registry) -> bool:
    """Whether a directory that had a zone of this catalog is empty for certain, and not only for
    want of a mount: it lies on the file system on which the zone was, or one is mounted there."""
    if str(path) not in registry.zones_seen() or not path.is_dir():
        return False
    if set(os.listdir(path)) - {"lost+found"}:  # noqa: PTH208 - iterdir would stay open
        return False
    known = registry.zone_file_systems().get(str(path), "")
    return os.path.ismount(path) or (bool(known) and known == file_system_of(path))


def check_there(path: Path, registry: Registry) -> None:
    """Raise EnvironmentMissing for a directory that had a zone of this catalog and has none."""
    if is_lost(path, registry):
        raise EnvironmentMissing(
            f"the zone {path} is lost: its directory is empty",
            hint="galleria repair makes it again, and fills it from other regions",
        )
    if str(path) in registry.zones_seen() and not (path / layout.ZONE_FILE).exists():
        raise EnvironmentMissing(
            f"{path} is a zone of this catalog, and the zone is not there: its file system is not "
            "mounted, or it is lost",
            hint=f"mount it; if it is lost for good, {ADOPT} {path} makes an empty one in its "
            "place",
        )


def identify(path: Path, registry: Registry, configured: Collection[Path]) -> None:
    """Make sure that the zone in a directory is this catalog's, and the one that was there before.
    One that nobody owns is this catalog's from now on. Raises Conflict."""
    seen = registry.zones_seen()
    known = seen.get(str(path))
    owner = owner_of(path)
    if owner is None and known is None:
        owner = _claim(path, registry)
    if owner is None:
        if known is None:  # nobody may write there: it is as it always was
            return
        raise _another(path)
    if owner.catalog != registry.identity:
        raise Conflict(
            f"the zone {path} belongs to another catalog ({owner.catalog[:8]}), which alone knows "
            "what its disks are used for",
            hint="name the catalog that it belongs to, or another directory; if that catalog is "
            f"gone for good, {ADOPT} {path} takes the zone over",
        )
    if known is not None and known != owner.zone:
        raise _another(path)
    if known is None:
        for other in configured:
            if other != path and seen.get(str(other)) == owner.zone:
                raise _another(path)
    file_system = file_system_of(path)
    if known is None or registry.zone_file_systems().get(str(path)) != file_system:
        registry.see_zone(str(path), owner.zone, file_system)


def moved_from(path: Path, registry: Registry, configured: Collection[Path]) -> list[Path]:
    """Where the zone in a directory that is new to the catalog was before. To be asked before
    `identify`."""
    seen = registry.zones_seen()
    owner = None if str(path) in seen else owner_of(path)
    if owner is None or owner.catalog != registry.identity:
        return []
    places = [Path(other) for other, zone in seen.items() if zone == owner.zone]
    return [place for place in places if place not in configured]


def adopt(path: Path, registry: Registry) -> None:
    """Take a zone over, whoever it belonged to and whatever was in the directory before."""
    try:
        owner = owner_of(path)
    except VerificationFailed:
        owner = None
    zone = owner.zone if owner else uuid4().hex
    with layout.room(path):
        _write(path, Owner(zone, registry.identity), overwrite=True)
    registry.see_zone(str(path), zone, file_system_of(path))


def give(path: Path, owner: Owner) -> None:
    """Let a zone belong to another catalog."""
    with layout.room(path):
        _write(path, owner, overwrite=True)


def _another(path: Path) -> Conflict:
    return Conflict(
        f"the zone in {path} is not the one that was there before: another file system is mounted",
        hint="mount each zone's file system where it was; if it is right as it is, "
        f"{ADOPT} {path} keeps it so",
    )


def _claim(path: Path, registry: Registry) -> Owner | None:
    """Make an unowned zone this catalog's; None where nobody may write."""
    try:
        _write(path, Owner(uuid4().hex, registry.identity), overwrite=False)
    except FileExistsError:  # another process was quicker
        pass
    except OSError:
        return None
    return owner_of(path)


def _write(path: Path, owner: Owner, *, overwrite: bool) -> None:
    content = layout.encode({"zone_id": owner.zone, "catalog_id": owner.catalog})
    durable.write_file(path / OWNER_FILE, content, mode=0o400, overwrite=overwrite)
