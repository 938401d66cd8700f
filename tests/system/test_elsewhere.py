"""Every file system of a guest's disks is cleaned, or named: judged by a raw scan of the bytes, by
debugfs and mtools, and by e2fsck. Four guests share an appliance, and are treated twice.

    paths    /home by the path of its partition, an older one below it, a bind mount, odd lines
    types    /home, /var and the EFI partition by their partition types, and boot entries
    stray    a mount unit for a UUID that is not there, a /var of nobody, and something unknown
    foreign  NTFS, ZFS, bcachefs and a read-only file system: named, not cleaned
"""

import hashlib
import hmac
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.guestfs.client import GuestfsHost, GuestfsSession
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from fixtures.debian import default_cache
from pipeline.guest.generalize import Generalized, generalize
from pipeline.guest.profiles import select
from pipeline.ports import Chain, ImageFormat, Layer
from tests.system.disks import disk, plant
from tests.system.phony import MIB, flatten, run, tree
from tests.system.test_generalize import Quiet

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
MACHINE_ID = "0123456789abcdef0123456789abcdef"  # of phony.tree
ROOT, HOME = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "933AC7E1-2EB4-4F13-B844-0E14E2AEF915"
VAR, ESP = "4D21B016-B534-45C2-A9FB-5C16E091FD2D", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
VAR_NUMBER = str(
    uuid.UUID(
        bytes=hmac.new(bytes.fromhex(MACHINE_ID), uuid.UUID(VAR).bytes, hashlib.sha256).digest()[
            :16
        ],
        version=4,
    )
)
SECRETS: Mapping[str, tuple[str, ...]] = {
    "paths": ("SECRET-part", "SECRET-below", "SECRET-bound"),
    "types": ("SECRET-home", "SECRET-lease", "SECRET-log", f"systemd.machine_id={MACHINE_ID}"),
    "stray": ("SECRET-stray", "SECRET-syslog"),
    "foreign": (),
}
READ_ONLY = "it is read-only: what is in it stays"
UNKNOWN = b"nobody knows what this is " * 100


def files(directory: Path, content: Mapping[str, str]) -> Path:
    for name, text in content.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def divided(path: Path, *parts: tuple[int, str, Path | None]) -> Path:
    """A GPT with a partition of so many MiB for each: what sfdisk is told of it, and a tree."""
    table, start = "label: gpt\n", 1
    for length, how, _ in parts:
        table += f"start={start * 2048},size={length * 2048}{how}\n"
        start += length
    disk(path, (start + 1) * MIB, table)
    start = 1
    for length, _, source in parts:
        if source is not None:
            run(
                *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", source),
                *("-E", f"offset={start * MIB}", path, f"{length}m"),
            )
        start += length
    return path


def paths(path: Path, work: Path) -> None:
    root = tree(work / "root")
    files(
        root,
        {
            "etc/fstab": "UUID=0-0 / ext4 defaults 0 1\n"
            "/dev/disk/by-path/pci-0000:00:05.0-scsi-0:0:0:0-part2 /home ext4 defaults 0 2\n"
            "/var/lib/homes /srv none bind 0 0\n/dev/sdz /data xfs nobarrier 0 0\n"
            "192.0.2.5:/nfs /NFS nfs ,nofail,tcp 0 0\n",
            "home/old/.ssh/id_rsa": f"{KEY}SECRET-below\n",
            "var/lib/homes/people/bob/.bash_history": "SECRET-bound\n",
            "srv/.keep": "",
        },
    )
    home = files(work / "home", {"ann/.ssh/id_rsa": f"{KEY}SECRET-part\n", "ann/work": "kept"})
    divided(path, (40, "", root), (24, "", home))


def types(path: Path, work: Path) -> None:
    root = tree(work / "root")
    (root / "etc/fstab").unlink()
    for name in ("var/lib/dpkg/status", "var/lib/dpkg", "var/lib"):
        (root / name).unlink() if name.endswith("status") else (root / name).rmdir()
    files(root, {"usr/lib/systemd/systemd": "ELF"})
    for name in ("home", "efi"):
        (root / name).mkdir()
    home = files(work / "home", {"ann/.aws/credentials": "SECRET-home", "ann/.bashrc": ""})
    var = files(work / "var", {"lib/dhcp/a.leases": "SECRET-lease", "log/auth.log": "SECRET-log"})
    parts = (
        (40, f",type={ROOT}", root),
        (16, f",type={HOME}", home),
        (16, f",type={VAR},uuid={VAR_NUMBER}", var),
        (8, f",type={ESP}", None),
    )
    divided(path, *parts)
    esp = disk(work / "esp", 8 * MIB)
    run("mkfs.vfat", "-F", "16", "-s", "1", esp)
    entry = work / "entry"
    entry.write_text(
        f"machine-id {MACHINE_ID}\noptions root=x systemd.machine_id={MACHINE_ID} rw\n"
        f"linux /{MACHINE_ID}/6/linux\n"
    )
    run("mmd", "-i", esp, "::loader", "::loader/entries", f"::{MACHINE_ID}", f"::{MACHINE_ID}/6")
    run("mcopy", "-i", esp, entry, f"::loader/entries/{MACHINE_ID}-6.conf")
    run("mcopy", "-i", esp, root / "usr/lib/systemd/systemd", f"::{MACHINE_ID}/6/linux")
    run("dd", f"if={esp}", f"of={path}", "bs=1M", "seek=73", "conv=notrunc")


def stray(path: Path, work: Path) -> None:
    unit = "[Mount]\nWhat=/dev/disk/by-uuid/1111-2222\nWhere=/home\nType=ext4\n"
    root = files(tree(work / "root"), {"etc/systemd/system/home.mount": unit})
    home = files(work / "home", {"ann/.ssh/id_rsa": f"{KEY}SECRET-stray\n", "ann/work": "kept"})
    var = files(work / "var", {"log/syslog": "SECRET-syslog", "lib/x": "", "cache/x": ""})
    divided(path, (40, "", root), (16, "", home), (16, "", var), (4, "", None))
    with path.open("r+b") as file:
        file.seek(73 * MIB)
        file.write(UNKNOWN)


def foreign(path: Path, work: Path) -> None:
    """What galleria has no reader for. Of ZFS there are the uberblocks by which it is known
    (zfs/include/sys/uberblock_impl.h), of bcachefs the head of its super block (bcachefs_format.h),
    which older appliances don't know."""
    root = files(tree(work / "root"), {"etc/fstab": "/dev/sdz /data xfs nobarrier 0 0\n"})
    ntfs, zfs, bcachefs = (disk(work / name, 64 * MIB) for name in ("ntfs", "zfs", "bcachefs"))
    run("mkfs.ntfs", "-q", "-F", ntfs)
    plant(zfs, 128 << 10, struct.pack("<QQQ", 0x00BAB10C, 5000, 7).ljust(1024, b"\0") * 128)
    plant(bcachefs, 4096, bytes(24) + bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"))
    content = files(work / "content", {"ann/.ssh/id_rsa": f"{KEY}SECRET-foreign\n"})
    run("mksquashfs", content, work / "squashfs", "-quiet", "-no-progress")
    parts = (ntfs, zfs, bcachefs, work / "squashfs")
    divided(path, (40, "", root), *((64, "", None) for _ in parts))
    for number, part in enumerate(parts):
        seek = f"seek={41 + 64 * number}"
        run("dd", f"if={part}", f"of={path}", "bs=1M", seek, "conv=notrunc,sparse")


MAKERS: Mapping[str, Callable[[Path, Path], None]] = {
    "paths": paths,
    "types": types,
    "stray": stray,
    "foreign": foreign,
}


@dataclass(frozen=True, slots=True)
class Part:
    """A host whose only session is one guest's part of a shared appliance."""

    shared: GuestfsSession

    @contextmanager
    def session(self, _: Sequence[Chain], *, writable: bool) -> Iterator[GuestfsSession]:
        assert writable
        yield self.shared


@dataclass
class Outcome:
    done: Generalized
    disks: list[Path]  # of two runs


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Outcome]]:
    work = tmp_path_factory.mktemp("elsewhere")
    for name, make in MAKERS.items():
        (work / name).mkdir()
        make(work / f"{name}.raw", work / name)
    found: dict[str, Outcome] = {}
    images = QemuImages(Sandbox())
    for again in range(2):
        chains: list[Chain] = [
            images.create_overlay(
                (Layer(work / f"{name}.raw", ImageFormat.RAW),), work / f"{name}.{again}.qcow2"
            )
            for name in MAKERS
        ]
        done = {}
        with GuestfsHost(Sandbox(), default_cache()).session(chains, writable=True) as session:
            for index, name in enumerate(MAKERS):
                done[name] = generalize(Part(session.part(index)), [()], select(), Quiet())
        for index, (name, chain) in enumerate(zip(MAKERS, chains, strict=True)):
            path = work / f"{name}.out{again}"
            flatten(chain[0].path, work / f"{name}.raw", path, done[name].free[index])
            found.setdefault(name, Outcome(done[name], [])).disks.append(path)
    yield found
    for path in work.glob("*.*"):
        if path.is_file():
            path.unlink()


@pytest.fixture(params=list(MAKERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def text(path: Path, start: int, name: str) -> str:
    """A file of the ext4 at so many MiB of a disk."""
    return run("debugfs", "-R", f"cat {name}", f"{path}?offset={start * MIB}")


def test_no_secret_is_in_the_bytes_after(outcomes: Mapping[str, Outcome], name: str) -> None:
    path = outcomes[name].disks[0]
    before = path.with_suffix(".raw").read_bytes()
    after = path.read_bytes()
    assert [item for item in SECRETS[name] if item.encode() not in before] == []
    assert [item for item in SECRETS[name] if item.encode() in after] == []


def test_what_is_no_secret_is_kept(outcomes: Mapping[str, Outcome]) -> None:
    assert text(outcomes["paths"].disks[0], 41, "/ann/work") == "kept"
    assert text(outcomes["stray"].disks[0], 41, "/ann/work") == "kept"
    assert UNKNOWN in outcomes["stray"].disks[0].read_bytes()


def test_the_report_says_what_was_skipped_and_what_was_looked_into(
    outcomes: Mapping[str, Outcome],
) -> None:
    notes = {name: outcome.done.report["notes"] for name, outcome in outcomes.items()}
    assert notes["paths"] == [
        "/etc/fstab: /dev/sdz at /data is skipped: nothing on the given disks is known by that "
        "name",
        "what lies below the mount point /home was looked into",
        "what lies below the mount point /srv was looked into",
    ]
    assert notes["types"] == [
        "the guest finds /var by its machine id: /etc/fstab names the partition for clones"
    ]
    looked = [note.partition(") is mounted nowhere: ")[2] for note in notes["stray"][1:]]
    assert looked == ["looked into as /home", "looked into as /var"]


def test_only_what_was_looked_into_is_called_generalized(
    outcomes: Mapping[str, Outcome],
) -> None:
    checks = {name: outcome.done.report["check"] for name, outcome in outcomes.items()}
    assert {name: check["verdict"] for name, check in checks.items()} == {
        "paths": "generalized",
        "types": "generalized",
        "stray": "unknown",
        "foreign": "unknown",
    }
    told = checks["foreign"]["unread"]
    named = [item.partition(") is mounted nowhere, and not looked into: ") for item in told]
    assert [(device.partition(" (")[2], why) for device, _, why in named] == [
        ("ntfs", "ntfs is not read"),
        ("zfs_member", "zfs_member is not read"),
        *(("unknown", "what is in it is not known"), ("squashfs", READ_ONLY)),
    ]
    (unread,) = checks["stray"]["unread"]
    assert unread.endswith("not looked into: what is in it is not known")
    assert "4 (unknown) is mounted nowhere" in unread


def test_a_clone_finds_var_without_the_machine_id(outcomes: Mapping[str, Outcome]) -> None:
    path = outcomes["types"].disks[0]
    assert text(path, 1, "/etc/fstab") == f"PARTUUID={VAR_NUMBER} /var auto defaults 0 2\n"


def test_a_clone_finds_its_kernel_without_the_machine_id(
    outcomes: Mapping[str, Outcome], tmp_path: Path
) -> None:
    path = outcomes["types"].disks[0]
    esp = tmp_path / "esp"
    run("dd", f"if={path}", f"of={esp}", "bs=1M", "skip=73", "count=8")
    entry = run("mtype", "-i", esp, "::loader/entries/debian-6.conf")
    assert entry == "options root=x rw\nlinux /debian/6/linux\n"
    assert run("mdir", "-b", "-i", esp, "::debian/6").strip() == "::/debian/6/linux"


def test_file_systems_are_sound(outcomes: Mapping[str, Outcome], name: str) -> None:
    starts = {"paths": (1, 41), "types": (1, 41, 57), "stray": (1, 41, 57), "foreign": (1,)}
    for start in starts[name]:
        run("e2fsck", "-f", "-n", f"{outcomes[name].disks[0]}?offset={start * MIB}")


def test_another_run_gives_the_same_bytes(outcomes: Mapping[str, Outcome], name: str) -> None:
    one, other = outcomes[name].disks
    # FAT, the last of them, has the times of changed directories. The disks are other tests', too.
    compared = 73 * MIB if name == "types" else one.stat().st_size
    run("cmp", f"--bytes={compared}", one, other)
