"""JSON schemas of what the commands print, made of the types in `adapters.cli.outputs`."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

from adapters.cli.outputs import MEMBERS, OUTPUTS, Also, MayLack
from adapters.cli.schema import FILE
from pipeline.gallery.documents import camel
from pipeline.model import names
from pipeline.model.resource_names import ResourceName

Schema = dict[str, Any]
NAMES = (
    *(names.GalleryName, names.DefinitionName, names.VersionName, names.VersionNumber),
    *(ResourceName, Path),
)
COMPACT = (",", ":")
PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", types.NoneType: "null"}


def made() -> str:
    """The text of the file that is shipped."""
    maker = _Maker()
    commands = {command: maker.document(kind) for command, kind in OUTPUTS.items()}
    definitions = dict(sorted(maker.definitions.items()))
    return f'{{"commands": {_lines(commands)},\n"$defs": {_lines(definitions)}}}\n'


def _lines(members: Mapping[str, object]) -> str:
    """An object with a line for each member: indented it would be twice as long."""
    lines = (
        f"{json.dumps(name)}: {json.dumps(value, separators=COMPACT)}"
        for name, value in members.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}"


def write() -> bool:
    """Write it again; whether it was another one."""
    text = made()
    if FILE.exists() and FILE.read_text() == text:
        return False
    FILE.write_text(text)
    return True


class _Maker:
    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._kinds: dict[str, Any] = {}

    def document(self, kind: Any) -> Schema:
        """What a command prints: the members, and the version of the schema."""
        schema = self._members(kind)
        schema["properties"] = {"schemaVersion": {"const": 1}} | schema["properties"]
        schema["required"] = ["schemaVersion", *schema["required"]]
        return schema

    def _members(self, kind: Any, *extras: Any) -> Schema:
        """An object with the members of a TypedDict or a dataclass, and those that are added."""
        if typing.get_origin(kind) is typing.Annotated:
            kind, *annotations = typing.get_args(kind)
            extras = (*extras, *annotations)
        schema = self._typed_dict(kind) if typing.is_typeddict(kind) else self._dataclass(kind)
        for extra in extras:
            if isinstance(extra, Also):
                more = self._typed_dict(extra.members)
                schema["properties"] |= more["properties"]
                schema["required"] += more["required"]
            elif isinstance(extra, MayLack):
                schema["required"] = [it for it in schema["required"] if it not in extra.names]
        schema["required"] = sorted(set(schema["required"]))
        return schema

    def _typed_dict(self, kind: Any) -> Schema:
        hints = typing.get_type_hints(kind, include_extras=True)
        return {
            "type": "object",
            "properties": {name: self.schema(hint) for name, hint in hints.items()},
            "required": sorted(kind.__required_keys__),
            "additionalProperties": False,
        }

    def _dataclass(self, kind: Any) -> Schema:
        hints = typing.get_type_hints(kind, include_extras=True)
        properties, required = {}, []
        for item in dataclasses.fields(kind):
            name = item.metadata.get("json") or camel(item.name)
            properties[name] = self.schema(MEMBERS.get((kind, item.name), hints[item.name]))
            if item.default is item.default_factory is dataclasses.MISSING:
                required.append(name)
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def schema(self, kind: Any) -> Schema:
        """Of any type."""
        if isinstance(kind, typing.ForwardRef):
            return {"$ref": f"#/$defs/{kind.__forward_arg__}"}
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.NotRequired, typing.Required):
            return self.schema(arguments[0])
        if origin is typing.Annotated:
            return self._members(kind)
        if origin in (types.UnionType, typing.Union):
            return {"anyOf": [self.schema(item) for item in arguments]}
        if origin is typing.Literal:
            return {"enum": list(arguments)}
        if kind is Any:
            return {}
        if kind in PLAIN:
            return {"type": PLAIN[kind]}
        if kind in NAMES:
            return {"type": "string"}
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.schema(arguments[1])}
        if origin is tuple and arguments[-1] is not Ellipsis:
            return {"type": "array", "prefixItems": [self.schema(item) for item in arguments]}
        if isinstance(origin, type) and issubclass(origin, Sequence | frozenset):
            return {"type": "array", "items": self.schema(arguments[0])}
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"enum": [member.value for member in kind]}
        if isinstance(kind, type) and issubclass(kind, date):
            return {"type": "string", "format": "date-time"}
        return self._named(kind)

    def _named(self, kind: Any) -> Schema:
        name = kind.__name__
        if self._kinds.setdefault(name, kind) is not kind:
            raise ValueError(f"two types are called {name}")
        if name not in self.definitions:
            self.definitions[name] = {}  # it may hold itself
            self.definitions[name] = self._members(kind)
        return {"$ref": f"#/$defs/{name}"}
