"""VMDKs in parts and OVF descriptors on noise: what is wrong is refused, and nothing else is
raised."""

import os
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.formats.layering import Allocation
from adapters.formats.vmdk_parts import Part, PartMap, read_parts
from adapters.formats.window import Window
from adapters.sources.ovf import parse_ovf
from fixtures import people
from pipeline.errors import DescriptionInvalid, UnsafeImage
from tests.unit.test_formats import fd_of

SIZE = 1 << 20
GOOD = people.descriptor("monolithicFlat", [f'RW {SIZE // 512} FLAT "web-flat.vmdk" 0'])
OVF = people.ovf(
    [people.ovf_file("f1", "os.vmdk", 'ovf:chunkSize="9"')],
    [people.ovf_disk("d1", "f1", "${x}"), people.ovf_disk("d2", "", 3)],
    [people.ovf_drive(1, "ovf:/disk/d1", options="a b"), people.ovf_drive(2, "ovf:/disk/d2")],
    '<DeploymentOptionSection><Configuration ovf:id="a"/></DeploymentOptionSection>'
    '<ProductSection><Property ovf:key="x" ovf:value="7"/></ProductSection>',
)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Some bytes of it changed, doubled or left out."""
    data = bytearray(good)
    for _ in range(draw(st.integers(0, 4))):
        at, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        data[at:end] = draw(
            st.sampled_from([b"", b"\0", b"\xff", b'"', b"/", b" " * 3, bytes(data[:at])])
            | st.binary(max_size=8)
        )
    return bytes(data)


@given(damaged(GOOD))
def test_a_damaged_descriptor_leads_nowhere(data: bytes) -> None:
    try:
        found = read_parts(data)
    except UnsafeImage:
        return
    for part in found.parts:
        assert not set("/\\:\0") & set(part.name)
        assert part.name not in (".", "..")
        assert part.length > 0


@given(damaged(OVF))
def test_a_damaged_ovf_is_read_or_refused(data: bytes) -> None:
    try:
        assert parse_ovf(data).disks
    except DescriptionInvalid:
        return


HEADS = {
    "SPARSE": b"KDMV\1\0\0\0\3\0\0\0",
    "VMFSSPARSE": people.cowd({3: b"x" * 512}, SIZE),
    "SESPARSE": people.sesparse({3: b"x" * 4096}, [4], SIZE),
    "FLAT": b"",
}
numbers = st.integers(0, 4096) | st.integers(0, (1 << 64) - 1)


@pytest.mark.parametrize("kind", HEADS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_part_never_points_outside_of_its_file(kind: str, data: st.DataObject) -> None:
    content = bytearray(HEADS[kind].ljust(70_000, b"\0"))
    for at in data.draw(st.lists(st.integers(1, 1600), max_size=8)):
        form = data.draw(st.sampled_from(["<I", "<Q"]))
        value = data.draw(numbers) & ((1 << 8 * struct.calcsize(form)) - 1)
        struct.pack_into(form, content, at * 8, value)
    fd = fd_of(bytes(content[: data.draw(st.sampled_from([70_000, 20_000, 600, 3]))]))
    try:
        found = PartMap(Part(0, SIZE, kind, "x", 0), Window(fd))
        end = 0
        for piece in found.pieces(0, SIZE):
            assert piece.start == end
            end = piece.end
            if piece.allocation is Allocation.ALLOCATED:
                assert 0 <= piece.offset <= os.fstat(fd).st_size - (piece.end - piece.start)
        assert end >= SIZE
    except UnsafeImage:
        pass
    finally:
        os.close(fd)
