"""The system's libvirt, for tests that are root's."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

SYSTEM = "qemu:///system"


@contextlib.contextmanager
def running(place: Path) -> Iterator[None]:
    """It runs; started, with its files in a new directory, if it did not."""
    place.mkdir()
    with contextlib.ExitStack() as stack:
        if virsh("uri", check=False).returncode:
            for program in ("virtlogd", "libvirtd"):
                log = stack.enter_context((place / program).open("w"))
                argv = [program, "-p", str(place / f"{program}.pid")]
                process = stack.enter_context(subprocess.Popen(argv, stdout=log, stderr=log))
                stack.callback(process.terminate)
            for _ in range(300):
                if virsh("uri", check=False).returncode == 0:
                    break
                time.sleep(0.1)
        yield


def virsh(*args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    argv = ["virsh", "--connect", SYSTEM, *map(str, args)]
    return subprocess.run(argv, capture_output=True, text=True, check=check)
