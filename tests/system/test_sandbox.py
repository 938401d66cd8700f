"""What a program in the sandbox can do to the host: nothing, whoever runs galleria."""

import json
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from adapters.guestfs import fixed
from adapters.process import cgroup, command, confinement, seccomp
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from pipeline.errors import CommandFailed

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
DAC_OVERRIDE = 1 << 1
TRIES = """
import json, sys
from dataclasses import asdict
from adapters.doctor import escapes
from adapters.process.sandbox import Sandbox
print(json.dumps(asdict(escapes(Sandbox(), *sys.argv[1:]))))
"""
FORKS = """
import os, time
children = []
try:
    while child := os.fork():
        children.append(child)
    time.sleep(60)
finally:
    for child in children:
        os.kill(child, 9)
"""
USERS: dict[str, tuple[str, ...]] = {
    "root": (),
    "user": ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"),
}


def as_user(user: str) -> Sequence[str]:
    if user == "root":
        if os.geteuid():
            pytest.skip("not root")
        return ()
    if os.geteuid():
        return ()
    ahead = USERS[user]
    if subprocess.run([*ahead, sys.executable, "-c", "import adapters"], cwd=ROOT).returncode:
        pytest.skip("an ordinary user cannot read this checkout")
    return ahead


@pytest.mark.parametrize("user", USERS)
def test_every_way_out_is_shut(user: str, require: Callable[..., None]) -> None:
    require("bwrap", "setpriv")
    ahead = as_user(user)
    core = Path("/proc/sys/kernel/core_pattern").read_text()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as named:
        name = f"galleria-{os.getpid()}"
        named.bind(f"\0{name}")
        named.listen()
        host = [str(os.getpid()), str(server.getsockname()[1]), name]
        argv = [*ahead, sys.executable, "-c", TRIES, *host]
        told = json.loads(subprocess.run(argv, cwd=ROOT, capture_output=True, check=True).stdout)
    assert told["open"] == []
    assert len(told["shut"]) >= 40
    assert told["user"] in (confinement.NOBODY, confinement.NOBODY + 1)
    assert told["capabilities"] == (DAC_OVERRIDE if user == "root" else 0)
    # the filter, and not what is missing here by chance
    refused = {way for way, error in told["shut"].items() if error == "EPERM"}
    assert {"mount", "unshare users", "keyctl", "ptrace", "io_uring", "bpf"} <= refused
    assert Path("/proc/sys/kernel/core_pattern").read_text() == core


def test_without_the_sandbox_the_same_program_finds_ways_out() -> None:
    """What it says of the sandbox is worth something."""
    script = ROOT / "adapters/process/escape.py"
    # its own namespaces of users and mounts, that trying them changes nothing here
    argv = ["unshare", "--user", "--map-root-user", "--mount", "python3", "-I", "-S", str(script)]
    told = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert {"read mountinfo", "read /etc/passwd", "ptrace", "unshare users"} <= set(told["open"])


def test_what_root_runs_in_it_is_an_ordinary_user_outside(require: Callable[..., None]) -> None:
    require("bwrap", "pgrep")
    if os.geteuid():
        pytest.skip("not root")
    marker = f"600.{os.getpid()}"
    with command.spawn(Sandbox().wrap(["sleep", marker])):
        deadline = time.monotonic() + 20
        inside: list[Path] = []
        while not inside and time.monotonic() < deadline:
            found = subprocess.run(["pgrep", "-x", "sleep"], capture_output=True, text=True)
            for number in found.stdout.split():
                line = Path("/proc", number, "cmdline")
                if line.exists() and line.read_bytes().split(b"\0")[1:2] == [marker.encode()]:
                    inside.append(Path("/proc", number, "status"))
            time.sleep(0.01)
        facts = dict(line.split(":\t", 1) for line in inside[0].read_text().splitlines())
    assert facts["Uid"].split() == [str(confinement.NOBODY)] * 4
    assert facts["Gid"].split() == [str(confinement.NOBODY)] * 4
    assert (facts["Groups"].split(), facts["NoNewPrivs"], facts["Seccomp"]) == ([], "1", "2")


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_files_of_other_users_can_be_read_and_what_is_made_is_the_callers(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("bwrap", "qemu-img")
    secret = tmp_path / "of-another"
    secret.write_text("theirs")
    secret.chmod(0o600)
    os.chown(secret, 1234, 1234)
    sandbox = Sandbox()
    argv = sandbox.wrap(["cat", sandbox.name(secret)], read=[secret])
    assert command.run(argv).stdout == b"theirs"
    made = tmp_path / "made.qcow2"
    img.create_qcow2(sandbox, made, 1 << 20)
    assert (made.stat().st_uid, made.stat().st_gid) == (0, 0)


def test_limits_hold_inside(require: Callable[..., None]) -> None:
    require("bwrap")
    with pytest.raises(CommandFailed, match="Resource temporarily unavailable"):
        command.run(Sandbox().wrap(["python3", "-I", "-S", "-c", FORKS]), timeout=60)
    told = command.run(Sandbox().wrap(["sh", "-c", "ulimit -c; ulimit -n; ulimit -u || true"]))
    assert told.stdout.split()[:2] == [b"0", b"4096"]


@pytest.mark.skipif(not cgroup.places(), reason="no control group can be made here")
def test_a_group_bounds_what_a_sandbox_takes_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, require: Callable[..., None]
) -> None:
    """Its own /tmp is memory, too: no limit of a process counts it."""
    require("bwrap")
    fills = ["sh", "-c", "dd if=/dev/zero of=/tmp/full bs=1M count=256 && echo filled"]
    assert b"filled" in command.run(Sandbox().wrap(fills), timeout=60).stdout
    small = {
        parent: tuple((name, min(value, 64 << 20)) for name, value in limits)
        for parent, limits in cgroup.places().items()
    }
    monkeypatch.setattr(cgroup, "places", lambda: small)
    done = command.run(Sandbox().wrap(fills), timeout=60, ok=range(-64, 256), grouped=True)
    assert done.status != 0
    assert b"filled" not in done.stdout
    deadline = time.monotonic() + 20
    while left := [left for place in small for left in place.glob(f"galleria-{os.getpid()}-*")]:
        assert time.monotonic() < deadline, left
        with cgroup.group():
            time.sleep(0.05)  # its end removes what was still ending


def test_the_filter_has_the_numbers_of_this_kernel() -> None:
    """By the C library's own headers."""
    headers = [*Path("/usr/include").glob("**/asm/unistd_64.h")]
    if platform.machine() != "x86_64" or not headers:
        pytest.skip("no headers of the kernel here")
    known = dict(re.findall(r"__NR_(\w+) (\d+)", headers[0].read_text()))
    there = seccomp.FORBIDDEN.keys() & known.keys()  # headers may be older
    assert len(there) > 35
    assert {name: seccomp.FORBIDDEN[name][0] for name in there} == {
        name: int(known[name]) for name in there
    }


def test_libguestfs_finds_in_the_sandbox_what_is_known_of_qemu(tmp_path: Path) -> None:
    """It takes a directory that has its user's number and is this user's own."""
    appliance, cache = tmp_path / "appliance", tmp_path / "cache"
    (appliance / fixed.QEMU).mkdir(parents=True)
    (appliance / fixed.QEMU / "qemu-1.help").write_text("known")
    cache.mkdir()
    fixed.provide(appliance, cache, confined=True)
    script = "cd /tmp/.guestfs-$(id -u) && test -O . && cat qemu-1.help && ls -ld . | cut -c1-10"
    done = command.run(Sandbox().wrap(["sh", "-c", script], scratch=cache))
    assert done.stdout.decode() == "knowndrwx------\n"
