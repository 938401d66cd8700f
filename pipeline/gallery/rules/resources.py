"""What holds for resources of every kind."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from pipeline.errors import Conflict, InvalidParameter, NotFound

T = TypeVar("T")


def parent(found: T | None, name: object) -> T:
    """The parent that something is to be made in."""
    if found is None:
        raise NotFound(
            f"Can not perform requested operation on nested resource. Parent resource '{name}' not "
            "found.",
            code="ParentResourceNotFound",
        )
    return found


def existing(found: T | None, name: object) -> T:
    if found is None:
        raise NotFound(f"The resource '{name}' was not found.", code="ResourceNotFound")
    return found


def deletable(name: object, nested: Sequence[object]) -> None:
    """Only what holds nothing is deleted: versions first, then definitions, then galleries."""
    if nested:
        listed = ", ".join(f"'{item}'" for item in nested[:5])
        raise Conflict(
            f"Cannot delete resource '{name}' while nested resources exist. Some existing nested "
            f"resource IDs include: {listed}.",
            hint="delete versions first, then definitions, then the gallery; or all with --cascade",
            code="CannotDeleteResource",
        )


def end_of_life(date: datetime | None, now: datetime) -> None:
    if date is not None and date <= now:
        raise InvalidParameter(
            f"EndOfLifeDate must be set to a future date: {date.isoformat()} is past."
        )
