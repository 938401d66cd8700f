"""What the figures were measured on."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from adapters.filesystem import calls

TOOLS = (
    ("qemu-img", ("qemu-img", "--version")),
    ("cp", ("cp", "--version")),
    ("cmp", ("cmp", "--version")),
    ("rsync", ("rsync", "--version")),
    ("casync", ("casync", "--version")),
    ("borg", ("borg", "--version")),
    ("restic", ("restic", "version")),
    ("mkfs.xfs", ("mkfs.xfs", "-V")),
    ("mkfs.btrfs", ("mkfs.btrfs", "--version")),
    ("mkfs.ext4", ("mkfs.ext4", "-V")),
)
LIBRARIES = ("xxhash", "blake3", "galleria")


def facts(work: Path) -> dict[str, Any]:
    """The host, the versions of what runs on it, and the file system of the work directory."""
    return {
        "processor": _line("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "distribution": _line("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        "python": sys.version.split()[0],
        "work": calls.identity(work),
        "versions": {name: _version(argv) for name, argv in TOOLS}
        | {name: metadata.version(name) for name in LIBRARIES},
        "commit": _commit(),
    }


def _line(path: str, name: str, separator: str = ":") -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _version(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "absent"
    found = re.search(r"\d+(\.\d+)*", (done.stdout or done.stderr).splitlines()[0])
    return found[0] if found else "unknown"


def _commit() -> str:
    """The commit that is measured, marked when files differ from it; empty outside of a clone."""
    argv = ("git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=12")
    root = Path(__file__).parents[2]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()
