"""The last touches of file systems: made on the host, when the appliance is gone.

Few bytes in a hundred places: each read or write of a device takes the appliance 60 to 150 ms under
software emulation (it waits for udev), and dd for all of them 4 s; qemu-nbd takes 0.1 s. Where a
file system lies on its disk is known from the partition table or LVM; where it is not known
(striped, encrypted), the appliance does it after all.
"""

import contextlib
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from adapters.guestfs import accounts, blocks, btrfs_files, ext, ext_files, fat, xfs
from adapters.guestfs.devices import Device, project
from adapters.guestfs.patches import Patches
from adapters.guestfs.process import Helper, printable
from adapters.process.sandbox import Sandbox
from adapters.qemu import nbd
from pipeline.ports import Chain
from pipeline.ports.extents import Range

PART = 1 << 20
Zero = Callable[[Range], None]


class Work(Protocol):
    """What is to be done with an unmounted file system. Raises accounts.Damaged."""

    @property
    def device(self) -> Device: ...

    def perform(self, read: ext.Read, write: ext.Write, zero: Zero) -> None: ...


@dataclass(frozen=True, slots=True)
class Touch:
    """What an ext file system lacks to be the same in every run, with nothing in its free inodes
    and in blocks that nothing was written to; and whether its bitmaps are true."""

    device: Device
    free: Sequence[Range]  # by the bitmaps
    inodes: int
    length: int
    tables: ext.Tables
    slots: Sequence[Range]  # free inodes
    before: ext.Before | None
    touched: Collection[int]
    created: Collection[int]

    def perform(self, read: ext.Read, write: ext.Write, zero: Zero) -> None:
        found = ext_files.files(self.tables, read, self.inodes)
        accounts.check(found.used, self.free, self.length)
        for item in found.unwritten:
            zero(item)
        ext.clear(ext.partial(self.slots), read, write)
        if self.before is None:
            return
        seed = ext.checksum_seed(self.before.superblock)
        ext_files.clear_names(found, self.tables.block, seed, read, write)
        ext.date_inodes(self.before, self.tables, self.touched, self.created, read, write)
        if (at := self.before.journal) is not None:
            write(at, ext.journal(self.before.sequence, read(at, ext.LENGTH)))
        superblock = read(ext.SUPERBLOCK, ext.LENGTH)
        write(ext.SUPERBLOCK, ext.superblock(self.before.superblock, superblock))


@dataclass(frozen=True, slots=True)
class FatTails:
    """What a FAT has beside its files."""

    device: Device
    length: int

    def perform(self, read: ext.Read, write: ext.Write, zero: Zero) -> None:
        for item in _joined(fat.Volume.opened(read).leftovers(self.length)):
            if any(read(item.start, item.length)):
                write(item.start, bytes(item.length))


@dataclass(frozen=True, slots=True)
class XfsRemains:
    """What removed files left in blocks that nothing was written to, and in directories."""

    device: Device

    def perform(self, read: ext.Read, write: ext.Write, zero: Zero) -> None:
        volume = xfs.Volume(read)
        for extent, unwritten, directory in list(volume.extents()):
            if unwritten:
                zero(extent)
            elif directory:
                for at, content in volume.names(extent):
                    write(at, content)


@dataclass(frozen=True, slots=True)
class BtrfsFiles:
    """What the files of a btrfs were given and never wrote to; and whether its extent tree is
    true. `trees` are the blocks that will be read, where that is worth knowing before."""

    device: Device
    free: Sequence[Range]  # by the extent tree
    length: int
    trees: Sequence[Range] = ()

    def perform(self, read: ext.Read, write: ext.Write, zero: Zero) -> None:
        found = btrfs_files.files(read)
        accounts.check(found.used, self.free, self.length)
        for item in found.unwritten:
            zero(item)


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """Neighbours as one, in parts of 1 MiB at most."""
    joined: list[Range] = []
    for item in sorted(ranges, key=lambda item: item.start):
        if joined and joined[-1].end == item.start and joined[-1].length + item.length <= PART:
            joined[-1] = Range(joined[-1].start, joined[-1].length + item.length)
        else:
            joined += (
                Range(start, min(PART, item.end - start))
                for start in range(item.start, item.end, PART)
            )
    return joined


def in_appliance(helper: Helper, touch: Work) -> None:
    patches = Patches(helper, touch.device.node)
    if isinstance(touch, Touch):
        inodes = [Range(touch.tables.where(number), touch.tables.inode) for number in touch.touched]
        superblock = Range(ext.SUPERBLOCK, ext.LENGTH)
        patches.fetch([*ext.partial(touch.slots), *inodes, superblock])
    if isinstance(touch, BtrfsFiles):
        patches.load(touch.device.name, touch.trees)
    with _named(touch.device):
        touch.perform(patches.read, patches.write, patches.zero)
    patches.flush()


@contextlib.contextmanager
def _named(device: Device) -> Iterator[None]:
    try:
        yield
    except (accounts.Damaged, blocks.Unsure, struct.error, IndexError) as error:
        # what reads behind the end gets less than it wants to unpack
        what = getattr(error, "what", "") or str(error)
        shown = printable(f"{device.name} ({device.kind})")
        raise accounts.Damaged(printable(what), device=shown) from None


def on_host(sandbox: Sandbox, chains: Sequence[Chain], touches: Sequence[Work]) -> None:
    """`chains` are the appliance's disks, which no other process has open."""
    numbers = {piece.disk for touch in touches for piece in touch.device.pieces}
    with contextlib.ExitStack() as stack:
        disks = {
            number: stack.enter_context(nbd.serve(sandbox, chains[number], writable=True))
            for number in sorted(numbers)
        }
        for touch in touches:
            placed = _Placed(touch.device, disks)
            with _named(touch.device):
                touch.perform(placed.read, placed.write, placed.zero)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A device by the disks that it lies on."""

    device: Device
    disks: Mapping[int, nbd.NbdDevice]

    def read(self, offset: int, length: int) -> bytes:
        content = bytearray()
        for disk, found in self._where(offset, length):
            part = bytearray(found.length)
            self.disks[disk].read_into(memoryview(part), found.start)
            content += part
        return bytes(content)

    def write(self, offset: int, content: bytes) -> None:
        at = 0
        for disk, found in self._where(offset, len(content)):
            part = bytearray(content[at : at + found.length])
            self.disks[disk].write(memoryview(part), found.start)
            at += found.length

    def zero(self, area: Range) -> None:
        for disk, found in self._where(area.start, area.length):
            self.disks[disk].zero(found.length, found.start)

    def _where(self, offset: int, length: int) -> list[tuple[int, Range]]:
        pieces = sorted(self.device.pieces, key=lambda piece: piece.offset)
        return list(project([Range(offset, length)], pieces))
