"""Resources as JSON documents with Azure's property names, and back.

The catalog stores these, `--json` prints them and each zone keeps them, so the round trip is exact.
Absent means the default; a member that the type does not have is refused, as Azure does.

cattrs could read them, with more code than this (for camel case, case-blind values and errors that
name the member) and 27 ms more before the first document is read. msgspec names members only of
classes of its own, and leaves out every default where this leaves out what is empty.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar, cast

from pipeline.errors import InvalidParameter
from pipeline.model import names
from pipeline.model.resources import Resource

T = TypeVar("T")

_PARSERS: Mapping[type, Callable[[str], object]] = {
    names.GalleryName: names.parse_gallery,
    names.DefinitionName: names.parse_definition,
    names.VersionName: names.parse_version,
    names.VersionNumber: names.parse_number,
}


def encode(value: Any) -> Any:
    """A value of the model as JSON data. Optional members that are None or empty are left out."""
    if isinstance(value, names.GalleryName | names.DefinitionName | names.VersionName):
        return value.arm_id
    if isinstance(value, names.VersionNumber):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if dataclasses.is_dataclass(value):
        kind: Any = type(value)
        return {
            member.json: item
            for member in _members(kind)
            if (item := encode(getattr(value, member.name))) not in _EMPTY or member.required
        }
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    return value


def resource_document(resource: Resource) -> dict[str, Any]:
    """What a zone keeps of a finished disk, snapshot or image beside its bytes."""
    whole = dataclasses.replace(resource, owner=None)
    return {"resource": {**encode(whole), "completionPercent": 100}}


def decode(kind: type[T], document: object) -> T:
    """The value that `encode` made the document from. Raises InvalidParameter, naming the
    member."""
    target: Any = kind
    return cast(T, _decoder(target)(document, kind.__name__))


def parse_date(text: object, path: str) -> datetime:
    """An ISO 8601 date, with or without a time; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(cast(str, text))
    except (TypeError, ValueError):
        raise InvalidParameter(
            f"Could not convert string to DateTimeOffset: {text!r}. Path '{path}'.",
            plain=f"{path.removeprefix('properties.')}: {text!r} is not a date",
            hint="write it as 2030-01-31 or 2030-01-31T12:00:00Z",
            code="BadRequest",
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def camel(name: str) -> str:
    """A Python name as Azure spells names in JSON."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


_Decoder = Callable[[Any, str], Any]
_EMPTY: tuple[object, ...] = (None, "", [], {})


class _Member(typing.NamedTuple):
    name: str
    json: str
    decoder: _Decoder
    required: bool


@functools.cache
def _members(kind: Any) -> tuple[_Member, ...]:
    """The fields of a dataclass."""
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    return tuple(
        _Member(
            item.name,
            item.metadata.get("json") or camel(item.name),
            _decoder(hints[item.name]),
            required=item.default is missing and item.default_factory is missing,
        )
        for item in dataclasses.fields(kind)
    )


@functools.cache
def _decoder(kind: Any) -> _Decoder:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # the model's only unions are `X | None`
        inner = _decoder(next(item for item in arguments if item is not types.NoneType))
        return lambda data, path: None if data is None else inner(data, path)
    if origin is tuple:
        return functools.partial(_decode_tuple, _decoder(arguments[0]))
    if kind is datetime:
        return parse_date
    if kind in _PARSERS:
        return functools.partial(_decode_name, _PARSERS[kind])
    if dataclasses.is_dataclass(kind):
        return functools.partial(_decode_object, kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return functools.partial(_decode_enum, kind)
    if kind is Any:
        return lambda data, path: data
    return functools.partial(_decode_plain, dict if origin is not None else kind)


def _decode_object(kind: Any, data: object, path: str) -> object:
    if not isinstance(data, Mapping):
        raise _unfit(data, "an object", path)
    members = _members(kind)
    unknown = set(data) - {member.json for member in members}
    if unknown:
        raise unknown_member(min(unknown), kind.__name__, path)
    absent = [member.json for member in members if member.required and member.json not in data]
    if absent:
        raise InvalidParameter(f"Required parameter '{path}.{absent[0]}' is missing (null).")
    return kind(
        **{
            member.name: member.decoder(data[member.json], f"{path}.{member.json}")
            for member in members
            if member.json in data
        }
    )


def unknown_member(name: str, kind: str, path: str) -> InvalidParameter:
    return InvalidParameter(
        f"Could not find member {name!r} on object of type '{kind}'. Path '{path}'."
    )


def _decode_tuple(inner: _Decoder, data: object, path: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise _unfit(data, "a list", path)
    return tuple(inner(item, f"{path}[{index}]") for index, item in enumerate(data))


def _decode_enum(kind: type[Enum], data: object, path: str) -> Enum:
    """Azure compares enum values without regard to case."""
    for member in kind:
        if isinstance(data, str) and data.lower() == str(member.value).lower():
            return member
    raise _unfit(data, "one of " + ", ".join(str(member.value) for member in kind), path)


def _decode_name(parse: Callable[[str], object], data: object, path: str) -> object:
    if not isinstance(data, str):
        raise _unfit(data, "a name", path)
    return parse(data)


_PLAIN = {str: "a string", int: "an integer", bool: "true or false", dict: "an object"}


def _decode_plain(kind: type, data: object, path: str) -> object:
    if type(data) is not kind:
        raise _unfit(data, _PLAIN[kind], path)
    return data


def _unfit(data: object, wanted: str, path: str) -> InvalidParameter:
    return InvalidParameter(
        f"Cannot bind parameter {path}: {data!r} is not {wanted}.",
        plain=f"{path}: {data!r} is not {wanted}",
    )


def without_inventory(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """For documents that show a version: the inventory has commands of its own."""
    if report is None:
        return None
    return {camel(key): cased(value) for key, value in report.items() if key != "inventory"}


def cased(value: Any) -> Any:
    """A stored report's JSON with its names spelled as in Azure's."""
    if isinstance(value, Mapping):
        return {camel(key): cased(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cased(item) for item in value]
    return value
