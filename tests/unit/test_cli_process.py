"""The installed command, in a process and a home of its own: what a newcomer types first."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

from adapters import app, cli
from adapters.cli.commands import COMMANDS
from adapters.cli.report import report_text
from adapters.config import Config
from adapters.process import command
from pipeline.model.runs import Run, RunKind
from tests.home import DEFINE, GALLERIA, Home, furnished

pytestmark = pytest.mark.timeout(180)  # each starts several processes

HELP_CPU_SECONDS = 0.25


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def gallery(home: Home) -> Home:
    return furnished(home)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A gallery that no test changes: what is refused leaves no trace."""
    return furnished(Home(tmp_path_factory.mktemp("unchanged")))


def test_help_is_quick(home: Home) -> None:
    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    home.run("--help")  # bytecode is compiled once
    took = []
    for _ in range(3):
        before = cpu()
        home.run("--help")
        took.append(cpu() - before)
    assert min(took) < HELP_CPU_SECONDS


def test_no_command_hides_what_the_command_line_itself_imports() -> None:
    """A module of a command that is loaded becomes an attribute of its package."""
    modules = {path.partition(":")[0].rpartition(".")[2] for path, _help in COMMANDS.values()}
    imported = {name for name, value in vars(cli).items() if isinstance(value, ModuleType)}
    outside = {name for name in imported if not getattr(cli, name).__name__.startswith("adapters.")}
    assert "gc" in outside
    assert modules & outside == set()


def test_a_laptop_needs_no_decisions(home: Home) -> None:
    printed = home.run("init").stdout
    assert str(home.path / "config/galleria/config.toml") in printed
    assert (home.path / "state/galleria/catalog.db").is_file()
    assert (home.path / "state/galleria/regions/local").is_dir()
    shown = home.json("config", "show")
    assert shown["config"]["regions"] == {"local": [f"{home.path}/state/galleria/regions/local"]}
    assert shown["origins"]["regions"] == f"{home.path}/config/galleria/config.toml"
    assert shown["origins"]["sandbox"] == "default"
    assert home.json("list")["versions"] == []


def test_init_refuses_to_overwrite(home: Home) -> None:
    home.run("init")
    before = (home.path / "config/galleria/config.toml").read_bytes()
    error = home.json("init", "--region", "eu=eu", status=5)["error"]
    assert error["code"] == "Conflict"
    assert "--force" in error["hint"]
    assert not (home.path / "eu").exists()
    assert (home.path / "config/galleria/config.toml").read_bytes() == before
    replaced = home.json("init", "--region", "asia=asia", "--force")
    assert list(replaced["leftOut"]) == ["local"]
    shown = home.run("init", "--region", "far=far", "--force").stdout
    assert f"left out       asia: {home.path}/asia" in shown
    assert f"--region asia={home.path}/asia has it again" in shown
    made = home.json("init", "--region", "eu=eu,eu2", "--region", "us=us", "--source-region", "us",
                     "--force")  # fmt: skip
    assert made["config"]["regions"] == {
        "eu": [f"{home.path}/eu", f"{home.path}/eu2"],
        "us": [f"{home.path}/us"],
    }
    assert home.json("gallery", "create", "corp")["gallery"]["location"] == "us"


def test_init_makes_what_was_added_to_the_configuration(home: Home) -> None:
    home.run("init", "--region", "eu=eu")
    home.run("gallery", "create", "corp")
    config = home.path / "config/galleria/config.toml"
    written = config.read_text().replace('/eu"]', f'/eu", "{home.path}/eu2"]')
    config.write_text(f'{written}asia = ["{home.path}/asia"]\n')
    said = home.run("cost", "corp").stderr
    assert f"region asia: {home.path}/asia is not a zone" in said
    assert "make it a zone with galleria init" in said
    before = config.read_bytes()
    assert list(home.json("init")["config"]["regions"]) == ["eu", "asia"]
    assert config.read_bytes() == before
    assert home.run("cost", "corp").stderr == ""
    names = [json.loads((home.path / zone / "galleria-zone.json").read_text())["name"]
             for zone in ("eu", "eu2", "asia")]  # fmt: skip
    assert names == ["eu", "eu-2", "asia"]


def test_before_init_there_is_nothing_and_advice(home: Home) -> None:
    for asked in (("gallery", "create", "corp"), ("list",)):
        error = home.json(*asked, status=4)["error"]
        assert error["message"] == f"there is no catalog {home.path}/state/galleria/catalog.db"
        assert error["hint"].startswith("galleria init makes a new one")


def test_choices_are_told_as_the_help_has_them(home: Home) -> None:
    wrong = ("--os-type", "BeOS", "--publisher", "a", "--offer", "b", "--sku", "c")
    said = home.run("definition", "create", "corp/x", *wrong, status=2).stderr
    assert "'BeOS' is not one of Linux, Windows" in said


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("publish --target-reg", ["--target-region", "--target-regions"]),
        ("gallery show ", ["corp"]),
        ("publish corp/w", ["corp/web"]),
        ("show other/", []),
        ("inspect sma", ["sma"]),
    ],
)
def test_the_shell_completes(unchanged: Home, line: str, expected: list[str]) -> None:
    words = {"COMP_WORDS": f"galleria {line}", "COMP_CWORD": str(len(f"{line}.".split()))}
    home = Home(unchanged.path)
    home.env |= {"_GALLERIA_COMPLETE": "bash_complete"} | words
    completed = home.run().stdout.split()
    kind = "file" if line.startswith("inspect") else "plain"
    assert [item for item in completed if "encryption" not in item] == [
        f"{kind},{item}" for item in expected
    ]


def test_another_configuration(home: Home) -> None:
    home.run("init", "--config", "mine.toml", "--region", "eu=zones/eu",
             "--catalog", f"sqlite:///{home.path}/mine.db")  # fmt: skip
    assert (home.path / "mine.db").is_file()
    assert home.json("--config", "mine.toml", "config", "show")["config"]["source_region"] == "eu"
    home.env["GALLERIA_CONFIG"] = str(home.path / "mine.toml")
    assert home.json("config", "show")["config"]["catalog"] == f"sqlite:///{home.path}/mine.db"
    error = home.json("list", "--config", "nowhere.toml", status=4)["error"]
    assert "nowhere.toml" in error["message"]


def test_galleries(home: Home) -> None:
    home.run("init", "--region", f"UK South={home.path}/uk")
    made = home.json("gallery", "create", "corp", "--location", "uksouth", "--tags", "a=b c=d",
                     "--description", "what we run")  # fmt: skip
    assert made["gallery"]["location"] == "UK South"
    assert made["gallery"]["tags"] == {"a": "b", "c": "d"}
    assert "what we run" in home.run("gallery", "list").stdout
    assert home.json("gallery", "show", "CORP")["gallery"] == made["gallery"]
    assert made["gallery"]["provisioningState"] == "Succeeded"
    assert home.json("gallery", "create", "co-rp", status=2)["error"]["code"] == "InvalidParameter"
    refused = home.json("gallery", "create", "other", "--mi-system-assigned", status=2)["error"]
    assert "a gallery has no managed identity" in refused["message"]
    home.run("gallery", "delete", "corp")
    assert home.json("gallery", "list")["galleries"] == []
    assert home.json("gallery", "show", "corp", status=4)["error"]["code"] == "ResourceNotFound"


def test_definitions(gallery: Home) -> None:
    shown = gallery.json("definition", "show", "corp/web")["definition"]
    assert shown["hyperVGeneration"] == "V2"
    assert shown["provisioningState"] == "Succeeded"
    assert shown["architecture"] == "x64"
    assert shown["osState"] == "Specialized"
    more = ("--minimum-cpu-core", "2", "--maximum-memory", "4096", "--tags", "a=b",
            "--end-of-life-date", "2099-01-31", "--description", "fronts")  # fmt: skip
    changed = gallery.json(*DEFINE, *more)["definition"]
    assert changed["recommended"] == {"vCPUs": {"min": 2}, "memory": {"max": 4096}}
    assert changed["endOfLifeDate"] == "2099-01-31T00:00:00Z"
    text = gallery.run("definition", "show", "corp/web").stdout
    assert "2.." in text
    assert "..4096 MB" in text
    table = gallery.run("definition", "list", "corp").stdout.splitlines()
    assert table[1].split() == [
        *("corp/web", "Linux", "Specialized", "V2", "x64", "Contoso/web/front", "2099-01-31"),
    ]
    assert gallery.json("gallery", "delete", "corp", status=5)["error"]["code"] == (
        "CannotDeleteResource"
    )
    gallery.run("definition", "delete", "corp/web")
    gallery.run("gallery", "delete", "corp")


@pytest.mark.parametrize(
    ("args", "status", "code"),
    [
        (["definition", "create", "corp/x", "--os-type", "Linux"], 2, "Usage"),
        ([*DEFINE, "--end-of-life-date", "soon"], 2, "BadRequest"),
        ([*DEFINE, "--features", "A"], 2, "Usage"),
        ([*DEFINE, "--architecture", "Arm64"], 5, "PropertyChangeNotAllowed"),
        (["show", "corp/web/1.0.0"], 4, "ResourceNotFound"),
        (["show", "corp/web"], 4, "GalleryImageNotFound"),
        (["show", "corp/web/1.0"], 2, "InvalidParameter"),
        (["publish", "corp/web/1.0.0", "--os-disk", "nowhere.raw"], 4, "NotFound"),
        (["publish", "corp/nix/1.0.0", "--os-disk", "small.raw"], 4, "ParentResourceNotFound"),
        (["publish", "corp/web/1.0.0", "--os-disk", "x", "--skip", "lgos"], 2, "InvalidParameter"),
        (["build", "nowhere.yaml"], 4, "NotFound"),
        (["plan", "small.raw"], 2, "SpecInvalid"),
        (["hash", "nowhere.raw"], 4, "NotFound"),
        (["export", "corp/web", "--format", "raw", "--out", "x"], 4, "GalleryImageNotFound"),
        (
            ["snapshot", "create", "small.raw", "--region", "mars"],
            2,
            "LocationNotAvailableForResourceType",
        ),
    ],
)
def test_errors_have_a_code_a_status_and_words(
    unchanged: Home, args: list[str], status: int, code: str
) -> None:
    error = unchanged.json(*args, status=status)["error"]
    assert error["code"] == code
    assert error["message"]


def test_what_is_refused_leaves_no_trace(unchanged: Home) -> None:
    unchanged.run("publish", "corp/web/1.0.0", "--os-disk", "nowhere.raw", status=4)
    assert unchanged.json("list")["versions"] == []


def test_a_spec_with_a_mistake_names_its_line(home: Home) -> None:
    spec = home.path / "web.yaml"
    spec.write_text(
        "apiVersion: galleria/v1\nkind: ImageVersion\n"
        "image: {gallery: corp, definition: web, version: 1.0.0}\nsource: {osDsk: web.raw}\n"
    )
    said = home.run("plan", "web.yaml", status=2).stderr
    assert "web.yaml:4: source.osDsk: is not a key that is known here" in said
    assert home.run("spec", "check", "web.yaml", status=2).stderr == said


def test_what_generalizing_does_is_listed_everywhere(home: Home) -> None:
    listed = home.json("operations")
    names = [operation["name"] for operation in listed["operations"]]
    assert "machine-id" in names
    assert home.json("publish", "--list-operations") == listed
    assert home.json("generalize", "--list-operations") == listed
    text = home.run("operations").stdout
    assert all(name in text for name in names)
    assert max(map(len, text.splitlines())) <= 100
    of_minimal = home.json("operations", "--profile", "minimal")
    (minimal,) = of_minimal["profiles"]
    assert [item["name"] for item in of_minimal["operations"]] == minimal["operations"]
    (found,) = (item for item in listed["operations"] if item["name"] == "machine-id")
    text = home.run("operations", "machine-id").stdout
    assert "minimal" in text
    assert text.splitlines()[-1] == f"path       {found['paths'][-1]}"
    home.run("operations", "nope", status=4)


def test_where_a_generalized_copy_can_t_go_is_told_at_once(unchanged: Home) -> None:
    error = unchanged.json("generalize", "small.raw", "--out", "small.raw", status=5)["error"]
    assert "exists already" in error["message"]
    unchanged.run("generalize", "small.raw", "--out", "nowhere/x.raw", status=2)


def test_a_report_is_of_what_was_for_the_guest() -> None:
    operations = [
        {"name": "machine-id", "result": "not applicable", "changes": []},
        {"name": "windows-paging", "result": "nothing to do", "changes": []},
    ]
    guest = {"os_type": "windows", "distribution": "windows", "version": "10.0"}
    text = report_text({"operations": operations, "guest": guest})
    assert "machine-id" not in text
    assert "windows-paging  nothing to do" in text
    assert "not applicable  1 operations" in text
    assert "guest           windows 10.0" in text


def test_the_schema_is_printed(home: Home) -> None:
    assert home.json("spec", "schema")["schema"] == json.loads(home.run("spec", "schema").stdout)


def test_hostile_names_do_not_reach_the_terminal(home: Home) -> None:
    done = home.run("hash", "x\x1b[2J.raw", status=4)
    assert "\x1b" not in done.stderr
    assert "\\x1b" in done.stderr


def test_a_reader_that_leaves_is_no_error(home: Home) -> None:
    process = subprocess.Popen(
        [GALLERIA, "spec", "schema"], env=home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert said == b""


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", ">/dev/full 2>&1", ">&- 2>&-"])
def test_an_error_that_nobody_can_read_keeps_its_status(home: Home, redirected: str) -> None:
    home.run("init")
    command = f"exec {GALLERIA} show corp/web/1.0.0 --json {redirected}"
    done = subprocess.run(["sh", "-c", command], env=home.env, stdout=subprocess.DEVNULL)
    assert done.returncode == 4


def test_closed_streams_are_no_files_of_somebody_else(gallery: Home) -> None:
    """What is opened next must not get the number of stdout or stderr."""
    command = f"exec {GALLERIA} gallery create other --description {'x' * 4096} <&- >&- 2>&-"
    subprocess.run(["sh", "-c", command], env=gallery.env, check=True)
    listed = gallery.json("gallery", "list")["galleries"]
    assert [item["name"].rpartition("/")[2] for item in listed] == ["corp", "other"]


def test_a_locale_without_the_character_is_no_error(home: Home) -> None:
    home.run("init")
    home.run("gallery", "create", "corp", "--description", "f\u00fcr alle")
    home.env["PYTHONIOENCODING"] = "ascii"
    assert "f\\xfcr alle" in home.run("gallery", "show", "corp").stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_in_order(home: Home, number: signal.Signals, status: int) -> None:
    fifo = home.path / "web.yaml"
    os.mkfifo(fifo)
    with subprocess.Popen(
        [GALLERIA, "spec", "check", str(fifo)], env=home.env, stderr=subprocess.PIPE, text=True
    ) as process:
        _wait_until(lambda: "web.yaml" in _waiting_on(process.pid))
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == status
    assert said.strip().startswith("galleria: ")
    assert "Traceback" not in said


def _waiting_on(pid: int) -> str:
    """Whether a process sleeps in the open of a FIFO: the kernel's name for it."""
    try:
        channel = Path(f"/proc/{pid}/wchan").read_text()
    except FileNotFoundError:
        return ""
    return "web.yaml" if "fifo" in channel or "wait_for_partner" in channel else ""


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came to wait"
        time.sleep(0.02)


def test_nothing_of_the_present_directory_runs_in_the_background(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write where galleria is called (/tmp, a download) gives it no code."""
    started: list[list[str]] = []
    monkeypatch.setattr(command, "detach", lambda argv, *, log: started.append(argv))
    work, cache, logs, captures = (home.path / n for n in ("work", "cache", "logs", "captures"))
    config = Config({}, "", "", work, cache, logs, captures)
    run = Run("abc", RunKind.REPLICATE, "/", datetime.now(UTC), log=str(logs / "abc.log"))
    app._begin_later(config, None, run)
    ((*program, _, noun, verb, name),) = started
    assert (noun, verb, name) == ("runs", "resume", "abc")
    (home.path / "adapters").mkdir()
    (home.path / "adapters/__init__.py").write_text("raise SystemExit(99)")
    found = subprocess.run([*program, "--version"], env=home.env, cwd=home.path, check=False)
    assert found.returncode == 0


def test_it_runs_as_a_module(home: Home) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adapters.cli", "--version"],
        env=home.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("galleria ")
