"""The commands of the documentation: read from its pages, run in order, their output compared.

A page's blocks of code that begin with ```console hold lines to type ("$ ...") and what they print:

    ```console
    $ galleria show corp/web/1.0.0
    ...
    ```

White space does not count, and `...` stands for anything. Comments before a block are not shown to
the reader:

    <!-- run: galleria gallery create corp -->    runs, so that the block finds what it needs
    <!-- fails: 6 -->                             the block's last command ends so
    <!-- not run: needs a libvirt domain -->      only parsed: options and arguments have to exist
    <!-- file: web.yaml -->                       the block is the content of a file
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from adapters.cli.commands import COMMANDS, cli

_PART = re.compile(
    r"^ *```(?P<kind>\w*)\n(?P<body>.*?)^ *```$"
    r"|^<!-- (?P<mark>run|fails|not run|file): (?P<text>.+?) -->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Line:
    """One command of a page. `why_not` says why it does not run here."""

    where: str
    command: str
    output: str = ""
    status: int = 0
    why_not: str = ""

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command, comments=True)

    @property
    def galleria(self) -> list[str] | None:
        """The words after `galleria`; None when the command is another program's."""
        program, *words = self.words
        if program not in ("galleria", "scripts/run") or words[:1] in ([], ["--dry-run"]):
            return None
        ends = [index for index, word in enumerate(words) if word in ("|", ">", "&&")]
        return words[: ends[0]] if ends else words


@dataclass(frozen=True, slots=True)
class File:
    """A file that a page shows whole."""

    where: str
    name: str
    content: str


def parts_of(page: Path) -> Iterator[Line | File]:
    """The commands and files of a page, in order."""
    text = page.read_text(encoding="utf-8")
    status, why_not, file = 0, "", ""
    for found in _PART.finditer(text):
        where = f"{page.name}:{text.count(chr(10), 0, found.start()) + 1}"
        match found["mark"]:
            case "run":
                yield Line(where, found["text"])
            case "fails":
                status = int(found["text"])
            case "not run":
                why_not = found["text"]
            case "file":
                file = found["text"]
            case _:
                if file:
                    yield File(where, file, found["body"])
                elif found["kind"] == "console":
                    yield from _typed(found["body"], where, status, why_not)
                status, why_not, file = 0, "", ""


def lines_of(page: Path) -> Iterator[Line]:
    """The commands of a page, in order."""
    return (part for part in parts_of(page) if isinstance(part, Line) and part.words)


def _typed(body: str, where: str, status: int, why_not: str) -> Iterator[Line]:
    """Each command of a block, continued lines joined, with the output below it."""
    joined = body.replace("\\\n", "")
    typed = re.split(r"^ *\$ ", joined, flags=re.MULTILINE)[1:]
    for number, part in enumerate(typed, 1):
        command, _, output = part.partition("\n")
        yield Line(where, command, output, status if number == len(typed) else 0, why_not)


def spans_of(page: Path) -> Iterator[Line]:
    """Commands that a page names in its sentences: with `galleria` before them, or without."""
    for span in _spans(page):
        words = span.split()
        if words[0] == "galleria":
            yield Line(page.name, span)
        elif words[0] in COMMANDS and " --" in span:
            yield Line(page.name, f"galleria {span}")


def options_of(page: Path) -> set[str]:
    """Options that a page names by themselves: of galleria, if it does not say of whom."""
    return {re.split("[ =,]", span)[0] for span in _spans(page) if span.startswith("--")}


def all_options(command: click.Command = cli) -> set[str]:
    """Every option of galleria."""
    found = {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= all_options(below)
    return found | {"--help"}


def _spans(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if span.strip():
            yield " ".join(span.split())


def matches(expected: str, output: str) -> bool:
    """Whether output is as expected; `...` stands for anything, white space does not count."""
    parts = [re.escape(" ".join(part.split())) for part in expected.split("...")]
    pattern = ".*".join(part.replace(r"\ ", " ") for part in parts)
    return re.fullmatch(rf"\s*{pattern}\s*", " ".join(output.split()) + " ") is not None


def check(words: list[str], *, whole: bool) -> None:
    """Raise click.UsageError when galleria has no such command or option; with `whole` also when
    an argument or a required option is missing."""
    context = click.Context(cli, info_name="galleria")
    command: click.Command = cli
    given, rest = _parsed(command, context, words)
    while isinstance(command, click.Group) and rest and not rest[0].isupper():
        name, found, rest = command.resolve_command(context, rest)
        if found is None:
            raise click.UsageError(f"no command {name}", context)
        command, context = found, click.Context(found, info_name=name, parent=context)
        given, rest = _parsed(command, context, rest)
    if given.get("help") is True or given.get("version") is True:
        return
    if isinstance(command, click.Group):
        if whole:
            raise click.UsageError("a command is missing", context)
    elif rest:
        raise click.UsageError(f"too many arguments: {rest}", context)
    missing = [item.name for item in command.params if item.required and not _is_given(item, given)]
    if missing and whole:
        raise click.UsageError(f"missing: {missing}", context)


def _parsed(
    command: click.Command, context: click.Context, words: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Options and arguments as they stand, without their values being looked at; and the rest."""
    given, rest, _ = command.make_parser(context).parse_args(args=list(words))
    return given, rest


def _is_given(parameter: click.Parameter, given: dict[str, Any]) -> bool:
    """Whether there is a value (and not click's mark for none)."""
    value = given.get(parameter.name or "")
    return isinstance(value, str | list | tuple) and bool(value)
