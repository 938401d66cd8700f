"""Zones on XFS, btrfs and ext4: what is shared, what a full disk leaves, what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.filesystem import calls as fs
from adapters.filesystem import fiemap
from adapters.filesystem.profile import BEST, probe
from adapters.pins import FilePins
from adapters.process.sandbox import Sandbox
from adapters.zones import DirectoryZone, create_zone, open_zone
from pipeline.data.chunks import CHUNK_SIZE
from pipeline.errors import NoSpace
from pipeline.ports import Chain, ImageFormat, Layer, VersionRecord
from pipeline.ports.extents import Range
from tests.contract.storing import changed, collect, files, pattern, store
from tests.system.conftest import REFLINK, Mount, used

pytestmark = pytest.mark.system

MIB = 1 << 20
CHUNKS = 120  # 30 MiB of data
CONTENT = (
    bytes(16 * CHUNK_SIZE)
    + pattern(1, CHUNKS * CHUNK_SIZE)
    + bytes(200 * CHUNK_SIZE)
    + pattern(2, 512)
)
RECORD = VersionRecord("corp-web-1.0.0", {"version": "1.0.0"})

Make = Callable[..., Path]


def make_zone(directory: Path) -> DirectoryZone:
    return create_zone(directory / "zone", name="z", region="eu", sandbox=Sandbox())


def same(path: Path, format: ImageFormat, content: bytes, work: Path) -> bool:
    """Whether qemu, by the names in an image, finds in it exactly these bytes. (Its strict mode
    also compares which clusters are allocated, which differs in a delta that zeroes some.)"""
    source = work / "source.raw"
    source.write_bytes(content)
    argv = ["qemu-img", "info", "--output=json", "-f", format.value, str(path)]
    facts = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    argv = ["qemu-img", "compare", "-f", format.value, "-F", "raw", str(path), str(source)]
    result = subprocess.run(argv, capture_output=True, text=True)
    return bool(facts["virtual-size"] == len(content)) and "identical" in result.stdout


def check(chain: Chain) -> None:
    for layer in chain:
        if layer.format is ImageFormat.QCOW2:
            subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(layer.path)], check=True)


def test_the_next_version_adds_what_changed(
    filesystem: Make, filesystem_kind: str, tmp_path: Path
) -> None:
    mountpoint = filesystem()
    zone = make_zone(mountpoint)
    assert zone.reflink == (filesystem_kind in REFLINK)
    first, _ = store(zone, CONTENT, tmp_path)
    before, counted = used(mountpoint), zone.allocated_bytes()
    after = bytearray(changed(CONTENT, *range(20, 60, 2)))
    after[70 * CHUNK_SIZE : 74 * CHUNK_SIZE] = bytes(4 * CHUNK_SIZE)
    second, result = store(zone, bytes(after), tmp_path, [first.digest])
    assert second.method == ("reflink" if zone.reflink else "delta")
    assert result.stats.written["z"] == 20 * CHUNK_SIZE
    assert result.stats.kept["z"] == (CHUNKS - 20 - 4) * CHUNK_SIZE + 512
    # 20 leaves are 5 MiB; metadata and 2 % of the disk's data are allowed for
    grown = used(mountpoint) - before
    assert 20 * CHUNK_SIZE <= grown <= 20 * CHUNK_SIZE * 1.02 + MIB
    assert 20 * CHUNK_SIZE <= zone.allocated_bytes() - counted <= 20 * CHUNK_SIZE * 1.02 + MIB
    for base, content in ((first, CONTENT), (second, bytes(after))):
        assert same(base.chain[0].path, base.chain[0].format, content, tmp_path)
        check(base.chain)


def test_replicas_and_deployed_disks_add_next_to_nothing(
    filesystem: Make, filesystem_kind: str, tmp_path: Path
) -> None:
    mountpoint = filesystem()
    zone = make_zone(mountpoint)
    base, _ = store(zone, CONTENT, tmp_path)
    before = used(mountpoint)
    replicas = zone.publish(RECORD, {None: base.digest, 0: base.digest}, 4)
    method = "reflink" if zone.reflink else "overlay"
    # eight disks; an empty qcow2 takes 200 KiB whatever the disk's length is
    limit = len(CONTENT) // 100 if zone.reflink else 8 * 256 * 1024
    assert used(mountpoint) - before < limit
    for replica in replicas:
        for disk in replica.disks:
            assert disk.method == method
            assert same(disk.path, disk.format, CONTENT, tmp_path)
    before = used(mountpoint)
    (inside,) = zone.deploy(replicas[0], [mountpoint / "vm"])
    (outside,) = zone.deploy(replicas[1], [tmp_path / "vm"])
    assert used(mountpoint) - before < limit
    assert {disk.method for disk in inside} == {method}
    assert {disk.method for disk in outside} == {"overlay"}
    for disk in (*inside, *outside):
        assert same(disk.path, disk.format, CONTENT, tmp_path)
    zone.remove_version(RECORD.key)
    assert collect(zone, base.digest) == []
    for disk in (*inside, *outside):
        assert same(disk.path, disk.format, CONTENT, tmp_path)


def test_bases_are_immutable_and_can_be_collected(filesystem: Make, tmp_path: Path) -> None:
    zone = make_zone(filesystem())
    base, _ = store(zone, CONTENT, tmp_path)
    second, _ = store(zone, changed(CONTENT, 20), tmp_path, [base.digest])
    for path in (base.chain[0].path, base.manifest, second.chain[0].path):
        with pytest.raises(PermissionError):
            path.open("r+b").close()
        with pytest.raises(PermissionError):
            path.unlink()
    (replica,) = zone.publish(RECORD, {None: second.digest}, 1)
    (disks,) = zone.deploy(replica, [zone.path.parent / "vm"])
    with disks[0].path.open("r+b") as file:  # a child of an immutable file is not immutable
        file.write(b"\0")
    assert collect(zone) == ([base.digest] if zone.reflink else [])
    zone.remove_version(RECORD.key)
    assert len(collect(zone)) == (1 if zone.reflink else 2)
    assert files(zone.path) == ["bases", "galleria-zone.json", "staging", "versions"]


def test_a_full_file_system_is_left_as_it_was(filesystem: Make, tmp_path: Path) -> None:
    mountpoint = filesystem(size_mib=310)
    zone = make_zone(mountpoint)
    first, _ = store(zone, CONTENT, tmp_path)
    listing = files(zone.path)
    filler = mountpoint / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, zone.free_bytes() - 12 * MIB))
    wholly_new = pattern(5, 160 * CHUNK_SIZE)
    for content, parents in ((wholly_new, []), (wholly_new, [first.digest])):
        with pytest.raises(NoSpace, match=str(zone.path)):
            store(zone, content, tmp_path, parents)
        assert files(zone.path) == listing
    filler.unlink()
    second, _ = store(zone, wholly_new, tmp_path, [first.digest])
    assert same(second.chain[0].path, second.chain[0].format, wholly_new, tmp_path)


def test_a_zone_moves_to_another_file_system(mount: Mount, tmp_path: Path) -> None:
    """From where bases are deltas to where files can be cloned, and the other way."""
    work = tmp_path / "work"
    work.mkdir()
    for origin, destination in (("ext4", "xfs"), ("btrfs", "ext4")):
        zone = make_zone(mount(origin))
        first, _ = store(zone, CONTENT, work)
        after = changed(CONTENT, 30)
        second, _ = store(zone, after, work, [first.digest])
        zone.publish(RECORD, {None: second.digest}, 1)
        target = mount(destination) / "elsewhere"
        subprocess.run(["cp", "-a", "--sparse=always", str(zone.path), str(target)], check=True)
        moved = open_zone(target, sandbox=Sandbox())
        assert moved.reflink == (destination in REFLINK)
        replicas = moved.find_version(RECORD.key)
        assert replicas is not None
        zone.path.rename(zone.path.with_name("gone"))
        disk = replicas[0].disks[0]
        assert same(disk.path, disk.format, after, work)
        third, _ = store(moved, changed(after, 31), work, [second.digest])
        assert same(third.chain[0].path, third.chain[0].format, changed(after, 31), work)


def test_a_zone_takes_over_a_base_of_its_neighbour(
    filesystem: Make, filesystem_kind: str, tmp_path: Path
) -> None:
    """Not a byte of it moves where files can be cloned; it stays when the neighbour is gone."""
    mountpoint, reflink = filesystem(), filesystem_kind in REFLINK
    donor = make_zone(mountpoint)
    base, _ = store(donor, CONTENT, tmp_path)
    zone = create_zone(mountpoint / "other", name="o", region="us", sandbox=Sandbox())
    before = used(mountpoint)
    made = zone.clone_base_from(base)
    assert used(mountpoint) - before < CHUNK_SIZE
    assert files(zone.path / "staging") == []
    assert made == zone.find_base(base.digest)
    assert (made is not None) == reflink
    # on another file system nothing can be cloned, and nothing is left of the attempt
    far = create_zone(tmp_path / "far", name="f", region="us", sandbox=Sandbox())
    assert far.clone_base_from(base) is None
    assert files(far.path) == ["bases", "galleria-zone.json", "staging", "versions"]
    collect(donor)
    assert donor.find_base(base.digest) is None
    if made is not None:
        assert (made.method, made.parent) == ("reflink", None)
        assert same(made.chain[0].path, made.chain[0].format, CONTENT, tmp_path)
        with pytest.raises(PermissionError):
            made.chain[0].path.open("r+b").close()
        collect(zone)


WRITER = """
import sys, time
from pathlib import Path
from adapters.process.sandbox import Sandbox
from adapters.zones import open_zone
zone = open_zone(Path(sys.argv[1]), sandbox=Sandbox())
staging = zone.stage_base(64 << 20, sys.argv[2:])
for at in range(0, 32 << 20, 1 << 20):
    staging.sink.write(memoryview(b"x" * (1 << 20)), at)
print("half", flush=True)
time.sleep(60)
"""


def test_a_killed_writer_leaves_only_what_is_swept(
    filesystem: Make, filesystem_kind: str, tmp_path: Path, repository: Path
) -> None:
    zone = make_zone(filesystem())
    base, _ = store(zone, CONTENT, tmp_path)
    listing = files(zone.path)
    argv = [sys.executable, "-c", WRITER, str(zone.path), base.digest]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=repository) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        assert zone.sweep() == []  # its owner is alive
        assert files(zone.path) != listing
        process.send_signal(signal.SIGKILL)
    assert zone.digests() == [base.digest]
    assert len(zone.sweep()) == 1
    assert files(zone.path) == listing
    # the server of a delta base is gone with its owner: nothing holds the file system
    deadline = time.monotonic() + 10
    while "qemu-nbd" in users(zone.path.parent) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "qemu-nbd" not in users(zone.path.parent)
    second, _ = store(zone, changed(CONTENT, 20), tmp_path, [base.digest])
    assert second.parent == base.digest


def users(mountpoint: Path) -> str:
    """The names of the processes that have a file open on a file system."""
    device = mountpoint.stat().st_dev
    names = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.stat().st_dev == device:
                names.append((link.parent.parent / "comm").read_text())
        except OSError:
            continue
    return " ".join(names)


def test_a_pin_is_a_clone_where_files_can_be_cloned(filesystem: Make, filesystem_kind: str) -> None:
    directory = filesystem()
    disk, work = directory / "disk.raw", directory / "work"
    work.mkdir()
    disk.write_bytes(CONTENT)
    before = disk.stat()
    with FilePins().pin([(Layer(disk, ImageFormat.RAW),)], work) as pin:
        after = disk.stat()
        assert (after.st_mtime_ns, after.st_ctime_ns, after.st_atime_ns) == (
            before.st_mtime_ns,
            before.st_ctime_ns,
            before.st_atime_ns,
        )
        if filesystem_kind not in REFLINK:
            assert pin.method == "lease"
            return
        assert pin.method == "reflink"
        (layer,) = pin.chains[0]
        disk.write_bytes(b"changed")  # what was pinned is not touched by it
        pin.verify()
        assert layer.path.read_bytes() == CONTENT
    assert list(work.iterdir()) == []


def test_allocation_counts_shared_blocks_once(mount: Mount) -> None:
    directory = mount("xfs")
    one, two = directory / "one", directory / "two"
    one.write_bytes(pattern(1, 8 * MIB))
    assert fs.clone(one, two)
    assert fiemap.allocated_bytes([one, two]) == fiemap.allocated_bytes([one]) == 8 * MIB
    with two.open("r+b") as file:
        file.write(pattern(2, MIB))
    assert fiemap.allocated_bytes([one, two]) == 9 * MIB


def test_ranges_are_cloned_where_they_can_be(mount: Mount) -> None:
    for kind, expected in (("xfs", True), ("ext4", False)):
        directory = mount(kind)
        (directory / "one").write_bytes(pattern(1, 4 * MIB))
        with (directory / "one").open("rb") as one, (directory / "two").open("w+b") as two:
            two.truncate(4 * MIB)
            area = Range(MIB, 2 * MIB)
            assert fs.clone_range(one.fileno(), two.fileno(), area, 0) is expected
            if expected:
                assert two.read(2 * MIB) == pattern(1, 4 * MIB)[MIB : 3 * MIB]
                odd = Range(MIB + 512, MIB)
                assert fs.clone_range(one.fileno(), two.fileno(), odd, 0) is False
            with pytest.raises(ValueError, match="empty"):
                fs.clone_range(one.fileno(), two.fileno(), Range(0, 0), 0)


def test_a_probe_says_what_the_file_system_can(filesystem: Make, filesystem_kind: str) -> None:
    directory = filesystem()
    profile = probe(directory)
    assert profile.reflink == (filesystem_kind in REFLINK)
    assert profile.punch_hole
    assert profile.writing is BEST[filesystem_kind]
    assert profile.no_replace
    assert profile.directory_sync
    assert [entry for entry in directory.iterdir() if entry.name != "lost+found"] == []
