"""A disk that was cut, a CD where a disk belongs, and names that promise a format: told. What has
grown, and what merely once was something else, is a good disk."""

import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from adapters.formats import Findings, Window, vhd_footer
from adapters.formats import raw as raw_format
from pipeline.errors import UnsafeImage
from pipeline.ports import ImageFacts, ImageFormat
from pipeline.sources.contents import Contents, read_contents
from pipeline.sources.ingest import check_whole
from tests.contract.memory import MemorySource

MIB = 1 << 20
SIZE = 8 * MIB


def mbr(*partitions: tuple[int, int, int]) -> bytearray:
    """(type, first sector, number of sectors) of each."""
    disk = bytearray(SIZE)
    for index, (kind, first, count) in enumerate(partitions):
        struct.pack_into("<B3xB3xII", disk, 446 + 16 * index, 0, kind, first, count)
    disk[510:512] = b"\x55\xaa"
    return disk


def gpt(sectors: int = SIZE // 512) -> bytearray:
    """A disk whose table was made for that many sectors."""
    disk = mbr((0xEE, 1, sectors - 1))
    fields = (b"EFI PART", 0x10000, 92, 0, 0, 1, sectors - 1, 34, sectors - 34, bytes(16))
    header = bytearray(struct.pack("<8sIIIIQQQQ16sQIII", *fields, 2, 128, 128, 0))
    struct.pack_into("<I", header, 16, zlib.crc32(header))
    disk[512 : 512 + len(header)] = header
    return disk


def iso(*, blocks: int, disk: bytearray | None = None) -> bytearray:
    disk = bytearray(SIZE) if disk is None else disk
    disk[32768 : 32768 + 7] = b"\x01CD001\x01"
    disk[32768 + 40 : 32768 + 72] = b"DEBIAN_12_1".ljust(32)
    struct.pack_into("<I", disk, 32768 + 80, blocks)
    struct.pack_into("<H", disk, 32768 + 128, 2048)
    return disk


def contents(disk: bytes | bytearray, length: int = SIZE) -> Contents:
    return read_contents(MemorySource(bytes(disk[:length]).ljust(length, b"\0")))


def test_a_whole_disk_and_one_that_has_grown_are_good() -> None:
    for disk in (gpt(), mbr((0x83, 2048, SIZE // 512 - 2048))):
        assert contents(disk) == Contents(known=True)
        assert contents(disk, 3 * SIZE) == Contents(known=True)
    assert contents(bytearray(SIZE)) == Contents()


@pytest.mark.parametrize("length", [SIZE - 512, SIZE // 2, 2 * MIB])
def test_a_disk_that_was_cut_is_told_by_its_table(length: int) -> None:
    for disk, scheme in ((gpt(), "GPT"), (mbr((0x83, 2048, SIZE // 512 - 2048)), "MBR")):
        found = contents(disk, length)
        assert f"partition table ({scheme})" in found.cut
        assert str(SIZE) in found.cut
        assert str(length) in found.cut


def test_a_header_that_is_damaged_is_no_witness() -> None:
    disk = gpt(1 << 30)
    disk[512 + 32] ^= 0xFF
    assert contents(disk) == Contents()


@pytest.mark.system
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (("mke2fs", "-q", "-F", "-t", "ext4"), "ext"),
        (("mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024"), "ext"),
        (("mkfs.xfs", "-q", "-f"), "XFS"),
        (("mkfs.btrfs", "-q", "-f"), "btrfs"),
        (("mkfs.ntfs", "-q", "-F", "-f"), "NTFS"),
        (("mkfs.fat", "-F", "32"), "FAT"),
        (("mkfs.fat", "-F", "16", "-s", "64"), "FAT"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_a_file_system_without_a_table_is_a_witness(
    make: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    path, length = tmp_path / "disk", 320 * MIB
    with path.open("wb") as file:
        file.truncate(length)
    try:
        subprocess.run([*make, str(path)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"{make[0]} is not installed")
    with path.open("rb") as file:
        head = file.read(MIB)
    assert contents(bytearray(head), length) == Contents(known=True)
    assert contents(bytearray(head), length + MIB) == Contents(known=True)
    assert f"file system ({name})" in contents(bytearray(head), length - MIB).cut


def test_a_file_systems_boot_sector_is_no_partition_table() -> None:
    """Its code lies where the entries of a table would be."""
    disk = mbr((0x83, 1 << 20, 1 << 30))
    disk[3:11] = b"NTFS    "
    struct.pack_into("<HxB", disk, 11, 512, 8)
    struct.pack_into("<Q", disk, 40, SIZE // 512 - 1)
    assert contents(disk) == Contents(known=True)


def test_a_cd_is_named_by_its_label() -> None:
    for disk in (iso(blocks=SIZE // 2048), iso(blocks=0)):
        assert "ISO 9660" in contents(disk).optical
        assert "'DEBIAN_12_1'" in contents(disk).optical
    hybrid = iso(blocks=SIZE // 2048, disk=mbr((0, 0, 0), (0xEF, 64, 8192), (0x17, 0, 16000)))
    assert contents(hybrid).optical


def test_a_disk_that_once_held_a_cd_is_a_disk() -> None:
    disk = iso(blocks=300, disk=mbr((0x83, 2048, SIZE // 512 - 2048)))
    assert contents(disk) == Contents(known=True)


def raw_refusals(content: bytes, path: Path) -> str:
    path.write_bytes(content)
    findings = Findings(ImageFormat.RAW)
    with path.open("rb") as file:
        raw_format.parse(Window(file.fileno()), findings)
    return "; ".join(findings.refusals)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"<!DOCTYPE html>\n<html><title>404</title>".ljust(1024, b"\0"), "HTML page"),
        (b"\r\n <HTML>".ljust(2048), "HTML page"),
        (b'{"error": "expired"}\n'.ljust(512), "text file"),
        (b'{"message": "not found"}'.ljust(1024, b"\0"), "text file"),
        ("<!-- Büro -->".encode().ljust(1024), "page"),
        ("Nicht gefunden: Büro\n".encode(), "text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"\x7fELF".ljust(4096, b"\0"), "ELF"),
        (b"%PDF-1.7\n".ljust(4096, b"\0"), "PDF"),
        (b"\x04\x22\x4d\x18".ljust(4096, b"\0"), "unlz4"),
        (b"\xfd7zXZ\0".ljust(777, b"\0"), "unxz"),
    ],
)
def test_what_is_no_disk_is_named(content: bytes, named: str, tmp_path: Path) -> None:
    refusals = raw_refusals(content, tmp_path / "disk")
    assert named in refusals
    assert "whole sectors" not in refusals


def test_a_footer_without_its_cookie_is_a_vhds(tmp_path: Path) -> None:
    footer = vhd_footer.make_fixed(MIB)
    assert "lost its cookie" in raw_refusals(bytes(MIB) + bytes(8) + footer[8:], tmp_path / "disk")
    assert raw_refusals(bytes(MIB + 512), tmp_path / "disk") == ""


def facts(name: str, format: ImageFormat = ImageFormat.RAW) -> ImageFacts:
    return ImageFacts(Path(name), format, "raw", SIZE, SIZE, SIZE)


@pytest.mark.parametrize("name", ["web.vhd", "web.VHDX", "web.qcow2", "a.ova: web.vmdk"])
def test_a_name_that_promises_another_format_needs_a_witness(name: str) -> None:
    with pytest.raises(UnsafeImage, match="was cut, or damaged"):
        check_whole(facts(name), Contents())
    check_whole(facts(name), Contents(known=True))
    check_whole(facts(name, ImageFormat.VHD), Contents())


@pytest.mark.parametrize("name", ["web.raw", "web.img", "web", "web-flat.vmdk"])
def test_other_names_promise_nothing(name: str) -> None:
    check_whole(facts(name), Contents())
    with pytest.raises(UnsafeImage, match="its end is missing"):
        check_whole(facts(name), Contents(cut="its end is missing"))
