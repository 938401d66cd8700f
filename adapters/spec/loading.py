"""Reads build specs: YAML within bounds, and every mistake with its line."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from adapters.spec.models import DataDisk, Generalize, Spec
from pipeline.errors import InvalidParameter, NotFound

MAX_BYTES = 128 << 10  # the parser takes 3 s for that
MAX_NODES = 10_000  # aliases can make a small file expand without end
TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str")}


class SpecInvalid(InvalidParameter):
    """A build spec is not what the schema allows; the message has a line per mistake."""

    code = "SpecInvalid"


def load_spec(path: Path) -> Spec:
    """Read and check one spec; its disk paths come back joined to the spec's directory.

    Raises NotFound, or SpecInvalid with `file:line: key: what is wrong` for every mistake.
    """
    document = _read(path)
    budget = _Budget(path)
    try:
        spec = Spec.model_validate_json(json.dumps(budget.plain(document)))
    except ValidationError as error:
        lines = [_describe(path, document, details) for details in error.errors()]
        raise SpecInvalid(
            "\n".join(lines), hint="galleria spec schema prints what a spec may hold"
        ) from None
    return _resolve(spec, path.parent)


def _resolve(spec: Spec, directory: Path) -> Spec:
    source = spec.source
    files = {
        name: str(directory / value)
        for name in ("os_disk", "ova", "qmp", "qga", "extents_from")
        if (value := getattr(source, name)) is not None
    }
    if source.vm is not None and source.vm.endswith(".xml"):
        files["vm"] = str(directory / source.vm)
    if source.box is not None:
        files["box"] = _box(directory, source.box)
    below = _joined(directory, source.os_disk_backing)
    disks = tuple(_resolve_disk(disk, directory) for disk in source.data_disks)
    resolved = source.model_copy(update={**files, "os_disk_backing": below, "data_disks": disks})
    wanted = spec.generalize
    if isinstance(wanted, Generalize):
        own = {
            "scripts": _joined(directory, wanted.scripts),
            "agents": _joined(directory, wanted.agents),
        }
        wanted = wanted.model_copy(update=own)
    return spec.model_copy(update={"source": resolved, "generalize": wanted})


def _box(directory: Path, text: str) -> str:
    """A file or a directory beside the spec; else a URL, or what Vagrant knows a box by."""
    path = directory / text
    is_file = path.exists() or (text.endswith(".box") and "://" not in text)
    return str(path) if is_file else text


def _resolve_disk(disk: DataDisk, directory: Path) -> DataDisk:
    path = None if disk.path is None else str(directory / disk.path)
    return disk.model_copy(update={"path": path, "backing": _joined(directory, disk.backing)})


def _joined(directory: Path, files: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(directory / file) for file in files)


def _read(path: Path) -> CommentedMap:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"no such build spec: {path}") from None
    if len(content) > MAX_BYTES:
        raise SpecInvalid(f"{path}: larger than {MAX_BYTES} bytes")
    try:
        document = YAML(typ="rt").load(content)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SpecInvalid(f"{path}:{line}: {error.problem or error.context}") from None
    except RecursionError:
        raise SpecInvalid(f"{path}:1: too deep") from None
    except (YAMLError, ValueError) as error:
        raise SpecInvalid(f"{path}:1: not YAML: {error}") from None
    if not isinstance(document, CommentedMap):
        raise SpecInvalid(f"{path}:1: expected a mapping that begins with apiVersion")
    return document


class _Budget:
    """Turns ruamel's tree, which knows lines, into JSON data, within bounds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = MAX_NODES

    def plain(self, value: object, depth: int = 0, line: int = 1) -> object:
        self._left -= 1
        if self._left < 0 or depth > 20:
            raise SpecInvalid(f"{self._path}: too deep, or its aliases expand to too much")
        if isinstance(value, CommentedMap | CommentedSeq | TaggedScalar):
            self._check_tag(value.tag.value, line)
        if isinstance(value, TaggedScalar):
            return str(value.value)
        if isinstance(value, CommentedMap):
            return {
                str(key): self.plain(item, depth + 1, _line_of(value, key, line))
                for key, item in value.items()
            }
        if isinstance(value, CommentedSeq):
            return [
                self.plain(item, depth + 1, _line_of(value, number, line))
                for number, item in enumerate(value)
            ]
        if isinstance(value, date):
            return value.isoformat()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise SpecInvalid(f"{self._path}:{line}: {type(value).__name__} is no part of a build spec")

    def _check_tag(self, tag: str | None, line: int) -> None:
        if tag is not None and tag not in TAGS:
            raise SpecInvalid(f"{self._path}:{line}: the tag {tag!r} is not known in a build spec")


def _line_of(node: CommentedMap | CommentedSeq, key: object, otherwise: int) -> int:
    """The line of a key or an item; what comes by an alias has none of its own."""
    places = node.lc.data or {}
    return places[key][0] + 1 if key in places else otherwise


def _describe(path: Path, document: CommentedMap, details: ErrorDetails) -> str:
    line, keys = _locate(document, details["loc"])
    message = details["msg"].removeprefix("Value error, ")
    value = details["input"]
    if details["type"] == "missing":
        message = "is required"
    elif details["type"] == "extra_forbidden":
        message = "is not a key that is known here"
    elif not isinstance(value, Mapping | list):
        quotes = ": write it in quotes" if details["type"] == "string_type" else ""
        message = f"{message}, got {value!r}{quotes}" if repr(value) not in message else message
    return f"{path}:{line}: {'.'.join(keys)}: {message}"


def _locate(document: CommentedMap, location: tuple[int | str, ...]) -> tuple[int, list[str]]:
    """The line of a place in the document, and its keys; pydantic's own union tags are left out."""
    node: object = document
    line = 1
    keys = []
    for index, key in enumerate(location):
        if isinstance(node, CommentedMap) and key in node:
            line = node.lc.key(key)[0] + 1
        elif isinstance(node, CommentedSeq) and isinstance(key, int):
            line = node.lc.item(key)[0] + 1
        elif index < len(location) - 1 or not isinstance(node, CommentedMap):
            continue
        else:
            keys.append(str(key))
            break
        keys.append(str(key))
        node = node[key]
    return line, keys
