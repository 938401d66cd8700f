"""How long generalizing takes beside the tools that together do less: run by hand, on a quiet host.

    python -m tests.bench.generalize [JSON]

virt-sysprep, virt-sparsify --in-place and virt-inspector (guestfish's inspection) each work on a
copy of the same real Debian guest, in one run with galleria; all under the same accelerator. The
aim is a ratio of at most 0.6 of their sum.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.guestfs.client import GuestfsHost
from adapters.images import QemuImages
from adapters.sandbox import Sandbox
from fixtures.debian import build, default_cache
from pipeline.guest.profiles import select
from pipeline.ports import ImageFormat, Layer, Meter
from pipeline.stages.generalize import generalize

RATIO = 0.6


class Quiet:
    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        yield self

    def advance(self, amount: int) -> None: ...
    def note(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...


def measure(work: Path) -> dict[str, float]:
    """Seconds by tool."""
    source = build("V1").os_disk
    host = GuestfsHost(Sandbox(), default_cache())
    host.accelerator()  # built and tried before the clock runs, as the other tools' appliance is
    env = {
        **os.environ,
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_BACKEND_SETTINGS": f"force_{host.accelerator().kind}",
        "LIBGUESTFS_PATH": str(next((default_cache() / "appliance").glob("*/root")).parent),
    }
    seconds = {}
    copy = work / "copy.raw"
    subprocess.run(["cp", "--sparse=always", source, copy], check=True)
    for name, argv in (
        ("virt-inspector", ["virt-inspector", "--format=raw", "-a", str(copy)]),
        ("virt-sysprep", ["virt-sysprep", "--format", "raw", "-a", str(copy)]),
        ("virt-sparsify", ["virt-sparsify", "--in-place", "--format", "raw", str(copy)]),
    ):
        began = time.monotonic()
        subprocess.run(argv, check=True, env=env, stdout=subprocess.DEVNULL)
        seconds[name] = time.monotonic() - began
    copy.unlink()
    chain = QemuImages(Sandbox()).create_overlay(
        (Layer(source, ImageFormat.RAW),), work / "top.qcow2"
    )
    began = time.monotonic()
    generalize(host, [chain], select(), Quiet())
    seconds["galleria"] = time.monotonic() - began
    return seconds


def main() -> int:
    before = os.getloadavg()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        seconds = measure(Path(work))
    others = sum(value for name, value in seconds.items() if name != "galleria")
    ratio = seconds["galleria"] / others
    report = {
        "seconds": seconds,
        "ratio": ratio,
        "aim": RATIO,
        "load_before": before,
        "load_after": os.getloadavg(),
        "cores": os.cpu_count(),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(f"{text}\n")
    return 0 if ratio <= RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
