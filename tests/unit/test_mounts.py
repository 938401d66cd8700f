"""Where a guest would mount what is on its disks: fstab, units, partition types."""

import hashlib
import hmac
import uuid

import pytest

from adapters.guestfs import mounts
from adapters.guestfs.btrfs import Listing, Subvolume
from adapters.guestfs.devices import Device, Devices
from pipeline.guest.operations import Editor
from tests.contract.memory_guest import MemoryGuest

HOME_TYPE = "933ac7e1-2eb4-4f13-b844-0e14e2aef915"
VAR_TYPE = "4d21b016-b534-45c2-a9fb-5c16e091fd2d"
MACHINE_ID = "4f1d2c3b4a5968778695a4b3c2d1e0f9"


def device(name: str, kind: str = "ext4", **tags: str) -> Device:
    return Device(name, name, kind, tags=tags)


def devices(*found: Device) -> Devices:
    return Devices(1, found, ())


def nothing(_: Device) -> Listing:
    raise AssertionError


DISK = devices(
    device("/dev/sda1", UUID="0000-root"),
    device("/dev/sda2", UUID="aaaa-home", LABEL="ho me", PART_ENTRY_NAME="home data"),
    device("/dev/sda3", "swap"),
    device("/dev/vg/var", LVM_UUID="GroupVolume"),
    device("/dev/sdb", "xfs"),
)


@pytest.mark.parametrize(
    ("spec", "kind", "name"),
    [
        ("UUID=AAAA-home", "ext4", "/dev/sda2"),
        ('LABEL="ho\\040me"', "auto", "/dev/sda2"),
        ("PARTLABEL=home\\040data", "ext4", "/dev/sda2"),
        ("/dev/disk/by-partlabel/home\\x20data", "ext4", "/dev/sda2"),
        ("/dev/disk/by-label/ho\\x20me", "ext4", "/dev/sda2"),
        ("/dev/disk/by-path/pci-0000:00:05.0-scsi-0:0:0:0-part2", "ext4", "/dev/sda2"),
        ("/dev/disk/by-id/scsi-360022480786-part2", "auto", "/dev/sda2"),
        ("/dev/mapper/mpatha2", "ext4", "/dev/sda2"),
        ("/dev/mapper/mpathb-part2", "ext4", "/dev/sda2"),
        ("/dev/nvme0n1p2", "ext4", "/dev/sda2"),
        ("/dev/vda2", "ext4", "/dev/sda2"),
        ("/dev/disk/by-id/wwn-0x6002248", "xfs", "/dev/sdb"),
        ("/dev/disk/by-id/dm-uuid-LVM-GroupVolume", "ext4", "/dev/vg/var"),
        ("/dev/disk/by-id/dm-name-vg-var", "ext4", "/dev/vg/var"),
        ("/dev/mapper/vg-var", "ext4", "/dev/vg/var"),
    ],
)
def test_a_name_in_fstab_means_a_device(spec: str, kind: str, name: str) -> None:
    found = mounts.place(
        mounts.fstab(f"{spec} /x {kind} defaults 0 2\n"), "/dev/sda1", DISK, {}, nothing
    )
    assert (found.points, found.notes) == ({"/": "/dev/sda1", "/x": name}, [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("UUID=gone /data ext4 defaults 0 2", "nothing on the given disks is known by that name"),
        ("/dev/sdz /data xfs rw,nobarrier 0 0", "nothing on the given disks"),
        ("/dev/disk/by-id/scsi-1-part7 /data ext4 defaults 0 0", "nothing on the given disks"),
        ("/dev/sda3 /data ext4 defaults 0 0", "its file system is swap"),
        ("/dev/sda2 /data/../etc ext4 defaults 0 0", "'..' in its mount point"),
    ],
)
def test_a_line_that_cannot_be_followed_is_named_and_skipped(line: str, why: str) -> None:
    both = f"{line}\n192.0.2.5:/nfs /NFS nfs ,nofail,tcp 0 0\nUUID=aaaa-home /home ext4 noauto\n"
    found = mounts.place(mounts.fstab(both), "/dev/sda1", DISK, {}, nothing)
    assert found.points == {"/": "/dev/sda1", "/home": "/dev/sda2"}
    (note,) = found.notes
    assert note.startswith(f"/etc/fstab: {line.split()[0]} at {line.split()[1]} is skipped: ")
    assert why in note


def test_a_name_that_two_devices_may_have_is_not_guessed() -> None:
    two = devices(*DISK.devices, device("/dev/sdc2"))
    line = "/dev/disk/by-path/pci-1-part2 /home ext4 defaults 0 2\n"
    assert mounts.place(mounts.fstab(line), "/dev/sda1", two, {}, nothing).points == {
        "/": "/dev/sda1"
    }
    taken = f"{line}UUID=aaaa-home /srv ext4 defaults 0 2\n"  # then it can only be the other
    found = mounts.place(mounts.fstab(taken), "/dev/sda1", two, {}, nothing)
    assert found.points == {"/": "/dev/sda1", "/srv": "/dev/sda2", "/home": "/dev/sdc2"}


@pytest.mark.parametrize("spec", ["UUID=AAAA-home", "/dev/disk/by-uuid/aaaa-home", "/dev/vda2"])
def test_opened_volumes_are_known_by_crypttab(spec: str) -> None:
    volume = device("/dev/mapper/luks-aaaa-home")
    opened = mounts.encrypted(f"# name device\nsafe {spec} none luks\n", DISK)
    found = mounts.place(
        mounts.fstab("/dev/mapper/safe /home ext4 defaults 0 2\n"),
        "/dev/sda1",
        devices(*DISK.devices, volume),
        opened,
        nothing,
    )
    assert found.points["/home"] == volume.name


def test_bind_mounts_are_told_from_devices() -> None:
    text = "/var/lib/homes /home none bind 0 0\n../x /y none rbind 0 0\nproc /proc proc x 0 0\n"
    found = mounts.place(mounts.fstab(text), "/dev/sda1", DISK, {}, nothing)
    assert found.binds == {"/home": "/var/lib/homes"}
    assert [note.split(" is skipped")[0] for note in found.notes] == ["/etc/fstab: ../x at /y"]


@pytest.mark.parametrize(
    ("options", "default", "point"),
    [
        ("compress=zstd,subvolid=257", "", "btrfsvol:/dev/sdc/@home"),
        ("subvol=@,subvolid=257", "", "btrfsvol:/dev/sdc/@home"),
        ("subvolid=257,subvol=/@", "", "btrfsvol:/dev/sdc/@"),
        ("subvolid=5", "", "/dev/sdc"),
        ("subvol=/", "", "/dev/sdc"),
        ("subvolid=5", "@", "it names the top of all subvolumes"),
        ("subvolid=300", "", "no subvolume has that number"),
    ],
)
def test_subvolumes_may_be_named_by_their_numbers(options: str, default: str, point: str) -> None:
    known = Listing((Subvolume(256, "u", "-", "@"), Subvolume(257, "v", "-", "@home")), default)
    line = f"/dev/sdc /home btrfs {options} 0 0\n"
    disk = devices(*DISK.devices, device("/dev/sdc", "btrfs"))
    found = mounts.place(mounts.fstab(line), "/dev/sda1", disk, {}, lambda _: known)
    told = [note.partition(" is skipped: ")[2] for note in found.notes]
    assert [found.points.get("/home"), *told] in ([point], [None, point])


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/kernel/cmdline", "root=x systemd.mount-extra=UUID=aaaa-home:/home quiet\n"),
        ("/boot/loader/entries/a.conf", "options systemd.mount-extra=/dev/vda2:/home:ext4:ro,x\n"),
        (
            "/etc/default/grub",
            'GRUB_CMDLINE_LINUX="rd.systemd.mount-extra=LABEL=ho\\040me:/home:auto"\n',
        ),
    ],
)
def test_the_kernels_command_line_mounts_too(path: str, text: str) -> None:
    guest = MemoryGuest()
    guest.plant(path, text)
    guest.plant("/etc/fstab", "/dev/vg/var /var ext4 defaults 0 2\n")
    found = mounts.read(Editor(guest, "t"), "/dev/sda1", DISK, nothing)
    assert found.points == {"/": "/dev/sda1", "/var": "/dev/vg/var", "/home": "/dev/sda2"}


def test_mount_units_count_and_fstab_before_them() -> None:
    guest = MemoryGuest()
    unit = "[Unit]\nWhat=no\n[Mount]\nWhat=/dev/disk/by-uuid/aaaa-home\nWhere=/home\nType=ext4\n"
    guest.plant("/etc/systemd/system/home.mount", unit)
    guest.plant("/usr/lib/systemd/system/home.mount", unit.replace("aaaa-home", "other"))
    guest.plant("/usr/lib/systemd/system/tmp.mount", "[Mount]\nWhat=tmpfs\nWhere=/tmp\n")
    found = mounts.read(Editor(guest, "t"), "/dev/sda1", DISK, nothing)
    assert (found.points, found.notes) == ({"/": "/dev/sda1", "/home": "/dev/sda2"}, [])
    guest.plant("/etc/fstab", "/dev/vg/var /home ext4 defaults 0 2\n")
    assert (
        mounts.read(Editor(guest, "t"), "/dev/sda1", DISK, nothing).points["/home"] == "/dev/vg/var"
    )


def test_types_of_partitions_place_them_and_var_only_for_its_machine() -> None:
    digest = hmac.new(bytes.fromhex(MACHINE_ID), uuid.UUID(VAR_TYPE).bytes, hashlib.sha256).digest()
    expected = str(uuid.UUID(bytes=digest[:16], version=4))
    guest = MemoryGuest()
    for path in ("/home", "/var"):
        guest.plant_directory(path)
    guest.plant("/etc/machine-id", f"{MACHINE_ID}\n")
    disk = devices(
        device("/dev/sda1"),
        device("/dev/sda2", PART_ENTRY_TYPE=HOME_TYPE, PART_ENTRY_UUID="1"),
        device("/dev/sda3", PART_ENTRY_TYPE=VAR_TYPE, PART_ENTRY_UUID=expected.upper()),
        device("/dev/sdb1", PART_ENTRY_TYPE=HOME_TYPE, PART_ENTRY_UUID="2"),
    )
    found = mounts.read(Editor(guest, "t"), "/dev/sda1", disk, nothing)
    assert found.points == {"/": "/dev/sda1", "/home": "/dev/sda2", "/var": "/dev/sda3"}
    assert found.of_machine_id == expected
    guest.plant("/etc/machine-id", "0" * 32)
    other = mounts.read(Editor(guest, "t"), "/dev/sda1", disk, nothing)
    assert (other.points, other.of_machine_id) == ({"/": "/dev/sda1", "/home": "/dev/sda2"}, "")
