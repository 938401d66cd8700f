"""Disks of phony guests, written without mounting: trees, file systems with residue, tables."""

import os
import re
from pathlib import Path

from fixtures import phony
from fixtures.phony import Family
from tests.system.phony import run

HOMES = {"/home/alice": 1000, "/srv/homes/bob": 1001}


MARK = re.compile(rb"phony-canary-[0-9a-f]{20}")


def mark(family: str, place: str) -> bytes:
    """Fifty canaries, 1.8 KB."""
    return "".join(f"{canary}\n" for canary in phony.hidden(family, place)).encode()


def tree(family: Family, work: Path) -> Path:
    root = work / f"{family.name}.tree"
    for path, content in phony.files(family).items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    (root / "bin").symlink_to("usr/bin")
    (root / "boot/efi").mkdir(parents=True)
    for home, owner in HOMES.items():  # a home that is not its user's own stays, as userdel has it
        os.chown(root / home.lstrip("/"), owner, owner)
    (root / "root/.mysql_history").symlink_to("/dev/null")
    (root / "etc/mtab").symlink_to("../proc/self/mounts")
    (root / "etc/dangling").symlink_to("loop")
    (root / "etc/loop").symlink_to("dangling")
    if family.name == "ubuntu":
        page = bytes(4086) + b"SWAPSPACE2"
        (root / "swap.img").write_bytes(page + mark("ubuntu", "swap-file").ljust(8192, b"\0"))
    return root


def ext(path: Path, start: int, length: int, source: Path | None, *options: str) -> None:
    """An ext file system at an offset of a disk, with a file that was deleted."""
    where = f"offset={start}"
    content = ("-d", source) if source else ()
    run("mke2fs", "-q", "-F", *options, *content, "-E", where, path, f"{length // 1024}k")
    if source is None:
        return
    family = source.name.split(".")[0]
    residue = source.with_suffix(".residue")
    residue.write_bytes(mark(family, "deleted") * 10)
    target = f"{path}?offset={start}"
    run("debugfs", "-w", "-R", f"write {residue} residue", target)
    run("debugfs", "-w", "-R", "rm residue", target)
    if "ext2" in options:  # has no journal
        return
    journal = run("debugfs", "-R", "stat <8>", target)
    block = int(run("dumpe2fs", "-h", target).split("Block size:")[1].split()[0])
    first = int(re.findall(r":(\d+)", journal.split("BLOCKS:")[-1].split("EXTENTS:")[-1])[0])
    plant(path, start + (first + 20) * block, mark(family, "journal"))


def plant(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def disk(path: Path, length: int, table: str = "") -> Path:
    with path.open("wb") as file:
        file.truncate(length)
    if table:
        run("sfdisk", "-q", path, stdin=table)
    return path
