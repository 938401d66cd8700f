"""A passphrase on a command line: warned of, and taken out of the list of processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from adapters.guestfs.luks import parse_key

ROOT = Path(__file__).parents[2]
SHOWN = """
import sys
from pathlib import Path
from adapters.process.scrub import scrub
scrub([sys.argv[1].partition(":key:")[2]])
print(Path("/proc/self/cmdline").read_bytes().split(b"\\0")[-2].decode(), sys.argv[1])
"""


def test_the_list_of_processes_does_not_show_it() -> None:
    argv = [sys.executable, "-c", SHOWN, "vda2:key:open sesame"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "vda2:key:xxxxxxxxxxx vda2:key:open sesame"


def test_a_key_comes_by_a_file_a_descriptor_or_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("open sesame\n")
    assert (parse_key(str(file)).secret, parse_key(f"vda2:file:{file}").device) == (
        "open sesame",
        "vda2",
    )
    code = "from adapters.guestfs.luks import parse_key; print(parse_key('-').secret)"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=ROOT, input=b"from a pipe\n", capture_output=True, check=True)
    assert done.stdout == b"from a pipe\n"


@pytest.mark.parametrize(("key", "warned"), [("vda2:key:open", True), ("/no/such/file", False)])
def test_the_spoken_form_is_warned_of(key: str, warned: bool) -> None:
    import click

    from adapters.cli.operation import KEYS

    @click.command()
    @KEYS
    def command() -> None: ...

    done = CliRunner().invoke(command, ["--key-file", key])
    assert ("every user of this host" in done.stderr) == warned
