"""Which Linux is on the disks, found by looking into its file systems.

libguestfs's own inspection takes 9 s under software emulation (augeas and parted, several times);
this one takes 1 s. It knows one plain case: exactly one Linux root, whose fstab names things that
are there. `inspect` answers None to everything else, and libguestfs is asked.
"""

import re
import shlex
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from adapters.guestfs import btrfs
from adapters.guestfs.devices import Device, Devices
from adapters.guestfs.process import CallFailed, Helper
from pipeline.errors import StageFailed
from pipeline.guest.operations import Editor, lines_of
from pipeline.ports import Guest

ROOTS = ("ext2", "ext3", "ext4", "xfs", "btrfs")
PLAIN = (*ROOTS, "vfat", "swap", "LVM2_member", "crypto_LUKS", "unknown", "squashfs", "iso9660")
# libguestfs's names where they are not os-release's ID (inspect_get_distro)
DISTRIBUTIONS = {
    "alpine": "alpinelinux",
    "arch": "archlinux",
    "ol": "oraclelinux",
    "opensuse-leap": "opensuse",
    "opensuse-tumbleweed": "opensuse",
    "sled": "suse-based",
    "void": "voidlinux",
}
MACHINES = {3: "i386", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64"}
MACHINES |= {243: "riscv64"}
PROGRAMS = ("/bin/bash", "/bin/ls", "/bin/sh", "/bin/busybox", "/usr/bin/bash", "/usr/bin/ls")
NOT_MOUNTED = ("/proc", "/sys", "/dev", "/run")
OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Root:
    """A Linux root file system. `mountpoints`: mount point -> device or subvolume, as its fstab
    says."""

    device: str
    distribution: str
    version: str
    product_name: str
    architecture: str
    hostname: str
    mountpoints: Mapping[str, str]


def inspect(helper: Helper, found: Devices, look: Callable[[], Guest]) -> Root | None:
    """`look` gives a view of what is mounted. Nothing is mounted afterwards."""
    if any(device.kind not in PLAIN for device in found.devices):
        return None
    roots = []
    for device in found.devices:
        try:
            names = _candidates(helper, device, look)
            for name in names:
                root = _looked_at(helper, name, found, look)
                if root is not None:
                    roots.append(root)
                elif name != device.name:
                    return None
        except (CallFailed, StageFailed):
            return None
    return roots[0] if len(roots) == 1 else None


def _candidates(helper: Helper, device: Device, look: Callable[[], Guest]) -> list[str]:
    """libguestfs's names of what on a device may be a root: itself, or subvolumes of a btrfs."""
    if device.kind not in ROOTS:
        return []
    if device.kind != "btrfs":
        return [device.name]
    known = btrfs.listing(helper, device.node)
    if not known.subvolumes:
        return [device.name]
    helper.call("mount_options", f"ro,subvolid={btrfs.TOP_LEVEL}", device.name, "/")
    try:
        top = Editor(look(), "inspect")
        paths = [item.path for item in known.subvolumes if _is_root(top, item.path, known.default)]
        whole = [device.name] if not known.default and _is_root(top, "", "") else []
        return [*whole, *(f"btrfsvol:{device.name}/{path}" for path in paths)]
    finally:
        helper.call("umount", "/")


def _is_root(top: Editor, path: str, default: str) -> bool:
    """Whether a system in a subvolume says that its root is there: its snapshots don't."""
    fstab = f"/{path}/etc/fstab" if path else "/etc/fstab"
    for line in lines_of(top.text(fstab)):
        fields = line.split()
        if fields[1:2] == ["/"] and not fields[0].startswith("#"):
            own = _subvolume(fields)
            return path == (default if own is None else own)
    return False


def _subvolume(fields: Sequence[str]) -> str | None:
    """Of a line of fstab(5)."""
    options = fields[3].split(",") if len(fields) > 3 else []
    named = [option for option in options if option.startswith("subvol=")]
    return named[-1].removeprefix("subvol=").strip("/") if named else None


def _looked_at(helper: Helper, name: str, found: Devices, look: Callable[[], Guest]) -> Root | None:
    helper.call("mount_ro", name, "/")
    try:
        return describe(look(), name, found)
    finally:
        helper.call("umount", "/")


def describe(guest: Guest, name: str, found: Devices) -> Root | None:
    """None: it is no root, or not one that is understood here. `name` is a device, or a
    subvolume."""
    look = Editor(guest, "inspect")
    if not look.exists("/etc") or not (look.exists("/bin") or look.exists("/usr/bin")):
        return None
    fstab, release = look.text("/etc/fstab"), look.text("/etc/os-release")
    release = release or look.text("/usr/lib/os-release")
    mounted = mountpoints(fstab, name, found, encrypted(look.text("/etc/crypttab")))
    if not fstab or not release or mounted is None:
        return None
    values = _values(release)
    ident = values.get("ID", "unknown")
    return Root(
        name,
        DISTRIBUTIONS.get(ident, ident),
        _version(values.get("VERSION_ID", ""), look.text("/etc/debian_version"), ident),
        values.get("PRETTY_NAME", ""),
        _architecture(look),
        _hostname(look),
        mounted,
    )


def encrypted(crypttab: str) -> dict[str, str]:
    """crypttab(5): what the guest calls its opened volumes -> what they are called here."""
    names = {}
    for line in lines_of(crypttab):
        fields = line.split()
        if len(fields) >= 2 and fields[1].startswith("UUID="):
            names[f"/dev/mapper/{fields[0]}"] = f"/dev/mapper/luks-{fields[1][5:].lower()}"
    return names


def mountpoints(
    fstab: str, root: str, found: Devices, opened: Mapping[str, str]
) -> dict[str, str] | None:
    """fstab(5)'s file systems that are on these disks. None: an entry can't be understood."""
    points = {"/": root}
    for line in lines_of(fstab):
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        spec, point, kind = (OCTAL.sub(lambda m: chr(int(m[1], 8)), field) for field in fields[:3])
        if not point.startswith("/") or kind in ("swap", "proc", "tmpfs", "sysfs", "devpts"):
            continue
        if point == "/" or point in NOT_MOUNTED or "bind" in (fields[3:] or [""])[0].split(","):
            continue
        if ".." in point.split("/"):
            return None
        device = _device(opened.get(spec, spec), found)
        if device is None:
            if spec.startswith(("UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=")):
                continue  # on a disk that is not among these
            if spec.startswith("/dev/"):
                return None
            continue
        if device.kind not in (*ROOTS, "vfat"):
            return None
        volume = _subvolume(fields)
        if volume == "" or (volume is None and "subvolid=" in (fields[3:] or [""])[0]):
            return None
        points[point.rstrip("/")] = f"btrfsvol:{device.name}/{volume}" if volume else device.name
    return points


def _device(spec: str, found: Devices) -> Device | None:
    key, mark, value = spec.partition("=")
    if mark:
        tag = {"PARTUUID": "PART_ENTRY_UUID", "PARTLABEL": "PART_ENTRY_NAME"}.get(key, key)
        value = value.strip('"')
        same = [d for d in found.devices if _same(d.tags.get(tag), value, tag)]
        return same[0] if len(same) == 1 else None
    for prefix, tag in (
        ("/dev/disk/by-uuid/", "UUID"),
        ("/dev/disk/by-label/", "LABEL"),
        ("/dev/disk/by-partuuid/", "PART_ENTRY_UUID"),
    ):
        if spec.startswith(prefix):
            return _device(f"{tag}={spec.removeprefix(prefix)}", found)
    if spec.startswith("/dev/mapper/") and found.find(spec) is None:
        # device-mapper writes a hyphen of a name twice
        name = re.sub("(?<!-)-(?!-)", "/", spec.removeprefix("/dev/mapper/"), count=1)
        group, _, volume = name.partition("/")
        return found.find(f"/dev/{group.replace('--', '-')}/{volume.replace('--', '-')}")
    # vda1, xvda1, hda1: what the guest's own bus called the same disk
    renamed = re.sub(r"^/dev/(?:xv|[vhs])d([a-z]+\d*)$", r"/dev/sd\1", spec)
    return found.find(renamed)


def _same(tag: str | None, value: str, name: str) -> bool:
    if tag is None:
        return False
    if name in ("LABEL", "PART_ENTRY_NAME"):
        return tag in (value, _visible(value))
    return tag.lower() == value.lower()


def _visible(name: str) -> str:
    """A name as blkid(8) prints it: bytes that are no printable ASCII as ^X and M-X."""
    shown = ""
    for byte in name.encode("utf-8", "surrogateescape"):
        high, low = divmod(byte, 128)
        shown += "M-" * high + (f"^{chr(low ^ 64)}" if low < 32 or low == 127 else chr(low))
    return shown


def _values(release: str) -> dict[str, str]:
    """os-release(5): shell assignments."""
    values = {}
    for line in release.splitlines():
        key, mark, value = line.partition("=")
        if mark and not key.startswith("#"):
            try:
                words = shlex.split(value)
            except ValueError:
                words = [value]
            values[key.strip()] = words[0] if words else ""
    return values


def _version(ident: str, debian: str, distribution: str) -> str:
    """Debian's point release is not in os-release."""
    full = debian.strip()
    return full if distribution == "debian" and re.fullmatch(r"\d+\.\d+", full) else ident


def _architecture(look: Editor) -> str:
    for program in PROGRAMS:
        real = look.follow(program)
        if look.is_file(real):
            head = look.guest.read(real, 20)
            if len(head) == 20 and head[:4] == b"\x7fELF":
                (machine,) = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])
                name = MACHINES.get(machine, "unknown")
                return "ppc64le" if name == "ppc64" and head[5] == 1 else name
    return "unknown"


def _hostname(look: Editor) -> str:
    for path in ("/etc/hostname", "/etc/HOSTNAME"):
        lines = [line.strip() for line in look.text(path).splitlines()]
        name = next((line for line in lines if line and not line.startswith("#")), "")
        if name:
            return name
    for line in look.text("/etc/sysconfig/network").splitlines():
        if line.startswith("HOSTNAME="):
            return line.partition("=")[2].strip("\"' ")
    return "unknown"
