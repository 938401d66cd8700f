"""The footer of a fixed VHD, by the specification and by Azure's rules."""

import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.formats import vhd_footer

SIZE = 24 << 20
ID = uuid.UUID(int=7)


def upload(path: Path, footer: bytes | None = None, size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(
            vhd_footer.make_fixed(size, identifier=ID, now=1e9) if footer is None else footer
        )
    return path


def sealed(**fields: int) -> bytes:
    """A good footer with numbers changed (name = offset_format) and its checksum made right."""
    footer = bytearray(vhd_footer.make_fixed(SIZE, identifier=ID, now=1e9))
    for name, value in fields.items():
        offset, form = name.removeprefix("at").split("_")
        struct.pack_into(f">{form}", footer, int(offset), value)
    footer[64:68] = bytes(4)
    struct.pack_into(">I", footer, 64, 0xFFFFFFFF - sum(footer))
    return bytes(footer)


def test_every_field_is_where_the_specification_has_it() -> None:
    footer = vhd_footer.make_fixed(SIZE, identifier=ID, now=946684800 + 5)
    assert len(footer) == 512
    assert footer[:8] == b"conectix"
    assert footer[8:16] == bytes.fromhex("00000002 00010000")
    assert footer[16:24] == b"\xff" * 8
    assert footer[24:28] == bytes.fromhex("00000005")
    assert struct.unpack(">QQ", footer[40:56]) == (SIZE, SIZE)
    assert footer[60:64] == bytes.fromhex("00000002")
    assert struct.unpack(">I", footer[64:68])[0] == 0xFFFFFFFF - (sum(footer) - sum(footer[64:68]))
    assert footer[68:84] == ID.bytes
    assert not any(footer[84:])


@given(st.integers(1, (1 << 63) // 512))
def test_a_footer_reads_back(sectors: int) -> None:
    footer = vhd_footer.parse(vhd_footer.make_fixed(sectors * 512))
    assert (footer.current_size, footer.original_size) == (sectors * 512, sectors * 512)
    assert footer.disk_type == vhd_footer.DiskType.FIXED.value


@given(st.integers(0, 511), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, change: int) -> None:
    footer = bytearray(vhd_footer.make_fixed(SIZE))
    footer[at] ^= change
    with pytest.raises(ValueError, match="footer"):
        vhd_footer.parse(bytes(footer))


def test_azure_takes_a_good_one(tmp_path: Path) -> None:
    assert vhd_footer.azure_upload_problems(upload(tmp_path / "good.vhd")) == ()


@pytest.mark.parametrize(
    ("footer", "problem"),
    [
        (bytes(512), "no VHD footer"),
        (b"conectix" + bytes(504), "checksum"),
        (sealed(at60_I=3), "disk type is 3"),
        (sealed(at16_Q=512), "data offset"),
        (sealed(at12_I=0x20000), "version"),
        (sealed(at48_Q=SIZE - (1 << 20)), "Current Size"),
    ],
)
def test_azure_refuses_a_wrong_footer(tmp_path: Path, footer: bytes, problem: str) -> None:
    problems = vhd_footer.azure_upload_problems(upload(tmp_path / "bad.vhd", footer))
    assert len(problems) == 1
    assert problem in problems[0]


def test_azure_refuses_a_length_that_is_not_whole_mebibytes(tmp_path: Path) -> None:
    (problem,) = vhd_footer.azure_upload_problems(upload(tmp_path / "odd.vhd", size=SIZE + 512))
    assert "whole number of MiB" in problem


@pytest.mark.parametrize("size", [1 << 20, 19 << 20])
def test_azure_refuses_the_small(tmp_path: Path, size: int) -> None:
    (problem,) = vhd_footer.azure_upload_problems(upload(tmp_path / "small.vhd", size=size))
    assert "Azure takes 20972032" in problem
