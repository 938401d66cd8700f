"""The command line in this process: lazy commands, global options, errors and statuses."""

import errno
import importlib
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator

import click
import pytest

from adapters import cli
from adapters.cli import arguments, commands, context
from adapters.cli.commands import COMMANDS
from adapters.cli.context import Settings
from adapters.cli.guide import guide_of
from adapters.cli.lazy import Command, LazyGroup, repeated
from pipeline import errors
from pipeline.model import AdditionalReplicaSet, Feature, StorageAccountType, TargetRegion


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """`run` installs handlers: give pytest its own back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command line whose only command, `do`, calls what it is given."""

    def start(args: list[str], action: Callable[[Settings], object]) -> int:
        @click.command(cls=Command)
        @click.pass_obj
        def do(settings: Settings) -> None:
            """Do it."""
            action(settings)

        monkeypatch.setattr(sys.modules[__name__], "do", do, raising=False)
        group = LazyGroup("galleria", lazy={"do": (f"{__name__}:do", "Do it.")})
        monkeypatch.setattr(cli, "cli", group)
        return cli.run(args)

    return start


def raising(error: BaseException) -> Callable[[Settings], object]:
    def action(settings: Settings) -> None:
        raise error

    return action


# --- commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_says_what_the_list_says(name: str) -> None:
    command = commands.cli.get_command(click.Context(commands.cli), name)
    assert command is not None
    assert command.get_short_help_str(limit=200) == COMMANDS[name][1]
    for leaf in leaves(command):
        assert isinstance(leaf, Command)
        assert leaf.help, f"{name} {leaf.name} has no help"
        shared = {"--config", "--json", "--quiet", "--progress", "--verbose"}
        assert shared <= {opt for parameter in leaf.params for opt in parameter.opts}
        silent = [
            parameter.opts[0]
            for parameter in leaf.params
            if isinstance(parameter, click.Option) and not (parameter.help or parameter.hidden)
        ]
        assert not silent, f"{name} {leaf.name}: options without help"


def leaves(command: click.Command) -> Iterator[click.Command]:
    if not isinstance(command, click.Group):
        yield command
        return
    for below in command.commands.values():
        yield from leaves(below)


def test_listing_imports_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"imported {name}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    assert cli.run(["--help"]) == 0


def test_global_options_stand_anywhere(run: Callable[..., int]) -> None:
    seen: list[Settings] = []
    for args in (
        ["--quiet", "--json", "do"],
        ["do", "--json", "--quiet"],
        ["--json", "do", "--quiet"],
    ):
        assert run(args, seen.append) == 0
    assert [(each.json, each.quiet, each.verbose) for each in seen] == [(True, True, False)] * 3
    assert run(["do", "--progress", "json"], seen.append) == 0
    assert seen[-1].progress == "json"


# --- errors ---------------------------------------------------------------------------------------


def tree(kind: type[errors.GalleriaError]) -> Iterator[type[errors.GalleriaError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from tree(below)


def test_every_error_has_a_status_of_the_table() -> None:
    statuses = {kind.exit_status for kind in tree(errors.GalleriaError)}
    assert statuses == {1, 2, 3, 4, 5, 6, 7, 8}
    assert statuses < set(cli.EXIT_STATUSES)


def test_the_guide_has_the_table_of_statuses() -> None:
    rows = re.findall(r"^\| (\d+) \| ", guide_of("errors").markdown, flags=re.MULTILINE)
    assert {int(row) for row in rows} == set(cli.EXIT_STATUSES)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.GalleriaError("x"), 1, "Failed"),
        (errors.InvalidParameter("x"), 2, "InvalidParameter"),
        (errors.EnvironmentMissing("x"), 3, "EnvironmentMissing"),
        (errors.NotFound("x", code="GalleryImageNotFound"), 4, "GalleryImageNotFound"),
        (errors.Conflict("x"), 5, "Conflict"),
        (errors.UnsafeImage("x"), 6, "UnsafeImage"),
        (errors.PartiallyReplicated("x"), 7, "PartiallyReplicated"),
        (errors.NoSpace("x"), 8, "NoSpace"),
        (OSError(errno.ENOSPC, "No space left on device", "/zone/x"), 8, "NoSpace"),
        (PermissionError(errno.EACCES, "Permission denied", "/zone/x"), 3, "EnvironmentMissing"),
        (OSError(errno.EMFILE, "Too many open files", "/zone/x"), 3, "EnvironmentMissing"),
        (OSError(errno.ENFILE, "Too many open files in system"), 3, "EnvironmentMissing"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/zone"), 2, "InvalidParameter"),
        (OSError(errno.EIO, "Input/output error", "/zone/x"), 1, "Failed"),
        (ZeroDivisionError("x"), 1, "Failed"),
        (click.UsageError("x"), 2, "Usage"),
    ],
)
def test_errors_are_words_a_status_and_json(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    code: str,
) -> None:
    assert run(["do", "--json"], raising(error)) == status
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["schemaVersion"] == 1
    assert document["error"]["code"] == code
    assert document["error"]["message"] in printed.err
    assert printed.err.startswith("galleria: error: ")
    assert "Traceback" not in printed.err


def test_hints_follow_and_hostile_text_is_harmless(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    error = errors.NotFound("no \x1b[2J file\nsecond line", hint="look \x07 elsewhere")
    assert run(["do"], raising(error)) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "galleria: error: no \\x1b[2J file\n  second line\nhint: look \\x07 elsewhere\n"
    )


def test_people_are_told_the_plain_sentence_and_scripts_azures(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    error = errors.NotFound(
        "The resource 'x' was not found.", plain="there is no x", hint="make it", code="NotThere"
    )
    assert run(["do", "--json"], raising(error)) == 4
    printed = capsys.readouterr()
    assert printed.err == "galleria: error: there is no x (NotThere)\nhint: make it\n"
    assert json.loads(printed.out)["error"] == {
        "code": "NotThere",
        "message": "The resource 'x' was not found.",
        "plain": "there is no x",
        "hint": "make it",
    }
    assert run(["do", "--verbose"], raising(error)) == 4
    assert "\nazure: The resource 'x' was not found.\n" in capsys.readouterr().err


def test_a_traceback_only_when_asked_for(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["do"], raising(ZeroDivisionError("by \x1b zero"))) == 1
    said = capsys.readouterr().err
    assert said.startswith("galleria: error: unexpected ZeroDivisionError: by \\x1b zero\n")
    assert "--verbose" in said
    assert "Traceback" not in said
    assert run(["--verbose", "do"], raising(ZeroDivisionError("by \x1b zero"))) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "\x1b" not in said


def test_interrupted_and_terminated(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["do"], raising(KeyboardInterrupt())) == 130
    assert run(["do"], lambda _: signal.raise_signal(signal.SIGTERM)) == 143
    assert run(["do"], lambda _: signal.raise_signal(signal.SIGHUP)) == 143
    assert "Traceback" not in capsys.readouterr().err


def test_usage_errors_point_to_help(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["do", "--what"], lambda _: None) == 2
    assert "hint: galleria do --help" in capsys.readouterr().err
    assert run(["--json"], lambda _: None) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "Usage"


def test_json_has_a_schema_version(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["do"], lambda settings: settings.emit({"a": 1}, "text")) == 0
    assert capsys.readouterr().out == "text\n"
    assert run(["do", "--json"], lambda settings: settings.emit({"a": {1}}, "text")) == 0
    assert json.loads(capsys.readouterr().out) == {"schemaVersion": 1, "a": [1]}
    with pytest.raises(TypeError):
        context.plain(object())


# --- arguments ------------------------------------------------------------------------------------


def test_a_disk_has_one_host_caching() -> None:
    assert {
        lun: kind.value for lun, kind in arguments.caching(["None", "0=ReadOnly"], "-x").items()
    } == {
        None: "None",
        0: "ReadOnly",
    }
    with pytest.raises(click.UsageError, match="-x: LUN 0 has it twice"):
        arguments.caching(["0=None", "0=ReadOnly"], "-x")


def test_target_regions_are_those_of_az() -> None:
    found = arguments.target_regions(
        ["eu=2", "'UK South' us=1=standard_zrs", "asia=premium_lrs"], ()
    )
    assert found == (
        TargetRegion("eu", 2),
        TargetRegion("UK South"),
        TargetRegion("us", 1, StorageAccountType.STANDARD_ZRS),
        TargetRegion("asia", None, StorageAccountType.PREMIUM_LRS),
    )


@pytest.mark.parametrize("text", ["=2", "eu=x", "eu=1=standard_lrs=3", "eu=-1", "eu=²", "'eu"])
def test_target_regions_that_are_not(text: str) -> None:
    with pytest.raises(click.UsageError, match="--target-region"):
        arguments.target_regions([text], ["eu"])


@pytest.mark.parametrize(
    "values",
    [
        ["UK South=2", "eu"],
        ["UK South=2 eu"],
        ["eu UK South=2"],
        ["'uk south=2' eu"],
        ["eu uksouth=2"],
    ],
)
def test_a_region_with_a_blank_in_its_name_needs_no_more_quotes(values: list[str]) -> None:
    found = arguments.target_regions(values, ["eu", "UK South"])
    assert {item.key: item.regional_replica_count for item in found} == {"eu": None, "uksouth": 2}


def test_additional_replicas_are_of_regions_that_are_named() -> None:
    targets = arguments.target_regions(["UK South=2 eu"], ["UK South", "eu"])
    more = arguments.with_additional(targets, ["UK South=3=premium_lrs"], ["UK South", "eu"])
    premium = AdditionalReplicaSet(StorageAccountType.PREMIUM_LRS, 3)
    assert [item.additional_replica_sets for item in more] == [(premium,), ()]
    for bad in ("us=3=premium_lrs", "eu=3", "eu=premium_lrs"):
        with pytest.raises(click.UsageError, match="--additional-replicas"):
            arguments.with_additional(targets, [bad], ["eu"])


def test_pairs_and_features() -> None:
    assert arguments.pairs(["a=b c='d e'", "f="], "--tags") == {"a": "b", "c": "d e", "f": ""}
    assert arguments.features(["A=b C=d,e"]) == (Feature("A", "b"), Feature("C", "d,e"))
    for bad in (["a"], ["=b"], ["a=1 a=2"]):
        with pytest.raises(click.UsageError, match="--tags"):
            arguments.pairs(bad, "--tags")


def test_data_disks() -> None:
    assert arguments.lun_files(["0=a.vhd", "3=b=c.raw"]) == {0: "a.vhd", 3: "b=c.raw"}
    for bad in (["a.vhd"], ["x=a"], ["0="], ["-1=a"], ["0=a", "0=b"]):
        with pytest.raises(click.UsageError, match="--data-disk"):
            arguments.lun_files(bad)


def test_names() -> None:
    assert arguments.names(["a,b c", "d"]) == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (["--r", "East US 2=2=s", "Central US=2", "--q"], "--r|East US 2=2=s|--r|Central US=2|--q"),
        (["g/d/1.0.0", "--r", "eu", "us"], "g/d/1.0.0|--r|eu|--r|us"),
        (["--r", "eu", "us", "g/d/1.0.0", "x"], "--r|eu|--r|us|g/d/1.0.0|x"),
        (["--t", "a=b", "c=http://d", "corp"], "--t|a=b|--t|c=http://d|corp"),
        (["--t", "a=b", "/subscriptions/x=y"], "--t|a=b|/subscriptions/x=y"),
        (["--t=a=b", "c=d"], "--t=a=b|c=d"),
        (["--r", "eu", "--", "us"], "--r|eu|--|us"),
        (["--r"], "--r"),
    ],
)
def test_options_of_several_words_as_az_has_them(line: list[str], wanted: str) -> None:
    many = {"--r": "REGION[=REPLICAS][=SKU]...", "--t": "NAME=VALUE..."}
    assert repeated(line, many) == wanted.split("|")
