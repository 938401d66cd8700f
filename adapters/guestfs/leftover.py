"""What of the disks a guest does not mount: file systems to be looked into by themselves, and what
can't be looked into, by name."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from adapters.guestfs import btrfs, luks
from adapters.guestfs.devices import SHAPELESS, Device, Devices
from adapters.guestfs.mounts import MOUNTABLE, device_name
from adapters.guestfs.process import CallFailed, Helper
from pipeline.ports import Unmounted
from pipeline.sources.partitions import BIOS_BOOT

HEAD = 1 << 20
READ_ONLY = ("squashfs", "iso9660", "erofs", "udf", "cramfs", "romfs")
# holders of others, which have a line of their own; swap is emptied whole
NOT_FILES = ("swap", "LVM2_member", "linux_raid_member")
# partitions of firmware and boot loaders: BIOS boot, PReP, Microsoft reserved
PROGRAMS = (
    *(str(BIOS_BOOT), "9e1a2d38-c612-4316-aa26-8b49521e5a8b", "0x41"),
    *("e3c9e316-0b5c-4db8-817d-f92df00215ae", "0xda"),
)


def unmounted(
    helper: Helper,
    found: Devices,
    mounted: Collection[str],
    opened: Sequence[str],
    *,
    writable: bool,
) -> Iterator[Unmounted]:
    """`mounted` are the names of what the guest mounts, `opened` the nodes of opened encrypted
    volumes; `writable`: what is mounted now is, to be written."""
    devices = {device_name(name) for name in mounted}
    for device in found.devices:
        kind = device.kind
        if kind == "btrfs":
            for name in _subvolumes(helper, device, mounted, writable=writable):
                yield Unmounted(name, kind)
        elif kind in MOUNTABLE:
            if device.name not in devices:
                yield Unmounted(device.name, kind)
        elif kind == luks.KIND:
            if luks.opened_node(device) not in opened:
                yield Unmounted(device.name, kind, "it is encrypted, and no key was given")
        elif kind in READ_ONLY:
            yield Unmounted(device.name, kind, "it is read-only: what is in it stays")
        elif kind == "unknown":
            if not _is_nothing(helper, device):
                yield Unmounted(device.name, kind, "what is in it is not known")
        elif kind not in NOT_FILES:
            yield Unmounted(device.name, kind, f"{kind} is not read")


def holder(path: str, mounted: Mapping[str, str]) -> str:
    """The mount point of the file system that a path is in."""
    parents = [path, *map(str, PurePosixPath(path).parents)]
    return next(point for point in parents if point in mounted)


def _subvolumes(
    helper: Helper, device: Device, mounted: Collection[str], *, writable: bool
) -> Iterator[str]:
    """Subvolumes that are in none that is mounted. Snapshots are not: an operation deletes them."""
    prefix = f"btrfsvol:{device.name}/"
    own = [name for name in mounted if name == device.name or name.startswith(prefix)]
    known = btrfs.listing(helper, device.node, mounted=writable and bool(own))
    if not own:
        yield device.name
        own = [device.name]
    roots = [known.default if n == device.name else n.removeprefix(prefix) for n in own]
    parents = {item.parent for item in known.subvolumes}
    left = set(btrfs.unseen(known, roots))
    for item in known.subvolumes:
        related = item.is_snapshot or item.uuid in parents or btrfs.SNAPPER.fullmatch(item.path)
        if item.path in left and not related:
            yield f"{prefix}{item.path}"


def _is_nothing(helper: Helper, device: Device) -> bool:
    """Whether it is blank, a boot loader's, or only a name (a pool of thin volumes)."""
    kind = device.tags.get("PART_ENTRY_TYPE", "").lower()
    if kind in (*PROGRAMS, *SHAPELESS):
        return True
    try:
        head: bytes = helper.call("pread_device", device.name, HEAD, 0)
    except CallFailed:
        return True
    return not any(head)
