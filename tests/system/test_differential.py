"""Good files in every variant that qemu-img and others write: galleria reads of each what qemu-img
reads. Wrong refusals are found here, and wrong bytes."""

import hashlib
import itertools
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.images import QemuImages
from adapters.pins import FilePins
from adapters.process.sandbox import Sandbox
from adapters.progress import Mode, open_progress
from adapters.sources import HostSources
from fixtures import people
from fixtures.images import MIB
from pipeline.model.sources import DiskSource
from pipeline.ports.extents import Kind
from pipeline.sources.ingest import inspect_disk

pytestmark = [pytest.mark.system, pytest.mark.slow]
IMAGES = QemuImages(Sandbox())
LEAST = 150


def no_downloads() -> Any:
    raise AssertionError("nothing is downloaded here")


SOURCES = HostSources(
    FilePins(), no_downloads, "test:///default", Sandbox(), open_progress(Mode.NONE)
)


@dataclass(frozen=True, slots=True)
class File:
    """How one file is made of a raw disk. `driver` is qemu's name of its format; `content` that of
    the disk."""

    driver: str
    options: str = ""
    flags: tuple[str, ...] = ()
    content: str = "mixed"
    make: Callable[[Path, Path], None] | None = None

    @property
    def name(self) -> str:
        parts = (self.driver, self.options.replace(",", " "), *self.flags, self.content)
        return " ".join(filter(None, parts))


def disk(content: str) -> bytes:
    """Small disks: an odd length, one sector of data in zeros, data without zeros, none."""
    chance = random.Random(content)  # noqa: S311 - the same bytes on every run
    head = b"\xeb\x63\x90\0"
    if content == "mixed":
        pieces = [chance.randbytes(70_000), bytes(500_000), b"text " * 30_000, bytes(MIB)]
        data = b"".join(pieces * 2)
        return head + data[: len(data) // 512 * 512 - 4]
    if content == "sector":
        return head + bytes(3 * MIB - 1024 - 4) + chance.randbytes(512) + bytes(512)
    if content == "full":
        return head + chance.randbytes(2 * MIB - 4)
    return bytes(MIB + 512)


FLAGS: tuple[tuple[str, ...], ...] = ((), ("-c",))
CONTENTS = ("mixed", "sector", "full", "empty")


def qcow2() -> Iterator[File]:
    for compat, cluster in itertools.product(("0.10", "1.1"), ("512", "4k", "64k", "2M")):
        for flags in FLAGS:
            for content in ("mixed", "sector"):
                yield File("qcow2", f"compat={compat},cluster_size={cluster}", flags, content)
    for cluster, flags in itertools.product(("16k", "64k", "2M"), FLAGS):
        for kind in ("zlib", "zstd"):
            options = f"extended_l2=on,cluster_size={cluster},compression_type={kind}"
            yield File("qcow2", options, flags)
    for bits in ("1", "8", "64"):
        yield File("qcow2", f"refcount_bits={bits},lazy_refcounts=on")
    for how in ("metadata", "falloc", "full"):
        for compat in ("0.10", "1.1"):
            yield File("qcow2", f"preallocation={how},compat={compat}", (), "sector")
    for content in CONTENTS:
        yield File("qcow2", "compression_type=zstd", ("-c",), content)


def vmdk() -> Iterator[File]:
    kinds = (
        *("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"),
        "streamOptimized",
    )
    for kind, content in itertools.product(kinds, CONTENTS):
        yield File("vmdk", f"subformat={kind}", (), content)
    for kind, adapter in itertools.product(kinds, ("ide", "buslogic", "lsilogic")):
        options = f"subformat={kind},adapter_type={adapter},toolsversion=2147483647"
        yield File("vmdk", options)
    for kind in ("monolithicSparse", "twoGbMaxExtentSparse"):
        yield File("vmdk", f"subformat={kind},zeroed_grain=on,hwversion=6", (), "sector")


def others() -> Iterator[File]:
    for kind, size, content in itertools.product(("fixed", "dynamic"), ("on", "off"), CONTENTS):
        yield File("vpc", f"subformat={kind},force_size={size}", (), content)
    for kind, block in itertools.product(("fixed", "dynamic"), ("1M", "8M", "32M", "256M")):
        for content in ("mixed", "sector"):
            yield File("vhdx", f"subformat={kind},block_size={block}", (), content)
    for zero, content in itertools.product(("on", "off"), ("full", "empty")):
        yield File("vhdx", f"block_state_zero={zero},log_size=2M", (), content)
    for static, content in itertools.product(("on", "off"), CONTENTS):
        yield File("vdi", f"static={static}", (), content)
    for content in CONTENTS:
        yield File("raw", "", (), content)


def stream_by_python(raw: Path, path: Path) -> None:
    """VMDK-stream-converter, which writes the VMDKs of Ubuntu's cloud images."""
    program = "import sys, VMDKstream; VMDKstream.convert_to_stream(*sys.argv[1:3])"
    argv = ["/usr/bin/python3", "-c", program, str(raw), str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "No module named" in done.stderr:
        pytest.skip("python3-vmdkstream is not installed")
    assert done.returncode == 0, done.stderr


def renamed(first: bytes, *more: bytes) -> Callable[[Path, Path], None]:
    """A VMDK of qemu's with another text in it."""

    def make(raw: Path, path: Path) -> None:
        argv = ["qemu-img", "convert", "-q", "-f", "raw", "-O", "vmdk", str(raw), str(path)]
        subprocess.run(argv, check=True)
        data = path.read_bytes()
        text = first + people.descriptor_of(data).partition(b"\n")[2] + b"\n".join(more)
        path.write_bytes(people.with_descriptor(data, text))

    return make


def by_hand() -> Iterator[File]:
    for content in CONTENTS:
        yield File("vmdk", "VMDKstream", (), content, stream_by_python)
    for first in (b"# Disk Descriptor File\n", b"#\n", b"# Description file\n# of a converter\n"):
        name = first.decode().replace("\n", " ")
        for more in ((), (b'ddb.comment = "K\xf6ln"', b'ddb.encoding = "windows-1252"', b"")):
            yield File("vmdk", f"{name}{len(more)}", (), "mixed", renamed(first, *more))


FILES = [*qcow2(), *vmdk(), *others(), *by_hand()]


def test_there_are_enough_files() -> None:
    assert len({file.name for file in FILES}) == len(FILES) >= LEAST


def judged(path: Path, driver: str, directory: Path) -> str:
    """sha256 of what qemu-img makes of a file."""
    flat = directory / "flat"
    argv = ["qemu-img", "convert", "-f", driver, "-O", "raw", str(path), str(flat)]
    subprocess.run(argv, check=True)
    return hashlib.sha256(flat.read_bytes()).hexdigest()


def read(path: Path, work: Path) -> str:
    """sha256 of what galleria reads of it."""
    work.mkdir()
    with (
        SOURCES.unwrapped(DiskSource(None, path), work) as found,
        IMAGES.open(inspect_disk(found, IMAGES).chain) as source,
    ):
        data = bytearray(source.virtual_size)
        for extent in source.extents():
            if extent.kind is Kind.DATA:
                source.read_into(memoryview(data)[extent.start : extent.end], extent)
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_galleria_reads_what_qemu_reads(file: File, tmp_path: Path) -> None:
    raw, path = tmp_path / "disk.raw", tmp_path / "image"
    raw.write_bytes(disk(file.content))
    if file.make is not None:
        file.make(raw, path)
    else:
        argv = ["qemu-img", "convert", "-q", "-f", "raw", "-O", file.driver, *file.flags]
        argv += ["-o", file.options] if file.options else []
        subprocess.run([*argv, str(raw), str(path)], check=True)
    assert read(path, tmp_path / "work") == judged(path, file.driver, tmp_path)
