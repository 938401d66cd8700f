"""A user's home with galleria in it: for tests of the installed command."""

import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from adapters import cli
from adapters.cli.commands import COMMANDS
from adapters.cli.outputs import FOREIGN, OUTPUTS
from adapters.cli.schema import FILE, schema_of

GALLERIA = Path(sys.executable).with_name("galleria")

DEFINE = (
    *("definition", "create", "corp/web", "--os-type", "Linux", "--os-state", "Specialized"),
    *("--publisher", "Contoso", "--offer", "web", "--sku", "front"),
)


# Members that hold data under names of their own: tags, settings, regions, paths, ids.
DATA = {"tags", "config", "origins", "allocatedBytes", "sourceChanges", "kept", "schema", "request"}
NAME = re.compile(r"[a-z][A-Za-z0-9]*")


def misspelled(value: Any) -> Iterator[str]:
    """Names of a command's document that are not in camel case."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not NAME.fullmatch(key):
                yield key
            if key not in DATA:
                yield from misspelled(item)
    elif isinstance(value, list):
        for item in value:
            yield from misspelled(item)


@functools.cache
def validator(command: str) -> Draft202012Validator:
    """Of what a command prints, by the schema that is shipped."""
    return Draft202012Validator(schema_of(command, json.loads(FILE.read_bytes())))


VALIDATED: set[str] = set()  # commands whose output was held against their schema


def conforms(args: Sequence[str], document: dict[str, Any]) -> None:
    """Hold what a command printed against its schema."""
    first = next(index for index, word in enumerate(args) if word in COMMANDS)
    names = (" ".join(args[first : first + count]) for count in (3, 2, 1))
    command = next((name for name in names if name in {*OUTPUTS, *FOREIGN}), "")
    assert command, f"{args}: no schema: adapters/cli/outputs.py"
    if command in FOREIGN:
        return
    if "--list-operations" in args:
        command = "operations"
    if set(document) == {"schemaVersion", "error"}:
        command = "error"
    wrong = validator(command).iter_errors(document)
    told = [f"{item.json_path}: {item.message[:300]}" for item in wrong]
    assert told == [], f"{command}: {told}"
    VALIDATED.add(command)


class Home:
    """A user's directories, and galleria in them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GALLERIA_")}
        self.env = kept | {
            "HOME": str(path),
            "XDG_STATE_HOME": str(path / "state"),
            "XDG_CONFIG_HOME": str(path / "config"),
            "XDG_CACHE_HOME": str(path / "cache"),
        }

    def run(self, *args: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [GALLERIA, *args], env=self.env, capture_output=True, text=True, cwd=self.path
        )
        assert done.returncode == status, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *args: str, status: int = 0) -> dict[str, Any]:
        document = json.loads(self.run(*args, "--json", status=status).stdout)
        assert isinstance(document, dict)
        conforms(args, document)
        assert document.pop("schemaVersion") == 1
        wrong = list(misspelled(document))
        assert not wrong, f"names that are not spelled as in Azure's JSON: {wrong}"
        return document


class Session(Home):
    """A home whose commands run in this process: starting one for each would take most of the
    time (tests/unit/test_cli_process.py does)."""

    @classmethod
    @contextlib.contextmanager
    def begun(cls, path: Path, **settings: str) -> Iterator[Self]:
        """This process is that user, in that directory and with these settings, as long as the
        `with`."""
        made = cls(path)
        made.env |= settings
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - made.env.keys():
                patch.delenv(name)
            for name, value in made.env.items():
                patch.setenv(name, value)
            patch.chdir(path)
            yield made
        deletable(path)

    def run(self, *args: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = cli.run(args)
        assert found == status, (args, out.getvalue(), err.getvalue())
        return subprocess.CompletedProcess(args, found, out.getvalue(), err.getvalue())


def deletable(path: Path) -> None:
    """Let what was published below be deleted: where root runs the tests it is immutable."""
    subprocess.run(["chattr", "-R", "-f", "-i", path], check=False, capture_output=True)


def furnished(home: Home) -> Home:
    """With two regions, a gallery, a definition and a little disk."""
    home.run("init", "--region", f"eu={home.path}/eu", "--region", f"UK South={home.path}/uk")
    home.run("gallery", "create", "corp")
    home.run(*DEFINE)
    (home.path / "small.raw").write_bytes(bytes(512 * 100))
    return home
