"""Which Linux is on the disks, found by looking into its file systems.

libguestfs's own inspection takes 9 s under software emulation (augeas and parted, several times),
and ends at a line of fstab(5) that it can't follow; this one takes 1 s, and knows one plain case:
exactly one Linux root that says what it is. In other cases libguestfs is asked as well.
"""

import re
import shlex
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from adapters.guestfs import btrfs, mounts
from adapters.guestfs.devices import Device, Devices
from adapters.guestfs.process import CallFailed, Helper
from pipeline.errors import StageFailed
from pipeline.guest.operations import Editor, lines_of
from pipeline.ports import Guest

ROOTS = ("ext2", "ext3", "ext4", "xfs", "btrfs")
WINDOWS = ("ntfs", "BitLocker")
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
UNNAMED = ""  # a root without os-release: libguestfs knows older files
PROGRAMS = ("/bin/bash", "/bin/ls", "/bin/sh", "/bin/busybox", "/usr/bin/bash", "/usr/bin/ls")
OSTREE = ("/ostree/deploy", "/ostree/repo")


@dataclass(frozen=True, slots=True)
class Root:
    """A Linux root file system, and what it mounts."""

    device: str
    distribution: str
    version: str
    product_name: str
    architecture: str
    hostname: str
    mounts: mounts.Mounts


@dataclass(slots=True)
class Found:
    """`sure`: everything on the disks was understood. `images`: devices of systems in image mode,
    whose files lie in deployments."""

    roots: list[Root] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    sure: bool = True


def inspect(helper: Helper, devices: Devices, view: Callable[[], Guest]) -> Found:
    """`view` gives a guest of what is mounted. Nothing is mounted afterwards."""
    found = Found()
    for device in devices.devices:
        found.sure &= device.kind not in WINDOWS
        try:
            names = _candidates(helper, device, view)
            for name in names:
                found.sure &= _looked_at(helper, name, devices, view, found) or name == device.name
        except (CallFailed, StageFailed):
            found.sure = False
    return found


def _candidates(helper: Helper, device: Device, view: Callable[[], Guest]) -> list[str]:
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
        top = Editor(view(), "inspect")
        paths = [item.path for item in known.subvolumes if _is_root(top, item.path, known)]
        whole = [device.name] if not known.default and _is_root(top, "", known) else []
        return [*whole, *(f"btrfsvol:{device.name}/{path}" for path in paths)]
    finally:
        helper.call("umount", "/")


def _is_root(top: Editor, path: str, known: btrfs.Listing) -> bool:
    """Whether a system in a subvolume says that its root is there: its snapshots don't."""
    fstab = f"/{path}/etc/fstab" if path else "/etc/fstab"
    for line in lines_of(top.text(fstab)):
        fields = line.split()
        if fields[1:2] == ["/"] and not fields[0].startswith("#"):
            options = fields[3].split(",") if len(fields) > 3 else []
            return path == mounts.subvolume(options, lambda: known)
    return False


def _looked_at(
    helper: Helper, name: str, devices: Devices, view: Callable[[], Guest], found: Found
) -> bool:
    """Whether a root was found in a device or subvolume."""
    helper.call("mount_ro", name, "/")
    try:
        guest = view()
        if any(guest.stat(path) is not None for path in OSTREE):
            found.images.append(name)
            return True

        def listings(device: Device) -> btrfs.Listing:
            return btrfs.listing(helper, device.node)

        root = describe(guest, name, devices, listings)
        usr = None if root is None else root.mounts.points.get("/usr")
        if root is not None and usr is not None:  # what a system is may be said there alone
            helper.call("mount_ro", usr, "/usr")
            root = describe(view(), name, devices, listings, root.mounts)
        if root is not None:
            found.roots.append(root)
            found.sure &= root.distribution != UNNAMED
        return root is not None
    finally:
        helper.call("umount_all")


def describe(
    guest: Guest,
    name: str,
    found: Devices,
    listings: mounts.Listings,
    known: mounts.Mounts | None = None,
) -> Root | None:
    """None: it is no root. `name` is a device, or a subvolume; `known` is what it mounts, if that
    was read before."""
    reader = Editor(guest, "inspect")
    if not reader.exists("/etc") or not (reader.exists("/bin") or reader.exists("/usr")):
        return None
    release = reader.text("/etc/os-release") or reader.text("/usr/lib/os-release")
    if not release and not reader.exists("/etc/fstab"):
        return None
    values = _values(release)
    ident = values.get("ID", "unknown") if release else UNNAMED
    return Root(
        name,
        DISTRIBUTIONS.get(ident, ident),
        _version(values.get("VERSION_ID", ""), reader.text("/etc/debian_version"), ident),
        values.get("PRETTY_NAME", ""),
        _architecture(reader),
        _hostname(reader),
        known or mounts.read(reader, name, found, listings),
    )


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


def _architecture(reader: Editor) -> str:
    for program in PROGRAMS:
        real = reader.follow(program)
        if reader.is_file(real):
            head = reader.guest.read(real, 20)
            if len(head) == 20 and head[:4] == b"\x7fELF":
                (machine,) = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])
                name = MACHINES.get(machine, "unknown")
                return "ppc64le" if name == "ppc64" and head[5] == 1 else name
    return "unknown"


def _hostname(reader: Editor) -> str:
    for path in ("/etc/hostname", "/etc/HOSTNAME"):
        lines = [line.strip() for line in reader.text(path).splitlines()]
        name = next((line for line in lines if line and not line.startswith("#")), "")
        if name:
            return name
    for line in reader.text("/etc/sysconfig/network").splitlines():
        if line.startswith("HOSTNAME="):
            return line.partition("=")[2].strip("\"' ")
    return "unknown"
