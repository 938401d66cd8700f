"""Whose files a command may read: a right on this host's files is asked of every command that
names one, and galleria's own zones, work, captures and catalog are nobody's sources."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.storing import pattern
from tests.home import Session

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
MIB = 1 << 20
PUBLISHER = "Compute Gallery Artifacts Publisher"
REFUSED = 6
# every command that reads one file, and how it names it
COMMANDS: dict[str, tuple[str, ...]] = {
    "hash": ("hash", "{}"),
    "inspect": ("inspect", "{}", "--no-guest"),
    "inspect guest": ("inspect", "{}"),
    "convert": ("convert", "{}", "--to", "raw", "--out", "stolen.raw"),
    "generalize": ("generalize", "{}", "--out", "stolen.raw"),
    "check": ("generalize", "{}", "--check"),
    "dry run": ("generalize", "{}", "--dry-run"),
    "arm": ("generalize", "{}", "--arm-sysprep", "--out", "stolen.raw"),
    "validate": ("validate", "{}"),
    "publish": ("publish", "corp/web/2.0.0", "--os-disk", "{}"),
    "snapshot": ("snapshot", "create", "-n", "s", "--source", "{}", "--region", "eu"),
    "disk": ("disk", "create", "-n", "d", "--source", "{}", "--region", "eu"),
}


@pytest.fixture
def home(tmp_path: Path, require: Callable[..., None]) -> Iterator[Session]:
    require("qemu-img", "bwrap")
    for name in ("secret.raw", "free.raw"):
        (tmp_path / name).write_bytes(pattern(1, MIB) + bytes(MIB))
    with Session.begun(tmp_path) as made:
        made.run("init", "--region", "eu=eu")
        made.run("gallery", "create", "corp")
        made.run(
            *("definition", "create", "corp/web", "--os-type", "Linux"),
            *("--os-state", "Specialized", "--publisher", "p", "--offer", "o", "--sku", "s"),
        )
        made.run("publish", "corp/web/1.0.0", "--os-disk", "secret.raw")
        made.run("principal", "create", "ci")
        made.run("role", "assign", "--assignee", "ci", "--role", PUBLISHER, "--scope", "/")
        yield made


def refused(home: Session, command: str, path: Path, *who: str) -> str:
    """How a command refuses a file; nothing of it may be written."""
    words = (word.format(path) for word in COMMANDS[command])
    done = home.run(*who, *words, status=REFUSED)
    assert done.stdout == ""
    assert not (home.path / "stolen.raw").exists()
    return done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_takes_the_right_that_publish_asks_for(home: Session, command: str) -> None:
    told = refused(home, command, home.path / "secret.raw", "--as", "ci")
    assert "storageAccounts/listKeys/action" in told


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_in_a_zone_is_no_source(home: Session, command: str) -> None:
    """Not even of who may read any file: a hidden gallery's base would be copied out."""
    (base,) = home.path.glob("eu/bases/*/base.raw")
    assert "galleria's own" in refused(home, command, base)


def test_no_way_leads_to_galleria_s_own_files(home: Session) -> None:
    (base,) = home.path.glob("eu/bases/*/base.raw")
    state = home.path / "state/galleria"
    (state / "captures").mkdir()
    link, around = home.path / "link.raw", home.path / "mnt"
    link.symlink_to(base)
    around.symlink_to(home.path / "eu")
    places = [
        link,
        around / base.relative_to(home.path / "eu"),
        home.path / "eu/../eu" / base.relative_to(home.path / "eu"),
        *home.path.glob("eu/versions/*/replica-0/os.*"),
        home.path / "eu/galleria-zone.json",
        state / "catalog.db",
        state / "catalog.db-wal",
        state / "work/galleria/x.raw",
        state / "captures/x.raw",
    ]
    for path in places:
        assert "galleria's own" in refused(home, "hash", path), path


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_zone_that_is_mounted_elsewhere_is_still_one(home: Session) -> None:
    (base,) = home.path.glob("eu/bases/*/base.raw")
    point = home.path / "elsewhere"
    point.mkdir()
    subprocess.run(["mount", "--bind", home.path / "eu", point], check=True)
    try:
        assert "galleria's own" in refused(home, "hash", point / base.relative_to(home.path / "eu"))
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_file_over_a_base_is_read_only_by_who_has_a_vm_of_it(home: Session) -> None:
    """A crafted overlay would read any base; that of a deployed VM is what its user changed."""
    (base,) = home.path.glob("eu/bases/*/base.raw")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, "over.qcow2"],
        check=True,
        cwd=home.path,
    )
    ours = ("hash", "over.qcow2", "--backing", str(base))
    assert "galleria's own" in home.run(*ours, status=REFUSED).stderr
    home.run("deploy", "corp/web/1.0.0", "--region", "eu", "--out", "vms", "--name", "vm")
    home.run(*ours)
    home.run("role", "assign", "--assignee", "ci", "--role", "Storage Account Contributor")
    home.run("--as", "ci", "hash", "secret.raw")
    home.run("role", "remove", "--assignee", "ci", "--role", PUBLISHER, "--scope", "/")
    assert "galleria's own" in home.run("--as", "ci", *ours, status=REFUSED).stderr
