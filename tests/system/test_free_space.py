"""Free is zero, judged from outside: markers, raw scans and the file systems' own checkers.

One appliance sees every kind of file system. The disks were filled with files that are kept and
files that were deleted; reading the free ranges as zero must take every byte of the deleted ones
and none of the kept ones, and leave file systems that their checkers call clean.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.guestfs import mounts
from adapters.guestfs.client import GuestfsHost
from adapters.guestfs.process import Helper
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from fixtures.debian import default_cache
from pipeline.guest.checks import looks_generalized
from pipeline.ports import Chain, FreeSpace, GuestFacts, ImageFormat, Layer
from tests.system.conftest import loop_mounted, settle
from tests.system.phony import MIB, debian_disk, flatten, run

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="filling file systems needs loop mounts: root"),
]
GONE = b"gone-8f1d2c" * 46 + b"\n"  # a little less than a sector: one in every block
KEPT = b"kept-55aa01" * 46 + b"\n"
MAKERS = {
    "ext4": ("mke2fs", "-q", "-t", "ext4"),
    "ext4-1k": ("mke2fs", "-q", "-t", "ext4", "-b", "1024"),
    "ext3": ("mke2fs", "-q", "-t", "ext3"),
    "ext4-data-journal": ("mke2fs", "-q", "-t", "ext4"),
    "xfs": ("mkfs.xfs", "-q"),
    "vfat": ("mkfs.vfat", "-F", "32", "-s", "1"),
}
LENGTHS = {"xfs": 310 * MIB}
CHECKERS = {
    "ext": ("e2fsck", "-f", "-n"),
    "xfs": ("xfs_repair", "-n", "-f"),
    "vfa": ("fsck.vfat", "-n"),
}


@dataclass
class Survey:
    space: FreeSpace
    facts: GuestFacts
    verdict: str
    zeroed: dict[str, Path]  # each disk as it reads after the session, free ranges as zero
    volume: str  # what udev's name of a logical volume means


def filled(path: Path, kind: str) -> Path:
    """A file system with small kept and deleted files in turn, then filled up by a deleted one."""
    with path.open("wb") as file:
        file.truncate(LENGTHS.get(kind, 48 * MIB))
    run(*MAKERS[kind], path)
    if kind == "vfat":
        fill_fat(path)
    else:
        fill_mounted(path, "loop,data=journal" if kind == "ext4-data-journal" else "loop")
    assert count(path, GONE[:11]) > 1000
    return path


def plant(directory: Path) -> None:
    for number in range(200):
        (directory / f"kept{number}").write_bytes(KEPT)
        (directory / f"gone{number}").write_bytes(GONE * 5)


def fill_mounted(path: Path, options: str) -> None:
    with loop_mounted(path, options) as point:
        plant(point)
        with suppress(OSError), (point / "filler").open("wb", buffering=0) as file:
            while True:  # until it is full
                file.write(GONE * 512)
        settle(point)
        for victim in [*point.glob("gone*"), *point.glob("filler")]:
            victim.unlink()


def fill_fat(path: Path) -> None:
    """By mtools: not every kernel can mount it."""
    files = path.with_suffix(".files")
    files.mkdir()
    plant(files)
    (files / "gone-filler").write_bytes(GONE * 80_000)
    names = sorted(files.iterdir())
    run("mcopy", "-i", path, *names, "::")
    run("mdel", "-i", path, *(f"::{name.name}" for name in names if "gone" in name.name))
    shutil.rmtree(files)


def kept_files(image: Path, kind: str) -> list[bytes]:
    if kind == "vfat":
        target = image.with_suffix(".read")
        target.mkdir()
        run("mcopy", "-i", image, "::kept*", target)
        return [path.read_bytes() for path in target.iterdir()]
    with loop_mounted(image, "loop,ro") as point:
        return [path.read_bytes() for path in point.glob("kept*")]


def count(path: Path, needle: bytes) -> int:
    return path.read_bytes().count(needle)


def swap(path: Path) -> Path:
    path.write_bytes((GONE * 10_000)[: 4 * MIB])
    run("mkswap", "-q", "-f", path)
    return path


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    work = tmp_path_factory.mktemp("free")
    disks = {"debian": debian_disk(work / "debian.raw", work / "tree")}
    disks |= {kind: filled(work / f"{kind}.raw", kind) for kind in MAKERS}
    disks["swap"] = swap(work / "swap.raw")
    disks["lvm"] = work / "lvm.raw"
    disks["lvm"].write_bytes(bytes(48 * MIB) + (GONE * 10_000)[: 4 * MIB] + bytes(12 * MIB))
    images = QemuImages(Sandbox())
    chains: list[Chain] = [
        images.create_overlay((Layer(path, ImageFormat.RAW),), work / f"{name}.qcow2")
        for name, path in disks.items()
    ]
    host = GuestfsHost(Sandbox(), default_cache())
    with host.session(chains, writable=True) as session:
        make_volumes(session._helper, f"/dev/sd{'abcdefghijklmnop'[len(disks) - 1]}")
        ids = [
            session._helper.call(f"{kind}uuid", name).replace("-", "")
            for kind, name in (("vg", "group"), ("lv", "/dev/group/two"))
        ]
        volume = mounts.find(f"/dev/disk/by-id/dm-uuid-LVM-{''.join(ids)}", session._surveyed())
        facts = session.inspect()
        guest = session.mount()
        verdict = looks_generalized(guest).verdict
        guest.remove("/root/.bash_history")
        space = session.free_ranges(zero_rest=True)
    zeroed = {
        name: flatten(chain[0].path, disks[name], work / f"{name}.out", free)
        for name, chain, free in zip(disks, chains, space.disks, strict=True)
    }
    return Survey(space, facts, verdict, zeroed, "" if volume is None else volume.name)


def make_volumes(helper: Helper, device: str) -> None:
    """Two volumes that take turns on the disk, the first in two parts; the disk's end is free. Made
    in the appliance, as the host may have no device mapper."""
    helper.call("pvcreate", device)
    helper.call("vgcreate", "group", [device])
    helper.call("lvcreate", "one", "group", 12)
    helper.call("lvcreate", "two", "group", 8)
    helper.call("lvresize", "/dev/group/one", 36)
    helper.call("mkfs", "ext4", "/dev/group/one")
    helper.call("mount", "/dev/group/one", "/")
    for number in range(100):
        helper.call("write", f"/kept{number}", KEPT)
        helper.call("write", f"/gone{number}", GONE * 5)
    # larger than either part of the volume: it lies on both
    helper.call("write", "/gone-large", GONE * 5000)
    for _ in range(6):
        helper.call("write_append", "/gone-large", GONE * 6000)
    helper.call("sync")
    helper.call("rm_rf", "/gone-large")
    for number in range(100):
        helper.call("rm", f"/gone{number}")
    helper.call("umount_all")


@pytest.mark.parametrize("kind", MAKERS)
def test_deleted_bytes_are_in_free_ranges_and_kept_ones_are_not(survey: Survey, kind: str) -> None:
    path = survey.zeroed[kind]
    assert count(path, GONE[:11]) == 0
    check = path.with_suffix(".check")
    shutil.copy(path, check)
    run(*CHECKERS[kind[:3]], check)
    assert kept_files(check, kind) == [KEPT] * 200


def test_swap_keeps_its_header_and_nothing_else(survey: Survey) -> None:
    path = survey.zeroed["swap"]
    assert count(path, GONE[:11]) == 0
    assert run("blkid", "-p", "-o", "value", "-s", "TYPE", path).strip() == "swap"


def test_logical_volumes_are_followed_to_the_disk(survey: Survey) -> None:
    path = survey.zeroed["lvm"]
    assert count(path, GONE[:11]) == 0
    assert count(path, KEPT[:11]) == 100 * KEPT.count(KEPT[:11])


def test_partitions_are_where_the_disk_has_them(survey: Survey) -> None:
    path = survey.zeroed["debian"]
    assert count(path, b"MARKER-history") == 0
    content = path.read_bytes()
    assert b"kept" not in content[: 2048 * 512]
    assert content[510:512] == b"\x55\xaa"
    assert content.count(b"SWAPSPACE2") == 1
    root = path.with_suffix(".root")
    root.write_bytes(content[2048 * 512 : -16384 * 512])
    run("e2fsck", "-f", "-n", root)


def test_ranges_are_sorted_aligned_and_inside_their_disk(survey: Survey) -> None:
    for ranges, path in zip(survey.space.disks, survey.zeroed.values(), strict=True):
        end = -1
        for free in ranges:
            assert free.start % 512 == free.length % 512 == 0
            assert free.length > 0
            assert free.start > end  # merged: they do not even touch
            end = free.end
        assert end <= path.stat().st_size


def test_every_file_system_is_accounted_for(survey: Survey) -> None:
    assert len(survey.space.notes) == 13  # one of them of the gaps between partitions
    listed = [note for note in survey.space.notes if "bytes free" in note]
    assert len(listed) == 11
    rest = sorted(set(survey.space.notes) - set(listed))
    assert rest == [
        "/dev/group/two (unknown): left as it is",
        "/dev/sdi (LVM2_member): left as it is",
    ]


def test_inspection_names_the_guest(survey: Survey) -> None:
    facts = survey.facts
    assert (facts.os_type, facts.distribution, facts.hostname) == ("linux", "debian", "oldbox")
    assert (facts.partition_table, facts.generation) == ("mbr", "V1")
    assert ("/dev/sda2", "swap") in facts.filesystems
    assert facts.mountpoints == (("/", "/dev/sda1"),)
    assert survey.verdict == "specialized"


def test_a_volume_is_known_by_its_uuid_too(survey: Survey) -> None:
    assert survey.volume == "/dev/group/two"
