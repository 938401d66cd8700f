"""How rows are found by name, and in order."""

from typing import Any

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.sql import ColumnElement

from adapters.catalog import tables as t
from pipeline.gallery.names import DefinitionName, GalleryName, VersionName


def in_subscription(name: GalleryName) -> ColumnElement[bool]:
    c = t.galleries.c
    return and_(
        c.subscription_key == name.subscription.lower(),
        c.name_key == name.name.lower(),
    )


def is_gallery(name: GalleryName) -> ColumnElement[bool]:
    group = t.galleries.c.resource_group_key == name.resource_group.lower()
    return and_(in_subscription(name), group)


def find_definition(name: DefinitionName) -> Select[Any]:
    c = t.definitions.c
    query = select(c.id, c.document).select_from(t.definitions.join(t.galleries))
    return query.where(is_gallery(name.gallery), c.name_key == name.name.lower())


def is_definition(name: DefinitionName) -> ColumnElement[bool]:
    return and_(is_gallery(name.gallery), t.definitions.c.name_key == name.name.lower())


def beyond(last: tuple[int, int, int], *, ascending: bool) -> ColumnElement[bool]:
    """What comes after a number. The first term, though implied by the rest, is what lets the index
    find the page: without it every page would be sought among all versions."""
    c = t.versions.c
    major, minor, patch = last

    def after(column: ColumnElement[int], value: int) -> ColumnElement[bool]:
        return column > value if ascending else column < value

    return and_(
        c.major >= major if ascending else c.major <= major,
        or_(
            after(c.major, major),
            and_(c.major == major, after(c.minor, minor)),
            and_(c.major == major, c.minor == minor, after(c.patch, patch)),
        ),
    )


def find_version(name: VersionName) -> Select[Any]:
    c, number = t.versions.c, name.number
    query = select(c.id, c.document).select_from(t.versions.join(t.definitions).join(t.galleries))
    return query.where(
        is_gallery(name.definition.gallery),
        t.definitions.c.name_key == name.definition.name.lower(),
        c.major == number.major,
        c.minor == number.minor,
        c.patch == number.patch,
    )
