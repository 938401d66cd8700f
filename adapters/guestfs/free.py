"""Free is zero: what the guest's file systems themselves report free, as ranges of each disk.

Deleted secrets lie in free blocks, in the swap and in the journal. What is listed here is read as
zero by whoever stores the disk, so nothing has to be filled or trimmed.
"""

from collections.abc import Callable

from adapters.guestfs import blocks, volumes
from adapters.guestfs.devices import ENCRYPTED, Device, Devices, project
from adapters.guestfs.process import CallFailed, Helper, printable
from adapters.guestfs.shell import quote, run_script
from pipeline.data.extents import Range
from pipeline.errors import StageFailed
from pipeline.ports import FreeSpace

ZERO_SECONDS = 3600.0
READ_PART = 2 << 20
NOTHING_FREE = (
    "squashfs",
    "iso9660",
    "udf",
    "unknown",
    "erofs",
    "LVM2_member",
    "linux_raid_member",
)


def free_space(helper: Helper, found: Devices, *, zero_rest: bool) -> FreeSpace:
    """Per disk, in the order they were added. Unmounts everything; each file system is mounted once
    more, so that its journal is replayed and clean."""
    helper.call("umount_all")
    disks: list[list[Range]] = [[] for _ in range(found.disks)]
    notes = []
    for disk, range_ in found.unallocated:
        disks[disk].append(range_)
    for device in found.devices:
        ranges: tuple[Range, ...] = ()
        try:
            ranges, how = _treat(helper, device)
        except blocks.Unsure as doubt:
            how = _explicitly(helper, device, zero_rest=zero_rest) + f": {doubt}"
        for disk, range_ in project(ranges, device.pieces):
            disks[disk].append(range_)
        notes.append(printable(f"{device.name} ({device.kind}): {how}"))
    return FreeSpace(tuple(blocks.merge(ranges) for ranges in disks), tuple(notes))


def _treat(helper: Helper, device: Device) -> tuple[tuple[Range, ...], str]:
    if device.kind in NOTHING_FREE:
        return (), "left as it is"
    if device.kind in ENCRYPTED:
        return (), "encrypted: left as it is"
    reader = READERS.get(device.kind)
    if reader is None:
        raise blocks.Unsure("its bitmaps are not read")
    if not device.pieces:
        raise blocks.Unsure("where it lies on the disks is not known")
    ranges = reader(helper, device)
    return ranges, f"{sum(item.length for item in ranges)} bytes free"


def _ext(helper: Helper, device: Device) -> tuple[Range, ...]:
    _replay(helper, device.name)
    node = quote(device.node)
    table = run_script(helper, f"dumpe2fs {node} 2>/dev/null").decode(errors="replace")
    journal = run_script(helper, f"debugfs -R 'stat <8>' {node} 2>/dev/null").decode()
    return blocks.ext(table, journal)


def _xfs(helper: Helper, device: Device) -> tuple[Range, ...]:
    _replay(helper, device.name)
    node = quote(device.node)
    superblock = run_script(
        helper, f"xfs_db -r -c 'sb 0' -c 'p blocksize agblocks rextents' {node}"
    )
    listed = run_script(helper, f"xfs_db -r -c 'freesp -d' {node}")
    return blocks.xfs(superblock.decode(), listed.decode())


def _swap(helper: Helper, device: Device) -> tuple[Range, ...]:
    header = helper.call("pread_device", device.name, 65536, 0)
    return blocks.swap(header, helper.call("blockdev_getsize64", device.name))


def _fat(helper: Helper, device: Device) -> tuple[Range, ...]:
    boot = helper.call("pread_device", device.name, 512, 0)
    return blocks.fat(boot, _read(helper, device.name, blocks.fat_table(boot)))


def _read(helper: Helper, device: str, where: Range) -> bytes:
    content = b""
    while len(content) < where.length:
        part = helper.call(
            "pread_device",
            device,
            min(READ_PART, where.length - len(content)),
            where.start + len(content),
        )
        if not part:
            raise blocks.Unsure("it is longer than its device")
        content += part
    return content


READERS: dict[str, Callable[[Helper, Device], tuple[Range, ...]]] = {
    "ext2": _ext,
    "ext3": _ext,
    "ext4": _ext,
    "xfs": _xfs,
    "swap": _swap,
    "vfat": _fat,
    "ntfs": volumes.free_clusters,
}


def _replay(helper: Helper, device: str) -> None:
    """Mount and unmount: the kernel replays the journal and leaves it empty."""
    helper.call("mount", device, "/")
    helper.call("umount", "/")


def _explicitly(helper: Helper, device: Device, *, zero_rest: bool) -> str:
    """Fill the free space of a file system with zeros. Slow, and the overlay grows by it."""
    if not zero_rest:
        return "free space kept as it is"
    try:
        helper.call("mount", device.name, "/")
        helper.call("zero_free_space", "/", timeout=ZERO_SECONDS)
        helper.call("umount", "/")
    except CallFailed as error:
        raise StageFailed(
            f"the free space of {printable(device.name)} ({printable(device.kind)}) can neither be "
            f"listed nor zeroed: {error.message}",
            hint="deleted secrets may lie in it: repair the file system, or leave the disk out",
        ) from error
    return "free space zeroed"
