"""The last touches of ext file systems: made on the host, when the appliance is gone.

Few bytes in a hundred places: each read or write of a device takes the appliance 60 to 150 ms under
software emulation (it waits for udev), and dd for all of them 4 s; qemu-nbd takes 0.1 s. Where a
file system lies on its disk is known from the partition table or LVM; where it is not known
(striped, encrypted), the appliance does it after all.
"""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from adapters.guestfs import ext
from adapters.guestfs.devices import Device, project
from adapters.guestfs.patches import Patches
from adapters.guestfs.process import Helper
from adapters.process.sandbox import Sandbox
from adapters.qemu import nbd
from pipeline.ports import Chain
from pipeline.ports.extents import Range


@dataclass(frozen=True, slots=True)
class Touch:
    """What an unmounted file system lacks to be the same in every run, with nothing in its free
    inodes."""

    device: Device
    tables: ext.Tables
    slots: Sequence[Range]  # free inodes
    before: ext.Before | None
    touched: Collection[int]
    created: Collection[int]

    def perform(self, read: ext.Read, write: ext.Write) -> None:
        ext.clear(ext.partial(self.slots), read, write)
        if self.before is None:
            return
        ext.date_inodes(self.before, self.tables, self.touched, self.created, read, write)
        if (at := self.before.journal) is not None:
            write(at, ext.journal(self.before.sequence, read(at, ext.LENGTH)))
        superblock = read(ext.SUPERBLOCK, ext.LENGTH)
        write(ext.SUPERBLOCK, ext.superblock(self.before.superblock, superblock))


def in_appliance(helper: Helper, touch: Touch) -> None:
    patches = Patches(helper, touch.device.node)
    inodes = [Range(touch.tables.where(number), touch.tables.inode) for number in touch.touched]
    superblock = Range(ext.SUPERBLOCK, ext.LENGTH)
    patches.fetch([*ext.partial(touch.slots), *inodes, superblock])
    touch.perform(patches.read, patches.write)
    patches.flush()


def on_host(sandbox: Sandbox, chains: Sequence[Chain], touches: Sequence[Touch]) -> None:
    """`chains` are the appliance's disks, which no other process has open."""
    numbers = {piece.disk for touch in touches for piece in touch.device.pieces}
    with contextlib.ExitStack() as stack:
        disks = {
            number: stack.enter_context(nbd.serve(sandbox, chains[number], writable=True))
            for number in sorted(numbers)
        }
        for touch in touches:
            placed = _Placed(touch.device, disks)
            touch.perform(placed.read, placed.write)


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

    def _where(self, offset: int, length: int) -> list[tuple[int, Range]]:
        pieces = sorted(self.device.pieces, key=lambda piece: piece.offset)
        return list(project([Range(offset, length)], pieces))
