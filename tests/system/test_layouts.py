"""Roots on every kind of file system, divided in every usual way, treated twice in one appliance
each: nothing planted is left, the file systems are sound, and where a run does not give the same
bytes again the report says so. One of them runs a script of the user's own, too.

    xfs      GPT, EFI: root XFS, /boot ext4, /boot/efi FAT
    btrfs    subvolumes @ and @home as Ubuntu has them, Timeshift's snapshots, one of nobody's
    snapper  SUSE's: the root is a snapshot's subvolume by default, /var apart, read-only snapshots
    old      MBR, BIOS: ext2, ext3 and ext4 with blocks of 1 KiB, as root, /var and /home
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adapters.guestfs.client import GuestfsHost
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from fixtures import phony
from fixtures.debian import default_cache
from fixtures.phony import FAMILIES, Family
from pipeline.guest.operations import Action, Change, Script
from pipeline.ports import Chain, GuestFacts, ImageFormat, Layer
from tests.system.conftest import loop_mounted, settle
from tests.system.disks import MARK, disk, ext, mark, plant, tree
from tests.system.phony import MIB, flatten, performed, run
from tests.table import everything

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="loop mounts: root"),
]
UBUNTU, SUSE, DEBIAN = (
    next(family for family in FAMILIES if family.name == name)
    for name in ("ubuntu", "suse", "debian")
)
GUESTS: Mapping[str, Family] = {
    "xfs": replace(
        SUSE,
        name="xfs",
        fstab="LABEL=rootfs / xfs defaults 0 0\nLABEL=xboot /boot ext4 defaults 0 0\n"
        "UUID=5678-ABCD /boot/efi vfat umask=077 0 0\n",
    ),
    "btrfs": replace(
        DEBIAN,
        name="btrfs",
        fstab="LABEL=btrfs / btrfs defaults,subvol=@ 0 1\n"
        "LABEL=btrfs /home btrfs defaults,subvol=@home 0 2\n",
    ),
    "snapper": replace(
        SUSE,
        name="snapper",
        fstab="LABEL=snapper / btrfs defaults 0 0\n"
        "LABEL=snapper /var btrfs subvol=/@/var 0 0\n"
        "LABEL=snapper /.snapshots btrfs subvol=/@/.snapshots 0 0\n",
    ),
    "old": replace(
        DEBIAN,
        name="old",
        fstab="LABEL=oldroot / ext2 defaults 0 1\nLABEL=oldvar /var ext3 defaults 0 2\n"
        "LABEL=oldhome /home ext4 defaults 0 2\n",
    ),
}
SCRIPT = Script(
    "own.sh",
    '{ while read -r line; do echo "$line"; done < /proc/net/dev; echo host /*; '
    "read -r name < /etc/hostname; echo name $name; while read -r line; do "
    'case $line in Uid:*) echo "$line";; esac; done < /proc/self/status; } > /root/own-output',
)
NOBODYS = "backup"  # a subvolume that nothing mounts
# file systems that differ in another run; MiB of the disks, from and to, that must not
UNLIKE = {"xfs": {"xfs", "vfat"}, "btrfs": {"btrfs"}, "snapper": {"btrfs"}, "old": {"ext2"}}
ALIKE = {"xfs": [(9, 17)], "btrfs": [], "snapper": [], "old": [(33, 80)]}
MOUNTPOINTS = {
    "xfs": ["/", "/boot", "/boot/efi"],
    "btrfs": ["/", "/home"],
    "snapper": ["/", "/.snapshots", "/var"],
    "old": ["/", "/home", "/var"],
}


def copy(source: Path, target: Path) -> None:
    run("cp", "-a", f"{source}/.", target)


def install_shell(root: Path) -> None:
    """The host's shell and what it is linked to: a script runs with the guest's own programs."""
    for name in ("dev", "proc", "sys"):  # where there is no directory, nothing is mounted
        (root / name).mkdir()
    shell = Path(shutil.which("dash") or "/bin/sh")
    shutil.copy(shell, root / "usr/bin/sh")
    for library in re.findall(r"(/\S+) \(0x", run("ldd", shell)):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def leave(point: Path, family: str) -> None:
    """Residue of a deleted file."""
    (point / "residue").write_bytes(mark(family, "deleted") * 10)
    settle(point)
    (point / "residue").unlink()


def xfs(path: Path, root: Path) -> None:
    table = (
        "label: gpt\n"
        "start=2048,size=16384,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n"
        f"start=18432,size=16384\nstart=34816,size={310 * 2048}\n"
    )
    disk(path, 330 * MIB, table)
    esp, part = path.with_suffix(".esp"), path.with_suffix(".part")
    disk(esp, 8 * MIB)
    run("mkfs.vfat", "-F", "16", "-s", "1", "-i", "5678ABCD", esp)
    run("mmd", "-i", esp, "::loader")
    seed = path.with_suffix(".seed")
    seed.write_bytes(mark("xfs", "deleted"))
    run("mcopy", "-i", esp, seed, "::loader/random-seed")
    plant(path, MIB, esp.read_bytes())
    boot = root.with_name("xfs-boot.tree")
    (boot / "efi").mkdir(parents=True)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "xboot", "-d", boot, "-E", f"offset={9 * MIB}",
        path, "8M")  # fmt: skip
    disk(part, 310 * MIB)
    run("mkfs.xfs", "-q", "-L", "rootfs", part)
    with loop_mounted(part) as point:
        copy(root, point)
        leave(point, "xfs")
    run("dd", f"if={part}", f"of={path}", "bs=1M", "seek=17", "conv=notrunc,sparse")


def btrfs(path: Path, root: Path) -> None:
    run("mkfs.btrfs", "-q", "-L", "btrfs", disk(path, 160 * MIB))
    with loop_mounted(path) as top:
        for name in ("@", "@home", NOBODYS):
            run("btrfs", "subvolume", "create", top / name)
        shutil.move(root / "home", root.with_name("btrfs-home.tree"))
        (root / "home").mkdir()
        copy(root, top / "@")
        copy(root.with_name("btrfs-home.tree"), top / "@home")
        (top / NOBODYS / "secret").write_bytes(mark("btrfs", "gap"))
        (top / "@/root/forgotten").write_bytes(mark("btrfs", "slack"))
        (top / "timeshift-btrfs/snapshots/2026").mkdir(parents=True)
        for name in ("@", "@home"):
            run("btrfs", "subvolume", "snapshot", top / name,
                top / "timeshift-btrfs/snapshots/2026" / name)  # fmt: skip
        (top / "@/root/forgotten").unlink()  # it is in the snapshot now, and nowhere else
        leave(top / "@", "btrfs")


def snapper(path: Path, root: Path) -> None:
    run("mkfs.btrfs", "-q", "-L", "snapper", disk(path, 160 * MIB))
    with loop_mounted(path) as top:
        for name in ("@", "@/var", "@/.snapshots"):
            run("btrfs", "subvolume", "create", top / name)
        for number in (1, 2, 3):
            (top / f"@/.snapshots/{number}").mkdir()
            (top / f"@/.snapshots/{number}/info.xml").write_text("<snapshot/>\n")
        main = top / "@/.snapshots/1/snapshot"
        run("btrfs", "subvolume", "create", main)
        shutil.move(root / "var", root.with_name("snapper-var.tree"))
        (root / "var").mkdir()
        (root / ".snapshots").mkdir()
        copy(root, main)
        copy(root.with_name("snapper-var.tree"), top / "@/var")
        (main / "root/forgotten").write_bytes(mark("snapper", "slack"))
        for number in (2, 3):
            run(
                "btrfs",
                "subvolume",
                "snapshot",
                "-r",
                main,
                top / f"@/.snapshots/{number}/snapshot",
            )
        (main / "root/forgotten").unlink()
        leave(main, "snapper")
        run("btrfs", "subvolume", "set-default", main)


def old(path: Path, root: Path) -> None:
    table = "label: dos\nstart=2048,size=65536,type=83,bootable\n"
    disk(
        path, 80 * MIB, table + "start=67584,size=49152,type=83\nstart=116736,size=32768,type=83\n"
    )
    sources = {"root": root}
    for name in ("var", "home"):
        sources[name] = Path(shutil.move(root / name, root.with_name(f"old.{name}")))
        (root / name).mkdir()
    start = MIB
    for name, kind, length in (("root", "ext2", 32), ("var", "ext3", 24), ("home", "ext4", 16)):
        options = ("-t", kind, "-b", "1024", "-L", f"old{name}")
        ext(path, start, length * MIB, sources[name], *options)
        start += length * MIB


MAKERS: Mapping[str, Callable[[Path, Path], None]] = {
    "xfs": xfs,
    "btrfs": btrfs,
    "snapper": snapper,
    "old": old,
}


@dataclass
class Outcome:
    facts: GuestFacts
    changes: Mapping[str, list[Change]]
    before: frozenset[bytes]
    disks: list[Path]  # of two runs
    notes: tuple[str, ...]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Outcome]]:
    work = tmp_path_factory.mktemp("layouts")
    disks = {name: work / f"{name}.raw" for name in GUESTS}
    found: dict[str, Outcome] = {}
    for name, path in disks.items():
        root = tree(GUESTS[name], work)
        if name == "btrfs":
            install_shell(root)
        MAKERS[name](path, root)
    images = QemuImages(Sandbox())
    for again in range(2):
        chains: list[Chain] = [
            images.create_overlay(
                (Layer(path, ImageFormat.RAW),), path.with_suffix(f".{again}.qcow2")
            )
            for path in disks.values()
        ]
        with GuestfsHost(Sandbox(), default_cache()).session(chains, writable=True) as session:
            spaces = []
            for index, name in enumerate(disks):
                part = session.part(index)
                plan = everything(SCRIPT) if name == "btrfs" else everything()
                facts, _, changes = performed(part, plan)
                space = part.free_ranges(zero_rest=True)
                spaces.append(space.disks[index])
                if not again:
                    before = frozenset(MARK.findall(disks[name].read_bytes()))
                    found[name] = Outcome(facts, changes, before, [], space.notes)
        for index, (name, chain) in enumerate(zip(disks, chains, strict=True)):
            path = disks[name].with_suffix(f".out{again}")
            found[name].disks.append(flatten(chain[0].path, disks[name], path, spaces[index]))
    yield found
    for path in work.glob("*.*"):
        if path.is_file():
            path.unlink()


@pytest.fixture(params=list(GUESTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_guest_is_found_where_it_is(outcomes: Mapping[str, Outcome], name: str) -> None:
    facts = outcomes[name].facts
    assert facts.distribution == GUESTS[name].distribution
    assert [point for point, _ in facts.mountpoints] == MOUNTPOINTS[name]


def test_no_secret_is_in_the_bytes_after(outcomes: Mapping[str, Outcome], name: str) -> None:
    outcome, family = outcomes[name], GUESTS[name]
    planted = {canary.encode() for canary in phony.canaries(family)}
    assert planted <= outcome.before
    assert {item.encode() for item in phony.hidden(name, "deleted")} <= outcome.before
    # what nothing mounts is reported, and not touched
    kept = {item.encode() for item in phony.hidden(name, "gap")}
    names = {phony.canary(name, path): path for path in phony.files(family)}
    left = set(MARK.findall(outcome.disks[0].read_bytes())) - kept
    assert sorted(names.get(item.decode(), item.decode()) for item in left) == []


def test_own_scripts_run_in_the_guest_without_a_network(
    outcomes: Mapping[str, Outcome], tmp_path: Path
) -> None:
    assert [c.action for c in outcomes["btrfs"].changes["scripts"]] == [Action.RAN]
    path = Path(shutil.copy(outcomes["btrfs"].disks[0], tmp_path / "copy"))
    with loop_mounted(path, "loop,ro") as point:
        output = (point / "@/root/own-output").read_text()
        inside = [entry.name for entry in (point / "@").iterdir()]
    path.unlink()
    assert re.findall(r"^\s*(\w+):.*\d", output, re.M)[:-1] == ["lo"]  # and Uid
    assert re.search(r"^Uid:\s+0\s", output, re.M)
    assert re.search("^name localhost$", output, re.M)  # after galleria's own operations
    (listed,) = re.findall(r"^host (.*)$", output, re.M)
    assert set(listed.split()) == {f"/{name}" for name in inside} | {"/forcefsck"}  # removed later


def test_snapshots_go_and_what_nobody_mounts_is_reported(
    outcomes: Mapping[str, Outcome],
) -> None:
    gone = {name: [c.path for c in outcomes[name].changes["snapshots"]] for name in GUESTS}
    assert gone == {
        "xfs": [],
        "btrfs": [f"timeshift-btrfs/snapshots/2026/{name}" for name in ("@", "@home")],
        "snapper": [f"@/.snapshots/{number}/snapshot" for number in (2, 3)],
        "old": [],
    }
    notes = {name: [n for n in outcomes[name].notes if "mounted nowhere" in n] for name in GUESTS}
    assert [name for name, found in notes.items() if found] == ["btrfs", "snapper"]
    assert notes["btrfs"][0].endswith(f"not looked into: {NOBODYS}")
    assert notes["snapper"][0].endswith("not looked into: @")  # the empty one that holds the others


def test_file_systems_are_sound(outcomes: Mapping[str, Outcome], tmp_path: Path) -> None:
    for start in (1, 33, 57):
        run("e2fsck", "-f", "-n", f"{outcomes['old'].disks[0]}?offset={start * MIB}")
    for name in ("btrfs", "snapper"):
        path = Path(shutil.copy(outcomes[name].disks[0], tmp_path / name))
        run("btrfs", "check", "--readonly", path)
        with loop_mounted(path, "loop,ro") as point:
            assert (point / "@" if name == "btrfs" else point).joinpath("etc/os-release").exists()
        path.unlink()
    part, esp = tmp_path / "part", tmp_path / "esp"
    whole = outcomes["xfs"].disks[0]
    run("dd", f"if={whole}", f"of={part}", "bs=1M", "skip=17", "count=310", "conv=sparse")
    run("xfs_repair", "-n", "-f", part)
    run("dd", f"if={whole}", f"of={esp}", "bs=1M", "skip=1", "count=8")
    run("fsck.vfat", "-n", esp)


def test_another_run_gives_the_same_bytes_or_is_said_not_to(
    outcomes: Mapping[str, Outcome], name: str
) -> None:
    one, two = (path.read_bytes() for path in outcomes[name].disks)
    assert len(one) == len(two)
    notes = [note for note in outcomes[name].notes if "not byte for byte the same" in note]
    said = {note.partition("(")[2].partition(")")[0] for note in notes}
    assert said == UNLIKE[name]
    differing = [
        at for at in range(0, len(one), 4096) if one[at : at + 4096] != two[at : at + 4096]
    ]
    for start, end in ALIKE[name]:  # the other ext beside them
        assert [at for at in differing if start * MIB <= at < end * MIB] == []
    assert len(differing) < 300
