"""`galleria schema`: the JSON schema of what a command prints with --json."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command

# made by scripts/docs of the types in `outputs`
FILE = Path(__file__).with_name("outputs.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = re.compile(r'"#/\$defs/(\w+)"')


@click.command(cls=Command)
@click.argument("command", nargs=-1, metavar="[COMMAND...]")
@click.pass_obj
def schema(settings: Settings, *, command: tuple[str, ...]) -> None:
    """Print the JSON schema of what a command prints with --json.

    Such as: galleria schema gallery show. `error` is what a command prints when it fails. Without
    a COMMAND: list the commands that have one.
    """
    from pipeline.errors import NotFound
    from pipeline.model.spelling import did_you_mean

    bundle = json.loads(FILE.read_bytes())
    name = " ".join(command)
    if not name:
        known = list(bundle["commands"])
        settings.emit({"commands": known}, "\n".join(known))
        return
    if name not in bundle["commands"]:
        raise NotFound(
            f"there is no schema of {name!r}{did_you_mean(name, bundle['commands'])}",
            hint="galleria schema lists the commands that have one",
        )
    settings.emit_document(schema_of(name, bundle))


def schema_of(command: str, bundle: Mapping[str, Any]) -> dict[str, Any]:
    """One command's schema, with the definitions that it needs."""
    document: dict[str, Any] = {
        "$schema": DIALECT,
        "title": "the error of a command" if command == "error" else f"galleria {command} --json",
        **bundle["commands"][command],
    }
    needed: dict[str, Any] = {}
    waiting = _REFERENCE.findall(json.dumps(document))
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = bundle["$defs"][name]
            waiting += _REFERENCE.findall(json.dumps(needed[name]))
    return document | ({"$defs": dict(sorted(needed.items()))} if needed else {})
