"""The Zone contract, on a plain directory (no clones: overlays and delta bases)."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.filesystem import durable
from adapters.process.sandbox import Sandbox
from adapters.zones import DirectoryZone, create_zone, layout, open_zone
from pipeline.data.chunks import CHUNK_SIZE
from pipeline.errors import (
    Conflict,
    InvalidParameter,
    NoSpace,
    NotFound,
    Refused,
    UnsafeImage,
    VerificationFailed,
)
from pipeline.ports import ImageFormat, Layer, ShallowDisk, VersionRecord
from tests.contract.memory import MemorySource
from tests.contract.storing import changed, collect, files, pattern, staged, store
from tests.faults import Faulty

pytestmark = pytest.mark.system

CONTENT = pattern(1, 3 * CHUNK_SIZE) + bytes(3 * CHUNK_SIZE) + pattern(2, 2 * CHUNK_SIZE + 512)
RECORD = VersionRecord("corp-web-1.0.0-abc", {"name": "corp/web/1.0.0", "tags": {"ü": "1"}})


@pytest.fixture
def zone(tmp_path: Path) -> DirectoryZone:
    return create_zone(
        tmp_path / "zone", name="eu-1", region="eu", sandbox=Sandbox(), immutable=False
    )


def flat(path: Path, format: str, work: Path) -> bytes:
    """What a guest would see, by qemu's own account and by the backing names in the file."""
    target = work / "flat.raw"
    subprocess.run(
        ["qemu-img", "convert", "-f", format, "-O", "raw", str(path), str(target)], check=True
    )
    return target.read_bytes()


def test_a_base_holds_the_content(zone: DirectoryZone, tmp_path: Path) -> None:
    base, result = store(zone, CONTENT, tmp_path)
    assert base.digest == result.root
    assert (base.method, base.parent, base.virtual_size) == ("copy", None, len(CONTENT))
    assert [layer.format for layer in base.chain] == [ImageFormat.RAW]
    assert base.chain[0].path.read_bytes() == CONTENT
    assert base.chain[0].path.stat().st_blocks * 512 <= len(CONTENT) - 3 * CHUNK_SIZE + 8192
    assert zone.find_base(base.digest) == base
    assert files(zone.path / "staging") == []


def test_a_base_is_read_only(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    for path in base.chain[0].path.parent.iterdir():
        assert path.stat().st_mode & 0o777 == 0o400


def test_the_same_content_is_stored_once(zone: DirectoryZone, tmp_path: Path) -> None:
    first, _ = store(zone, CONTENT, tmp_path)
    inode = first.chain[0].path.stat().st_ino
    second, _ = store(zone, CONTENT, tmp_path)
    assert second == first
    assert second.chain[0].path.stat().st_ino == inode
    assert zone.digests() == [first.digest]
    assert files(zone.path / "staging") == []


def test_two_jobs_may_store_the_same_content_at_once(zone: DirectoryZone, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with (
        staged(zone, MemorySource(CONTENT), one) as (first, result),
        staged(zone, MemorySource(CONTENT), two) as (second, _),
    ):
        winner = first.commit(result.root, one)
        inode = winner.chain[0].path.stat().st_ino
        assert second.commit(result.root, two) == winner
        assert winner.chain[0].path.stat().st_ino == inode
    assert files(zone.path / "staging") == []


def test_a_damaged_parent_decides_nothing(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    damaged = bytearray(base.manifest.read_bytes())
    damaged[40] ^= 1
    base.manifest.chmod(0o644)
    base.manifest.write_bytes(damaged)
    staging = zone.stage_base(len(CONTENT), [base.digest])
    assert staging.parent is None  # it costs a copy, and ends nothing
    staging.abort()
    assert files(zone.path / "staging") == []
    assert collect(zone) == [base.digest]  # nothing is held


def test_an_unknown_base_is_none(zone: DirectoryZone) -> None:
    assert zone.find_base("0" * 64) is None


@pytest.mark.parametrize("digest", ["../../etc", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_digest_that_is_none_is_refused(zone: DirectoryZone, digest: str) -> None:
    with pytest.raises(InvalidParameter):
        zone.find_base(digest)


@pytest.mark.parametrize("key", ["", "..", "a/b", ".hidden", "x" * 300, "a\0b"])
def test_a_key_that_is_no_name_is_refused(zone: DirectoryZone, key: str) -> None:
    with pytest.raises(InvalidParameter):
        zone.find_version(key)


def test_what_is_staged_is_invisible_until_committed(zone: DirectoryZone, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest"
    with staged(zone, MemorySource(CONTENT), manifest) as (staging, result):
        assert zone.find_base(result.root) is None
        assert zone.digests() == []
        assert files(zone.path / "staging") != []
        staging.abort()
        staging.abort()
        assert files(zone.path / "staging") == []
        with pytest.raises(ValueError, match="aborted"):
            staging.commit(result.root, manifest)


def test_a_manifest_of_other_content_is_refused(zone: DirectoryZone, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest"
    with (
        staged(zone, MemorySource(CONTENT), manifest) as (staging, _),
        pytest.raises(VerificationFailed),
    ):
        staging.commit("0" * 64, manifest)
    assert zone.digests() == []
    assert files(zone.path / "staging") == []


def test_the_next_version_is_a_delta(zone: DirectoryZone, tmp_path: Path) -> None:
    first, _ = store(zone, CONTENT, tmp_path)
    after = bytearray(changed(CONTENT, 1, 8)) + pattern(3, CHUNK_SIZE)
    after[:CHUNK_SIZE] = bytes(CHUNK_SIZE)
    second, result = store(zone, bytes(after), tmp_path, ["f" * 64, first.digest])
    assert (second.method, second.parent) == ("delta", first.digest)
    assert [layer.format for layer in second.chain] == [ImageFormat.QCOW2, ImageFormat.RAW]
    assert flat(second.chain[0].path, "qcow2", tmp_path) == after
    assert result.stats.written["eu-1"] == 2 * CHUNK_SIZE + 512
    assert second.chain[0].path.stat().st_blocks * 512 < 3 * CHUNK_SIZE + 512 + (2 << 20)
    subprocess.run(["qemu-img", "check", "-q", str(second.chain[0].path)], check=True)


def test_a_shorter_version_is_a_delta_too(zone: DirectoryZone, tmp_path: Path) -> None:
    first, _ = store(zone, CONTENT, tmp_path)
    after = CONTENT[: 2 * CHUNK_SIZE + 1024]
    second, _ = store(zone, after, tmp_path, [first.digest])
    assert flat(second.chain[0].path, "qcow2", tmp_path) == after


def test_chains_end_and_begin_again(zone: DirectoryZone, tmp_path: Path) -> None:
    content = CONTENT
    parents: list[str] = []
    depths: list[int] = []
    for number in range(12):
        base, _ = store(zone, content, tmp_path, parents)
        depths.append(len(base.chain))
        parents = [base.digest]
        if number == 10:
            assert flat(base.chain[0].path, "qcow2", tmp_path) == content
        content = changed(content, number % 3, seed=1000 + number)
    assert depths == [*range(1, 12), 1]


def test_replicas_are_children_that_read_as_the_base(zone: DirectoryZone, tmp_path: Path) -> None:
    os_base, _ = store(zone, CONTENT, tmp_path)
    data_base, _ = store(zone, changed(CONTENT, 0), tmp_path, [os_base.digest])
    replicas = zone.publish(RECORD, {3: data_base.digest, None: os_base.digest}, 2)
    assert [replica.index for replica in replicas] == [0, 1]
    for replica in replicas:
        assert [disk.lun for disk in replica.disks] == [None, 3]
        for disk, content in zip(replica.disks, (CONTENT, changed(CONTENT, 0)), strict=True):
            assert (disk.method, disk.virtual_size) == ("overlay", len(CONTENT))
            assert flat(disk.path, disk.format.value, tmp_path) == content
            assert disk.path.stat().st_mode & 0o777 == 0o400
    assert zone.find_version(RECORD.key) == replicas
    assert list(zone.records()) == [(RECORD, replicas)]
    assert files(zone.path / "staging") == []


def test_publishing_again_returns_what_is_there(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    other, _ = store(zone, changed(CONTENT, 0), tmp_path)
    replicas = zone.publish(RECORD, {None: base.digest}, 1)
    assert zone.publish(RECORD, {None: base.digest}, 1) == replicas
    with pytest.raises(Conflict, match="other disks"):
        zone.publish(RECORD, {None: other.digest}, 1)


def test_publishing_without_the_base_leaves_nothing(zone: DirectoryZone) -> None:
    with pytest.raises(NotFound, match="no base"):
        zone.publish(RECORD, {None: "0" * 64}, 1)
    assert zone.find_version(RECORD.key) is None
    assert files(zone.path / "staging") == []


def test_a_moved_zone_opens(zone: DirectoryZone, tmp_path: Path) -> None:
    first, _ = store(zone, CONTENT, tmp_path)
    after = changed(CONTENT, 1)
    second, _ = store(zone, after, tmp_path, [first.digest])
    zone.publish(RECORD, {None: second.digest}, 1)
    shutil.move(zone.path, tmp_path / "elsewhere")
    moved = open_zone(tmp_path / "elsewhere", sandbox=Sandbox())
    assert (moved.name, moved.region) == ("eu-1", "eu")
    replicas = moved.find_version(RECORD.key)
    assert replicas is not None
    assert flat(replicas[0].disks[0].path, "qcow2", tmp_path) == after
    found = moved.find_base(second.digest)
    assert found is not None
    assert all(str(layer.path).startswith(str(moved.path)) for layer in found.chain)


def test_deployed_disks_are_their_own(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    (replica,) = zone.publish(RECORD, {None: base.digest, 0: base.digest}, 1)
    (disks,) = zone.deploy(replica, [tmp_path / "vm1"])
    assert [disk.path.name for disk in disks] == ["os.qcow2", "data-0.qcow2"]
    assert files(tmp_path / "vm1") == ["data-0.qcow2", "os.qcow2"]
    path = disks[0].path
    assert path.stat().st_mode & 0o200
    assert flat(path, "qcow2", tmp_path) == CONTENT
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 5 0 64k", str(path)], check=True, stdout=-3
    )
    assert flat(path, "qcow2", tmp_path)[:65536] == b"\5" * 65536
    assert base.chain[0].path.read_bytes() == CONTENT
    # the version may go, the deployed disk stays
    zone.remove_version(RECORD.key)
    assert flat(disks[1].path, "qcow2", tmp_path) == CONTENT


def test_deploying_over_something_changes_nothing(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    (replica,) = zone.publish(RECORD, {None: base.digest, 0: base.digest}, 1)
    (tmp_path / "vm1").mkdir()
    (tmp_path / "vm1" / "data-0.qcow2").write_bytes(b"precious")
    with pytest.raises(Conflict, match="vm1 exists already"):
        zone.deploy(replica, [tmp_path / "vm0", tmp_path / "vm1"])
    assert not (tmp_path / "vm0").exists()
    assert files(tmp_path / "vm1") == ["data-0.qcow2"]
    assert (tmp_path / "vm1" / "data-0.qcow2").read_bytes() == b"precious"


def test_many_vms_get_disks_of_their_own(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    (replica,) = zone.publish(RECORD, {None: base.digest}, 1)
    made = zone.deploy(replica, [tmp_path / name for name in ("a", "b", "c")])
    paths = [disks[0].path for disks in made]
    assert [path.parent.name for path in paths] == ["a", "b", "c"]
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 5 0 64k", str(paths[1])], check=True, stdout=-3
    )
    assert [flat(path, "qcow2", tmp_path) == CONTENT for path in paths] == [True, False, True]


def test_replicas_are_added_and_taken_away(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    zone.publish(RECORD, {None: base.digest, 0: base.digest}, 1)
    for count in (3, 2, 2, 5, 1):
        made = zone.set_replicas(RECORD.key, count)
        assert [replica.index for replica in made] == list(range(count))
        assert zone.find_version(RECORD.key) == made
        names = {f"replica-{index}" for index in range(count)}
        assert {path.name for path in (zone.path / "versions" / RECORD.key).iterdir()} == {
            "version.json",
            *names,
        }
        for replica in made:
            assert flat(replica.disks[1].path, "qcow2", tmp_path) == CONTENT
            assert replica.disks[0].path.stat().st_mode & 0o222 == 0
    assert files(zone.path / "staging") == []
    with pytest.raises(NotFound):
        zone.set_replicas("corp-web-9.9.9-abc", 1)


def test_a_zone_without_replicas_keeps_the_bases(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    assert zone.publish(RECORD, {None: base.digest}, 0) == ()
    assert zone.find_version(RECORD.key) == ()
    assert collect(zone) == []
    assert len(zone.publish(RECORD, {None: base.digest}, 2)) == 2  # asked for again, with more


def test_the_firmware_s_variables_are_kept(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    zone.publish(VersionRecord("uefi-1", {}, b"variables"), {None: base.digest}, 1)
    zone.publish(VersionRecord("bios-1", {}), {None: base.digest}, 1)
    assert zone.find_nvram("uefi-1") == b"variables"
    assert zone.find_nvram("bios-1") is None
    assert zone.find_nvram("none-1") is None


def test_a_shallow_replica_leans_on_its_source(zone: DirectoryZone, tmp_path: Path) -> None:
    source = tmp_path / "source.raw"
    source.write_bytes(CONTENT)
    edited = tmp_path / "edited.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(source)]
    subprocess.run([*create, str(edited)], check=True)
    edit = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", str(edited)]
    subprocess.run(edit, check=True, stdout=-3)
    chain = (Layer(source, ImageFormat.RAW),)
    disks_on_source = [
        ShallowDisk(None, chain, len(CONTENT), edited),
        ShallowDisk(0, chain, len(CONTENT)),
    ]
    (replica,) = zone.publish_shallow(RECORD, disks_on_source)
    edited.unlink()
    assert [disk.method for disk in replica.disks] == ["shallow", "shallow"]
    assert zone.backing_files() == {source}
    assert zone.digests() == []  # nothing was copied
    (disks,) = zone.deploy(replica, [tmp_path / "vm"])
    zone.remove_version(RECORD.key)
    assert flat(disks[0].path, "qcow2", tmp_path) == b"\7" * 65536 + CONTENT[65536:]
    assert flat(disks[1].path, "qcow2", tmp_path) == CONTENT
    assert disks[0].path.stat().st_mode & 0o200
    assert zone.backing_files() == set()


def test_removing_a_version_keeps_its_bases(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    zone.publish(RECORD, {None: base.digest}, 1)
    zone.remove_version(RECORD.key)
    zone.remove_version(RECORD.key)
    assert zone.find_version(RECORD.key) is None
    assert zone.find_base(base.digest) == base
    assert files(zone.path / "staging") == []
    assert files(zone.path / "versions") == []


def test_collect_removes_only_what_nobody_needs(zone: DirectoryZone, tmp_path: Path) -> None:
    contents = [CONTENT]
    for number in range(4):
        contents.append(changed(contents[-1], number, seed=500 + number))
    digests: list[str] = []
    for content in contents[:4]:
        base, _ = store(zone, content, tmp_path, digests[-1:])
        digests.append(base.digest)
    alone, _ = store(zone, contents[4], tmp_path)
    zone.publish(RECORD, {None: digests[1]}, 1)
    # 0 <- 1 <- 2 <- 3: a version uses 1, somebody keeps 2; 3 and the stand-alone one go
    assert sorted(collect(zone, digests[2])) == sorted([digests[3], alone.digest])
    assert zone.digests() == sorted(digests[:3])
    assert sorted(collect(zone)) == [digests[2]]
    zone.remove_version(RECORD.key)
    assert sorted(collect(zone)) == sorted(digests[:2])
    assert files(zone.path / "bases") == []
    assert files(zone.path / "staging") == []


def test_nothing_is_collected_while_somebody_writes(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    staging = zone.stage_base(CHUNK_SIZE, [base.digest])
    with pytest.raises(Conflict, match="another job"):
        collect(zone)
    staging.abort()
    assert collect(zone) == [base.digest]


def test_what_the_dead_left_is_swept_and_the_living_are_left(zone: DirectoryZone) -> None:
    staging = zone.stage_base(CHUNK_SIZE, [])
    alive = files(zone.path / "staging")
    dead = zone.path / "staging" / ("d" * 32)
    dead.mkdir()
    (dead / "base.raw").write_bytes(b"x")
    dead.with_name(dead.name + ".lock").write_bytes(durable.MARKER)
    (zone.path / "staging" / f"{'e' * 32}.lock").write_bytes(durable.MARKER)
    assert zone.sweep() == [dead]
    assert files(zone.path / "staging") == alive
    staging.abort()
    assert files(zone.path / "staging") == []


def test_what_others_put_into_staging_stays(zone: DirectoryZone, tmp_path: Path) -> None:
    """Another name, no lock, a lock that is not marked, a link, a file: none is galleria's."""
    root, precious = zone.path / "staging", tmp_path / "precious"
    for place in (precious, root / "letters", root / ("1" * 32), root / ("2" * 32)):
        place.mkdir()
        (place / "letter").write_text("dear")
    (root / "letters.lock").write_bytes(durable.MARKER)
    (root / f"{'2' * 32}.lock").write_text("another program's")
    (root / ("3" * 32)).symlink_to(precious)
    (root / f"{'3' * 32}.lock").write_bytes(durable.MARKER)
    (root / ("4" * 32)).write_text("dear")
    (root / f"{'4' * 32}.lock").write_bytes(durable.MARKER)
    before = files(root), files(precious)
    assert zone.sweep() == []
    base, _ = store(zone, CONTENT, tmp_path / "work")
    zone.publish(RECORD, {None: base.digest}, 1)
    zone.remove_version(RECORD.key)
    assert (files(root), files(precious)) == before


def test_a_link_in_place_of_staging_is_not_followed(zone: DirectoryZone, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    dead = victim / ("d" * 32)
    dead.mkdir(parents=True)
    (dead / "letter").write_text("dear")
    dead.with_name(dead.name + ".lock").write_bytes(durable.MARKER)
    (zone.path / "staging").rmdir()
    (zone.path / "staging").symlink_to(victim)
    before = files(victim)
    assert zone.sweep() == []
    with pytest.raises(Refused, match="staging is not used"):
        zone.stage_base(CHUNK_SIZE, [])
    assert files(victim) == before


def test_full_while_writing_is_no_space(
    zone: DirectoryZone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev
    calls = iter("..N")

    def pwritev(fd: int, data: list[memoryview], offset: int) -> int:
        if next(calls, ".") == "N":
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    with pytest.raises(NoSpace, match=str(zone.path)):
        store(zone, pattern(1, 20 * CHUNK_SIZE), tmp_path)
    assert zone.digests() == []
    assert files(zone.path / "staging") == []


@pytest.mark.parametrize("step", ["sync_file", "sync_directory", "rename_new", "fill"])
def test_a_failed_commit_leaves_nothing(
    zone: DirectoryZone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    before = files(zone.path)
    faulty = Faulty(durable, "N", methods=(step,))
    monkeypatch.setattr(durable, step, getattr(faulty, step))
    with pytest.raises(NoSpace):
        zone.publish(RECORD, {None: base.digest}, 1)
    if step != "sync_directory":
        assert files(zone.path) == before
    monkeypatch.undo()
    assert zone.publish(RECORD, {None: base.digest}, 1)


def test_a_zone_is_made_once(tmp_path: Path) -> None:
    sandbox = Sandbox()
    path = tmp_path / "zone"
    first = create_zone(path, name="eu-1", region="eu", sandbox=sandbox)
    again = create_zone(path, name="eu-1", region="eu", sandbox=sandbox)
    assert again.profile == first.profile
    with pytest.raises(Conflict, match="eu-1"):
        create_zone(path, name="us-1", region="us", sandbox=sandbox)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    with pytest.raises(Conflict, match="not empty"):
        create_zone(tmp_path / "home", name="x", region="eu", sandbox=sandbox)
    with pytest.raises(NotFound, match="not a zone"):
        open_zone(tmp_path / "home", sandbox=sandbox)


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: {**record, "format_version": 2},
        lambda record: {**record, "format": "exe"},
        lambda record: {**record, "format": "qcow2", "parent": None},
        lambda record: {key: value for key, value in record.items() if key != "virtual_size"},
        lambda record: [],
    ],
)
def test_a_broken_record_is_refused(
    zone: DirectoryZone, tmp_path: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    path = layout.base_directory(zone.path, base.digest) / "base.json"
    path.chmod(0o644)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(VerificationFailed, match=r"base"):
        zone.find_base(base.digest)


def test_a_chain_that_bites_its_tail_is_refused(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    path = layout.base_directory(zone.path, base.digest) / "base.json"
    path.chmod(0o644)
    record = json.loads(path.read_text())
    path.with_name("base.raw").rename(path.with_name("base.qcow2"))
    record = {**record, "format": "qcow2", "parent": base.digest}
    path.write_bytes(layout.encode({k: v for k, v in record.items() if k != "checksum"}))
    with pytest.raises(VerificationFailed, match="layers deep"):
        zone.find_base(base.digest)


def test_allocated_bytes_is_about_what_is_stored(zone: DirectoryZone, tmp_path: Path) -> None:
    empty = zone.allocated_bytes()
    store(zone, CONTENT, tmp_path)
    data = len(CONTENT) - 3 * CHUNK_SIZE
    assert data <= zone.allocated_bytes() - empty <= data + 65536


# --- what a zone holds is not trusted -----------------------------------------------------------


def rewrite(path: Path, **properties: Any) -> None:
    """A record that says something else, and is whole."""
    record = {**json.loads(path.read_text()), **properties}
    path.chmod(0o644)
    path.write_bytes(layout.encode({key: record[key] for key in record if key != "checksum"}))


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": [{"index": 0, "disks": [{"path": "../../../../etc/passwd"}]}]},
        {"replicas": "none"},
        {"replicas": [["a", "list"]]},
        {"key": ["a", "list"]},
        {"key": "corp-web-9.9.9-abc"},
        {"bases": [{"lun": None, "digest": "../../victim"}]},
        {"bases": [{"lun": True, "digest": "0" * 64}]},
        {"bases": [{"lun": -1, "digest": "0" * 64}]},
        {"nvram": "../../../victim"},
        {"sources": ["relative"]},
        {"document": []},
    ],
)
def test_a_version_s_record_is_held_to_its_bounds(
    zone: DirectoryZone, tmp_path: Path, change: dict[str, Any]
) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    zone.publish(RECORD, {None: base.digest}, 1)
    rewrite(zone.version_directory(RECORD.key) / "version.json", **change)
    with pytest.raises(VerificationFailed, match=r"version\.json can't be used"):
        zone.find_version(RECORD.key)
    assert list(zone.records()) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "replica-0/../../../victim", "replica-1/os.qcow2"])
def test_a_replica_is_where_its_number_says(zone: DirectoryZone, tmp_path: Path, path: str) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    zone.publish(RECORD, {None: base.digest}, 1)
    record = zone.version_directory(RECORD.key) / "version.json"
    replicas = json.loads(record.read_text())["replicas"]
    replicas[0]["disks"][0]["path"] = path
    rewrite(record, replicas=replicas)
    with pytest.raises(VerificationFailed, match="its path is"):
        zone.find_version(RECORD.key)


@pytest.mark.parametrize("kind", ["fifo", "link", "device", "deep", "long", "empty", "directory"])
def test_what_is_no_record_is_not_read(zone: DirectoryZone, tmp_path: Path, kind: str) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    zone.publish(RECORD, {None: base.digest}, 1)
    path = zone.version_directory(RECORD.key) / "version.json"
    content = path.read_bytes()
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(content)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "device":
            path.symlink_to("/dev/zero")
        case "deep":
            path.write_text(nested(100_000))
        case "long":
            path.touch()
            os.truncate(path, layout.RECORD_LIMIT + 1)
        case "empty":
            path.touch()
        case _:
            path.mkdir()
    with pytest.raises((VerificationFailed, OSError)):
        zone.find_version(RECORD.key)
    # it costs its own version
    other = VersionRecord("corp-web-1.0.1-abc", {})
    assert zone.publish(other, {None: base.digest}, 1)
    assert [record.key for record, _ in zone.records()] == [other.key]
    with pytest.raises((VerificationFailed, OSError)):
        collect(zone)  # nobody knows what it needs: all stay
    assert zone.digests() == [base.digest]
    zone.remove_version(RECORD.key)
    zone.remove_version(other.key)
    assert collect(zone) == [base.digest]


@pytest.mark.parametrize("name", ["base.raw", "manifest", "base.json"])
def test_a_link_in_a_base_leads_nowhere(zone: DirectoryZone, tmp_path: Path, name: str) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    path = layout.base_directory(zone.path, base.digest) / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VerificationFailed, match="not a regular file"):
        zone.find_base(base.digest)


def test_a_link_in_place_of_a_base_or_version_leads_nowhere(
    zone: DirectoryZone, tmp_path: Path
) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    zone.publish(RECORD, {None: base.digest}, 1)
    for place in (
        layout.base_directory(zone.path, base.digest),
        zone.version_directory(RECORD.key),
    ):
        place.rename(tmp_path / place.parent.name)
        place.symlink_to(tmp_path / place.parent.name)
    with pytest.raises(VerificationFailed, match="not a directory"):
        zone.find_base(base.digest)
    assert zone.find_version(RECORD.key) is None
    before = files(tmp_path / "bases"), files(tmp_path / "versions")
    assert collect(zone) == [base.digest]  # the link
    assert (files(tmp_path / "bases"), files(tmp_path / "versions")) == before


def test_what_others_put_into_a_zone_is_named_and_left(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    zone.publish(RECORD, {None: base.digest}, 1)
    places = ["lost+found", ".snapshots", "bases/lost", "versions/a b", "versions/lost+found"]
    for name in places:
        (zone.path / name).mkdir()
    for name in ("bases/.nfs0000000012", "versions/README", "versions/.swp"):
        (zone.path / name).touch()
        places.append(name)
    assert [str(path.relative_to(zone.path)) for path in zone.foreign()] == sorted(places)
    assert zone.damaged() == []
    assert [record for record, _ in zone.records()] == [RECORD]
    zone.remove_version(RECORD.key)
    assert collect(zone) == [base.digest]
    assert [str(path.relative_to(zone.path)) for path in zone.foreign()] == sorted(places)


def test_a_record_of_an_earlier_galleria_is_taken(zone: DirectoryZone, tmp_path: Path) -> None:
    """It has no checksum, and replicas have no digest of their files."""
    base, _ = store(zone, CONTENT, tmp_path)
    replicas = zone.publish(RECORD, {None: base.digest}, 1)
    for path in (
        layout.base_directory(zone.path, base.digest) / "base.json",
        zone.version_directory(RECORD.key) / "version.json",
    ):
        record = json.loads(path.read_text())
        for disk in (d for r in record.get("replicas", ()) for d in r["disks"]):
            disk.pop("file_digest", None)
        path.chmod(0o644)
        path.write_text(json.dumps({k: v for k, v in record.items() if k != "checksum"}))
    (layout.base_directory(zone.path, base.digest) / "fingerprint.json").unlink()
    found = zone.find_version(RECORD.key)
    assert found is not None
    assert [d.path for r in found for d in r.disks] == [d.path for r in replicas for d in r.disks]
    assert zone.find_base(base.digest) == base
    assert zone.base_changes(base) is None
    assert zone.replica_problem(found[0].disks[0], base) == ""
    header = bytearray(found[0].disks[0].path.read_bytes())
    at = header.find(b"/bases/") + 7
    header[at] ^= 1
    found[0].disks[0].path.chmod(0o644)
    found[0].disks[0].path.write_bytes(header)
    assert "its backing file is" in zone.replica_problem(found[0].disks[0], base)


# --- a base is as it was, or it is noticed ------------------------------------------------------


def touch_up(path: Path, offset: int) -> None:
    """Other bytes, and the times that the file had."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_changed_base_is_noticed_and_no_parent(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    after = changed(CONTENT, 1)
    child, _ = store(zone, after, tmp_path, [base.digest])
    assert (child.method, zone.base_changes(base), zone.base_changes(child)) == ("delta", "", "")
    touch_up(base.chain[0].path, 5)
    assert "time of change" in str(zone.base_changes(base))
    assert "time of change" in str(zone.base_changes(child))  # what is below it counts
    staging = zone.stage_base(len(CONTENT), [base.digest])
    assert staging.parent is None
    staging.abort()
    zone.remember_base(base, "bytes 0-1 are wrong")
    assert "bytes 0-1 are wrong" in str(zone.base_changes(base))
    zone.remember_base(child)
    assert zone.base_changes(base) == ""


@pytest.mark.parametrize("damage", ["record", "manifest", "cut", "gone"])
def test_a_damaged_base_is_replaced_by_the_same_content(
    zone: DirectoryZone, tmp_path: Path, damage: str
) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    (replica,) = zone.publish(RECORD, {None: base.digest}, 1)
    path = base.chain[0].path
    match damage:
        case "record":
            path.with_name("base.json").unlink()
        case "manifest":
            touch_up(base.manifest, 200)
        case "cut":
            path.chmod(0o644)
            os.truncate(path, CHUNK_SIZE)
        case _:
            path.unlink()
    again, _ = store(zone, CONTENT, tmp_path)
    assert again == base
    assert path.read_bytes() == CONTENT
    assert zone.base_changes(again) == ""
    assert flat(replica.disks[0].path, "qcow2", tmp_path) == CONTENT  # found under its name
    (kept,) = (zone.path / "quarantine").iterdir()
    assert kept.name.startswith(base.digest)
    assert files(zone.path / "staging") == []


def test_a_rotten_base_is_replaced_when_that_is_known(zone: DirectoryZone, tmp_path: Path) -> None:
    base, result = store(zone, CONTENT, tmp_path)
    touch_up(base.chain[0].path, 5)
    manifest = tmp_path / "again"
    with staged(zone, MemorySource(CONTENT), manifest) as (staging, _):
        assert staging.commit(result.root, manifest, replace=True) == base
    assert base.chain[0].path.read_bytes() == CONTENT
    assert len(list((zone.path / "quarantine").iterdir())) == 1


def test_an_overlay_that_changed_is_noticed(zone: DirectoryZone, tmp_path: Path) -> None:
    base, _ = store(zone, CONTENT, tmp_path)
    (replica,) = zone.publish(RECORD, {None: base.digest}, 1)
    disk = replica.disks[0]
    assert zone.replica_problem(disk, base) == ""
    touch_up(disk.path, 70)
    assert zone.replica_problem(disk, base) == "its file has changed"


def test_nothing_is_written_to_remove_what_is_not_there(
    zone: DirectoryZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a zone that is read-only in the way of a version that it never had."""
    monkeypatch.setattr(durable, "Staging", lambda _: pytest.fail("it is to be left alone"))
    zone.remove_version(RECORD.key)


@pytest.mark.parametrize("start", [b"QFI\xfb\0\0\0\3", b"KDMV", b"# Disk DescriptorFile\n"])
def test_an_image_in_an_image_is_no_raw_base(
    zone: DirectoryZone, tmp_path: Path, start: bytes
) -> None:
    """Other programs would take it for what it begins as, and follow what it names."""
    manifest, content = tmp_path / "manifest", start + CONTENT[len(start) :]
    with (
        staged(zone, MemorySource(content), manifest) as (staging, result),
        pytest.raises(UnsafeImage, match="looks like"),
    ):
        staging.commit(result.root, manifest)
    assert zone.digests() == []
    assert files(zone.path / "staging") == []
