"""Declared chains of every format that has them: read right, and refused when they are not the
chain that the headers mean. libvhdi and qemu, which know nothing of galleria, are the judges."""

import hashlib
import os
import struct
import subprocess
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pyvhdi

from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from fixtures.chains import Writes, differencing_vhd, differencing_vhdx, qemu_child
from pipeline.errors import GalleriaError, UnsafeImage
from pipeline.model.sources import Backing, DiskSource
from pipeline.ports import Chain, ImageFormat
from pipeline.ports.extents import Kind
from pipeline.sources.ingest import inspect_disk
from tests.contract.storing import pattern

pytestmark = pytest.mark.system
IMAGES = QemuImages(Sandbox())
MIB = 1 << 20
SIZE = 8 * MIB

# whole clusters, single sectors, the first and the last, across blocks; zeros over data
MIDDLE: Writes = {
    MIB: b"\x11" * 4096,
    3 * MIB + 512: b"\x22" * 512,
    4 * MIB - 4096: b"\x33" * 8192,
    6 * MIB: bytes(8192),
}
TOP: Writes = {
    0: b"\x44" * 512,
    MIB + 1024: b"\x55" * 512,
    2 * MIB: b"\x66" * MIB,
    5 * MIB + 4096: b"\x77" * 1536,
    SIZE - 512: b"\x88" * 512,
}


@dataclass(frozen=True, slots=True)
class Disk:
    """The files of a disk, top first, and what its guest sees."""

    files: tuple[Path, ...]
    content: bytes

    def source(self, *, files: Sequence[Path] | None = None) -> DiskSource:
        top, *below = self.files if files is None else files
        return DiskSource(None, top, backing=tuple(map(Backing, below)))


def base_content() -> bytes:
    content = bytearray(pattern(1, SIZE))
    content[6 * MIB + 4096 : 7 * MIB] = bytes(MIB - 4096)
    return bytes(content)


def written(content: bytes, *layers: Writes) -> bytes:
    changed = bytearray(content)
    for writes in layers:
        for offset, data in writes.items():
            changed[offset : offset + len(data)] = data
    return bytes(changed)


def convert(raw: Path, path: Path, driver: str, *options: str) -> Path:
    more = ["-o", ",".join(options)] if options else []
    argv = ["qemu-img", "convert", "-f", "raw", "-O", driver, *more, str(raw), str(path)]
    subprocess.run(argv, check=True)
    return path


def make(kind: str, directory: Path) -> Disk:
    content = base_content()
    raw = directory / "base.raw"
    raw.write_bytes(content)
    if kind in ("vhd-dynamic", "vhd-fixed"):
        subformat = f"subformat={kind.removeprefix('vhd-')}"
        base = convert(raw, directory / "Base.vhd", "vpc", subformat, "force_size=on")
        middle = differencing_vhd(base, directory / "Middle.avhd", MIDDLE)
        top = differencing_vhd(middle, directory / "Top.avhd", TOP)
    elif kind == "vhdx":
        base = convert(raw, directory / "Base.vhdx", "vhdx", "block_size=1M")
        middle = differencing_vhdx(base, directory / "Middle.avhdx", MIDDLE, SIZE)
        top = differencing_vhdx(middle, directory / "Top.avhdx", TOP, SIZE)
    elif kind == "qcow2-on-raw":
        base = raw
        middle = qemu_child(raw, directory / "middle.qcow2", "qcow2", "raw", MIDDLE)
        top = qemu_child(middle, directory / "top.qcow2", "qcow2", "qcow2", TOP)
    elif kind == "qcow2-on-vhdx":
        base = convert(raw, directory / "base.vhdx", "vhdx")
        middle = qemu_child(base, directory / "middle.qcow2", "qcow2", "vhdx", MIDDLE)
        top = qemu_child(middle, directory / "top.qcow2", "qcow2", "qcow2", TOP)
    else:
        base = convert(raw, directory / f"base.{kind}", kind)
        middle = qemu_child(base, directory / f"middle.{kind}", kind, kind, MIDDLE)
        top = qemu_child(middle, directory / f"top.{kind}", kind, kind, TOP)
    return Disk((top, middle, base), written(content, MIDDLE, TOP))


KINDS = (
    *("vhd-dynamic", "vhd-fixed", "vhdx"),
    *("qcow2", "qcow2-on-raw", "qcow2-on-vhdx", "vmdk"),
)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Disk]:
    return {kind: make(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def read(chain: Chain) -> bytes:
    content = bytearray()
    with IMAGES.open(chain) as source:
        for extent in source.extents():
            buffer = bytearray(extent.length)
            if extent.kind is Kind.DATA:
                source.read_into(memoryview(buffer), extent)
            content += buffer
    return bytes(content)


def by_libvhdi(files: Sequence[Path]) -> bytes:
    """What libvhdi reads of a chain."""
    parent = None
    for path in reversed(files):
        image = pyvhdi.file()
        image.open(str(path))
        if parent is not None:
            image.set_parent(parent)
        parent = image
    assert parent is not None
    content = b""
    while part := parent.read(MIB):
        content += part
    return content


def raw_of(path: Path, format: str, directory: Path) -> bytes:
    flat = directory / "flat.raw"
    argv = ["qemu-img", "convert", "-f", format, "-O", "raw", str(path), str(flat)]
    subprocess.run(argv, check=True)
    return flat.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_declared_chain_is_read_as_its_guest_sees_it(
    kind: str, disks: dict[str, Disk], tmp_path: Path
) -> None:
    disk = disks[kind]
    before = [hashlib.sha256(path.read_bytes()).digest() for path in disk.files]
    found = inspect_disk(disk.source(), IMAGES)
    assert [layer.path for layer in found.chain] == list(disk.files)
    assert read(found.chain) == disk.content
    overlay = IMAGES.create_overlay(found.chain, tmp_path / "overlay.qcow2")
    assert read(overlay) == disk.content
    IMAGES.export(found.chain, tmp_path / "export.qcow2", ImageFormat.QCOW2)
    assert raw_of(tmp_path / "export.qcow2", "qcow2", tmp_path) == disk.content
    assert [hashlib.sha256(path.read_bytes()).digest() for path in disk.files] == before


@pytest.mark.parametrize("kind", ["qcow2", "qcow2-on-raw", "qcow2-on-vhdx", "vmdk"])
def test_qemu_reads_the_same(kind: str, disks: dict[str, Disk], tmp_path: Path) -> None:
    disk = disks[kind]
    format = "vmdk" if kind == "vmdk" else "qcow2"
    assert raw_of(disk.files[0], format, tmp_path) == disk.content


def test_libvhdi_reads_the_same_vhdx(disks: dict[str, Disk]) -> None:
    assert by_libvhdi(disks["vhdx"].files) == disks["vhdx"].content


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
def test_libvhdi_reads_the_same_vhd(subformat: str, tmp_path: Path) -> None:
    """Writes of 4 KiB, as Windows makes them: libvhdi 20260901 returns zeros for a parent's sectors
    that share a byte of the bitmap with a sector of the child's."""
    content = base_content()
    raw = tmp_path / "base.raw"
    raw.write_bytes(content)
    base = convert(raw, tmp_path / "b.vhd", "vpc", f"subformat={subformat}", "force_size=on")
    first: Writes = {4096: b"\x11" * 8192, 3 * MIB: b"\x12" * MIB}
    second: Writes = {8192: b"\x21" * 4096, 2 * MIB - 4096: b"\x22" * 12288}
    middle = differencing_vhd(base, tmp_path / "m.vhd", first)
    top = differencing_vhd(middle, tmp_path / "t.vhd", second)
    disk = Disk((top, middle, base), written(content, first, second))
    assert by_libvhdi(disk.files) == disk.content
    assert read(inspect_disk(disk.source(), IMAGES).chain) == disk.content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("order", "text"),
    [
        ((0,), "backing|parent"),
        ((0, 1), "backing|parent"),
        ((0, 2), "means the file"),
        ((0, 2, 1), "means the file"),
        ((0, 1, 2, 2), "has no backing file"),
        ((0, 1, 1, 2), "twice|means the file"),
        ((0, 0, 1, 2), "twice|means the file"),
        ((2, 1), "has no backing file"),
    ],
)
def test_another_chain_than_the_headers_mean_is_refused(
    kind: str, order: tuple[int, ...], text: str, disks: dict[str, Disk]
) -> None:
    files = [disks[kind].files[index] for index in order]
    # a raw base has no header, so it is any chain's end: nothing below it can be meant
    with pytest.raises(UnsafeImage, match=text):
        inspect_disk(disks[kind].source(files=files), IMAGES)


def sealed_vhd(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change the dynamic disk header, with a right checksum."""
    data = bytearray(path.read_bytes())
    header = data[512:1536]
    change(header)
    struct.pack_into(">I", header, 36, 0)
    struct.pack_into(">I", header, 36, ~sum(header) & 0xFFFFFFFF)
    data[512:1536] = header
    path.write_bytes(data)


def test_a_vhd_parent_is_known_by_its_identifier(tmp_path: Path) -> None:
    disk = make("vhd-dynamic", tmp_path)
    sealed_vhd(disk.files[0], lambda header: header.__setitem__(slice(40, 56), uuid.uuid4().bytes))
    with pytest.raises(UnsafeImage, match="identifier"):
        inspect_disk(disk.source(), IMAGES)


def test_a_vhdx_parent_that_was_written_to_is_not_the_parent(tmp_path: Path) -> None:
    disk = make("vhdx", tmp_path)
    base = disk.files[2]
    os.truncate(base, 0)
    convert(tmp_path / "base.raw", base, "vhdx", "block_size=1M")  # another data write GUID
    with pytest.raises(UnsafeImage, match="identifier"):
        inspect_disk(disk.source(), IMAGES)


def test_a_vmdk_parent_that_was_written_to_is_not_the_parent(tmp_path: Path) -> None:
    disk = make("vmdk", tmp_path)
    base = disk.files[2]
    data = base.read_bytes()
    last = data.index(b"\n", data.index(b"CID=")) - 1  # it has eight digits or fewer
    digit = b"1" if data[last : last + 1] == b"0" else b"0"
    base.write_bytes(data[:last] + digit + data[last + 1 :])
    with pytest.raises(UnsafeImage, match="identifier"):
        inspect_disk(disk.source(), IMAGES)


@pytest.mark.parametrize(
    "name",
    [
        'json:{"driver":"raw","file":{"driver":"file","filename":"/x/base.qcow2"}}',
        "nbd://127.0.0.1/base.qcow2",
        "/elsewhere/other.qcow2",
        "base.qcow2/",
    ],
)
def test_a_backing_name_is_a_file_of_that_name(name: str, tmp_path: Path) -> None:
    raw = tmp_path / "x.raw"
    raw.write_bytes(base_content())
    base = convert(raw, tmp_path / "base.qcow2", "qcow2")
    top = tmp_path / "top.qcow2"
    argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", name]
    subprocess.run([*argv, str(top), "8M"], check=True)
    with pytest.raises(UnsafeImage, match="means the file"):
        inspect_disk(DiskSource(None, top, backing=(Backing(base),)), IMAGES)


def test_formats_below_are_those_that_were_meant(tmp_path: Path) -> None:
    raw = tmp_path / "x.raw"
    raw.write_bytes(base_content())
    top = tmp_path / "top.qcow2"
    argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "x.raw"]
    subprocess.run([*argv, str(top), "8M"], check=True)
    with pytest.raises(UnsafeImage, match="means a qcow2"):
        inspect_disk(DiskSource(None, top, backing=(Backing(raw),)), IMAGES)
    declared = (Backing(raw, ImageFormat.QCOW2),)
    with pytest.raises(UnsafeImage):
        inspect_disk(DiskSource(None, top, backing=declared), IMAGES)


def test_a_hostile_layer_below_is_refused_too(tmp_path: Path) -> None:
    raw = tmp_path / "x.raw"
    raw.write_bytes(base_content())
    base = convert(raw, tmp_path / "base.qcow2", "qcow2")
    top = qemu_child(base, tmp_path / "top.qcow2", "qcow2", "qcow2", {0: b"\x01" * 512})
    data = bytearray(base.read_bytes())
    struct.pack_into(">Q", data, 72, 4)  # an external data file
    base.write_bytes(data)
    with pytest.raises(GalleriaError, match="external file"):
        inspect_disk(DiskSource(None, top, backing=(Backing(base),)), IMAGES)
