"""The properties of records, each with its bounds. Whatever is not as it must be is a ValueError
that says which property it is."""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from adapters.zones import layout
from pipeline.ports import ImageFormat

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

SIZE_LIMIT = 1 << 63
LUN_LIMIT = 1 << 16
COUNT_LIMIT = 1 << 16  # replicas, disks, files
TEXT_LIMIT = 4096


def text(record: Mapping[str, Any], name: str, pattern: str = r"[^\0]*") -> str:
    value = record.get(name)
    known = isinstance(value, str) and len(value) <= TEXT_LIMIT
    if not known or not re.fullmatch(pattern, str(value), re.DOTALL):
        raise _wrong(name, value)
    return str(value)


def number(record: Mapping[str, Any], name: str, limit: int = SIZE_LIMIT) -> int:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise _wrong(name, value)
    return value


def lun(record: Mapping[str, Any]) -> int | None:
    """None is the OS disk; the property has to be there."""
    return None if record["lun"] is None else number(record, "lun", LUN_LIMIT)


def digest(record: Mapping[str, Any], name: str = "digest") -> str:
    return text(record, name, layout.DIGEST.pattern)


def disk_format(record: Mapping[str, Any]) -> ImageFormat:
    found = choice(record, "format", ImageFormat)
    if found not in layout.SUFFIXES:
        raise _wrong("format", record["format"])
    return found


def choice(record: Mapping[str, Any], name: str, kind: type[E]) -> E:
    try:
        return kind(text(record, name))
    except ValueError:
        raise _wrong(name, record.get(name)) from None


def objects(
    record: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], T]
) -> tuple[T, ...]:
    """A list of JSON objects, each as `read` takes it."""
    found = []
    for item in _sequence(record, name):
        if not isinstance(item, dict):
            raise _wrong(name, item)
        found.append(read(item))
    return tuple(found)


def paths(record: Mapping[str, Any], name: str) -> tuple[Path, ...]:
    """Files outside of the zone: absolute."""
    found = []
    for item in _sequence(record, name):
        if not isinstance(item, str) or not item.startswith("/") or "\0" in item:
            raise _wrong(name, item)
        found.append(Path(item))
    return tuple(found)


def document(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    if not isinstance(value, dict):
        raise _wrong(name, value)
    return value


def _sequence(record: Mapping[str, Any], name: str) -> Sequence[object]:
    value = record.get(name)
    if not isinstance(value, list) or len(value) > COUNT_LIMIT:
        raise _wrong(name, value)
    return value


def _wrong(name: str, value: object) -> ValueError:
    return ValueError(f"its {name} is {value!a:.100}")
