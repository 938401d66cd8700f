"""The queries and changes of versions: a row, and a row for each of its regions and disks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Delete,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql import ColumnElement

from adapters.catalog import tables as t
from adapters.catalog.conditions import (
    DEFINITIONS,
    IS_DEFINITION,
    IS_VERSION,
    VERSIONS,
    definition_keys,
    version_keys,
)
from pipeline.gallery import rules
from pipeline.gallery.documents import decode, encode
from pipeline.model import ImageVersion
from pipeline.model.names import DefinitionName, VersionName, VersionNumber
from pipeline.model.spelling import region_key

PAGES = (1, 16)  # versions that are fetched at a time, first: `latest` mostly needs one
PAGE = 100  # and then

_c = t.versions.c
_NUMBER = (_c.major, _c.minor, _c.patch)

_FIND = select(_c.id, _c.document).select_from(VERSIONS).where(IS_VERSION)
_COUNT = select(func.count()).select_from(VERSIONS).where(IS_DEFINITION)
_DEFINITION = select(t.definitions.c.id).select_from(DEFINITIONS).where(IS_DEFINITION)
_REPORT = (
    select(t.version_reports.c.document)
    .select_from(t.version_reports.join(VERSIONS))
    .where(IS_VERSION)
)
_WITH_DIGESTS = (
    select(_c.id, _c.document)
    .select_from(t.versions.join(t.version_disks))
    .where(t.version_disks.c.digest.in_(bindparam("digests", expanding=True)))
)
_OF_VERSION: BindParameter[int] = bindparam("of_version")
_MAKE = insert(t.versions).returning(_c.id)
_CHANGE = update(t.versions).where(_c.id == _OF_VERSION)
_REMOVE = delete(t.versions).where(_c.id == _OF_VERSION)
_REMOVE_REPORT = delete(t.version_reports).where(t.version_reports.c.version_id == _OF_VERSION)


@dataclass(frozen=True, slots=True)
class Documents:
    """A version as its rows hold it: a region is its target and its status."""

    document: Mapping[str, Any]
    regions: Sequence[tuple[Any, Any]] = ()
    disks: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """A version, and the id of its row."""

    id: int
    version: ImageVersion
    documents: Documents


class VersionQueries:
    _connection: Connection

    def version(self, name: VersionName) -> ImageVersion | None:
        stored = self._stored(name)
        return None if stored is None else stored.version

    def versions(
        self,
        definition: DefinitionName,
        *,
        start: VersionNumber | None = None,
        ascending: bool = False,
        deleted: bool | None = False,
    ) -> Iterator[ImageVersion]:
        found = self._connection.scalar(_DEFINITION, definition_keys(definition))
        if found is None:
            return
        last = None if start is None else (start.major, start.minor, start.patch)
        sizes = iter(PAGES)
        while True:
            size = next(sizes, PAGE)
            query = _page(ascending=ascending, deleted=deleted, first=last is None)
            keys = dict(zip(("is_major", "is_minor", "is_patch"), last or (), strict=False))
            rows = self._connection.execute(query, {"of": found, "size": size, **keys}).all()
            for stored in self._assemble(rows):
                yield stored.version
            if len(rows) < size:
                return
            last = (rows[-1].major, rows[-1].minor, rows[-1].patch)

    def versions_with(self, digests: Sequence[str]) -> list[ImageVersion]:
        found: dict[int, ImageVersion] = {}
        for start in range(0, len(digests), PAGE):
            keys = {"digests": digests[start : start + PAGE]}
            rows = self._connection.execute(_WITH_DIGESTS, keys).all()
            found |= {stored.id: stored.version for stored in self._assemble(rows)}
        return list(found.values())

    def count_versions(self, definition: DefinitionName, *, deleted: bool | None = None) -> int:
        query = _COUNT if deleted is None else _COUNT.where(_c.soft_deleted == deleted)
        return int(self._connection.scalar(query, definition_keys(definition)) or 0)

    def report(self, name: VersionName) -> Mapping[str, Any] | None:
        document: Mapping[str, Any] | None = self._connection.scalar(_REPORT, version_keys(name))
        return document

    def _stored(self, name: VersionName) -> Stored | None:
        rows = self._connection.execute(_FIND, version_keys(name)).all()
        return next(iter(self._assemble(rows)), None)

    def _assemble(self, rows: Sequence[Any]) -> Iterator[Stored]:
        """Versions of rows (id, document), with their regions and disks: two queries for all."""
        regions = self._parts(t.version_regions, rows)
        disks = self._parts(t.version_disks, rows)
        for row in rows:
            documents = Documents(
                row.document,
                [(part.target, part.status) for part in regions.get(row.id, ())],
                [part.document for part in disks.get(row.id, ())],
            )
            yield Stored(row.id, _join(documents), documents)

    def _parts(self, table: Table, rows: Sequence[Any]) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        if rows:
            ids = [row.id for row in rows]
            for part in self._connection.execute(_parts(table), {"of_versions": ids}):
                found.setdefault(part.version_id, []).append(part)
        return found


class VersionChanges(VersionQueries):
    """What was read of a version or written stays known to the end of the transaction: writers are
    alone. So a change reads a version once, and writes the rows that differ."""

    _known: dict[VersionName, Stored | None]

    def put_version(self, version: ImageVersion) -> None:
        documents = _split(version)
        old = self._stored(version.name)
        if old is None:
            id, before = self._insert(version, documents), Documents({})
        else:
            id, before = old.id, old.documents
            if before.document != documents.document:
                values = _columns(version, documents)
                self._connection.execute(_CHANGE, {"of_version": id, **values})
        regions = [
            {"region_key": region.key, "state": region.state.value}
            | {"target": target, "status": status}
            for region, (target, status) in zip(version.regions, documents.regions, strict=True)
        ]
        disks = [
            {"digest": disk.digest, "virtual_size": disk.virtual_size, "document": document}
            for disk, document in zip(version.disks, documents.disks, strict=True)
        ]
        self._put_parts(
            t.version_regions, id, _differing(before.regions, documents.regions), regions
        )
        self._put_parts(t.version_disks, id, _differing(before.disks, documents.disks), disks)
        self._known[version.name] = Stored(id, version, documents)

    def delete_version(self, name: VersionName) -> None:
        stored = self._stored(name)
        if stored is not None:
            self._connection.execute(_REMOVE, {"of_version": stored.id})
            self._known[name] = None

    def put_report(self, name: VersionName, report: Mapping[str, Any] | None) -> None:
        stored = self._stored(name)
        if stored is not None:
            self._connection.execute(_REMOVE_REPORT, {"of_version": stored.id})
        if report is not None:
            row = {"version_id": rules.parent(stored, name).id, "document": report}
            self._connection.execute(insert(t.version_reports), row)

    def _stored(self, name: VersionName) -> Stored | None:
        if name not in self._known:
            self._known[name] = super()._stored(name)
        return self._known[name]

    def _insert(self, version: ImageVersion, documents: Documents) -> int:
        parent, number = version.name.definition, version.number
        definition = self._connection.scalar(_DEFINITION, definition_keys(parent))
        values = {
            "definition_id": rules.parent(definition, parent),
            "major": number.major,
            "minor": number.minor,
            "patch": number.patch,
            **_columns(version, documents),
        }
        return int(self._connection.execute(_MAKE, values).scalar_one())

    def _put_parts(
        self, table: Table, id: int, positions: Sequence[int], parts: Sequence[Mapping[str, Any]]
    ) -> None:
        """Replace the rows at these positions with what `parts` has there."""
        if not positions:
            return
        self._connection.execute(_removal(table), {"of_version": id, "positions": positions})
        rows = [
            {"version_id": id, "position": position, **parts[position]}
            for position in positions
            if position < len(parts)
        ]
        if rows:
            self._connection.execute(insert(table), rows)


def _split(version: ImageVersion) -> Documents:
    document = encode(version)
    targets, statuses = document.pop("targetRegions"), document.pop("regions")
    disks = document.pop("disks", [])
    return Documents(document, list(zip(targets, statuses, strict=True)), disks)


def _join(documents: Documents) -> ImageVersion:
    """What `_split` took apart."""
    targets = [target for target, _ in documents.regions]
    statuses = [status for _, status in documents.regions]
    parts = {"targetRegions": targets, "regions": statuses, "disks": documents.disks}
    return decode(ImageVersion, {**documents.document, **parts})


def _columns(version: ImageVersion, documents: Documents) -> dict[str, Any]:
    """All follow from the document."""
    return {
        "uid": version.uid,
        "attempt": version.attempt,
        "provisioning_state": version.provisioning_state.value,
        "document": documents.document,
        "region_key": region_key(version.location),
        "soft_deleted": version.soft_deleted is not None,
    }


def _differing(old: Sequence[Any], new: Sequence[Any]) -> list[int]:
    """The positions at which two lists are not the same."""
    pairs = enumerate(zip_longest(old, new))
    return [position for position, (before, now) in pairs if before != now]


@cache
def _page(*, ascending: bool, deleted: bool | None, first: bool) -> Select[Any]:
    query = select(_c.id, _c.document, *_NUMBER).where(_c.definition_id == bindparam("of"))
    if deleted is not None:
        query = query.where(_c.soft_deleted == deleted)
    if not first:
        query = query.where(_beyond(ascending=ascending))
    order = (column.asc() if ascending else column.desc() for column in _NUMBER)
    return query.order_by(*order).limit(bindparam("size"))


def _beyond(*, ascending: bool) -> ColumnElement[bool]:
    """What comes after a number. The first term, though implied by the rest, is what lets the index
    find the page: without it every page would be sought among all versions."""
    major: BindParameter[int] = bindparam("is_major")
    minor: BindParameter[int] = bindparam("is_minor")
    patch: BindParameter[int] = bindparam("is_patch")

    def after(column: ColumnElement[int], value: BindParameter[int]) -> ColumnElement[bool]:
        return column > value if ascending else column < value

    return and_(
        _c.major >= major if ascending else _c.major <= major,
        or_(
            after(_c.major, major),
            and_(_c.major == major, after(_c.minor, minor)),
            and_(_c.major == major, _c.minor == minor, after(_c.patch, patch)),
        ),
    )


@cache
def _parts(table: Table) -> Select[Any]:
    owner = table.c.version_id
    found = owner.in_(bindparam("of_versions", expanding=True))
    return select(table).where(found).order_by(owner, table.c.position)


@cache
def _removal(table: Table) -> Delete:
    there = table.c.position.in_(bindparam("positions", expanding=True))
    return delete(table).where(table.c.version_id == _OF_VERSION, there)
