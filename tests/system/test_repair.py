"""Rot of the medium, lost and moved zones, by the installed commands; judged by qemu-img and by the
bytes of the source."""

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from pipeline.data.chunks import CHUNK_SIZE
from tests.contract.storing import changed, pattern
from tests.home import DEFINE, Session, deletable

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]

CONTENT = pattern(1, 16 * CHUNK_SIZE)
NEXT = changed(CONTENT, 9)
ROTTEN = 3 * CHUNK_SIZE + 1003
FS_IOC_FIEMAP = 0xC020660B

Mount = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Session]:
    with Session.begun(tmp_path, GALLERIA_IMMUTABLE="false") as made:
        yield made


def begin(home: Session, **zones: Path) -> None:
    home.run(
        "init", *(word for name, path in zones.items() for word in ("--region", f"{name}={path}"))
    )
    home.run("gallery", "create", "corp")
    home.run(*DEFINE)


def publish(home: Session, version: str, content: bytes, regions: str, status: int = 0) -> None:
    source = home.path / "disk.raw"
    source.write_bytes(content)
    words = ("publish", version, "--os-disk", str(source), "--target-regions", regions)
    home.run(*words, status=status)
    source.unlink()


def rot(file: Path, offset: int) -> None:
    """Change one byte on the device below a file system, behind its back."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
        request = struct.pack("=QQLLLL", offset & ~4095, 4096, 1, 0, 1, 0) + bytes(56)
        answer = ioctl(fd, FS_IOC_FIEMAP, request)
        assert struct.unpack_from("=L", answer, 20)[0] == 1
        logical, physical = struct.unpack_from("=QQ", answer, 32)
        found = subprocess.run(
            ["findmnt", "-n", "-o", "SOURCE", "-T", file],
            capture_output=True,
            text=True,
            check=True,
        )
        device = os.open(found.stdout.strip(), os.O_RDWR)
        try:
            place = physical + offset - logical
            (byte,) = os.pread(device, 1, place)
            os.pwrite(device, bytes([byte ^ 0xFF]), place)
            os.fsync(device)
        finally:
            os.close(device)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def base(home: Session, zone: Path, version: str) -> Path:
    digest = str(home.json("show", version)["version"]["disks"][0]["digest"])
    (file,) = (zone / "bases" / digest).glob("base.*[w2]")
    return file


def flat(disk: Path, home: Session) -> bytes:
    target = home.path / "flat.raw"
    argv = ["qemu-img", "convert", "-f", disk.suffix[1:], "-O", "raw", str(disk), str(target)]
    subprocess.run(argv, check=True)
    return target.read_bytes()


def exported(home: Session, version: str) -> bytes:
    target = home.path / "out.raw"
    target.unlink(missing_ok=True)
    home.run("export", version, "--to", "raw", "--out", str(target))
    return target.read_bytes()


@pytest.mark.parametrize("kind", ["xfs", "ext4"])
def test_rot_of_the_medium_is_not_inherited(home: Session, mount: Mount, kind: str) -> None:
    eu = mount(kind) / "eu"
    begin(home, eu=eu)
    publish(home, "corp/web/1.0.0", CONTENT, "eu")
    rot(base(home, eu, "corp/web/1.0.0"), ROTTEN)
    publish(home, "corp/web/1.0.1", NEXT, "eu")
    home.run("verify", "corp/web/1.0.1", "--scrub")
    assert exported(home, "corp/web/1.0.1") == NEXT
    home.run(
        "export", "corp/web/1.0.0", "--to", "raw", "--out", "x.raw", status=1
    )  # no rot is written
    assert not (home.path / "x.raw").exists()
    shown = home.json("scrub", "corp/web/1.0.0", status=1)
    assert shown["findings"][0]["versions"] == ["corp/web/1.0.0"]
    assert "Degraded" in home.run("list", "corp").stdout
    assert "degraded" in home.run("show", "corp/web/1.0.0").stdout
    assert "degraded" not in home.run("show", "corp/web/1.0.1").stdout
    # a snapshot, a disk and an image of it would inherit it, too
    home.run("disk", "create", "-n", "d1", "--image-version", "corp/web/1.0.0", status=1)
    (home.path / "disk.raw").write_bytes(CONTENT)  # the good source mends it
    publish(home, "corp/web/1.0.2", CONTENT, "eu")
    assert exported(home, "corp/web/1.0.0") == CONTENT
    if kind == "ext4":
        assert "Degraded" not in home.run("list", "corp").stdout
    home.run("repair")  # a clone that shared the bad block is still bad
    home.run("scrub")


def test_a_sound_region_is_preferred_to_a_rotten_source_region(home: Session, mount: Mount) -> None:
    eu, us = mount("xfs") / "eu", mount("ext4") / "us"
    ap = home.path / "ap"
    begin(home, eu=eu, us=us, ap=ap)
    publish(home, "corp/web/1.0.0", CONTENT, "eu us")
    rot(base(home, eu, "corp/web/1.0.0"), ROTTEN)
    assert exported(home, "corp/web/1.0.0") == CONTENT
    home.run("replicate", "corp/web/1.0.0", "--region", "ap")
    home.run("publish", "corp/web/2.0.0", "--image-version", "corp/web/1.0.0")
    home.run("verify", "corp/web/2.0.0", "--scrub")
    home.run("repair", "corp/web/1.0.0", "--region", "eu")
    home.run("scrub")


def test_a_bad_block_that_clones_share_is_repaired_in_each(home: Session, mount: Mount) -> None:
    eu, us = mount("xfs") / "eu", home.path / "us"
    begin(home, eu=eu, us=us)
    publish(home, "corp/web/1.0.0", CONTENT, "eu us")
    publish(home, "corp/web/1.0.1", NEXT, "eu us")
    home.run("deploy", "corp/web/1.0.1", "--region", "us", "--name", "vm", "--out", "vms")
    rot(base(home, eu, "corp/web/1.0.0"), ROTTEN)
    found = home.json("repair")
    assert {item["path"].rpartition("/")[2] for item in found["findings"]} >= {"base.raw", "os.raw"}
    assert home.json("scrub")["findings"] == []
    for version, content in (("1.0.0", CONTENT), ("1.0.1", NEXT)):
        (replica,) = eu.glob(f"versions/*{version}*/replica-0/os.*")
        assert flat(replica, home) == content


@pytest.mark.parametrize("lost", ["eu", "us"])
@pytest.mark.parametrize("command", ["init", "repair"])
def test_a_lost_zone_is_filled_again(home: Session, lost: str, command: str) -> None:
    zones = {name: home.path / name for name in ("eu", "us")}
    begin(home, **zones)
    publish(home, "corp/web/1.0.0", CONTENT, "eu us")
    publish(home, "corp/web/1.0.1", NEXT, "eu us")
    home.run("deploy", "corp/web/1.0.1", "--region", lost, "--name", "vm", "--out", "vms")
    shutil.rmtree(zones[lost])
    zones[lost].mkdir()
    assert "is lost" in home.run("verify", "corp/web/1.0.1", status=1).stderr
    if command == "init":
        home.run("init")
        home.run("verify", "corp/web/1.0.1", "--region", lost, status=1)
        home.run("replicate", "corp/web/1.0.0")
        home.run("replicate", "corp/web/1.0.1", "--region", lost, "--retry")
    home.run("repair")
    home.run("scrub")
    assert flat(home.path / "vms/vm/os.qcow2", home) == NEXT
    for version, content in (("1.0.0", CONTENT), ("1.0.1", NEXT)):
        (replica,) = zones[lost].glob(f"versions/*{version}*/replica-0/os.*")
        assert flat(replica, home) == content
    publish(home, "corp/web/1.0.2", CONTENT, "eu us")


def test_a_moved_zone_takes_its_vms_and_disks_along(home: Session, mount: Mount) -> None:
    old, new = mount("ext4") / "eu", mount("xfs") / "moved"
    begin(home, eu=old)
    publish(home, "corp/web/1.0.0", CONTENT, "eu")
    home.run("deploy", "corp/web/1.0.0", "--region", "eu", "--name", "vm", "--out", "vms")
    home.run("disk", "create", "-n", "d1", "--image-version", "corp/web/1.0.0")
    shutil.copytree(old, new, symlinks=True)
    deletable(old)
    shutil.rmtree(old)
    config = home.path / "config/galleria/config.toml"
    config.write_text(config.read_text().replace(str(old), str(new)))
    home.run("verify", "corp/web/1.0.0")
    assert str(old) not in home.run("show", "corp/web/1.0.0").stdout
    disk = Path(home.json("disk", "show", "d1")["file"]["path"])
    assert disk.is_relative_to(new)
    for file in (home.path / "vms/vm/os.qcow2", disk):
        assert flat(file, home) == CONTENT
    home.run("scrub")
    publish(home, "corp/web/1.0.1", NEXT, "eu")


def test_a_vm_that_ran_when_its_zone_was_moved_is_mended_later(home: Session) -> None:
    old, new = home.path / "eu", home.path / "moved"
    begin(home, eu=old)
    publish(home, "corp/web/1.0.0", CONTENT, "eu")
    home.run("deploy", "corp/web/1.0.0", "--region", "eu", "--name", "vm", "--out", "vms")
    overlay = home.path / "vms/vm/os.qcow2"
    image = f"driver=qcow2,file.driver=file,file.filename={overlay},node-name=d,read-only=off"
    monitor = ("--chardev", "stdio,id=c", "--monitor", "chardev=c")
    vm = subprocess.Popen(
        ["qemu-storage-daemon", "--blockdev", image, *monitor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert vm.stdout is not None
        vm.stdout.readline()  # its greeting: the image is open
        old.rename(new)
        config = home.path / "config/galleria/config.toml"
        config.write_text(config.read_text().replace(f'"{old}"', f'"{new}"'))
        told = home.run("verify", "corp/web/1.0.0").stderr
        assert "the VM vm still names" in told
        assert "galleria repair" in told
    finally:
        vm.kill()
        vm.communicate()
    home.run("scrub", status=1)
    home.run("repair")
    assert flat(overlay, home) == CONTENT


def test_names_and_files_of_a_zone_are_protected(tmp_path: Path, mount: Mount) -> None:
    if os.geteuid() != 0:
        pytest.skip("chattr takes root")
    zone = mount("ext4") / "us"
    with Session.begun(tmp_path) as home:
        begin(home, us=zone)
        publish(home, "corp/web/1.0.0", CONTENT, "us")
        publish(home, "corp/web/1.0.1", NEXT, "us=2")
        for file in [*zone.glob("bases/*/base.*"), *zone.glob("versions/*/*/os.*")]:
            for change in (file.unlink, lambda file=file: file.rename(file.with_name("x"))):
                with pytest.raises(PermissionError):
                    change()
            with pytest.raises(PermissionError):
                file.open("ab")
        for directory in [*zone.glob("bases/*"), *zone.glob("versions/*")]:
            with pytest.raises(PermissionError):
                directory.rename(directory.with_name("x"))
        for directory in (zone / "bases", zone / "versions"):
            with pytest.raises(PermissionError):
                directory.rename(directory.with_name("x"))
        (record,) = zone.glob("versions/*1.0.0*/version.json")
        with pytest.raises(PermissionError):
            record.unlink()
        # galleria itself can
        home.run("version", "update", "corp/web/1.0.1", "--add-region", "us=1")
        home.run("version", "update", "corp/web/1.0.1", "--add-region", "us=3")
        publish(home, "corp/web/1.0.2", CONTENT, "us")
        home.run("scrub")
        for number in ("1.0.0", "1.0.1", "1.0.2"):
            home.run("version", "delete", f"corp/web/{number}")
        assert list((zone / "bases").iterdir()) == list((zone / "versions").iterdir()) == []
        deletable(zone)


def test_snapshots_disks_and_images_are_verified_and_repaired(home: Session) -> None:
    eu = home.path / "eu"
    begin(home, eu=eu)
    source = home.path / "disk.raw"
    source.write_bytes(CONTENT)
    home.run("snapshot", "create", str(source), "-n", "s1")
    home.run("disk", "create", "-n", "d1", "--source", "s1")
    home.run("image", "create", "-n", "i1", "--os-disk", str(source), "--no-generalize")
    kinds = (("snapshot", "s1"), ("disk", "d1"), ("image", "i1"))
    for kind, name in kinds:
        assert home.json(kind, "verify", name)["sound"]
    (file,) = eu.glob("bases/*/base.raw")
    file.chmod(0o600)
    with file.open("r+b") as content:
        content.seek(ROTTEN)
        content.write(b"rot")
    for kind, name in kinds:
        (bad,) = home.json(kind, "verify", name, status=1)["verdicts"][:1]
        assert bad["bad"] == [{"start": 3 * CHUNK_SIZE, "length": CHUNK_SIZE}]
    # the next of its line does not inherit it
    home.run("snapshot", "export", "s1", "--out", "x.qcow2", status=1)
    home.run("disk", "create", "-n", "d2", "--source", "s1", status=1)
    found = home.json("repair")  # from the source's file, which still is there
    assert all(item["repaired"] for item in found["findings"])
    for kind, name in kinds:
        assert home.json(kind, "verify", name, "--scrub")["sound"]
    assert file.read_bytes() == CONTENT


def test_a_version_is_not_deleted_while_a_region_of_it_is_away(home: Session) -> None:
    eu, us, away = home.path / "eu", home.path / "us", home.path / "away"
    begin(home, eu=eu, us=us)
    publish(home, "corp/web/1.0.0", CONTENT, "eu us")
    us.rename(away)
    told = home.run("version", "delete", "corp/web/1.0.0", status=3).stderr
    assert str(us) in told
    assert home.json("show", "corp/web/1.0.0")["version"]["provisioningState"] == "Deleting"
    away.rename(us)
    home.run("version", "delete", "corp/web/1.0.0")
    for zone in (eu, us):
        assert list((zone / "bases").iterdir()) == list((zone / "versions").iterdir()) == []


def test_a_scrub_reads_what_was_not_read_for_the_longest_time(home: Session) -> None:
    begin(home, eu=home.path / "eu")
    for number in range(3):
        publish(home, f"corp/web/1.0.{number}", changed(CONTENT, number), "eu")
    read = set()
    for _ in range(3):
        found = home.json("scrub", "--subset", "20%")
        assert (found["basesRead"], found["basesSkipped"]) == (1, 2)
        read |= {found["bytesRead"]}
    assert home.json("scrub", "--older-than", "1d")["basesRead"] == 0
    assert home.json("scrub", "corp/web/1.0.0", "--rate", "100M")["basesRead"] == 1
    for wrong in (("--subset", "0"), ("--rate", "fast"), ("--older-than", "long")):
        home.run("scrub", *wrong, status=2)
    home.run("scrub", "corp/nothing", status=4)
