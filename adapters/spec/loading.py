"""Reads build specs: YAML within bounds, every document of every file, and every mistake with its
line."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice, product
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from adapters.spec.models import (
    EXCLUDE,
    MODELS,
    AnyDocument,
    DataDisk,
    Document,
    Generalize,
    Matrix,
    Spec,
    Variable,
    Variables,
)
from adapters.spec.variables import Given, Unknown, Values, substituted, variable_file
from pipeline.errors import GalleriaError, InvalidParameter, NotFound
from pipeline.model.spelling import did_you_mean

MAX_BYTES = 128 << 10  # the parser takes 3 s for that
MAX_NODES = 10_000  # aliases, and variables, can make a small file expand without end
MAX_DEPTH = 20
MAX_DOCUMENTS = 100  # of a file
MAX_CELLS = 256  # of a matrix
MAX_ALL = 1000  # of all that is read for one command
TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str")}
STDIN = Path("-")
SUFFIXES = (".yaml", ".yml")


class SpecInvalid(InvalidParameter):
    """A build spec is not what the schema allows; the message has a line per mistake."""

    code = "SpecInvalid"


@dataclass(frozen=True, slots=True)
class Declared:
    """One document, of a matrix one of its combinations, by the file and the line where it begins.
    `name` tells a build from the others."""

    name: str
    file: Path
    line: int
    document: AnyDocument


@dataclass(frozen=True, slots=True)
class Broken:
    """What can't be read of a file: all of it, or one document."""

    name: str
    file: Path
    line: int
    error: GalleriaError


def read_specs(paths: Iterable[Path], given: Given) -> list[Declared | Broken]:
    """Every document of files, of directories (their *.yaml and *.yml) and, as `-`, of stdin, in
    their order; what has a mistake as Broken. The paths in one are relative to its file.

    Raises NotFound for a file or directory that is not there; InvalidParameter for a variable that
    no file declares, and for what is too much in all.
    """
    files = list(_files(paths))
    stems = _stems(files)
    found: list[Declared | Broken] = []
    declared: set[str] = set()
    for file in files:
        read = _SpecFile(file, stems[file], given)
        found += islice(read.documents(), MAX_ALL + 1 - len(found))
        declared |= read.declared
        if len(found) > MAX_ALL:
            raise InvalidParameter(f"more than {MAX_ALL} documents in all: build them in parts")
    unknown = sorted(given.names - declared)
    if unknown and not any(isinstance(item, Broken) for item in found):
        raise InvalidParameter(
            f"no spec declares the variable {unknown[0]!r}{did_you_mean(unknown[0], declared)}"
        )
    return _named_apart(found)


def read_variables(files: Iterable[Path]) -> dict[str, object]:
    """The values of --var-file: mappings in YAML or JSON, later ones over earlier ones."""
    values: dict[str, object] = {}
    for file in files:
        documents = list(_parsed(file, _content(file, "file of variables")))
        for document in documents:
            if not isinstance(document, CommentedMap):
                raise SpecInvalid(f"{file}:1: expected a mapping of variables to values")
            values |= variable_file(file, _Budget(file).mapping(document))
    return values


# --- files ---------------------------------------------------------------------------------------


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    seen = set()
    for path in paths:
        if path != STDIN and path.is_dir():
            inside = sorted(item for item in path.iterdir() if item.suffix in SUFFIXES)
            if not inside:
                raise NotFound(f"no build spec (*.yaml, *.yml) in {path}")
        else:
            inside = [path]
        for file in inside:
            if file in seen:
                raise InvalidParameter(f"the build spec {file} is given twice")
            seen.add(file)
            yield file


def _stems(files: Sequence[Path]) -> dict[Path, str]:
    """What tells files from each other: their names, and of directories what they don't share."""
    parents = [file.absolute().parent.parts for file in files if file != STDIN]
    shared = 0
    while parents and all(part[: shared + 1] == parents[0][: shared + 1] for part in parents):
        shared += 1
        if shared >= min(map(len, parents)):
            break
    return {
        file: "stdin"
        if file == STDIN
        else _tame("-".join(file.absolute().with_suffix("").parts[shared:]))
        for file in files
    }


def _tame(text: str) -> str:
    """A text as a part of a build's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[-60:].lstrip("._-") or "x"


def _content(path: Path, kind: str) -> bytes:
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"no such {kind}: {path}") from None
    if len(content) > MAX_BYTES:
        raise SpecInvalid(f"{path}: larger than {MAX_BYTES} bytes")
    return content


def _parsed(path: Path, content: bytes) -> Iterator[object]:
    """The documents of a file; empty ones are left out."""
    try:
        for count, document in enumerate(YAML(typ="rt").load_all(content)):
            if count >= MAX_DOCUMENTS:
                raise SpecInvalid(f"{path}: more than {MAX_DOCUMENTS} documents")
            if document is not None:
                yield document
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SpecInvalid(f"{path}:{line}: {error.problem or error.context}") from None
    except RecursionError:
        raise SpecInvalid(f"{path}:1: too deep") from None
    except (YAMLError, ValueError) as error:
        raise SpecInvalid(f"{path}:1: not YAML: {error}") from None


def _named_apart(found: Sequence[Declared | Broken]) -> list[Declared | Broken]:
    """The same, but for builds that have the name of an earlier one: they are broken."""
    taken: dict[str, Declared] = {}
    named: list[Declared | Broken] = []
    for item in found:
        if isinstance(item, Declared) and isinstance(item.document, Spec):
            other = taken.get(item.name)
            if other is not None:
                item = Broken(item.name, item.file, item.line, _twice(item, other))
            else:
                taken[item.name] = item
        named.append(item)
    return named


def _twice(item: Declared, other: Declared) -> SpecInvalid:
    return SpecInvalid(
        f"{item.file}:{item.line}: name: {other.file}:{other.line} has the name {item.name!r}, too",
        hint="give each build a name of its own: name: ${matrix.NAME} tells a matrix's apart",
    )


# --- documents -----------------------------------------------------------------------------------


class _SpecFile:
    """The documents of one file, and the variables that they declare for all of it."""

    def __init__(self, file: Path, stem: str, given: Given) -> None:
        self._file = file
        self._stem = stem
        self._given = given
        self._values: dict[str, object] = {}
        self.declared: set[str] = set()

    def documents(self) -> Iterator[Declared | Broken]:
        try:
            trees = list(_parsed(self._file, _content(self._file, "build spec")))
            if not trees:
                raise SpecInvalid(f"{self._file}:1: expected a mapping that begins with apiVersion")
            for tree in trees:
                self._declare(tree)
        except NotFound:
            raise
        except GalleriaError as error:
            yield Broken(self._stem, self._file, 1, error)
            return
        several = len(trees) > 1
        for number, tree in enumerate(trees, 1):
            name = f"{self._stem}.{number}" if several else self._stem
            yield from self._expanded(tree, name)

    def _declare(self, tree: object) -> None:
        if not isinstance(tree, CommentedMap) or "variables" not in tree:
            return
        declared: Mapping[str, Variable] = self._checked(Variables, tree, "variables", {})
        for name, variable in declared.items():
            where = f"{self._file}:{_line_of(tree['variables'], name, 1)}: variables.{name}"
            if name in self.declared:
                raise SpecInvalid(f"{where}: declared twice in this file")
            self.declared.add(name)
            try:
                self._values[name] = self._given.value(name, variable)
            except Unknown as error:
                raise SpecInvalid(f"{where}: {error}") from None

    def _expanded(self, tree: object, name: str) -> Iterator[Declared | Broken]:
        """A document, or one for each combination of its matrix."""
        line = tree.lc.line + 1 if isinstance(tree, CommentedMap | CommentedSeq) else 1
        try:
            if not isinstance(tree, CommentedMap):
                raise SpecInvalid(
                    f"{self._file}:{line}: expected a mapping that begins with apiVersion"
                )
            cells = self._cells(tree)
        except SpecInvalid as error:
            yield Broken(name, self._file, line, error)
            return
        made = [self._one(tree, _cell_name(name, cell), line, cell) for cell in cells]
        wrong = {str(item.error) for item in made if isinstance(item, Broken)}
        if len(wrong) == 1 and all(isinstance(item, Broken) for item in made):
            first = made[0]  # one mistake, whatever the combination
            assert isinstance(first, Broken)  # noqa: S101 - all are
            yield Broken(name, self._file, line, first.error)
            return
        yield from made

    def _cells(self, tree: CommentedMap) -> list[dict[str, object]]:
        if "matrix" not in tree:
            return [{}]
        matrix: Mapping[str, tuple[Any, ...]] = self._checked(
            Matrix, tree, "matrix", {"var": self._values}
        )
        where = f"{self._file}:{_line_of(tree, 'matrix', 1)}: matrix"
        axes = {axis: values for axis, values in matrix.items() if axis != EXCLUDE}
        left_out = matrix.get(EXCLUDE, ())
        if not axes:
            raise SpecInvalid(f"{where}: has no values")
        for rule in left_out:
            if not isinstance(rule, dict) or not rule or not set(rule) <= set(axes):
                raise SpecInvalid(f"{where}.{EXCLUDE}: {rule!r} is no value by the name of an axis")
        count = 1
        for values in axes.values():
            count *= len(values)
        if count > MAX_CELLS:
            raise SpecInvalid(f"{where}: {count} combinations, more than {MAX_CELLS}")
        cells = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        kept = [
            cell
            for cell in cells
            if not any(all(cell[axis] == rule[axis] for axis in rule) for rule in left_out)
        ]
        if not kept:
            raise SpecInvalid(f"{where}.{EXCLUDE}: leaves no combination")
        return kept

    def _one(
        self, tree: CommentedMap, name: str, line: int, cell: Mapping[str, object]
    ) -> Declared | Broken:
        try:
            plain = _Budget(self._file, {"var": self._values, "matrix": cell}).mapping(tree)
            document = self._validated(TypeAdapter(self._model(tree)), plain, tree)
        except SpecInvalid as error:
            return Broken(name, self._file, line, error)
        if isinstance(document, Spec):
            document = _resolve(document, Path() if self._file == STDIN else self._file.parent)
            name = document.name or name
        return Declared(name, self._file, line, document)

    def _model(self, tree: CommentedMap) -> type[Document]:
        kind = tree.get("kind")
        if "kind" not in tree:
            raise SpecInvalid(f"{self._file}:{tree.lc.line + 1}: kind: is required")
        if not isinstance(kind, str) or kind not in MODELS:
            *most, last = map(repr, MODELS)
            close = did_you_mean(str(kind), MODELS)
            raise SpecInvalid(
                f"{self._file}:{_line_of(tree, 'kind', 1)}: kind: Input should be "
                f"{', '.join(most)} or {last}, got {kind!r}{close}"
            )
        return MODELS[kind]

    def _checked(self, kind: Any, tree: CommentedMap, key: str, values: Values) -> Any:
        """A part of a document that is read before the rest of it."""
        budget = _Budget(self._file, values)
        plain = budget.plain(tree[key], 1, _line_of(tree, key, 1))
        return self._validated(TypeAdapter(kind), plain, tree, key)

    def _validated(
        self, adapter: TypeAdapter[Any], plain: object, tree: CommentedMap, *above: str
    ) -> Any:
        try:
            return adapter.validate_json(json.dumps(plain))
        except ValidationError as error:
            lines = [_describe(self._file, tree, details, above) for details in error.errors()]
            raise SpecInvalid(
                "\n".join(lines), hint="galleria spec schema prints what a spec may hold"
            ) from None


def _cell_name(name: str, cell: Mapping[str, object]) -> str:
    """A build's name with the values that tell it from the others of its matrix."""
    parts = [
        str(value.get("name", axis) if isinstance(value, dict) else value)
        for axis, value in cell.items()
    ]
    return "-".join([name, *map(_tame, parts)])


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


# --- trees ---------------------------------------------------------------------------------------


class _Budget:
    """Turns ruamel's tree, which knows lines, into JSON data with the values of references, within
    bounds."""

    def __init__(self, path: Path, values: Values | None = None) -> None:
        self._path = path
        self._values = values
        self._left = MAX_NODES

    def mapping(self, tree: CommentedMap) -> dict[str, Any]:
        """A whole document; its variables are not looked into."""
        found = {}
        for key, item in tree.items():
            kept = self._values
            if key == "variables":
                self._values = None
            found[str(key)] = self.plain(item, 1, _line_of(tree, key, 1))
            self._values = kept
        return found

    def plain(self, value: object, depth: int = 0, line: int = 1) -> object:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise SpecInvalid(f"{self._path}: too deep, or its aliases expand to too much")
        if isinstance(value, CommentedMap | CommentedSeq | TaggedScalar):
            self._check_tag(value.tag.value, line)
        if isinstance(value, TaggedScalar):
            return self._text(str(value.value), depth, line)
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
        if isinstance(value, str):
            return self._text(str(value), depth, line)
        if value is None or isinstance(value, bool | int | float):
            return value
        raise SpecInvalid(f"{self._path}:{line}: {type(value).__name__} is no part of a build spec")

    def _text(self, text: str, depth: int, line: int) -> object:
        if self._values is None or "${" not in text:
            return text
        try:
            found = substituted(text, self._values)
        except Unknown as error:
            raise SpecInvalid(f"{self._path}:{line}: {error}") from None
        self._spend(found, depth, line)
        return found

    def _spend(self, value: object, depth: int, line: int) -> None:
        """Count what was put in as if it had been written there."""
        self._left -= 1 + (len(value) >> 10 if isinstance(value, str) else 0)
        if self._left < 0 or depth > MAX_DEPTH:
            raise SpecInvalid(f"{self._path}:{line}: the values of variables are too much, or deep")
        if isinstance(value, Mapping | list):
            for item in value.values() if isinstance(value, Mapping) else value:
                self._spend(item, depth + 1, line)

    def _check_tag(self, tag: str | None, line: int) -> None:
        if tag is not None and tag not in TAGS:
            raise SpecInvalid(f"{self._path}:{line}: the tag {tag!r} is not known in a build spec")


def _line_of(node: object, key: object, otherwise: int) -> int:
    """The line of a key or an item; what comes by an alias has none of its own."""
    if not isinstance(node, CommentedMap | CommentedSeq):
        return otherwise
    places = node.lc.data or {}
    return places[key][0] + 1 if key in places else otherwise


def _describe(
    path: Path, document: CommentedMap, details: ErrorDetails, above: tuple[str, ...] = ()
) -> str:
    line, keys = _locate(document, (*above, *details["loc"]))
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
    line = document.lc.line + 1
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
