"""What of the guides is made from the code: commands, errors, configuration, operations.

A block of a page stands between `<!-- generated: NAME -->` and `<!-- end -->`. `scripts/docs`
writes all of them again; tests/unit/test_docs.py fails when one differs.
"""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import ModuleType

import click

import adapters
import pipeline
from adapters.cli import EXIT_STATUSES
from adapters.cli.commands import COMMANDS, cli
from adapters.config import Config
from adapters.config.values import MEANINGS
from pipeline.errors import GalleriaError
from pipeline.guest.profiles import DEFAULT, OPERATIONS, PROFILES

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "adapters" / "cli" / "guide"
_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def renewed(text: str) -> str:
    """A page with its generated blocks made again."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n{found[3]}", text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# --- commands ------------------------------------------------------------------------------------


def commands() -> str:
    context = click.Context(cli, info_name="galleria")
    overview = [f"- `{name}`: {_escaped(text)}" for name, (_, text) in COMMANDS.items()]
    shared = [_option(option, context) for option in cli.params if isinstance(option, click.Option)]
    parts = [
        "### The commands\n\n" + "\n".join(overview) + "\n",
        "### Options of every command\n\nThey may stand before the command or after it.\n\n"
        + "\n".join(shared)
        + "\n",
        *(_command(name, context, "##") for name in cli.list_commands(context)),
    ]
    return "\n".join(parts)


def _command(name: str, parent: click.Context, level: str) -> str:
    assert isinstance(parent.command, click.Group)
    command = parent.command.get_command(parent, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent)
    parts = [f"{level} {context.command_path}\n", *_help(command.help or "")]
    if isinstance(command, click.Group):
        below = command.list_commands(context)
        return "\n".join([*parts, *(_command(each, context, "###") for each in below)])
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts.append(f"```\n{usage}\n```\n")
    options = [
        _option(option, context)
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden
    ]
    return "\n".join([*parts, *(["\n".join(options) + "\n"] if options else [])])


def _help(text: str) -> Iterator[str]:
    """The paragraphs of a help text; what click leaves as it is (\\b) becomes a block of code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            kept = paragraph.removeprefix("\b").strip("\n")
            yield f"```\n{kept}\n```\n"
        else:
            yield _escaped(" ".join(paragraph.split())) + "\n"


def _option(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None or option.hidden
    names, text = record or ("", "")
    return f"- `{names}`: {_escaped(' '.join(text.split()))}".rstrip(": ")


def _escaped(text: str) -> str:
    """Characters that Markdown, or a table of it, would take for its own."""
    return re.sub(r"([*<|])", r"\\\1", text)


# --- errors --------------------------------------------------------------------------------------


def statuses() -> str:
    rows = []
    found = codes()
    for status, meaning in EXIT_STATUSES.items():
        named = sorted(code for exit_status, code in found if exit_status == status)
        rows.append((str(status), meaning, ", ".join(f"`{code}`" for code in named)))
    return table(("status", "meaning", "codes in `--json`"), rows)


def error_classes() -> str:
    own = {
        kind.code: kind for kind in _tree(GalleriaError) if kind.__name__.strip("_") == kind.code
    }
    rows = [
        (f"`{code}`", str(kind.exit_status), _escaped(_first_paragraph(kind)))
        for code, kind in sorted(own.items(), key=lambda row: (row[1].exit_status, row[0]))
    ]
    return table(("code", "status", "meaning"), rows)


def _first_paragraph(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def codes() -> set[tuple[int, str]]:
    """Exit status and code of every error: those of the classes, and those that are given to one
    where it is raised."""
    modules = [module for package in (pipeline, adapters) for module in _modules(package)]
    kinds = list(_tree(GalleriaError))
    statuses = {kind.__name__: kind.exit_status for kind in kinds}
    own = {kind.__name__: kind.code for kind in kinds}
    return {(kind.exit_status, kind.code) for kind in kinds} | {
        (statuses[name], code)
        for module in modules
        for name, code in _given(Path(str(module.__file__)), own)
        if name in statuses
    }


def _given(file: Path, own: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Class and code of every error that is made with another code than its class has; `own` are
    the codes of classes, for those that take one of them."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            for keyword in node.keywords:
                match keyword:
                    case ast.keyword(arg="code", value=ast.Constant(value=str(code))):
                        yield node.func.id, code
                    case ast.keyword(
                        arg="code", value=ast.Attribute(value=ast.Name(id=other), attr="code")
                    ) if other in own:
                        yield node.func.id, own[other]


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        # what runs in a process of its own needs the distribution's Python, or starts at once
        if found.name.rpartition(".")[2] not in ("__main__", "env", "helper", "inflater"):
            yield importlib.import_module(found.name)


def _tree(kind: type[GalleriaError]) -> Iterator[type[GalleriaError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


# --- configuration, operations -------------------------------------------------------------------


def configuration() -> str:
    defaults = {item.name: item.default for item in fields(Config)}
    rows = []
    for key, meaning in MEANINGS.items():
        default = defaults.get(key, "")  # who asks is none of the Config
        shown = "" if default in (MISSING, "") else f"`{_toml(default)}`"
        rows.append((f"`{key}`", f"`GALLERIA_{key.upper()}`", shown, meaning))
    return table(("key", "variable", "default", "meaning"), rows)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value >> 40} TiB" if isinstance(value, int) else str(value)


def operations() -> str:
    profiles = [profile for profile in PROFILES if profile.operations]
    names = [profile.name for profile in profiles]
    rows = []
    for item in OPERATIONS:
        if "windows" not in item.families:
            marks = ["x" if item.name in chosen.operations else "" for chosen in profiles]
            guests = "" if item.families == ("linux",) else f" ({', '.join(item.families)})"
            rows.append((f"`{item.name}`", _escaped(item.heading) + guests, *marks))
    return table(("operation", "does", *names), rows)


def windows_operations() -> str:
    rows = [
        (f"`{item.name}`", _escaped(item.heading), "yes" if item.default else "`--enable`")
        for item in OPERATIONS
        if "windows" in item.families
    ]
    return table(("operation", "does", "by default"), rows)


def profiles() -> str:
    rows = []
    for profile in PROFILES:
        default = " (default)" if profile.name == DEFAULT else ""
        rows.append((f"`{profile.name}`{default}", _escaped(profile.description)))
    return table(("profile", "for"), rows)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "statuses": statuses,
    "error-classes": error_classes,
    "configuration": configuration,
    "operations": operations,
    "windows-operations": windows_operations,
    "profiles": profiles,
}
