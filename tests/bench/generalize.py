"""How long generalizing takes beside the tools that together do less, on a quiet host.

    python -m tests.bench.generalize [--rounds N] [--json FILE] [--markdown FILE]

virt-sysprep, virt-sparsify --in-place and virt-inspector (guestfish's inspection) each work on a
copy of the same real Debian guest, in turn with galleria, round by round; all under the same
accelerator. The tools boot libguestfs's appliance as it comes and is kept after its first use,
galleria its own. The aim is a ratio of medians of at most 0.6 of their sum.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from adapters.guestfs.client import GuestfsHost
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from adapters.progress import Mode, open_progress
from fixtures.debian import build, default_cache
from pipeline.guest.generalize import generalize
from pipeline.guest.profiles import select
from pipeline.ports import ImageFormat, Layer

RATIO = 0.6
GALLERIA = "galleria"
TOOLS = {
    "virt-inspector": ("virt-inspector", "--format=raw", "-a"),
    "virt-sysprep": ("virt-sysprep", "--format", "raw", "-a"),
    "virt-sparsify": ("virt-sparsify", "--in-place", "--format", "raw"),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of every round by tool. `ratio` is galleria's median to the sum of the others'."""

    accelerator: str
    cores: int
    load_before: tuple[float, float, float]
    load_after: tuple[float, float, float]
    seconds: Mapping[str, list[float]]

    @property
    def medians(self) -> dict[str, float]:
        return {name: median(values) for name, values in self.seconds.items()}

    @property
    def ratio(self) -> float:
        others = sum(value for name, value in self.medians.items() if name != GALLERIA)
        return self.medians[GALLERIA] / others

    def document(self) -> dict[str, object]:
        return {
            **asdict(self),
            "medians": {name: round(value, 2) for name, value in self.medians.items()},
            "ratio": round(self.ratio, 3),
            "aim": RATIO,
        }

    def markdown(self) -> str:
        rows = [
            f"| {name} | {value:.1f} | {min(self.seconds[name]):.1f} |"
            for name, value in self.medians.items()
        ]
        head = ["| tool | median, s | best, s |", "|---|---|---|"]
        end = f"\ngeneralizing: {self.ratio:.2f} of the sum of the others (aim {RATIO})\n"
        return "\n".join([*head, *rows, end])


def measure(work: Path, rounds: int = 1) -> dict[str, float]:
    """Seconds by tool: medians."""
    return compare(work, rounds).medians


def compare(work: Path, rounds: int) -> Measured:
    """`work` is where copies of the guest (2 GiB) are made and removed."""
    source = build("V1").os_disk
    host = GuestfsHost(Sandbox(), default_cache())
    kind = host.accelerator().kind  # and the appliance is built, before the clock runs
    env = {
        **os.environ,
        "LIBGUESTFS_BACKEND": "direct",
        "LIBGUESTFS_BACKEND_SETTINGS": f"force_{kind}",
    }
    # the others' appliance too is built at its first use
    subprocess.run(["guestfish", "-a", "/dev/null", "run"], check=True, env=env)
    before, seconds = os.getloadavg(), dict[str, list[float]]()
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=work) as name:
            copy = Path(name, "copy.raw")
            subprocess.run(["cp", "--sparse=always", source, copy], check=True)
            for tool, argv in TOOLS.items():
                _time(tool, partial(_run, [*argv, str(copy)], env), seconds)
            chain = QemuImages(Sandbox()).create_overlay(
                (Layer(source, ImageFormat.RAW),), Path(name, "top.qcow2")
            )
            quiet = open_progress(Mode.NONE)
            treat = partial(generalize, host, [chain], select(), quiet)
            _time(GALLERIA, treat, seconds)
    return Measured(kind, os.cpu_count() or 1, before, os.getloadavg(), seconds)


def _run(argv: list[str], env: Mapping[str, str]) -> None:
    subprocess.run(argv, check=True, env=dict(env), stdout=subprocess.DEVNULL)


def _time(name: str, work: Callable[[], object], seconds: dict[str, list[float]]) -> None:
    began = time.monotonic()
    work()
    seconds.setdefault(name, []).append(time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.generalize")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    found = compare(Path("/var/tmp"), options.rounds)  # noqa: S108 - no secrets are in it
    print(found.markdown())
    if options.json:
        options.json.write_text(json.dumps(found.document(), indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text(found.markdown())
    return 0 if found.ratio <= RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
