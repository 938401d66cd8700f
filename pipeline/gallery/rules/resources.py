"""What holds for resources of every kind."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from pipeline.errors import Conflict, InvalidParameter, NotFound
from pipeline.model.names import DefinitionName, GalleryName, VersionName
from pipeline.model.resource_names import resource_of

T = TypeVar("T")
NOUNS: Mapping[type, str] = {
    GalleryName: "gallery",
    DefinitionName: "image definition",
    VersionName: "image version",
}


def parent(found: T | None, name: object) -> T:
    """The parent that something is to be made in."""
    if found is None:
        error = NotFound(
            f"Can not perform requested operation on nested resource. Parent resource '{name}' not "
            "found.",
            plain=_missing(name),
            code="ParentResourceNotFound",
        )
        error.named = name
        raise error
    return found


def existing(found: T | None, name: object) -> T:
    if found is None:
        error = NotFound(
            f"The resource '{name}' was not found.", plain=_missing(name), code="ResourceNotFound"
        )
        error.named = name
        raise error
    return found


def _missing(name: object) -> str:
    resource = resource_of(str(name))  # a disk, a snapshot or a managed image
    noun = resource.kind.noun if resource else NOUNS.get(type(name), "resource")
    return f"there is no {noun} {resource or name}"


def deletable(name: object, nested: Sequence[object]) -> None:
    """Only what holds nothing is deleted: versions first, then definitions, then galleries."""
    if nested:
        listed = ", ".join(f"'{item}'" for item in nested[:5])
        raise Conflict(
            f"Cannot delete resource '{name}' while nested resources exist. Some existing nested "
            f"resource IDs include: {listed}.",
            plain=f"{name} is not empty: it holds {listed}",
            hint="delete versions first, then definitions, then the gallery; or all with --cascade",
            code="CannotDeleteResource",
        )


def end_of_life(date: datetime | None, now: datetime) -> None:
    if date is not None and date <= now:
        raise InvalidParameter(
            f"EndOfLifeDate must be set to a future date: {date.isoformat()} is past.",
            plain=f"the end-of-life date {date:%Y-%m-%d} is in the past",
        )
