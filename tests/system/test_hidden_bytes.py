"""Each file system, and each place in it where bytes stay that nobody reads: canaries are planted,
one appliance treats all disks, and the whole of each is scanned for them. The files that are kept
are compared, and the file systems' own checkers look at what came of it.

What is planted where is a table. A file system that calls a live file's blocks free is refused.
"""

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.guestfs.client import GuestfsHost
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from fixtures.debian import default_cache
from pipeline.errors import Refused
from pipeline.ports import Chain, ImageFormat, Layer
from tests.system.conftest import loop_mounted, settle
from tests.system.phony import MIB, flatten, run

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="filling file systems needs loop mounts: root"),
]
KEPT = b"what is kept: " * 300
CANARY = re.compile(rb"canary-[a-z0-9]+-[a-z]+\.")
MAKERS: Mapping[str, tuple[str, ...]] = {
    "ext2": ("mke2fs", "-q", "-t", "ext2"),
    "ext3": ("mke2fs", "-q", "-t", "ext3"),
    "ext4": ("mke2fs", "-q", "-t", "ext4"),
    "ext4small": ("mke2fs", "-q", "-t", "ext4", "-b", "1024", "-O", "^metadata_csum"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
    "fat16": ("mkfs.vfat", "-F", "16", "-s", "4"),
    "fat32": ("mkfs.vfat", "-F", "32", "-s", "2"),
}
LENGTHS = {"xfs": 310 * MIB, "btrfs": 130 * MIB, "fat32": 96 * MIB}
CHECKERS: Mapping[str, tuple[str, ...]] = {
    "ext": ("e2fsck", "-f", "-n"),
    "xfs": ("xfs_repair", "-n", "-f"),
    "btr": ("btrfs", "check", "--readonly"),
    "fat": ("fsck.vfat", "-n"),
}
# the places of a kind of file system, besides its free blocks
PLACES: Mapping[str, tuple[str, ...]] = {
    "ext": ("slack",),
    "ext4": ("unwritten",),
    "xfs": ("unwritten", "attribute", "target", "name"),
    "btrfs": ("unwritten", "name"),
    "fat": ("tail", "name", "directory", "rest"),
}


def canary(kind: str, place: str) -> bytes:
    return f"canary-{kind}-{place}.".encode()


def page(kind: str, place: str) -> bytes:
    """A block, of any size, with a canary in it."""
    return (canary(kind, place) + b"|").ljust(64, b".") * 16


def places(kind: str) -> set[str]:
    return {"deleted"} | {
        place for prefix, found in PLACES.items() if kind.startswith(prefix) for place in found
    }


def filled(path: Path, kind: str) -> Path:
    with path.open("wb") as file:
        file.truncate(LENGTHS.get(kind, 48 * MIB))
    run(*MAKERS[kind], path)
    if kind.startswith("fat"):
        fill_fat(path, kind)
    else:
        with loop_mounted(path) as point:
            fill(point, kind)
    if kind.startswith("ext"):  # the kernel's ext4 leaves no names; others do
        plant_ext(path, kind)
    found = {name.decode().strip(".").rpartition("-")[2] for name in canaries(path)}
    assert places(kind) <= found
    return path


def fill(point: Path, kind: str) -> None:
    (point / "kept").write_bytes(KEPT)
    (point / "link").symlink_to("x" * 50 + "kept")
    (point / "below").mkdir()
    (point / "below/inner").write_bytes(KEPT)
    (point / "long").symlink_to("y/" * 100 + "kept")
    wanted = places(kind)
    with suppress(OSError):
        for number in range(10_000):  # until it is full
            name = "unwritten" if "unwritten" in wanted and number % 2 else "deleted"
            (point / f"gone{number}").write_bytes(page(kind, name) * 512)
    settle(point)
    for path in point.glob("gone*"):
        if int(path.name[4:]) % 2:
            path.unlink()
    settle(point)
    if "unwritten" in wanted:  # most of the blocks that were just let go, by many extents
        facts = os.statvfs(point)
        room = facts.f_bavail * facts.f_frsize * 7 // 8
        for number in range(16):
            run("fallocate", "-l", str(room // 16), point / f"reserved{number}")
        with (point / "reserved0").open("r+b") as file:
            file.seek(64 << 10)
            file.write(KEPT)
    for path in point.glob("gone*"):
        path.unlink()
    for number in range(200):
        (point / f"{number}-{canary(kind, 'name').decode()}").touch()
    settle(point)
    for path in point.glob("*-canary-*"):
        path.unlink()
    if "attribute" in wanted:
        path = point / "holder"
        path.touch()
        os.setxattr(path, "user.secret", canary(kind, "attribute"))
        settle(point)
        os.removexattr(path, "user.secret")
        (point / "away").symlink_to(canary(kind, "target").decode())
        settle(point)
        (point / "away").unlink()


def plant_ext(path: Path, kind: str) -> None:
    """Behind the last entry of a directory."""
    size = int(run("dumpe2fs", "-h", path).partition("Block size:")[2].split()[0])
    number = int(run("debugfs", "-R", "blocks /below", path).split()[0])
    raw = bytearray(path.read_bytes())
    plant(raw, (number + 1) * size - 64, canary(kind, "slack"))
    path.write_bytes(raw)


def canaries(path: Path) -> set[bytes]:
    return set(CANARY.findall(path.read_bytes()))


def fill_fat(path: Path, kind: str) -> None:
    """By mtools: not every kernel can mount it."""
    files = path.with_suffix(".files")
    files.mkdir()
    (files / "kept").write_bytes(KEPT)
    (files / "gone").write_bytes(page(kind, "deleted") * 600)
    run("mcopy", "-i", path, files / "kept", files / "gone", "::")
    run("mmd", "-i", path, "::below")
    run("mcopy", "-i", path, files / "kept", "::below/inner")
    name = canary(kind, "name").decode()
    run("mcopy", "-i", path, files / "kept", f"::{name[:11]}{name[12:]}")
    run("mdel", "-i", path, f"::{name[:11]}{name[12:]}", "::gone")
    shutil.rmtree(files)
    raw = bytearray(path.read_bytes())
    sector, per, reserved, tables, roots = struct.unpack_from("<HBHBH", raw, 11)
    length = struct.unpack_from("<H", raw, 22)[0] or struct.unpack_from("<I", raw, 36)[0]
    data = (reserved + tables * length) * sector + -(-roots * 32 // sector) * sector
    cluster = sector * per
    plant(raw, raw.find(KEPT) + len(KEPT) + 1, canary(kind, "tail"))
    inner = raw.find(b"INNER      ", data)
    plant(raw, inner - (inner - data) % cluster + cluster - 64, canary(kind, "directory"))
    raw += bytes(cluster // 2 // 512 * 512)  # the device is longer than its clusters
    plant(raw, data + (len(raw) - data) // cluster * cluster + 8, canary(kind, "rest"))
    # the first part of a removed name, as a short one; the others hold it in pieces
    start = next(at for at in range(data - roots * 32, len(raw), 32) if raw[at] == 0xE5)
    plant(raw, start + 1, canary(kind, "name"))
    path.write_bytes(raw)


def plant(raw: bytearray, at: int, content: bytes) -> None:
    raw[at : at + len(content)] = content


# --- partition tables ---------------------------------------------------------------------------

TABLES: Mapping[str, str] = {
    "mbr": "label: dos\nstart=2048,size=2048,type=83\nstart=8192,size=2048,type=83\n",
    "gpt": "label: gpt\nstart=2048,size=2048\nstart=8192,size=2048\n",
    "extended": "label: dos\nstart=2048,size=2048,type=83\nstart=8192,size=16384,type=5\n"
    "start=10240,size=2048,type=83\nstart=16384,size=2048,type=83\n",
}
# by table, where in sectors no partition is, and whether a boot loader may be there
GAPS: Mapping[str, Mapping[str, int]] = {
    "mbr": {"between": 5000, "behind": 12000},
    "gpt": {"between": 5000, "behind": 12000},
    "extended": {
        "between": 5000,
        "inside": 8300,
        "between logical": 13000,
        "end of extended": 20000,
        "behind": 30000,
    },
}


def divided(path: Path, kind: str) -> Path:
    with path.open("wb") as file:
        file.truncate(20 * MIB)
    run("sfdisk", "-q", path, stdin=TABLES[kind])
    raw = bytearray(path.read_bytes())
    for place, sector in GAPS[kind].items():
        plant(raw, sector * 512, canary(kind, place.replace(" ", "")))
    path.write_bytes(raw)
    return path


def swap(path: Path) -> Path:
    path.write_bytes(page("swap", "content") * 4096)
    run("mkswap", "-q", "-f", path)
    return path


def ntfs(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(32 * MIB)
    run("mkntfs", "-q", "-F", path)
    point = path.with_suffix(".mnt")
    point.mkdir()
    run("ntfs-3g", path, point)
    try:
        (point / "kept").write_bytes(KEPT)
        (point / "gone").write_bytes(page("ntfs", "deleted") * 1000)
        (point / "small").write_bytes(canary("ntfs", "resident"))
        settle(point)
        (point / "gone").unlink()
        (point / "small").unlink()
    finally:
        run("umount", point)
    return path


# --- what came of it ----------------------------------------------------------------------------


@dataclass
class Treated:
    disks: dict[str, Path]  # as they read afterwards
    before: dict[str, set[bytes]]  # the canaries that were in them
    notes: tuple[str, ...]


@pytest.fixture(scope="module")
def treated(tmp_path_factory: pytest.TempPathFactory) -> Treated:
    work = tmp_path_factory.mktemp("hidden")
    disks = {kind: filled(work / f"{kind}.raw", kind) for kind in MAKERS}
    disks |= {kind: divided(work / f"{kind}.raw", kind) for kind in TABLES}
    disks["swap"] = swap(work / "swap.raw")
    disks["ntfs"] = ntfs(work / "ntfs.raw")
    before = {name: canaries(path) for name, path in disks.items()}
    images = QemuImages(Sandbox())
    chains: list[Chain] = [
        images.create_overlay((Layer(path, ImageFormat.RAW),), work / f"{name}.qcow2")
        for name, path in disks.items()
    ]
    with GuestfsHost(Sandbox(), default_cache()).session(chains, writable=True) as session:
        space = session.free_ranges(zero_rest=True)
    return Treated(
        {
            name: flatten(chain[0].path, disks[name], work / f"{name}.out", free)
            for name, chain, free in zip(disks, chains, space.disks, strict=True)
        },
        before,
        space.notes,
    )


@pytest.mark.parametrize("name", [*MAKERS, *TABLES, "swap", "ntfs"])
def test_no_canary_is_left_anywhere(treated: Treated, name: str) -> None:
    assert treated.before[name]
    assert canaries(treated.disks[name]) == set()


@pytest.mark.parametrize("name", MAKERS)
def test_the_file_system_is_sound_and_its_files_are_there(treated: Treated, name: str) -> None:
    path = treated.disks[name]
    run(*CHECKERS[name[:3]], path)
    if name.startswith("fat"):
        for place in ("::kept", "::below/inner"):
            target = path.with_suffix(".read")
            run("mcopy", "-o", "-i", path, place, target)
            assert target.read_bytes() == KEPT
        return
    with loop_mounted(path) as point:
        assert (point / "kept").read_bytes() == (point / "below/inner").read_bytes() == KEPT
        assert str((point / "link").readlink()) == "x" * 50 + "kept"
        assert str((point / "long").readlink()) == "y/" * 100 + "kept"
        if (reserved := point / "reserved0").exists():
            content = reserved.read_bytes()
            assert content[64 << 10 :][: len(KEPT)] == KEPT
            assert content.count(0) == len(content) - len(KEPT)


def test_every_gap_is_accounted_for(treated: Treated) -> None:
    lines = [note for note in treated.notes if "between partitions" in note]
    assert len(lines) == len(TABLES)
    assert all("bytes free" in line and "before the first one" in line for line in lines)


# --- a file system that is not what it says ------------------------------------------------------


def lie_ext(path: Path) -> None:
    """Its bitmap calls a live file's blocks free, its counters agree, and so do its checksums."""
    found = subprocess.run(
        ["debugfs", "-R", "blocks /kept", path], check=True, capture_output=True, text=True
    )
    first = found.stdout.split()[0]
    run("debugfs", "-w", "-R", f"freeb {first} 1", path)


def lie_fat(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    sector, per, reserved, tables, roots = struct.unpack_from("<HBHBH", raw, 11)
    length = struct.unpack_from("<H", raw, 22)[0]
    data = (reserved + tables * length) * sector + roots * 32
    cluster = 2 + (raw.find(KEPT) - data) // (sector * per)
    for table in range(tables):
        plant(raw, (reserved + table * length) * sector + 2 * cluster, bytes(2))
    path.write_bytes(raw)


def lie_xfs(path: Path) -> None:
    """A free extent of one of its trees is one block longer."""
    run("xfs_db", "-x", "-c", "agf 0", "-c", "addr bnoroot", "-c", "write -d recs[1].blockcount 7",
        "-f", path)  # fmt: skip


LIES: Mapping[str, Callable[[Path], None]] = {"ext4": lie_ext, "fat16": lie_fat, "xfs": lie_xfs}


@pytest.mark.parametrize("kind", LIES)
def test_a_file_system_that_calls_a_live_file_free_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(LENGTHS.get(kind, 48 * MIB))
    run(*MAKERS[kind], path)
    if kind == "fat16":
        (tmp_path / "kept").write_bytes(KEPT)
        run("mcopy", "-i", path, tmp_path / "kept", "::")
    else:
        with loop_mounted(path) as point:
            (point / "kept").write_bytes(KEPT)
    LIES[kind](path)
    chain = QemuImages(Sandbox()).create_overlay(
        (Layer(path, ImageFormat.RAW),), tmp_path / "over.qcow2"
    )
    host = GuestfsHost(Sandbox(), default_cache())
    with (
        pytest.raises(Refused, match=r"/dev/sda \((ext4|vfat|xfs)\) is damaged"),
        host.session([chain], writable=True) as session,
    ):
        session.free_ranges(zero_rest=True)
