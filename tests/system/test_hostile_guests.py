"""Guests that were made to end the job that takes them: one appliance for all of them."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.guestfs.client import GuestfsHost
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from fixtures.debian import default_cache
from fixtures.phony import ELF
from pipeline.guest.profiles import select
from pipeline.ports import Chain, ImageFormat, Layer
from tests.system.phony import performed, run

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.hostile,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="files of several owners: root"),
]
BASE: dict[str, bytes] = {
    "etc/os-release": b'ID=debian\nVERSION_ID="12"\n',
    "etc/debian_version": b"12.5\n",
    "var/lib/dpkg/status": b"",
    "usr/bin/bash": ELF,
    "usr/bin/ls": ELF,
    "etc/fstab": b"",
    "etc/passwd": b"root:x:0:0:root:/root:/bin/bash\n",
    "etc/shadow": b"root:*:19000::::::\n",
}


def crowd(root: Path) -> None:
    """Two thousand accounts with homes."""
    lines = []
    for number in range(2000):
        lines.append(f"u{number}:x:{2000 + number}:{2000 + number}::/home/u{number}:/bin/sh\n")
        if number < 50:
            home = root / f"home/u{number}"
            home.mkdir(parents=True)
            os.chown(home, 2000 + number, 2000 + number)
    with (root / "etc/passwd").open("a") as passwd:
        passwd.writelines(lines)


def abyss(root: Path) -> None:
    """Three thousand directories in each other, a key of an account at 1,200."""
    (root / "home/deep").mkdir(parents=True)
    deep = "/".join(["d"] * 1200)
    with (root / "etc/passwd").open("a") as passwd:
        passwd.write(f"deep:x:3000:3000::/home/deep/{deep}:/bin/sh\n")
    here = os.open(root / "home/deep", os.O_RDONLY)
    for level in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        if level == 1199:
            os.mkdir(".ssh", dir_fd=here)
            os.close(os.open(".ssh/id_rsa", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def bytes_of_names(root: Path) -> None:
    """A home, and what is in it, of names that are no UTF-8; longer than find(1) has room for."""
    home = os.fsencode(root) + b"/home/\xff\xfe\x80"
    keys = Path(os.fsdecode(home + b"/.ssh"))
    keys.mkdir(parents=True)
    (keys / "id_rsa").write_bytes(b"hostile-secret")
    with (root / "etc/passwd").open("ab") as passwd:
        passwd.write(b"odd:x:3000:3000::/home/\xff\xfe\x80:/bin/sh\n")
    here = os.open(home, os.O_RDONLY)
    for _ in range(40):
        os.mkdir(b"\xe9" * 200, dir_fd=here)
        below = os.open(b"\xe9" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


GUESTS: dict[str, Callable[[Path], None]] = {
    "crowd": crowd,
    "abyss": abyss,
    "bytes": bytes_of_names,
}


def build(name: str, work: Path) -> Path:
    disk, root = work / f"{name}.raw", work / name
    root.mkdir()
    run("mke2fs", "-q", "-t", "ext4", "-N", "8192", "-L", name, disk, "64M")
    run("mount", "-o", "loop", disk, root)
    try:
        for path, content in BASE.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        (root / "bin").symlink_to("usr/bin")
        GUESTS[name](root)
    finally:
        run("umount", root)
    return disk


def test_hostile_guests_are_treated_in_bounded_time(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("mke2fs", "bwrap")
    images = QemuImages(Sandbox())
    chains: list[Chain] = []
    for name in GUESTS:
        disk = build(name, tmp_path)
        overlay = disk.with_suffix(".qcow2")
        chains.append(images.create_overlay((Layer(disk, ImageFormat.RAW),), overlay))
    host = GuestfsHost(Sandbox(), default_cache())
    with host.session(chains, writable=True) as session:
        for index, name in enumerate(GUESTS):
            part = session.part(index)
            began = time.monotonic()
            performed(part, select())
            part.free_ranges(zero_rest=True)
            print(f"{name}: {time.monotonic() - began:.1f} s")
            guest = part.mount(writable=False)
            if name == "crowd":
                assert b"u1999" not in guest.read("/etc/passwd")
                assert guest.names("/home") == []
            if name == "bytes":
                assert guest.stat("/home/\udcff\udcfe\udc80/.ssh/id_rsa") is None
            if name == "abyss":
                assert guest.stat(f"/home/deep/{'/'.join(['d'] * 1200)}/.ssh/id_rsa") is None
            part.free_ranges(zero_rest=True)
