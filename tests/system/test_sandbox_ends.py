"""Nothing of a sandbox outlives the `with` that started it, however short that was."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.process import command
from adapters.process.sandbox import Sandbox

pytestmark = [pytest.mark.system, pytest.mark.hostile]

ROOT = Path(__file__).parents[2]


def running(marker: str) -> list[str]:
    found = subprocess.run(["pgrep", "-f", marker], capture_output=True, text=True)
    return found.stdout.split()


@pytest.mark.parametrize("seconds", [0, 0.002, 0.005, 0.01, 0.02, 0.05])
def test_a_sandbox_that_is_stopped_at_once_leaves_nothing(
    seconds: float, require: Callable[..., None]
) -> None:
    require("bwrap", "pgrep")
    marker = f"sandbox of {os.getpid()} that ends after {seconds}"
    argv = Sandbox().wrap(["sh", "-c", "sleep 600; true", marker])
    for _ in range(10):
        with command.spawn(argv):
            time.sleep(seconds)
    deadline = time.monotonic() + 20
    while running(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(marker) == []


KILLED = """
import sys, time
from adapters.process import command
from adapters.process.sandbox import Sandbox
marker, enabled = sys.argv[1], sys.argv[2] == "True"
with command.spawn(Sandbox(enabled=enabled).wrap(["sh", "-c", "sleep 600; true", marker])):
    print("started", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("enabled", [True, False])
def test_what_a_killed_process_started_dies_with_it(
    enabled: bool, require: Callable[..., None]
) -> None:
    """However early that is: the program has just been executed, its parent is killed."""
    require("bwrap", "pgrep")
    marker = f"sandbox of {os.getpid()} whose parent is killed, {enabled}"
    for delay in (0, 0, 0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.05):
        argv = [sys.executable, "-c", KILLED, marker, str(enabled)]
        parent = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT)
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        time.sleep(delay)
        parent.kill()
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 20
    while running(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(marker) == []
