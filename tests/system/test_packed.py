"""Compressed images through the inflaters in the sandbox, judged by qemu-img on the host."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.images import QemuImages
from adapters.process import command
from adapters.process.sandbox import Sandbox
from fixtures.images import MIB, VARIANTS, qemu_convert, write_sample
from pipeline.errors import GalleriaError, StageFailed
from pipeline.ports import ImageFormat, Layer, Source
from pipeline.ports.extents import Kind

pytestmark = pytest.mark.system
IMAGES = QemuImages(Sandbox())
SIZE = 3 * MIB + 7 * 512

# driver, options: cluster sizes from the smallest to the largest
RECIPES = [
    (ImageFormat.QCOW2, "cluster_size=512"),
    (ImageFormat.QCOW2, "cluster_size=4k,compression_type=zstd"),
    (ImageFormat.QCOW2, "compression_type=zlib"),
    (ImageFormat.QCOW2, "compression_type=zstd,extended_l2=on"),
    (ImageFormat.QCOW2, "cluster_size=2M,compression_type=zstd"),
    (ImageFormat.QCOW2, "compat=0.10"),
    (ImageFormat.VMDK, "subformat=streamOptimized"),
]


def content_of(source: Source, step: int) -> bytes:
    """All of a disk, its data in pieces of `step` bytes."""
    parts = []
    for extent in source.extents():
        if extent.kind is not Kind.DATA:
            parts.append(bytes(extent.length))
            continue
        for start in range(extent.start, extent.end, step):
            part = extent.part(start, min(start + step, extent.end))
            buffer = bytearray(b"\xee" * part.length)
            source.read_into(memoryview(buffer), part)
            parts.append(bytes(buffer))
    return b"".join(parts)


def write_disk(path: Path, runs: list[tuple[int, int, int]]) -> None:
    """Sectors of text (compressible), noise (not) and holes."""
    with path.open("wb") as file:
        file.truncate(SIZE)
        for first, count, seed in runs:
            file.seek(first * 512)
            count = min(count, SIZE // 512 - first)
            noise = random.Random(seed)  # noqa: S311 - the same bytes on every run
            words = [noise.randbytes(5) for _ in range(40)]
            text = b"".join(noise.choice(words) for _ in range(count * 103))
            file.write((text if seed % 3 else noise.randbytes(count * 512))[: count * 512])


runs = st.tuples(st.integers(0, SIZE // 512 - 1), st.integers(1, 2000), st.integers(0, 99))


@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    disk=st.lists(runs, max_size=6),
    recipe=st.sampled_from(RECIPES),
    step=st.sampled_from([512, 70_144, MIB]),
)
def test_what_is_read_is_what_qemu_reads(
    disk: list[tuple[int, int, int]],
    recipe: tuple[ImageFormat, str],
    step: int,
    tmp_path: Path,
) -> None:
    raw, image, flat = (tmp_path / name for name in ("disk.raw", "image", "flat"))
    write_disk(raw, disk)
    format, options = recipe
    flags = ("-c",) if format is ImageFormat.QCOW2 else ()
    qemu_convert(raw, image, format.value, options, *flags)
    command.run(["qemu-img", "convert", "-f", format.value, "-O", "raw", str(image), str(flat)])
    with IMAGES.open((Layer(image, format),)) as source:
        assert content_of(source, step) == flat.read_bytes()


@contextmanager
def packed(tmp_path: Path, name: str) -> Iterator[tuple[Layer, bytes]]:
    raw = tmp_path / "sample.raw"
    write_sample(raw)
    yield VARIANTS[name].build(raw, tmp_path, name), raw.read_bytes()


@pytest.mark.parametrize("name", ["qcow2-zlib", "qcow2-zstd", "vmdk-stream"])
def test_a_compressed_layer_below_others(name: str, tmp_path: Path) -> None:
    with packed(tmp_path, name) as (layer, content):
        middle = IMAGES.create_overlay((layer,), tmp_path / "middle")
        top = IMAGES.create_overlay(middle, tmp_path / "top")
        with IMAGES.open(top) as source:
            assert content_of(source, MIB) == content


@pytest.mark.parametrize("name", ["qcow2-zlib", "qcow2-zstd", "vmdk-stream"])
def test_damage_is_told_or_harmless(name: str, tmp_path: Path) -> None:
    """Flipped bytes anywhere in the second half: an error of galleria's, or some bytes."""
    chance = random.Random(5)  # noqa: S311 - the same damage on every run
    raw = tmp_path / "text.raw"
    write_disk(raw, [(0, SIZE // 512, 1)])
    layer = VARIANTS[name].build(raw, tmp_path, name)
    good = layer.path.read_bytes()
    told = []
    for _ in range(12):
        data = bytearray(good)
        for _ in range(10):
            data[chance.randrange(len(data) // 2, len(data))] ^= 1 << chance.randrange(8)
        layer.path.write_bytes(data)
        try:
            with IMAGES.open((layer,)) as source:
                assert len(content_of(source, MIB)) == SIZE
        except GalleriaError as error:
            told.append(error.message)
    assert told
    assert all(message.isprintable() for message in told)


def inflaters() -> set[int]:
    """The inflaters that this process, or one of its children, has started."""
    listing = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    lines = [line.split(maxsplit=2) for line in listing.stdout.splitlines()]
    mine = {os.getpid()}
    while more := {int(pid) for pid, parent, _ in lines if int(parent) in mine} - mine:
        mine |= more
    return {int(pid) for pid, _, args in lines if args.startswith("python3 -I -S /in/")} & mine


def gone(pids: set[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_inflaters_end_with_the_disk_and_one_that_dies_is_an_error(tmp_path: Path) -> None:
    with packed(tmp_path, "qcow2-zlib") as (layer, content):
        with IMAGES.open((layer,)) as source:
            assert content_of(source, MIB) == content
            first = inflaters()
        assert first
        assert gone(first)
        with IMAGES.open((layer,)) as source:
            assert content_of(source, MIB) == content  # all of them are up
            second = inflaters()
            for pid in second:
                with suppress(ProcessLookupError):  # some end with another one
                    os.kill(pid, signal.SIGKILL)
            with pytest.raises(StageFailed, match="an inflater"):
                content_of(source, MIB)
        assert gone(second)
