"""What generalizing does: the options that choose it, and `galleria operations`."""

import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.process.scrub import scrub
from adapters.text import fields
from pipeline.errors import InvalidParameter, NotFound
from pipeline.guest.agents import Agent, parse_agents
from pipeline.guest.operations import Operation, Script
from pipeline.guest.profiles import DEFAULT, OPERATIONS, PROFILES, Plan, select
from pipeline.model.spelling import did_you_mean

Function = TypeVar("Function", bound=Callable[..., Any])

WIDTH = 96
TEXT_LIMIT = 1 << 20  # bytes


def _list_operations(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        _emit_operations(context.ensure_object(Settings))
        context.exit()


def _keep_keys(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    context.ensure_object(Settings).keys = value
    spoken = [secret for _, mark, secret in (text.partition(":key:") for text in value) if mark]
    if spoken and not context.resilient_parsing:
        scrub(spoken)
        click.echo(
            "galleria: warning: every user of this host can read a passphrase on a command line, "
            "and the shell keeps it: use --key-file FILE, or - for standard input",
            err=True,
        )


KEYS = click.option(
    "--key-file",
    "--key",
    multiple=True,
    metavar="FILE|DEVICE:file:FILE",
    expose_value=False,
    callback=_keep_keys,
    help="File with the key of an encrypted (LUKS) volume; - is standard input, /dev/fd/N a "
    "descriptor. DEVICE: its name in the appliance, or its UUID. DEVICE:key:PASSPHRASE works too, "
    "but the list of processes shows it.",
)


def plan_options(function: Function) -> Function:
    """The options that `plan_of` reads."""
    names = [profile.name for profile in PROFILES]
    for option in (
        click.option(
            "--list-operations",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_list_operations,
            help="Show what generalizing can do, and exit.",
        ),
        click.option(
            "--force",
            is_flag=True,
            help="Accept a guest that is not generalized; the version records it.",
        ),
        KEYS,
        click.option(
            "--agents",
            multiple=True,
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="A TOML file that names more agents whose identity goes (repeatable).",
        ),
        click.option("--keep-user", multiple=True, metavar="NAME", help="Keep this account."),
        click.option("--remove-user", multiple=True, metavar="NAME", help="Remove this account."),
        click.option(
            "--skip", multiple=True, metavar="NAME[,NAME...]", help="Skip these operations."
        ),
        click.option(
            "--enable", multiple=True, metavar="NAME[,NAME...]", help="Run these operations, too."
        ),
        click.option(
            "--operations",
            multiple=True,
            metavar="NAME[,NAME...]",
            help="Run only these operations, not those of the profile.",
        ),
        click.option(
            "--profile",
            type=click.Choice(names),
            default=DEFAULT,
            show_default=True,
            help="Which operations run, and which users are removed.",
        ),
    ):
        function = option(function)
    return function


def plan_of(values: Mapping[str, Any]) -> Plan:
    """The plan that the options of `plan_options` ask for."""
    return select(
        values["profile"],
        arguments.names(values["enable"]),
        arguments.names(values["skip"]),
        only=arguments.names(values["operations"]),
        remove_users=values["remove_user"],
        keep_users=values["keep_user"],
        force=values["force"],
        agents=own_agents(values["agents"]),
    )


def own_script(path: Path) -> Script:
    """A script that a build spec names. Raises NotFound, or InvalidParameter for what is none."""
    return Script(path.name, _own_text(path, "script"))


def own_agents(paths: Iterable[Path]) -> tuple[Agent, ...]:
    """The agents that a user's files name. Raises NotFound, or InvalidParameter for what is no
    such file."""
    texts = [_own_text(path, "file of agents") for path in paths]
    return tuple(agent for text in texts for agent in parse_agents(text))


def _own_text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(TEXT_LIMIT + 1)
        if len(content) > TEXT_LIMIT:
            raise InvalidParameter(f"{path} is no {what}: larger than {TEXT_LIMIT} bytes")
        return content.decode()
    except FileNotFoundError:
        raise NotFound(f"there is no {what} {path}") from None
    except UnicodeDecodeError:
        raise InvalidParameter(f"{path} is no {what}: its text is not UTF-8") from None


@click.command(cls=Command)
@click.argument("name", required=False, metavar="[OPERATION]")
@click.option(
    "--profile",
    type=click.Choice([profile.name for profile in PROFILES]),
    help="Only those of this profile.",
)
@click.pass_obj
def operations(settings: Settings, *, name: str | None, profile: str | None) -> None:
    """List what generalizing a guest does.

    Of one OPERATION: why it is done, in which guests, by which profiles, and where.
    """
    if name is None:
        _emit_operations(settings, profile)
        return
    found = next((item for item in OPERATIONS if item.name == name), None)
    if found is None:
        close = did_you_mean(name, (item.name for item in OPERATIONS))
        raise NotFound(
            f"there is no operation {name!r}{close}", hint="galleria operations lists all"
        )
    inside = [item.name for item in PROFILES if name in item.operations]
    rows = [
        ("operation", found.name),
        ("does", _heading(found)),
        ("why", found.why),
        ("guests", ", ".join(found.families)),
        ("profiles", ", ".join(inside)),
        *(("path", path) for path in found.paths),
    ]
    settings.emit({"operation": _document(found) | {"profiles": inside}}, fields(rows))


def _emit_operations(settings: Settings, of: str | None = None) -> None:
    chosen = next((set(item.operations) for item in PROFILES if item.name == of), None)
    shown = [item for item in OPERATIONS if chosen is None or item.name in chosen]
    told = [item for item in PROFILES if of in (None, item.name)]
    profiles = [
        {
            "name": profile.name,
            "description": profile.description,
            "operations": profile.operations,
            "users": profile.users,
            "default": profile.name == DEFAULT,
        }
        for profile in told
    ]
    width = max(len(item.name) for item in OPERATIONS)
    lines = [_wrapped(f"{item.name:{width}}  ", _heading(item), width + 2) for item in shown]
    lines.append("")
    for profile in told:
        mark = " (default)" if profile.name == DEFAULT else ""
        lines.append(_wrapped(f"profile {profile.name}{mark}: ", profile.description, 4))
    document = {"operations": [_document(item) for item in shown], "profiles": profiles}
    settings.emit(document, "\n".join(lines))


def _heading(operation: Operation) -> str:
    return operation.heading + ("" if operation.default else " (not by default)")


def _wrapped(title: str, text: str, indent: int) -> str:
    return textwrap.fill(title + text, WIDTH, subsequent_indent=" " * indent)


def _document(operation: Operation) -> dict[str, object]:
    return {
        "name": operation.name,
        "heading": operation.heading,
        "why": operation.why,
        "default": operation.default,
        "families": operation.families,
        "paths": operation.paths,
    }
