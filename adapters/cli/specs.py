"""`galleria spec`: build specs without building."""

import json
from pathlib import Path

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.text import printable


@click.group(cls=Group)
def spec() -> None:
    """Check build specs, and print their JSON schema."""


@spec.command("schema")
@click.pass_obj
def show_schema(settings: Settings) -> None:
    """Print the JSON schema of a build spec, for editors and CI."""
    from adapters.spec import schema

    settings.emit({"schema": schema()}, json.dumps(schema(), indent=2))


@spec.command("check")
@click.argument(
    "specs", nargs=-1, required=True, metavar="SPEC...", type=click.Path(path_type=Path)
)
@click.pass_obj
def check(settings: Settings, *, specs: tuple[Path, ...]) -> None:
    """Check build specs; nothing else is read or written."""
    from adapters.spec import load_spec

    found = [(path, load_spec(path)) for path in specs]
    settings.emit(
        {"specs": [{"file": path, **item.model_dump(by_alias=True)} for path, item in found]},
        "\n".join(f"{printable(str(path))}: valid" for path, _ in found),
    )
