"""Nothing of a sandbox outlives the `with` that started it, however short that was."""

import os
import subprocess
import time
from collections.abc import Callable

import pytest

from adapters.process import command
from adapters.process.sandbox import Sandbox

pytestmark = pytest.mark.system


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
