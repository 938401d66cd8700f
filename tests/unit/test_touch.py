"""Where the bytes of a device lie on disks: written and read on the host as the device has them."""

from typing import Any

from adapters.guestfs.devices import Device, Piece
from adapters.guestfs.touch import _Placed


class Disk:
    def __init__(self, length: int) -> None:
        self.content = bytearray(length)

    def read_into(self, buf: memoryview, offset: int) -> None:
        buf[:] = self.content[offset : offset + len(buf)]

    def write(self, buf: memoryview, offset: int) -> None:
        self.content[offset : offset + len(buf)] = buf


def test_a_device_on_two_disks_in_pieces_of_any_order() -> None:
    disks: Any = {0: Disk(1000), 2: Disk(1000)}
    pieces = (Piece(2, 700, 100, 200), Piece(0, 100, 50, 0), Piece(2, 300, 150, 50))
    placed = _Placed(Device("/dev/vg/lv", "/dev/vg/lv", "ext4", pieces), disks)
    whole = bytes(index % 251 for index in range(300))
    placed.write(0, whole)
    assert disks[0].content[100:150] == whole[:50]
    assert disks[2].content[300:450] == whole[50:200]
    assert disks[2].content[700:800] == whole[200:]
    assert placed.read(0, 300) == whole
    placed.write(45, b"ten bytes.")
    assert placed.read(40, 20) == whole[40:45] + b"ten bytes." + whole[55:60]
    assert disks[0].content[145:150] == b"ten b"
    assert disks[2].content[300:305] == b"ytes."
    assert not any(disks[0].content[150:])
