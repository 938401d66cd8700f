"""Zones on the source's own file system: blocks are shared, not copied. Judged by qemu-img, by the
space that the file system says is used, and by the blocks that filefrag names."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.filesystem.sinks import RawSink
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from adapters.qemu import nbd
from pipeline.data import copying
from pipeline.data.chunks import CHUNK_SIZE
from pipeline.data.manifest import ManifestWriter
from pipeline.data.targets import Target
from pipeline.errors import PartiallyReplicated
from pipeline.model.sources import DiskSource
from pipeline.ports import Chain, ImageFormat, Images, Layer, Source
from pipeline.ports.extents import Extent, Range
from pipeline.publish import publish
from tests.contract.storing import pattern
from tests.faults import Faulty
from tests.system.conftest import Mount, used
from tests.system.test_publish import Lab, compare, replicas

pytestmark = pytest.mark.system

MIB = 1 << 20
DATA = 24 * MIB
DRIVERS = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc"}
SUFFIXES = {name: ImageFormat(name) for name in DRIVERS}


@pytest.fixture(params=["xfs", "btrfs"])
def place(request: pytest.FixtureRequest, mount: Mount) -> Path:
    """A file system that clones files."""
    return Path(mount(str(request.param)))


def disk(path: Path) -> bytes:
    """A raw disk: data, a leaf of zeros that are written, a hole, and a last leaf cut short."""
    content = bytearray(pattern(1, DATA) + bytes(8 * MIB) + pattern(2, 5 * CHUNK_SIZE + 1024))
    content[4 * CHUNK_SIZE : 5 * CHUNK_SIZE] = bytes(CHUNK_SIZE)
    with path.open("wb") as file:
        file.write(content[:DATA])
        file.seek(DATA + 8 * MIB)
        file.write(content[DATA + 8 * MIB :])
        os.fsync(file.fileno())
    return bytes(content)


def blocks(path: Path) -> set[tuple[int, int, int]]:
    """(logical, physical, length) of every extent of a file, in blocks, as filefrag tells."""
    shown = subprocess.run(
        ["filefrag", "-s", "-v", str(path)], check=True, capture_output=True, text=True
    ).stdout
    found = re.findall(r"^ *\d+: *(\d+)\.\. *\d+: *(\d+)\.\. *\d+: *(\d+):", shown, re.MULTILINE)
    return {(int(a), int(b), int(c)) for a, b, c in found}


def physical(path: Path) -> set[int]:
    return {at for _, start, count in blocks(path) for at in range(start, start + count)}


def lab(place: Path, home: Path, *regions: str) -> Lab:
    home.mkdir()
    return Lab(home, {name: place / name for name in regions})


@pytest.mark.parametrize("beside", [False, True], ids=["leased", "pinned"])
@pytest.mark.parametrize("kind", ["raw", "qcow2", "vmdk"])
def test_a_source_on_the_zones_file_system_is_not_copied(
    kind: str, beside: bool, place: Path, tmp_path: Path
) -> None:
    """`beside`: the work directory is there, too, and the source is pinned by a clone."""
    raw, source = tmp_path / "disk.raw", place / f"disk.{kind}"
    content = disk(raw)
    argv = ["qemu-img", "convert", "-f", "raw", "-O", DRIVERS[kind], str(raw), str(source)]
    subprocess.run(argv, check=True)
    world = lab(place, (place if beside else tmp_path) / "home", "eu")
    before = used(place)
    version = world.publish("1.0.0", DiskSource(None, source), eu=2)
    # manifest, records and the file system's own; the catalog where it is here
    assert used(place) - before < 2 * MIB
    (result,) = [status.result for status in version.regions]
    assert result.bytes_written < 2 * CHUNK_SIZE
    assert result.bytes_shared >= DATA - CHUNK_SIZE
    base = next((place / "eu" / "bases").glob("*/base.raw"))
    source.unlink()
    for path in (base, *(path for path, _ in replicas(version))):
        assert path.read_bytes() == content
    # zeros that the source holds are no blocks of the base
    assert base.stat().st_blocks * 512 <= len(content) - 8 * MIB - CHUNK_SIZE + 8192


def test_what_can_not_be_shared_is_copied(place: Path, tmp_path: Path) -> None:
    """The data of a dynamic VHD begins at odd sectors; two of its blocks are no whole ones."""
    raw, source = tmp_path / "disk.raw", place / "disk.vhd"
    content = disk(raw)
    options = ["-o", "force_size=on"]
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "vpc", *options, str(raw), str(source)]
    subprocess.run(argv, check=True)
    world = lab(place, tmp_path / "home", "eu")
    version = world.publish("1.0.0", DiskSource(None, source), eu=1)
    base = next((place / "eu" / "bases").glob("*/base.raw"))
    assert base.read_bytes()[: len(content)] == content
    (result,) = [status.result for status in version.regions]
    assert result.bytes_written + result.bytes_shared >= DATA - CHUNK_SIZE


class Altered:
    """A source whose bytes are not those of its file any more, as if it had been written to."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read_into(self, buf: memoryview, extent: Extent) -> None:
        buf[:] = b"\xff" * len(buf)


def stored(
    place: Path, chain: tuple[Layer, ...], free: tuple[Range, ...], wrap: Callable[[Source], Source]
) -> tuple[Path, copying.CopyResult]:
    """A copy of a disk to a sink that may share, beside it."""
    target, manifest = place / "target.raw", place / "manifest"
    with QemuImages(Sandbox()).open(chain, free=free) as source, manifest.open("wb") as out:
        sink = RawSink(target, source.virtual_size)
        try:
            writer = ManifestWriter(out, source.virtual_size)
            result = copying.copy(wrap(source), [Target("t", sink, reuses_extents=True)], writer)
            sink.flush()
        finally:
            sink.close()
    return target, result


def root(content: bytes, work: Path) -> str:
    """The digest of a disk that was copied byte by byte."""
    path = work / "plain.raw"
    path.write_bytes(content)
    chain = (Layer(path, ImageFormat.RAW),)
    with QemuImages(Sandbox()).open(chain) as source, (work / "plain").open("wb") as out:
        return copying.copy(source, [], ManifestWriter(out, source.virtual_size)).root


def test_what_is_hashed_is_what_is_stored(place: Path, tmp_path: Path) -> None:
    """Not what the source reads as later, when nobody can tell whether it was written to."""
    content = disk(place / "disk.raw")[:DATA]
    os.truncate(place / "disk.raw", DATA)
    chain = (Layer(place / "disk.raw", ImageFormat.RAW),)
    target, result = stored(place, chain, (), Altered)
    assert target.read_bytes() == content
    assert result.root == root(content, tmp_path)
    assert result.stats.cloned["t"] == DATA - CHUNK_SIZE


def test_what_is_free_is_not_shared(place: Path, tmp_path: Path) -> None:
    """Not even in part: the blocks in which a free range begins and ends are written."""
    content = bytearray(disk(place / "disk.raw"))
    free = (Range(512, 1024), Range(2 * MIB - 512, MIB + 1024), Range(DATA - 512, 512))
    chain = (Layer(place / "disk.raw", ImageFormat.RAW),)
    target, result = stored(place, chain, free, lambda source: source)
    for area in free:
        content[area.start : area.end] = bytes(area.length)
    assert target.read_bytes() == content
    assert result.root == root(bytes(content), tmp_path)
    source = physical(place / "disk.raw")
    assert physical(target) & source, "nothing was shared: the test proves nothing"
    # the first block, two around the second range, the last block of the data
    for block in (0, (2 * MIB - 512) // 4096, 3 * MIB // 4096, DATA // 4096 - 1):
        for start, at, count in blocks(target):
            if start <= block < start + count:
                assert at + block - start not in source


def test_regions_on_one_file_system_share_one_copy(place: Path, tmp_path: Path) -> None:
    content = disk(tmp_path / "disk.raw")
    world = lab(place, tmp_path / "home", "eu", "us", "asia")
    before = used(place)
    version = world.publish("1.0.0", DiskSource(None, tmp_path / "disk.raw"), eu=2, us=2, asia=2)
    assert used(place) - before < DATA + 5 * MIB
    found = replicas(version)
    assert len(found) == 6
    for path, _ in found:
        assert path.read_bytes() == content
    by_region = {status.region: status.result for status in version.regions}
    written = sorted(result.bytes_written for result in by_region.values())
    assert written[:2] == [0, 0]
    assert all(
        result.bytes_written + result.bytes_shared == by_region["eu"].bytes_written
        for result in by_region.values()
    )
    # each stands alone
    with world.app() as app:
        zones = [app.zones[name][0] for name in ("eu", "us", "asia")]
        digest = version.disks[0].digest
        bases = [zone.find_base(digest) for zone in zones]
    assert len({base.chain[0].path.stat().st_ino for base in bases if base is not None}) == 3
    # and the next version starts from what each has
    after = bytearray(content)
    after[: 2 * CHUNK_SIZE] = pattern(9, 2 * CHUNK_SIZE)
    (tmp_path / "next.raw").write_bytes(after)
    before = used(place)
    world.publish("1.0.1", DiskSource(None, tmp_path / "next.raw"), eu=2, us=2, asia=2)
    assert used(place) - before < 3 * MIB


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_blocks_that_the_last_version_has_are_not_read_again(
    kind: str, place: Path, tmp_path: Path
) -> None:
    """The disk of a machine that went on after 1.0.0 was made of it, in its own file."""
    raw, source = tmp_path / "disk.raw", place / f"disk.{kind}"
    content = bytearray(disk(raw))
    argv = ["qemu-img", "convert", "-f", "raw", "-O", kind, str(raw), str(source)]
    subprocess.run(argv, check=True)
    world = lab(place, tmp_path / "home", "eu", "us")
    world.publish("1.0.0", DiskSource(None, source), eu=1, us=1)
    changes = [
        (3 * MIB, 2 * CHUNK_SIZE, 0x5A),
        (9 * MIB + 4096, 512, 0x5B),
        (12 * MIB, CHUNK_SIZE, 0),
    ]
    for start, length, value in changes:
        content[start : start + length] = bytes([value]) * length
        write = f"write -q {'-z -u' if not value else f'-P {value}'} {start} {length}"
        subprocess.run(["qemu-io", "-f", kind, "-c", write, str(source)], check=True)
    version = world.publish("1.0.1", DiskSource(None, source), eu=1, us=1)
    results = {status.region: status.result for status in version.regions}
    assert 2 * CHUNK_SIZE <= results["eu"].bytes_read <= 4 * MIB  # a request is 1 MiB
    assert results["eu"].bytes_written == 3 * CHUNK_SIZE
    assert version.disks[0].digest == root(bytes(content), tmp_path)
    for path, _ in replicas(version):
        assert path.read_bytes() == content


def test_a_disk_that_grew_is_not_what_its_first_blocks_are(place: Path, tmp_path: Path) -> None:
    """The last leaf of the old one is part of a longer leaf now, in the same blocks."""
    source = place / "disk.raw"
    content = disk(source)
    world = lab(place, tmp_path / "home", "eu")
    world.publish("1.0.0", DiskSource(None, source), eu=1)
    os.truncate(source, len(content) + 3 * 512)
    version = world.publish("1.0.1", DiskSource(None, source), eu=1)
    assert version.disks[0].digest == root(content + bytes(3 * 512), tmp_path)
    ((replica, _),) = replicas(version)
    assert replica.read_bytes() == content + bytes(3 * 512)


def test_regions_without_clones_take_over_one_delta(
    mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written once, by one qemu; each zone's is its own file, on its own parent."""
    content = disk(tmp_path / "disk.raw")
    zones = mount("ext4")
    world = lab(zones, tmp_path / "home", "eu", "us", "asia")
    world.publish("1.0.0", DiskSource(None, tmp_path / "disk.raw"), eu=1, us=1)
    after = bytearray(content)
    after[: 2 * CHUNK_SIZE] = pattern(9, 2 * CHUNK_SIZE)
    after[DATA - CHUNK_SIZE : DATA] = bytes(CHUNK_SIZE)
    (tmp_path / "next.raw").write_bytes(after)
    served: list[Path] = []
    serve = nbd.serve

    def counted(sandbox: Sandbox, chain: Chain, **options: Any) -> Any:
        served.append(chain[0].path)
        return serve(sandbox, chain, **options)

    monkeypatch.setattr(nbd, "serve", counted)
    version = world.publish("1.0.1", DiskSource(None, tmp_path / "next.raw"), eu=1, us=1, asia=1)
    results = {status.region: status.result for status in version.regions}
    assert {name: result.methods for name, result in results.items()} == {
        "eu": ("delta",),
        "us": ("delta",),
        "asia": ("copy",),  # it has nothing to start from
    }
    assert len(served) == 1
    for name in ("eu", "us"):
        assert results[name].bytes_written == 2 * CHUNK_SIZE
        assert results[name].bytes_shared == results["eu"].bytes_shared > DATA - 6 * CHUNK_SIZE
    shutil.rmtree(zones / "eu")  # the others need nothing of it
    (tmp_path / "after.raw").write_bytes(after)
    for path, kind in replicas(version):
        if "/eu/" not in str(path):
            compare(path, kind, tmp_path / "after.raw", "raw")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_base_is_not_made_from_one_that_it_has_nothing_of(
    kind: str, mount: Mount, tmp_path: Path
) -> None:
    zones = mount(kind)
    world = lab(zones, tmp_path / "home", "eu", "us")
    for number, seed in (("1.0.0", 1), ("1.0.1", 7)):
        content = pattern(seed, 4 * MIB) + bytes(MIB) + pattern(seed + 1, 512)
        (tmp_path / "disk.raw").write_bytes(content)
        version = world.publish(number, DiskSource(None, tmp_path / "disk.raw"), eu=1, us=1)
        own, neighbour = (status.result for status in version.regions)
        assert own.methods == ("copy",)
        assert neighbour.methods == (("copy",) if kind == "ext4" else ("reflink",))
        for path, format in replicas(version):
            compare(path, format, tmp_path / "disk.raw", "raw")
    # one leaf in common is enough
    content = pattern(7, 4 * MIB)[: 2 * CHUNK_SIZE] + pattern(9, 2 * MIB)
    (tmp_path / "disk.raw").write_bytes(content)
    version = world.publish("1.0.2", DiskSource(None, tmp_path / "disk.raw"), eu=1, us=1)
    method = "delta" if kind == "ext4" else "reflink"
    assert {status.result.methods for status in version.regions} == {(method,)}
    for path, format in replicas(version):
        compare(path, format, tmp_path / "disk.raw", "raw")


def test_room_is_asked_for_once(place: Path, tmp_path: Path) -> None:
    """Three copies of 100 MiB (zeros, but nobody knows before they are read) would not fit."""
    with (tmp_path / "disk.raw").open("wb") as file:
        for _ in range(100):
            file.write(bytes(MIB))
    world = lab(place, tmp_path / "home", "eu", "us", "asia")
    version = world.publish("1.0.0", DiskSource(None, tmp_path / "disk.raw"), eu=1, us=1, asia=1)
    assert set(version.completed_regions) == {"eu", "us", "asia"}


@pytest.mark.parametrize("method", ["stage_base", "clone_base_from"])
def test_a_zone_that_fails_does_not_take_its_neighbours_along(
    method: str, place: Path, tmp_path: Path
) -> None:
    """The one that is to be written first, and one that is to be its clone."""
    content = disk(tmp_path / "disk.raw")
    world = lab(place, tmp_path / "home", "eu", "us", "asia")
    failing = "eu" if method == "stage_base" else "us"
    with world.app() as app:
        faulty: Any = Faulty(app.zones[failing][0], "E", methods=(method,))
        zones = {**app.context.zones, failing: (faulty,)}
        request = world.request(
            "1.0.0", DiskSource(None, tmp_path / "disk.raw"), eu=1, us=1, asia=1
        )
        with pytest.raises(PartiallyReplicated, match=failing):
            publish(request, replace(app.context, zones=zones))
    version = world.version("1.0.0")
    assert set(version.completed_regions) == {"eu", "us", "asia"} - {failing}
    for path, _ in replicas(version):
        assert path.read_bytes() == content


def test_a_source_that_is_written_to_after_it_was_pinned(place: Path, tmp_path: Path) -> None:
    """What is published is what it was: its clone is read when the source itself does not count."""
    content = disk(place / "disk.raw")
    home = place / "home"
    world = lab(place, home, "eu")
    with world.app() as app:
        images = Interfering(app.context.images, place / "disk.raw")
        context = replace(app.context, images=cast(Images, images))
        request = world.request("1.0.0", DiskSource(None, place / "disk.raw"), eu=1)
        version = publish(request, context)
    assert images.originals == [True, False]
    assert (place / "disk.raw").read_bytes() != content
    ((replica, _),) = replicas(version)
    assert replica.read_bytes() == content


class Interfering:
    """Images; somebody writes to `path` while a disk is read from its original."""

    def __init__(self, images: Images, path: Path) -> None:
        self._images = images
        self._path = path
        self.originals: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._images, name)

    @contextmanager
    def open(self, chain: Chain, *, free: Sequence[Range] = ()) -> Iterator[Source]:
        original = chain[0].original is not None
        if original or self.originals:
            self.originals.append(original)
        if original:
            code = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(5000); f.write(b'x' * 9000000)"
            subprocess.run([sys.executable, "-c", code, str(self._path)], check=True, timeout=20)
        with self._images.open(chain, free=free) as source:
            yield source
