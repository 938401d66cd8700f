"""Properties of galleries and definitions, changed by the names that Azure has for them."""

import copy
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pipeline.errors import InvalidParameter
from pipeline.gallery.documents import decode, encode

T = TypeVar("T")


def with_property(value: T, name: str, text: str) -> T:
    """The resource with one property changed, by a name such as `recommended.vCPUs.min`. The text
    is read as JSON where it can be, else as it is; null removes the property. Raises
    InvalidParameter naming the property that is unknown or of another type."""
    path = name.removeprefix("properties.").split(".")
    document = encode(value)
    try:
        found = json.loads(text)
    except ValueError:
        return decode(type(value), _with(document, path, text))
    try:
        return decode(type(value), _with(document, path, found))
    except InvalidParameter:
        if not isinstance(found, int | float):
            raise
        # what looks like a number may be a text: try, and if it is not, name the first mistake
        try:
            return decode(type(value), _with(document, path, text))
        except InvalidParameter:
            pass
        raise


def _with(document: Mapping[str, Any], path: list[str], found: object) -> dict[str, Any]:
    changed = copy.deepcopy(dict(document))
    place = changed
    for step in path[:-1]:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            raise InvalidParameter(f"Could not find member {path[-1]!r} below '{step}'.")
    if found is None:
        place.pop(path[-1], None)
    else:
        place[path[-1]] = found
    return changed
