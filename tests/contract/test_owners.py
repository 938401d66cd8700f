"""Owners: which processes are alive, by real ones; the double is held to the same."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.process import owners as adapter
from adapters.process.owners import ProcessOwners
from pipeline.model import OwnerToken
from pipeline.ports.owners import Owners
from tests.samples import FakeOwners

TELL = """
from dataclasses import astuple
from adapters.process.owners import ProcessOwners
import sys
print(*astuple(ProcessOwners().current()), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=[ProcessOwners, FakeOwners])
def owners(request: pytest.FixtureRequest) -> Owners:
    made: Owners = request.param()
    return made


@pytest.fixture
def child() -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def token_of(process: "subprocess.Popen[str]") -> OwnerToken:
    assert process.stdout is not None
    host, boot, namespace, pid, ticks = process.stdout.readline().split()
    return OwnerToken(host, boot, int(namespace), int(pid), int(ticks))


def test_the_one_that_asks_is_alive_and_itself(owners: Owners) -> None:
    assert owners.current() == owners.current()
    assert owners.alive(owners.current())


def test_another_process_is_alive_until_it_ends(child: "subprocess.Popen[str]") -> None:
    token = token_of(child)
    assert token.pid == child.pid
    assert token != ProcessOwners().current()
    assert ProcessOwners().alive(token)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert not ProcessOwners().alive(token)
    child.wait()
    assert not ProcessOwners().alive(token)


def test_a_reused_number_is_another_process() -> None:
    me = ProcessOwners().current()
    assert not ProcessOwners().alive(replace(me, start_ticks=me.start_ticks - 1))


def test_before_the_last_boot_of_this_host_all_have_ended() -> None:
    me = ProcessOwners().current()
    assert not ProcessOwners().alive(replace(me, boot_id="another"))


def test_what_cannot_be_seen_counts_as_alive() -> None:
    me = ProcessOwners().current()
    assert ProcessOwners().alive(replace(me, boot_id="another", host="build2"))
    assert ProcessOwners().alive(replace(me, pid_namespace=1, pid=2**22))


RENAMED = """
import sys
open("/proc/self/comm", "w").write(") Z 1 (")
print("renamed", flush=True)
sys.stdin.readline()
"""


def test_a_command_name_full_of_parentheses_is_no_trap() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RENAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "renamed\n"
        me = ProcessOwners().current()
        ticks = adapter._start_ticks(process.pid)
        process.kill()
        up = float(Path("/proc/uptime").read_text().split()[0])
    assert ticks is not None
    assert me.start_ticks <= ticks <= up * os.sysconf("SC_CLK_TCK")
