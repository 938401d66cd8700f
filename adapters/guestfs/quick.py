"""A fixed appliance that is up in little more than half the time, under software emulation.

What libguestfs builds fits every use of it: its boot waits for events of devices that galleria
never looks at, loads drivers of disks that it never adds, and unpacks its kernel in the emulated
machine. Measured, in CPU seconds of qemu until the daemon answers: 8.0 as it comes, 6.4 with
galleria's first process (`INIT`), 5.3 with the kernel unpacked, 4.7 with the drivers of `NEEDED`
alone.
"""

import shutil
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

from adapters.process import command

SECONDS = 120.0
# In place of libguestfs's /init: no udev events but those of disks and of the daemon's channel, no
# network, and RAID, LVM and dynamic disks are only looked for where something on a disk is of them.
INIT = r"""#!/bin/bash
export PATH=/sbin:/usr/sbin:/bin:/usr/bin RUNLEVEL=S PREVLEVEL=N LVM_SYSTEM_DIR=/tmp/lvm
mkdir -p /proc /sys
mount -t proc /proc /proc
mount -t sysfs /sys /sys
mount -t devtmpfs /dev /dev
cmdline=$(</proc/cmdline)
mkdir -p /dev/pts /dev/shm /run /sysroot /tmp /var/tmp $LVM_SYSTEM_DIR
mount -t devpts /dev/pts /dev/pts
mount -t tmpfs -o mode=1777 shmfs /dev/shm
mount -t tmpfs -o nosuid,size=20%,mode=0755 tmpfs /run
mkdir -p /run/lock
ln -s /proc/self/fd /dev/fd
[ -e /etc/mtab ] || ln -s /proc/mounts /etc/mtab
read -r machine < /proc/sys/kernel/random/uuid
echo ${machine//-/} > /etc/machine-id
for udevd in /lib/systemd/systemd-udevd /usr/lib/systemd/systemd-udevd /sbin/udevd; do
  [ ! -x $udevd ] || break
done
$udevd --daemon
udevadm trigger --subsystem-match=block --subsystem-match=virtio-ports
modprobe dm_mod
udevadm settle --timeout=600
for file in /sys/block/sd*/device/timeout; do echo 300 > $file; done
for file in /sys/block/sd*/queue/scheduler; do echo none > $file; done
: > $LVM_SYSTEM_DIR/lvm.conf
if command -v lvmdevices > /dev/null; then
  printf 'devices {\n\tuse_devicesfile = 0\n}\n' > $LVM_SYSTEM_DIR/lvm.conf
fi
case $(cat /run/udev/data/b*) in
  *_raid_member*|*LVM2_member*|*AMBIVALENT*|*ENTRY_TYPE=0x42*|*5808c8aa-*|*af9b60a0-*)
    mdadm -As --auto=yes --no-degraded
    lvm pvscan --cache --activate ay
    mdadm -As --auto=yes --run
    ldmtool create all ;;
esac
daemon=guestfsd
for word in $cmdline; do
  case $word in
    guestfs_channel=*) daemon="$daemon --channel ${word#*=}" ;;
    guestfs_verbose=1) daemon="$daemon --verbose" ;;
  esac
done
$daemon
sync
reboot -f
"""
# What loads the root file system and the channel, as far as they are modules at all; others are
# loaded from the root when something asks for them.
NEEDED = (
    *("crc32", "crct10dif", "libcrc32c", "scsi_", "sd_mod", "fuse", "virtio.", "virtio_ring"),
    *("virtio_pci", "virtio_mmio", "virtio_scsi", "virtio_blk", "virtio_console", "virtio-rng"),
)
# Linux, Documentation/x86/boot.rst: setup_sects, "HdrS", payload_offset and _length; what packed it
SETUP_SECTORS, HEADER, PAYLOAD = 0x1F1, 0x202, 0x248
PACKERS = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x28\xb5\x2f\xfd": "zstd",
}
ELF = b"\x7fELF"


def hasten(appliance: Path) -> None:
    """Change a fixed appliance, in place. Raises CommandFailed when a tool fails."""
    kernel, initrd = appliance / "kernel", appliance / "initrd"
    kernel.write_bytes(unpacked(kernel.read_bytes()))
    initrd.write_bytes(with_modules(initrd.read_bytes()))
    with tempfile.NamedTemporaryFile("w") as init:
        init.write(INIT)
        init.flush()
        orders = f"rm /init\nwrite {init.name} /init\nset_inode_field /init mode 0100755\n"
        root = str(appliance / "root")
        command.run(["debugfs", "-w", "-f", "-", root], stdin=orders.encode(), timeout=SECONDS)


def unpacked(kernel: bytes) -> bytes:
    """The kernel inside a bzImage, which qemu starts as it is (PVH); where it is packed in a way
    that isn't known, or nothing here unpacks it, the bzImage."""
    if kernel[HEADER : HEADER + 4] != b"HdrS":
        return kernel
    offset, length = struct.unpack_from("<II", kernel, PAYLOAD)
    start = ((kernel[SETUP_SECTORS] or 4) + 1) * 512 + offset
    packed = kernel[start : start + length - 4]  # its last four bytes are the length unpacked
    program = next((name for magic, name in PACKERS.items() if packed.startswith(magic)), None)
    if program is None or shutil.which(program, path=command.PATH) is None:
        return kernel
    plain = command.run([program, "-dc"], stdin=packed, timeout=SECONDS).stdout
    return plain if plain.startswith(ELF) else kernel


def with_modules(initrd: bytes) -> bytes:
    """supermin's initrd with a shorter list of the modules that it loads: later archives of an
    initrd replace files of earlier ones (Linux, early-userspace/buffer-format)."""
    listed = _content(initrd, b"modules")
    kept = [name for name in listed.decode().split() if name.startswith(NEEDED)]
    if not any(name.startswith("virtio_scsi") for name in kept):
        return initrd  # packed, or not as supermin 5 makes it
    text = "".join(f"{name}\n" for name in kept).encode()
    return _padded(initrd) + _entry(b"modules", text) + _entry(b"TRAILER!!!", b"")


def _content(archive: bytes, wanted: bytes) -> bytes:
    """A file of a cpio archive ("newc"); empty when it has none of that name."""
    at = 0
    while archive[at : at + 6] == b"070701":
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1]
        body = at + _up(110 + fields[11])
        if name == wanted:
            return archive[body : body + fields[6]]
        at = body + _up(fields[6])
    return b""


def _entry(name: bytes, content: bytes) -> bytes:
    fields: Iterable[int] = (0, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    return _padded(head) + _padded(content)


def _padded(content: bytes) -> bytes:
    return content + bytes(_up(len(content)) - len(content))


def _up(length: int) -> int:
    return -(-length // 4) * 4
