"""What a zone keeps of the catalog that it belongs to, so that a lost one can be rebuilt.

    catalog/head.json            how far the catalog's audit record was when all below was written
    catalog/<digest of a name>.json
                                 one thing of the catalog (`pipeline.gallery.descriptions`)

The catalog is changed first, then the zones: one that can't be written only lags, and what it lacks
is told by the audit record when it is there again. A record is replaced as a whole; `head.json` is
written when they are durable.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from adapters.filesystem import durable, modes
from adapters.zones import layout, schema
from pipeline.errors import GalleriaError
from pipeline.gallery import descriptions
from pipeline.gallery.audit import parse_head
from pipeline.model.audit import AuditHead
from pipeline.ports.catalog import Catalog, CatalogReader

CATALOG = "catalog"
HEAD = "head.json"
BATCH = 200  # things that are read in one transaction
_RECORD = re.compile(r"[0-9a-f]{32}\.json")
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.json\.[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Described:
    """What one zone says of the catalog. `records` by name; `problems` by file name."""

    head: AuditHead | None = None
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def bring_up(zone: Path, catalog: Catalog, identity: str) -> None:
    """Write what has changed in the catalog since the zone's records were written."""
    with catalog.read() as reader:
        if head_of(zone, identity) == reader.audit_head():
            return
    if _head(zone)[0] not in ("", identity):
        _put_aside(zone)
    with _alone(zone):
        known = head_of(zone, identity)
        with catalog.read() as reader:
            now = reader.audit_head()
            changed = None if known is None else descriptions.changed_since(reader, known)
            names = sorted(descriptions.everything(reader) if changed is None else changed)
        for start in range(0, len(names), BATCH):
            with catalog.read() as reader:
                found = _read(reader, names[start : start + BATCH])
            for name, content in found.items():
                _write(zone, name, content)
        if changed is None:
            _remove_others(zone, set(map(file_name, names)))
        durable.sync_directory(zone / CATALOG)
        head = layout.encode({"catalog_id": identity, "head": str(now)})
        durable.write_file(zone / CATALOG / HEAD, head, overwrite=True)


def head_of(zone: Path, identity: str) -> AuditHead | None:
    """How far a zone's records are; None when it has none of this catalog that can be used."""
    of, head = _head(zone)
    return head if of == identity else None


def _head(zone: Path) -> tuple[str, AuditHead | None]:
    """Of which catalog a zone has records, and how far they are."""
    with contextlib.suppress(OSError, ValueError, KeyError, GalleriaError):
        record = layout.decode(zone / CATALOG / HEAD)
        return schema.text(record, "catalog_id"), parse_head(schema.text(record, "head"))
    return "", None


def read(zone: Path) -> Described:
    """Everything that a zone says of a catalog."""
    place = zone / CATALOG
    found: dict[str, Mapping[str, Any]] = {}
    problems: dict[str, str] = {}
    if not layout.is_directory(place):
        return Described()
    for path in sorted(place.iterdir()):
        if not _RECORD.fullmatch(path.name):
            continue
        try:
            record = layout.decode(path)
            name = schema.text(record, "name")
            if file_name(name) != path.name:
                raise layout.damaged(path, f"it is the record of {name!a:.100}")
            found[name] = schema.document(record, "content")
        except (OSError, ValueError, KeyError, GalleriaError) as error:
            problems[path.name] = str(error)
    return Described(_head(zone)[1], found, problems)


def _put_aside(zone: Path) -> None:
    """Keep what is said of another catalog, whose zone this was."""
    place = zone / layout.QUARANTINE
    modes.make_directories(place, modes.group_of(zone))
    with contextlib.suppress(FileNotFoundError):  # another process was quicker
        durable.rename_new(zone / CATALOG, place / f"{CATALOG}-{os.urandom(16).hex()}")
    durable.sync_directory(place)
    durable.sync_directory(zone)


def _read(reader: CatalogReader, names: list[str]) -> dict[str, Mapping[str, Any] | None]:
    return {name: descriptions.described(reader, name) for name in names}


def _write(zone: Path, name: str, content: Mapping[str, Any] | None) -> None:
    path = zone / CATALOG / file_name(name)
    if content is None:
        path.unlink(missing_ok=True)
        return
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        durable.fill(temporary, layout.encode({"name": name, "content": content}), mode=0o600)
        modes.give(temporary, modes.group_of(path.parent))
        durable.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_others(zone: Path, wanted: set[str]) -> None:
    for path in (zone / CATALOG).iterdir():
        stale = _RECORD.fullmatch(path.name) and path.name not in wanted
        if stale or _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def file_name(name: str) -> str:
    return f"{blake3(name.encode()).hexdigest()[:32]}.json"


@contextlib.contextmanager
def _alone(zone: Path) -> Iterator[None]:
    """One process at a time writes the records of a zone."""
    place = zone / CATALOG
    if not layout.is_directory(place):
        modes.make_directories(place, modes.group_of(zone))
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
