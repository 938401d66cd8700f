"""Commands that are imported only when they are used, and that share the global options."""

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from adapters.cli.completion import type_of
from adapters.cli.context import Settings
from adapters.text import printable

PROGRESS_MODES = ("auto", "bar", "plain", "json", "none")


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep a global option, wherever on the command line it stands."""
    if value is not None and parameter.name is not None:
        setattr(context.ensure_object(Settings), parameter.name, value)


def global_options(*, hidden: bool) -> list[click.Parameter]:
    """The options that every command has. They are shown in the help of `galleria` alone."""

    def option(names: str, help: str, **how: Any) -> click.Option:
        return click.Option(
            names.split(), help=help, hidden=hidden, expose_value=False, callback=_remember, **how
        )

    path = click.Path(path_type=Path)
    acting = "Act as this principal. Default: the local operator."
    subscription = "Subscription used to resolve short names. Default: the default one."
    group = "Resource group used to resolve short names. Default: galleria."
    modes = click.Choice(PROGRESS_MODES)
    flag = {"is_flag": True, "default": None}
    return [
        option("--config", "Read this configuration instead.", type=path, metavar="FILE"),
        option("--as principal", acting, metavar="PRINCIPAL"),
        option("--subscription given_subscription", subscription, metavar="ID"),
        option("--resource-group given_group", group, metavar="GROUP"),
        option("--json", "Print the result as one JSON object.", **flag),
        option("--quiet", "No progress; only warnings and errors.", **flag),
        option("--progress", "How to show progress (on stderr).", type=modes),
        option(
            "--verbose", "Log each step; show where errors come from, and Azure's messages.", **flag
        ),
    ]


class PipeBroken(Exception):
    """A BrokenPipeError, kept from click: that would end the process without a word, whichever
    pipe it was."""


class Command(click.Command):
    """A command that takes the global options as well."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*self.params, *global_options(hidden=True)]
        for parameter in self.params:
            completed = type_of(parameter.metavar)
            if completed is not None and parameter.type is click.STRING:
                parameter.type = completed

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        many = {
            name: str(parameter.metavar)
            for parameter in self.params
            if str(parameter.metavar).endswith("...")
            for name in parameter.opts
        }
        return super().parse_args(ctx, repeated(args, many))

    def invoke(self, ctx: click.Context) -> Any:
        self._qualify(ctx)
        start_logging(verbose=ctx.ensure_object(Settings).verbose)
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise PipeBroken(str(error)) from error

    def _qualify(self, ctx: click.Context) -> None:
        """Give short names the scope of the global options: they become ARM ids."""
        settings = ctx.ensure_object(Settings)
        if settings.given_subscription is None and settings.given_group is None:
            return
        from pipeline.model.names import DEFAULT_RESOURCE_GROUP, DEFAULT_SUBSCRIPTION, qualified

        scope = settings.subscription, settings.resource_group
        if scope == (DEFAULT_SUBSCRIPTION, DEFAULT_RESOURCE_GROUP):
            return
        for parameter in self.params:
            metavar = str(parameter.metavar or "").lstrip("[")
            value = ctx.params.get(parameter.name or "")
            if metavar.startswith("GALLERY") and isinstance(value, str):
                ctx.params[parameter.name or ""] = qualified(value, *scope)


def repeated(args: list[str], many: Mapping[str, str]) -> list[str]:
    """Arguments in which an option that takes several words, as `az` has them, stands before each:
    `many` has the metavar of each such option. The names of versions, which may follow, have a
    slash; of tags and the like only NAME=VALUE counts as one more word."""
    found: list[str] = []
    option, first = "", False
    for index, word in enumerate(args):
        if word == "--":
            return [*found, *args[index:]]
        if word.startswith("-"):
            option, first = (word, True) if word in many else ("", False)
        elif option and not first:
            plain = many[option].startswith("REGION[")
            if "/" in word.partition("=")[0] or not (plain or "=" in word):
                option = ""
            else:
                found.append(option)
        first = option == word
        found.append(word)
    return found


class Group(click.Group):
    """A group of such commands: `@group.command()`."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*self.params, *global_options(hidden=True)]


class LazyGroup(click.Group):
    """A group that knows its commands' modules and one-line helps, and imports the one it runs."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy
        self.params = [*self.params, *global_options(hidden=False)]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)  # in the order of use, not of the alphabet

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        target, _ = self.lazy[cmd_name]
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{target} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        longer = " ".join(args[:2])
        if longer in self.lazy:  # a command of two words, of which the first may be one, too
            return longer, self.get_command(ctx, longer), args[2:]
        if not (name in self.lazy or name.startswith("-") or ctx.resilient_parsing):
            from pipeline.model.spelling import did_you_mean

            close = did_you_mean(name, self.lazy)
            raise click.UsageError(f"there is no command {name!r}{close}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, help) in self.lazy.items()])


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(printable(line) for line in super().format(record).split("\n"))


def start_logging(*, verbose: bool) -> None:
    """Send logs to stderr: warnings, or with `verbose` everything galleria says."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("pipeline", "adapters"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.WARNING)
