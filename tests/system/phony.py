"""Small file systems and a phony Debian that libguestfs recognises, made without mounting."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.guest.operations import Change, Context, Editor, families_of
from pipeline.guest.profiles import Plan
from pipeline.guest.selinux import Labels
from pipeline.ports import Guest, GuestFacts, GuestSession
from pipeline.ports.extents import Range

ROOT_FILES = {
    "etc/fstab": "LABEL=root / ext4 defaults 0 1\n",
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "etc/debian_version": "12.5\n",
    "etc/hostname": "oldbox\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "var/lib/dpkg/status": "",
    "root/.bash_history": "MARKER-history\n",
    "usr/bin/true": "",
    "tmp/file": "",
}
MIB = 1 << 20


def run(*argv: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in argv], input=stdin, check=True, capture_output=True, text=True
    )
    return done.stdout


def tree(directory: Path) -> Path:
    for name, content in ROOT_FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (directory / "bin").symlink_to("usr/bin")
    return directory


def debian_disk(path: Path, work: Path, *, length: int = 64 * MIB) -> Path:
    """MBR; ext4 (4 KiB blocks, label root) in the first partition, swap in the second."""
    sectors = length // 512
    root = sectors - 2048 - 16384
    table = f"label: dos\nstart=2048,size={root},type=83\nstart={2048 + root},type=82\n"
    with path.open("wb") as file:
        file.truncate(length)
    run("sfdisk", "-q", path, stdin=table)
    run(
        *("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-L", "root", "-d", tree(work)),
        *("-E", f"offset={2048 * 512}", path, f"{root // 2}k"),
    )
    swap = path.with_suffix(".swap")
    with swap.open("wb") as file:
        file.truncate(16384 * 512)
    run("mkswap", "-q", swap)
    with path.open("r+b") as file:
        file.seek((2048 + root) * 512)
        file.write(swap.read_bytes())
    swap.unlink()
    return path


def flatten(overlay: Path, base: Path, path: Path, free: Sequence[Range]) -> Path:
    """An overlay on a raw file as its guest sees it, with the free ranges read as zero. By qemu-img
    alone, so that galleria's own readers are not asked about themselves."""
    node = {
        "driver": "qcow2",
        "file": {"driver": "file", "filename": str(overlay)},
        "backing": {"driver": "raw", "file": {"driver": "file", "filename": str(base)}},
    }
    run("qemu-img", "convert", "-O", "raw", f"json:{json.dumps(node)}", path)
    for hole in free:
        run("fallocate", "-p", "-o", str(hole.start), "-l", str(hole.length), path)
    return path


def performed(
    session: GuestSession, plan: Plan
) -> tuple[GuestFacts, Guest, dict[str, list[Change]]]:
    """What the generalize stage does with one of several guests of an appliance, free space left
    out: the facts, the guest as it is now, and the changes of every operation that applies."""
    facts = session.inspect()
    guest = session.mount()
    labels = Labels(guest)
    changes = {}
    for operation in plan.operations:
        if families_of(facts) & set(operation.families):
            edit = Editor(guest, operation.name, labels)
            operation.perform(edit, Context(facts, plan.policy))
            changes[operation.name] = edit.changes
    return facts, guest, changes
