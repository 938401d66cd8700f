"""Host set-up: what it would install where, what it does once and what it does not do again.

Package managers and pip are stand-ins that write down how they were called; that the real ones
make a working host is shown by CI, which starts from a bare one.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

FILES = ("scripts", "requirements.txt", "tests/requirements.txt", "pyproject.toml")
RECORD = '#!/bin/sh\necho "$(basename "$0") $*" >> "{log}"\n'


class Host:
    """A copy of the scripts, with stand-ins for the programs that would change the machine."""

    def __init__(self, root: Path, repository: Path) -> None:
        self.root = root / "clone"
        self.bin = root / "bin"
        self.log = root / "calls"
        self.release = root / "os-release"
        self.bin.mkdir()
        (self.root / "tests").mkdir(parents=True)
        for name in FILES:
            if (repository / name).is_dir():
                shutil.copytree(repository / name, self.root / name)
            else:
                shutil.copy(repository / name, self.root / name)
        self.installed("debian")
        for name in ("apt-get", "dnf", "apt-cache"):
            self.stand_in(name)
        self.stand_in("pip", self.root / ".venv" / "bin")
        self.stand_in("galleria", self.root / ".venv" / "bin")
        self.stand_in("python", self.root / ".venv" / "bin")

    def stand_in(self, name: str, directory: Path | None = None, body: str = "") -> None:
        path = (directory or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RECORD.format(log=self.log) + body)
        path.chmod(0o755)

    def installed(self, distribution: str, *packages: str, like: str = "") -> None:
        """Be this distribution, with exactly these packages."""
        self.release.write_text(f"ID={distribution}\nID_LIKE='{like}'\n")
        for name, line in (("dpkg-query", "installed {}"), ("rpm", "{}")):
            lines = "\n".join(line.format(package) for package in packages)
            self.stand_in(name, body=f"cat <<'END'\n{lines}\nEND\n")

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.bin}:{os.environ['PATH']}"
        return subprocess.run(
            argv,
            cwd=self.root.parent,
            env={"PATH": path, "OS_RELEASE": str(self.release), "HOME": "/nonexistent", **env},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def calls(self, name: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.split()[0] == name]


@pytest.fixture
def host(tmp_path: Path, repository: Path) -> Host:
    return Host(tmp_path, repository)


def packages(output: str) -> set[str]:
    """What a run says that it will install."""
    line = next(line for line in output.splitlines() if "packages to install:" in line)
    return set(line.partition("packages to install:")[2].split())


@pytest.mark.parametrize(
    ("distribution", "like", "expected"),
    [
        ("debian", "", {"python3-guestfs", "qemu-utils", "bubblewrap", "libguestfs-xfs"}),
        ("linuxmint", "ubuntu debian", {"python3-guestfs", "qemu-utils", "bubblewrap"}),
        ("ubuntu", "debian", {"python3-guestfs", "qemu-utils", "bubblewrap"}),
        ("fedora", "", {"python3-libguestfs", "qemu-img", "bubblewrap"}),
    ],
)
def test_a_dry_run_names_the_packages_and_does_nothing(
    host: Host, distribution: str, like: str, expected: set[str]
) -> None:
    host.installed(distribution, "python3", like=like)
    done = host.run(str(host.root / "scripts/run"), "--dry-run", "doctor")
    assert done.returncode == 0, done.stderr
    assert expected <= packages(done.stderr)
    assert "python3" not in packages(done.stderr)
    for name in ("apt-get", "dnf", "pip", "galleria"):
        assert host.calls(name) == []


def test_an_unknown_distribution_is_told_what_must_be_there(host: Host) -> None:
    host.installed("plan9")
    done = host.run(str(host.root / "scripts/run"), "doctor")
    assert done.returncode == 3
    assert "plan9" in done.stderr
    for package in ("python3-guestfs", "qemu-utils", "bubblewrap"):
        assert f"  {package}\n" in done.stderr
    assert host.calls("galleria") == []
    done = host.run(str(host.root / "scripts/run"), "doctor", SKIP_PACKAGES="1")
    assert done.returncode == 0, done.stderr
    assert host.calls("galleria") == ["galleria doctor"]


def test_only_what_is_missing_is_installed(host: Host) -> None:
    wanted = packages(host.run(str(host.root / "scripts/run"), "--dry-run", "x").stderr)
    host.installed("debian", *(wanted - {"bubblewrap"}))
    host.stand_in("sudo", body='exec "$@"\n')
    done = host.run(str(host.root / "scripts/run"), "doctor")
    assert done.returncode == 0, done.stderr
    install = [call for call in host.calls("apt-get") if " install " in call]
    assert len(install) == 1
    assert install[0].endswith("--no-install-recommends bubblewrap")


def test_the_environment_is_made_once(host: Host) -> None:
    def run() -> int:
        done = host.run(str(host.root / "scripts/run"), "list", SKIP_PACKAGES="1")
        assert done.returncode == 0, done.stderr
        return len(host.calls("pip"))

    first = run()
    assert first > 0
    assert run() == first
    with (host.root / "requirements.txt").open("a") as file:
        file.write("# changed\n")
    again = run()
    assert again > first
    assert run() == again


def test_the_tests_environment_serves_for_running(host: Host) -> None:
    host.run(str(host.root / "scripts/check"), SKIP_PACKAGES="1")
    count = len(host.calls("pip"))
    assert any("tests/requirements.txt" in call for call in host.calls("pip"))
    host.run(str(host.root / "scripts/run"), "list", SKIP_PACKAGES="1")
    assert len(host.calls("pip")) == count


def test_arguments_and_the_exit_status_pass_through(host: Host) -> None:
    host.stand_in("galleria", host.root / ".venv" / "bin", body="exit 7\n")
    done = host.run(str(host.root / "scripts/run"), "show", "a b", "--json", "*", SKIP_PACKAGES="1")
    assert done.returncode == 7
    assert host.calls("galleria") == ["galleria show a b --json *"]


def test_without_arguments_it_is_the_demonstration(host: Host) -> None:
    done = host.run(str(host.root / "scripts/run"), SKIP_PACKAGES="1")
    assert done.returncode == 0, done.stderr
    assert host.calls("python") == ["python -m fixtures.demonstration"]


def test_it_runs_through_a_link_and_from_anywhere(host: Host, tmp_path: Path) -> None:
    link = tmp_path / "galleria-run"
    link.symlink_to(host.root / "scripts" / "run")
    done = host.run(str(link), "list", SKIP_PACKAGES="1")
    assert done.returncode == 0, done.stderr
    assert host.calls("galleria") == ["galleria list"]


def test_a_ready_host_loses_no_time(host: Host) -> None:
    wanted = packages(host.run(str(host.root / "scripts/run"), "--dry-run", "x").stderr)
    host.installed("debian", *wanted)
    host.run(str(host.root / "scripts/run"), "list")
    before, calls = os.times(), host.calls("pip")
    done = host.run(str(host.root / "scripts/run"), "list")
    assert done.returncode == 0, done.stderr
    after = os.times()
    assert sum(after[2:4]) - sum(before[2:4]) < 1  # seconds of CPU of what it started
    assert host.calls("apt-get") == []
    assert host.calls("pip") == calls


def test_every_package_of_the_table_exists(host: Host, require: Callable[..., None]) -> None:
    """On Debian, against apt's own lists: a misspelt name would stop a fresh host."""
    require("apt-cache", "dpkg-query")
    host.installed("debian")
    wanted = packages(host.run(str(host.root / "scripts/test"), "--dry-run").stderr)
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", *sorted(wanted)],
        capture_output=True,
        text=True,
        check=False,
    )
    known = {line.split()[1] for line in shown.stdout.splitlines() if line.startswith("Package: ")}
    if not known:
        pytest.skip("apt has no package lists here")
    assert wanted - known == set()


SCRIPTS = ("run", "test", "check", "docs", "bench")


def test_the_scripts_are_clean(repository: Path, require: Callable[..., None]) -> None:
    require("shellcheck")
    done = subprocess.run(
        ["shellcheck", "-x", *(f"scripts/{name}" for name in SCRIPTS), ".ci/run"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
