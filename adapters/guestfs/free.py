"""Free space reads as zeros: what the file systems themselves report free, as ranges of each disk.

Deleted secrets lie in free blocks, in the swap and in the journal. What is listed here is read as
zero by whoever stores the disk, so nothing has to be filled or trimmed.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from adapters.guestfs import blocks, btrfs, ext, volumes
from adapters.guestfs.accounts import Damaged
from adapters.guestfs.changes import Changes
from adapters.guestfs.devices import ENCRYPTED, Device, Devices, project
from adapters.guestfs.leftover import READ_ONLY
from adapters.guestfs.process import CallFailed, Helper, printable
from adapters.guestfs.shell import ZERO_SECONDS, quote, run_script, zeroing
from adapters.guestfs.touch import BtrfsFiles, FatTails, Touch, Work, XfsRemains, in_appliance
from pipeline.errors import StageFailed
from pipeline.ports import FreeSpace
from pipeline.ports.extents import Range

# why two runs on the same source differ in a few blocks of these
UNLIKE = {
    # recently_deleted in Linux's fs/ext4/ialloc.c, which ext2 runs on
    "ext": "; not byte for byte the same in another run (without a journal, the kernel gives new "
    "files inodes by the clock)",
    "vfat": "; not byte for byte the same in another run (times of changed directories)",
    "xfs": "; not byte for byte the same in another run (log sequence numbers, inode times)",
    "btrfs": "; not byte for byte the same in another run (transaction and inode times)",
}
BTRFS_KINDS = "\\(EXTENT\\|METADATA\\)_ITEM"
READ_PART = 2 << 20
NOTHING_FREE = (*READ_ONLY, "unknown", "LVM2_member", "linux_raid_member")


@dataclass(frozen=True, slots=True)
class Edited:
    """What a session knows besides: what each ext file system said before it was first mounted,
    and the inodes that were changed and made since, all by libguestfs's name of the device. Its
    `mounted` ones were mounted to be written, and so have no journal to replay. `later` takes what
    is to be done when the appliance is gone."""

    before: Mapping[str, ext.Before] = field(default_factory=dict)
    touched: Mapping[str, Collection[int]] = field(default_factory=dict)
    created: Mapping[str, Collection[int]] = field(default_factory=dict)
    mounted: Collection[str] = ()
    # ranges of devices whose contents are not to be kept: swap files
    hollow: Mapping[str, Sequence[Range]] = field(default_factory=dict)
    later: list[Work] = field(default_factory=list)

    def with_changes(self, changes: Changes, found: Devices) -> "Edited":
        """Besides, what was changed in file systems that are still mounted, to be written."""
        hollow = changes.hollows(found)
        touched, created = changes.by_device()
        return replace(
            self,
            touched=_joined(self.touched, touched),
            created=_joined(self.created, created),
            mounted={*self.mounted, *touched},
            hollow={
                name: [*self.hollow.get(name, ()), *hollow.get(name, ())]
                for name in {*self.hollow, *hollow}
            },
        )


def _joined(
    one: Mapping[str, Collection[int]], other: Mapping[str, Collection[int]]
) -> dict[str, set[int]]:
    return {name: {*one.get(name, ()), *other.get(name, ())} for name in {*one, *other}}


def remember(helper: Helper, found: Devices) -> dict[str, ext.Before]:
    """What each ext file system says of itself, before anything is mounted."""

    def reader(name: str) -> ext.Read:
        return lambda offset, length: _read(helper, name, Range(offset, length))

    return {
        device.name: ext.remember(reader(device.name))
        for device in found.devices
        if device.kind in ("ext2", "ext3", "ext4")
    }


def free_space(
    helper: Helper, found: Devices, *, zero_rest: bool, edited: Edited | None = None
) -> FreeSpace:
    """Per disk, in the order they were added. Unmounts everything; a file system that was not
    mounted is mounted once, so that its journal is replayed and clean."""
    helper.call("umount_all")
    edited = edited or Edited()
    disks: list[list[Range]] = [[] for _ in range(found.disks)]
    notes = [printable(line) for line in found.gaps]
    for disk, range_ in found.unallocated:
        disks[disk].append(range_)
    for device in found.devices:
        ranges: tuple[Range, ...] = ()
        try:
            ranges, how = _treat(helper, device, edited)
            if not device.pieces and ranges:
                how = _zeroed(helper, device.node, ranges, zero_rest=zero_rest)
        except blocks.Unsure as doubt:
            how = _explicitly(helper, device, zero_rest=zero_rest) + f": {doubt}"
        hollow = tuple(edited.hollow.get(device.name, ()))
        for disk, range_ in project((*ranges, *hollow), device.pieces):
            disks[disk].append(range_)
        notes.append(printable(f"{device.name} ({device.kind}): {how}"))
    for node in sorted({node for node, _ in found.inside}):
        ranges = tuple(range_ for other, range_ in found.inside if other == node)
        how = _zeroed(helper, node, ranges, zero_rest=zero_rest)
        notes.append(printable(f"{node} (LVM's free extents): {how}"))
    return FreeSpace(tuple(blocks.merge(ranges) for ranges in disks), tuple(notes))


def _treat(helper: Helper, device: Device, edited: Edited) -> tuple[tuple[Range, ...], str]:
    if device.kind in NOTHING_FREE:
        return (), "left as it is"
    if device.kind in ENCRYPTED:
        return (), "encrypted: left as it is (what was opened of it has a line of its own)"
    reader = READERS.get(device.kind)
    if reader is None:
        raise blocks.Unsure("its bitmaps are not read")
    ranges = reader(helper, device, edited)
    how = f"{sum(item.length for item in ranges)} bytes free"
    return ranges, how + _unlike(device, edited) + _unseen(helper, device, edited)


def _unlike(device: Device, edited: Edited) -> str:
    if device.kind == "vfat" and not edited.touched.get(device.name):
        return ""
    before = edited.before.get(device.name)
    if before is not None and edited.created.get(device.name) and not before.has_journal:
        return UNLIKE["ext"]
    return UNLIKE.get(device.kind, "")


def _zeroed(helper: Helper, node: str, ranges: Sequence[Range], *, zero_rest: bool) -> str:
    """Write zeros where it is not known which bytes of the disks these are: inside encryption, on
    striped volumes."""
    if not zero_rest:
        return "free space kept as it is"
    script = "\n".join(zeroing(item, quote(node)) for item in ranges)
    run_script(helper, f"set -e; {script}\nsync", timeout=ZERO_SECONDS)
    return f"{sum(item.length for item in ranges)} bytes of free space zeroed"


def _ext(helper: Helper, device: Device, edited: Edited) -> tuple[Range, ...]:
    if device.name not in edited.mounted:
        _replay(helper, device.name)
    node = quote(device.node)
    output = run_script(
        helper,
        f"dumpe2fs {node} 2>/dev/null; echo =; debugfs -R 'stat <8>' {node} 2>/dev/null",
    )
    table, _, journal = output.decode(errors="replace").rpartition("\n=\n")
    ranges = blocks.ext(table, journal)
    found = ext.tables(table)
    slots = list(ext.free_inodes(found))

    fields = dict(re.findall(r"^([A-Z][\w ]*):[ \t]+(.*)$", table, re.MULTILINE))
    end = blocks.ext_length(table)
    touch = Touch(
        device,
        blocks.merge(blocks.ext_bitmaps(table)),
        int(fields["Inode count"]),
        end,
        found,
        slots,
        edited.before.get(device.name),
        edited.touched.get(device.name, ()),
        edited.created.get(device.name, ()),
    )
    _later(helper, touch, edited)
    rest = [Range(end, device.length - end)] if end < device.length else []
    return blocks.merge([*ranges, *slots, *rest])


def _later(helper: Helper, touch: Work, edited: Edited) -> None:
    if touch.device.pieces:
        edited.later.append(touch)
    else:
        in_appliance(helper, touch)


def _xfs(helper: Helper, device: Device, edited: Edited) -> tuple[Range, ...]:
    if device.name not in edited.mounted:
        _replay(helper, device.name)
    node = quote(device.node)
    _clear_log(helper, device)
    superblock = run_script(
        helper, f"xfs_db -r -c 'sb 0' -c 'p blocksize agblocks rextents' {node}"
    )
    listed = run_script(helper, f"xfs_db -r -c 'freesp -d' {node}")
    ranges = blocks.xfs(superblock.decode(), listed.decode())
    _later(helper, XfsRemains(device), edited)
    return ranges


def _clear_log(helper: Helper, device: Device) -> None:
    """Empty the log of a sound file system, where names, link targets and attributes of removed
    files lie. (There is no other way to one that the kernel takes for newer than all the rest.)"""
    _check(helper, device, CHECKERS["xfs"])
    run_script(helper, f"xfs_repair -L {quote(device.node)} 2>&1", timeout=ZERO_SECONDS)


def _shown(device: Device) -> str:
    return printable(f"{device.name} ({device.kind})")


def _btrfs(helper: Helper, device: Device, edited: Edited) -> tuple[Range, ...]:
    if device.name not in edited.mounted:
        _replay(helper, device.name)
    node = quote(device.node)
    output = run_script(
        helper,
        f"btrfs inspect-internal dump-super {node}; echo =; "
        f"btrfs inspect-internal dump-tree -t chunk {node}; echo =; "
        f"btrfs inspect-internal dump-tree -t extent {node} | grep -o 'key (.* {BTRFS_KINDS} .*)'",
    )
    superblock, chunks, extents = output.decode(errors="replace").split("\n=\n")
    length = helper.call("blockdev_getsize64", device.name)
    free = blocks.btrfs(superblock, chunks, extents, length)
    trees = () if device.pieces else blocks.btrfs_trees(superblock, chunks, extents)
    _later(helper, BtrfsFiles(device, free, length, trees), edited)
    return free


def _unseen(helper: Helper, device: Device, edited: Edited) -> str:
    """What of a btrfs that was treated nobody has looked into."""
    volumes = f"btrfsvol:{device.name}/"
    names = [name for name in edited.mounted if name == device.name or name.startswith(volumes)]
    if device.kind != "btrfs" or not names:
        return ""
    found = btrfs.listing(helper, device.node)
    paths = [found.default if n == device.name else n.removeprefix(volumes) for n in names]
    left = btrfs.unseen(found, paths)
    return f"; mounted nowhere, so not looked into: {', '.join(left)}" if left else ""


def _swap(helper: Helper, device: Device, _: Edited) -> tuple[Range, ...]:
    header = helper.call("pread_device", device.name, 65536, 0)
    return blocks.swap(header, helper.call("blockdev_getsize64", device.name))


def _fat(helper: Helper, device: Device, edited: Edited) -> tuple[Range, ...]:
    boot = helper.call("pread_device", device.name, 512, 0)
    ranges = blocks.fat(boot, _read(helper, device.name, blocks.fat_table(boot)))
    length = helper.call("blockdev_getsize64", device.name)
    _later(helper, FatTails(device, length), edited)
    return ranges


def _ntfs(helper: Helper, device: Device, _: Edited) -> tuple[Range, ...]:
    ranges = volumes.free_clusters(helper, device)
    _check(helper, device, CHECKERS["ntfs"])
    return ranges


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


def _check(helper: Helper, device: Device, checker: str) -> None:
    """Let a file system's own program look at it, without a change."""
    command = f'said=$({checker} {quote(device.node)} 2>&1); status=$?; echo $status; echo "$said"'
    status, _, said = (
        run_script(helper, command, timeout=ZERO_SECONDS).decode(errors="replace").partition("\n")
    )
    told = COMPLAINTS.get(device.kind, "")
    if status not in ("0", str(NO_PROGRAM)) and re.search(told, said):
        last = printable(" ".join(said.split()[-12:]))
        raise Damaged(f"{checker.split()[0]} says: {last}", device=_shown(device))


# what says whether a file system is sound, and ends with status 0 if it is
CHECKERS = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), "e2fsck -f -n"),
    "xfs": "xfs_repair -n",
    "btrfs": "btrfs check --readonly",
    "vfat": "fsck.vfat -n",
    "ntfs": "ntfsresize --info --force --no-progress-bar",
}
# of those that end so for less, what they say of files and free blocks that contradict each other
COMPLAINTS = {"vfat": "Contains a free cluster|share clusters", "ntfs": "check failed"}
NO_PROGRAM = 127
READERS: dict[str, Callable[[Helper, Device, Edited], tuple[Range, ...]]] = {
    "ext2": _ext,
    "ext3": _ext,
    "ext4": _ext,
    "xfs": _xfs,
    "btrfs": _btrfs,
    "swap": _swap,
    "vfat": _fat,
    "ntfs": _ntfs,
}


def _replay(helper: Helper, device: str) -> None:
    """Mount and unmount: the kernel replays the journal and leaves it empty."""
    helper.call("mount_options", "noatime", device, "/")
    helper.call("umount", "/")


def _explicitly(helper: Helper, device: Device, *, zero_rest: bool) -> str:
    """Fill the free space of a file system with zeros, if it is sound. Slow, and the overlay grows
    by it."""
    if not zero_rest:
        return "free space kept as it is"
    if checker := CHECKERS.get(device.kind):
        _check(helper, device, checker)
    try:
        helper.call("mount", device.name, "/")
    except CallFailed as error:
        if device.kind not in READERS:  # ZFS, bcachefs: nothing in it is cleaned, and it is named
            return "free space kept as it is, the appliance cannot mount it"
        raise _unzeroed(device, error) from error
    try:
        helper.call("zero_free_space", "/", timeout=ZERO_SECONDS)
        helper.call("umount", "/")
    except CallFailed as error:
        raise _unzeroed(device, error) from error
    return "free space zeroed"


def _unzeroed(device: Device, error: CallFailed) -> StageFailed:
    return StageFailed(
        f"the free space of {printable(device.name)} ({printable(device.kind)}) can neither be "
        f"listed nor zeroed: {error.message}",
        hint="deleted secrets may lie in it: repair the file system, or leave the disk out",
    )
