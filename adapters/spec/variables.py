"""Variables of build specs: declared with a type and a default, given on the command line or in
files, and put into the parsed document as values. Nothing of them is ever read as YAML."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.spec.models import NAME, Kind, Variable
from pipeline.errors import InvalidParameter

REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_PATH = re.compile(rf"(var|matrix)((?:\.{NAME})+)")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
MAX_TEXT = 64 << 10  # characters of a text that values were put into
Values = Mapping[str, Any]  # "var" and "matrix": by name

TYPES: Mapping[Kind, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "map": lambda value: isinstance(value, dict),
}


class Unknown(ValueError):
    """A reference to what there is not, or a value that does not fit where it is put."""


@dataclass(frozen=True, slots=True)
class Given:
    """What is given for variables: `texts` by --var, which win, and `values` by --var-file, the
    later file's over the earlier's."""

    texts: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return {*self.texts, *self.values}

    def value(self, name: str, declared: Variable) -> object:
        """The variable's value. Raises Unknown when it has none, or one of another type."""
        kind = declared.type
        if name in self.texts:
            return _from_text(name, kind, self.texts[name])
        value = self.values.get(name, declared.default)
        if value is None:
            raise Unknown(f"the variable {name} has no value: give --var {name}=VALUE")
        if not TYPES[kind](value):
            raise Unknown(f"the variable {name} is of type {kind}, and its value is {value!r}")
        return value


def given_texts(items: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE` items of --var."""
    found = {}
    for item in items:
        name, separator, text = item.partition("=")
        if not separator or not re.fullmatch(NAME, name):
            raise InvalidParameter(
                f"--var: {item!r} is not NAME=VALUE", hint="such as --var release=bookworm"
            )
        found[name] = text
    return found


def _from_text(name: str, kind: Kind, text: str) -> object:
    if kind == "string":
        return text
    value: object = None
    if kind == "integer" and _INTEGER.fullmatch(text):
        value = int(text)
    elif kind == "boolean":
        value = {"true": True, "false": False}.get(text.lower())
    elif kind in ("list", "map"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
    if not TYPES[kind](value):
        how = " in JSON" if kind in ("list", "map") else ""
        raise Unknown(f"the variable {name} is of type {kind}{how}, and --var gives {text!r}")
    return value


def substituted(text: str, values: Values) -> Any:
    """The text with what its references name. One that is nothing but a reference becomes that
    value, with its type; in a longer text only strings, integers and booleans can stand. `$${` is
    `${`. What was put in is not looked at again."""
    whole = REFERENCE.fullmatch(text)
    if whole is not None and whole[1] is not None:
        return _looked_up(whole[0], values)
    made = REFERENCE.sub(lambda found: _part(found, values), text)
    if len(made) > MAX_TEXT:
        raise Unknown(f"longer than {MAX_TEXT} characters with the values of variables")
    return made


def _part(found: re.Match[str], values: Values) -> str:
    if found[1] is None:
        return "${"
    value = _looked_up(found[0], values)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    raise Unknown(f"{found[0]} is no text: it can only stand alone")


def _looked_up(reference: str, values: Values) -> Any:
    path = _PATH.fullmatch(reference[2:-1]) if reference.endswith("}") else None
    if path is None:
        raise Unknown(f"{reference!r} is no reference such as ${{var.NAME}}; $${{ is a plain ${{")
    value: Any = values.get(path[1], {})
    for step in path[2][1:].split("."):
        if not isinstance(value, Mapping) or step not in value:
            raise Unknown(f"there is no {reference[2:-1]}")
        value = value[step]
    return value


def variable_file(path: Path, document: Mapping[str, object]) -> dict[str, object]:
    """The values of a --var-file, by name."""
    wrong = [name for name in document if not re.fullmatch(NAME, name)]
    if wrong:
        raise InvalidParameter(f"{path}: {wrong[0]!r} is no name of a variable")
    return dict(document)
