"""How rows are found by name. A statement is made once, and names are its parameters: to make one
takes SQLAlchemy longer than the database takes to answer it."""

from typing import Any

from sqlalchemy import and_, bindparam

from adapters.catalog import tables as t
from pipeline.model.names import DefinitionName, GalleryName, VersionName

# Parameters must not be called as columns are: in an UPDATE those are what is set.
IN_SUBSCRIPTION = and_(
    t.galleries.c.subscription_key == bindparam("in_subscription"),
    t.galleries.c.name_key == bindparam("in_gallery"),
)
IS_GALLERY = and_(IN_SUBSCRIPTION, t.galleries.c.resource_group_key == bindparam("in_group"))
IS_DEFINITION = and_(IS_GALLERY, t.definitions.c.name_key == bindparam("in_definition"))
IS_VERSION = and_(
    IS_DEFINITION,
    t.versions.c.major == bindparam("is_major"),
    t.versions.c.minor == bindparam("is_minor"),
    t.versions.c.patch == bindparam("is_patch"),
)

# what the conditions on definitions and versions are about
DEFINITIONS = t.definitions.join(t.galleries)
VERSIONS = t.versions.join(DEFINITIONS)


def gallery_keys(name: GalleryName) -> dict[str, Any]:
    return {
        "in_subscription": name.subscription.lower(),
        "in_group": name.resource_group.lower(),
        "in_gallery": name.name.lower(),
    }


def definition_keys(name: DefinitionName) -> dict[str, Any]:
    return {**gallery_keys(name.gallery), "in_definition": name.name.lower()}


def version_keys(name: VersionName) -> dict[str, Any]:
    number = name.number
    return {
        **definition_keys(name.definition),
        "is_major": number.major,
        "is_minor": number.minor,
        "is_patch": number.patch,
    }
