"""The parsers on noise: a refusal, never another exception, and never a long look."""

import os
import struct
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.formats import Window, vdi
from adapters.formats.raw import lookalikes
from adapters.formats.window import Findings
from adapters.images.inspect import Policy, detect_format, inspect_as
from fixtures.hostile.vhdx import crc32c
from pipeline.errors import UnsafeImage
from pipeline.ports import ImageFormat

pytestmark = pytest.mark.hostile

FILE = 0x50000
HEADS = {
    ImageFormat.RAW: b"",
    ImageFormat.QCOW2: b"QFI\xfb\0\0\0\3",
    ImageFormat.VHD: b"conectix",
    ImageFormat.VHDX: b"vhdxfile",
    ImageFormat.VMDK: b"KDMV\1\0\0\0",
    ImageFormat.VDI: b"<<< disk >>>".ljust(64, b"\0") + b"\x7f\x10\xda\xbe\1\0\1\0",
}


def fd_of(content: bytes) -> int:
    fd, name = tempfile.mkstemp()
    os.unlink(name)  # noqa: PTH108 - nothing but the descriptor is needed
    os.write(fd, content)
    return fd


# small numbers, so that offsets and counts often lie inside the file
numbers = st.integers(0, 4096) | st.integers(0, (1 << 64) - 1)


@st.composite
def noise(draw: st.DrawFn, format: ImageFormat) -> bytes:
    data = bytearray(FILE)
    data[: len(HEADS[format])] = HEADS[format]
    start = len(HEADS[format])
    for at in draw(st.lists(st.integers(start, 1024), max_size=30)):
        form = draw(st.sampled_from(["<I", ">I", "<Q", ">Q", "<H", ">H"]))
        value = draw(numbers) & ((1 << 8 * struct.calcsize(form)) - 1)
        struct.pack_into(form, data, at, value)
    return bytes(data[: draw(st.integers(1, FILE)) if draw(st.booleans()) else FILE])


@pytest.mark.parametrize("format", ImageFormat)
@settings(max_examples=150)
@given(data=st.data())
def test_noise_is_refused_and_nothing_else_is_raised(
    format: ImageFormat, data: st.DataObject
) -> None:
    fd = fd_of(data.draw(noise(format)))
    try:
        found = inspect_as(fd, format, Policy())
    finally:
        os.close(fd)
    if format is not ImageFormat.RAW:
        assert found.refusals or found.references


@given(st.binary(min_size=1, max_size=2048), st.booleans())
def test_anything_is_recognised_as_something(content: bytes, padded: bool) -> None:
    fd = fd_of(content.ljust(4096, b"\0") if padded else content)
    try:
        format, doubts = detect_format(Window(fd))
        claims = lookalikes(Window(fd))
    finally:
        os.close(fd)
    assert format is ImageFormat.RAW or claims
    assert len(claims) <= 1 or doubts or format is ImageFormat.RAW


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 11), (10, 1), (-1, 2), (0, 1 << 40), (1 << 63, 1)]
)
def test_a_window_never_reads_outside_of_its_file(offset: int, length: int) -> None:
    fd = fd_of(b"0123456789")
    try:
        with pytest.raises(UnsafeImage, match="the thing"):
            Window(fd).read(offset, length, "the thing")
        assert Window(fd).read(4, 3, "the thing") == b"456"
    finally:
        os.close(fd)


def test_crc32c_of_the_standard() -> None:
    """RFC 3720 B.4; the fixtures seal their lies with this one, so it has to be right."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize(
    ("entries", "refusals"),
    [
        ((0, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFE), 0),  # never allocated; given back, twice
        ((0, 0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF), 1),  # a block that is nowhere
        ((0, 0, 0xFFFFFFFE, 0xFFFFFFFF), 1),
    ],
)
def test_blocks_that_a_vdi_does_not_have(entries: tuple[int, ...], refusals: int) -> None:
    """Places from qemu's block/vdi.c (VdiHeader, VDI_IS_ALLOCATED)."""
    head = bytearray(HEADS[ImageFormat.VDI].ljust(512, b"\0"))
    struct.pack_into("<I", head, 76, 1)
    struct.pack_into("<II", head, 340, 512, 1024)
    struct.pack_into("<I", head, 360, 512)
    struct.pack_into("<QIIII", head, 368, 4 << 20, 1 << 20, 0, 4, 1)
    fd = fd_of(bytes(head) + struct.pack("<4I", *entries).ljust(512, b"\0") + bytes(1 << 20))
    findings = Findings(ImageFormat.VDI)
    try:
        vdi.parse(Window(fd), findings)
    finally:
        os.close(fd)
    assert len(findings.refusals) == refusals, findings.refusals
