"""Differencing VHDs and VHDXs: where their bytes lie, and parsers that no damage confuses."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.formats import Findings, Window, vhd, vhdx
from adapters.formats import vhd_footer as footer
from adapters.formats.layering import Allocation, Layered, Piece, combine
from fixtures.chains import differencing_vhd, differencing_vhdx
from pipeline.errors import UnsafeImage
from pipeline.ports import ImageFormat
from pipeline.ports.extents import Kind

MIB = 1 << 20
SIZE = 5 * MIB
WRITES = {MIB + 512: b"\x11" * 1024, 2 * MIB: b"\x22" * MIB, SIZE - 512: b"\x33" * 512}
Parse = Callable[[Window, Findings], Layered]


def vhd_child(directory: Path) -> Path:
    parent = directory / "parent.vhd"
    parent.write_bytes(bytes(SIZE) + footer.make_fixed(SIZE))
    return differencing_vhd(parent, directory / "child.vhd", WRITES)


def vhdx_child(directory: Path) -> Path:
    parent = directory / "parent.vhdx"
    parent.write_bytes(os.urandom(192 << 10))  # only its headers are looked at
    return differencing_vhdx(parent, directory / "child.vhdx", WRITES, SIZE)


CHILDREN: dict[str, tuple[Callable[[Path], Path], Parse, ImageFormat]] = {
    "vhd": (vhd_child, vhd.layout, ImageFormat.VHD),
    "vhdx": (vhdx_child, vhdx.layout, ImageFormat.VHDX),
}


@contextmanager
def window(path: Path) -> Iterator[Window]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield Window(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", CHILDREN)
def test_a_child_holds_what_was_written_and_nothing_else(kind: str, tmp_path: Path) -> None:
    make, layout, format = CHILDREN[kind]
    path = make(tmp_path)
    content = path.read_bytes()
    with window(path) as opened:
        findings = Findings(format)
        layer = layout(opened, findings)
        assert findings.refusals == []
        assert findings.parent is not None
        found = list(combine([layer], 0, SIZE))
    assert [extent.start for extent in found] == [0, *(extent.end for extent in found[:-1])]
    assert found[-1].end == SIZE
    allocation = {
        extent.start: content[extent.offset : extent.offset + extent.length]
        for extent in found
        if extent.kind is Kind.DATA and extent.offset is not None
    }
    assert allocation == WRITES


class Fixed:
    """A layer that says what it is told to."""

    def __init__(self, *pieces: Piece) -> None:
        self._pieces = pieces

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        for piece in self._pieces:
            first, last = max(piece.start, start), min(piece.end, end)
            if first < last:
                yield Piece(first, last, piece.allocation, piece.offset + first - piece.start)


def test_what_one_layer_does_not_hold_the_next_one_does() -> None:
    top = Fixed(
        Piece(0, 10, Allocation.UNALLOCATED),
        Piece(10, 20, Allocation.ALLOCATED, 100),
        Piece(20, 30, Allocation.ZERO),
        Piece(30, 40, Allocation.UNALLOCATED),
    )
    bottom = Fixed(
        Piece(0, 5, Allocation.ALLOCATED, 50),
        Piece(5, 35, Allocation.ALLOCATED, 55),
        Piece(35, 40, Allocation.UNALLOCATED),
    )
    found = [(e.start, e.length, e.kind, e.layer, e.offset) for e in combine([top, bottom], 0, 40)]
    assert found == [
        (0, 10, Kind.DATA, 1, 50),
        (10, 10, Kind.DATA, 0, 100),
        (20, 10, Kind.ZERO, 0, None),
        (30, 5, Kind.DATA, 1, 80),
        (35, 5, Kind.ZERO, 0, None),
    ]


@pytest.mark.parametrize("kind", CHILDREN)
def test_damage_is_refused_or_harmless(kind: str, tmp_path: Path) -> None:
    """Whatever is changed in its headers and tables: a refusal, or extents that cover the disk."""
    make, layout, format = CHILDREN[kind]
    whole = make(tmp_path).read_bytes()
    tables = 2048 if kind == "vhd" else 4 * MIB
    dice = random.Random(4)  # noqa: S311 - the same damage each time
    damaged = tmp_path / "damaged"
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            place = dice.choice([dice.randrange(tables), dice.randrange(512, 2048)])
            content[place] = dice.choice([0, 0xFF, dice.randrange(256)])
        damaged.write_bytes(content[: dice.choice([len(whole), dice.randrange(len(whole))])])
        with window(damaged) as opened:
            findings = Findings(format)
            try:
                layer = layout(opened, findings)
                if findings.refusals:
                    raise UnsafeImage(findings.refusals[0])
                found = list(combine([layer], 0, findings.virtual_size))
                assert sum(extent.length for extent in found) == findings.virtual_size
            except UnsafeImage:
                refused += 1
    assert refused > 20
