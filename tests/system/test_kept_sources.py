"""The sources that galleria itself keeps, and a running QEMU; judged by qemu-img. (A version from
each kind of source: test_sources.)"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.qmp import jobs
from pipeline.data import copying
from pipeline.storage import convert
from tests.home import Home, Session, furnished
from tests.system.machine import Machine, machine

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

MIB = 1 << 20


def qemu(*arguments: str | Path) -> None:
    subprocess.run([str(item) for item in arguments], check=True, stdout=subprocess.DEVNULL)


def flat(path: Path | str, target: Path) -> Path:
    """A plain copy by qemu-img, by the names that are in the headers."""
    kind = {".raw": "raw", ".qcow2": "qcow2", ".vhd": "vpc"}[Path(path).suffix]
    qemu("qemu-img", "convert", "-U", "-f", kind, "-O", "raw", path, target)
    return target


def same(one: Path | str, other: Path | str, work: Path) -> bool:
    files = [flat(path, work / f"flat-{number}") for number, path in enumerate((one, other))]
    argv = ["qemu-img", "compare", "-f", "raw", "-F", "raw", *map(str, files)]
    return subprocess.run(argv, stdout=subprocess.DEVNULL).returncode == 0


@pytest.fixture
def home(tmp_path: Path, require: Callable[..., None]) -> Iterator[Home]:
    require("qemu-img", "qemu-io", "bwrap")
    for name, pattern in (("os", 1), ("data", 2)):
        path = tmp_path / f"{name}.qcow2"
        qemu("qemu-img", "create", "-q", "-f", "qcow2", path, "16M")
        qemu("qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} 1M 4M", path)
    with Session.begun(tmp_path) as made:
        yield furnished(made)


def replica(home: Home, version: str, lun: int | None = None) -> Path:
    shown = home.json("show", version)["version"]
    (status,) = shown["regions"]
    disks = status["result"]["replicas"][0]["disks"]
    return Path(next(disk["path"] for disk in disks if disk["lun"] == lun))


def test_of_an_overlay_only_the_overlay_is_read(home: Home, tmp_path: Path) -> None:
    """Snapshots of a disk that depends on a base: what lies in the base is known."""
    home.run("snapshot", "create", "os.qcow2", "-n", "s")
    disk = home.json("disk", "create", "-n", "d", "--source", "s")["file"]
    incremental = ("snapshot", "create", "--source", "d", "--incremental", "-n")
    for number, at in enumerate((8, 2, 11)):
        write = ["qemu-io", "-f", disk["format"], "-c", f"write -P 9 {at}M 1M", disk["path"]]
        subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
        (made,) = home.json(*incremental, f"d{number}")["snapshots"]
        if disk["format"] == "qcow2":  # a clone has no layers: all of it is read
            # what differs from the one before is read, though it lies in the base or not
            assert made["bytesRead"] == (number + 1) * MIB
        assert made["bytesWritten"] == MIB
        home.run("snapshot", "export", f"d{number}", "--out", f"d{number}.raw", "--to", "raw")
        assert same(tmp_path / f"d{number}.raw", Path(disk["path"]), tmp_path)


@pytest.fixture
def vm(tmp_path: Path, home: Home, require: Callable[..., None]) -> Iterator[Machine]:
    require("qemu-system-x86_64")
    with machine(tmp_path, os=tmp_path / "os.qcow2", data=tmp_path / "data.qcow2") as running:
        yield running


def test_a_running_machine(
    home: Home, vm: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried, published, and kept by two snapshots of which the second reads what changed."""
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "transaction", None)  # a trial does not capture it
        tried = home.json("publish", "corp/web/1.0.0", "--qmp", str(vm.qmp), "--dry-run")
    sizes = [(disk["virtualSize"], disk["format"]) for disk in tried["plan"]["disks"]]
    assert sizes == [(16 * MIB, "qcow2")] * 2
    home.run("publish", "corp/web/1.0.0", "--qmp", str(vm.qmp))
    assert same(replica(home, "corp/web/1.0.0"), tmp_path / "os.qcow2", tmp_path)
    assert vm.bitmaps() == {"os": [], "data": []}
    create = ("snapshot", "create", "--qmp", str(vm.qmp), "--incremental", "-n")
    first = home.json(*create, "vm-1")["snapshots"]
    assert [item["name"] for item in first] == ["vm-1", "vm-1-data-0"]
    vm.io("os", "write -P 7 6M 256k", "flush")
    results = []

    def copy(*arguments: Any, **options: Any) -> Any:
        results.append(copying.copy(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(convert, "copy", copy)
    second = home.json(*create, "vm-2")["snapshots"]
    # nor is what did not change read where it is kept
    assert [result.stats.read for result in results] == [256 * 1024, 0]
    assert second[0]["bytesRead"] <= 256 * 1024 + 512 * 1024  # and the file's own tables
    assert first[0]["bytesRead"] >= 4 * MIB
    assert second[0]["bytesWritten"] == 256 * 1024
    assert second[1]["contents"][0]["digest"] == first[1]["contents"][0]["digest"]
    families = {item["incrementalSnapshotFamilyId"] for item in (first[0], second[0])}
    assert len(families) == 1
    home.run("snapshot", "export", "vm-2", "--out", "vm-2.raw", "--to", "raw")
    assert same(tmp_path / "vm-2.raw", tmp_path / "os.qcow2", tmp_path)
    assert vm.debris() == []
    assert [len(names) for names in vm.bitmaps().values()] == [1, 1]


def test_a_disk_that_a_machine_uses(home: Home, tmp_path: Path) -> None:
    """It is said to be in use; only a capture can read it, and nothing deletes it."""
    disk = home.json("disk", "create", "-n", "d", "--size-gb", "1", "--out", "vm")
    file = tmp_path / "vm" / "os.raw"
    assert Path(disk["file"]["path"]) == file
    assert file.stat().st_size == 1 << 30
    with machine(tmp_path, os=file) as vm:
        vm.io("os", "write -P 5 0 1M", "flush")
        assert home.json("disk", "show", "d")["diskState"] == "Attached"
        assert home.json("disk", "delete", "d", status=5)["error"]["code"] == "Conflict"
        home.run("snapshot", "create", "--source", "d", "-n", "s", status=5)
        home.run("snapshot", "create", "--qmp", str(vm.qmp), "-n", "s")
        home.run("snapshot", "export", "s", "--out", "s.raw", "--to", "raw")
        assert same(tmp_path / "s.raw", file, tmp_path)
    assert home.json("disk", "show", "d")["diskState"] == "Unattached"
    home.run("disk", "delete", "d")
    assert not file.exists()
    assert home.json("disk", "list")["disks"] == []


def test_a_snapshot_inside_of_a_file(home: Home, tmp_path: Path) -> None:
    disk, before = tmp_path / "os.qcow2", tmp_path / "before.raw"
    flat(disk, before)
    qemu("qemu-img", "snapshot", "-c", "before", disk)
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 3 9M 1M", disk)
    home.run("snapshot", "create", "os.qcow2@before", "-n", "inner")
    home.run("snapshot", "export", "inner", "--out", "inner.raw", "--to", "raw")
    assert same(tmp_path / "inner.raw", before, tmp_path)


def test_refusals(home: Home, tmp_path: Path) -> None:
    def says(status: int, *args: str) -> str:
        return home.run(*args, status=status).stderr

    home.run("snapshot", "create", "os.qcow2", "-n", "s1")
    publish = ("publish", "corp/web/1.0.0")
    assert "exists already" in says(5, "snapshot", "create", "os.qcow2", "-n", "s1")
    assert "no QEMU answers" in says(4, *publish, "--qmp", "absent.sock")
    assert "one whole source" in says(2, *publish, "--os-snapshot", "s1", "--managed-image", "x")
    assert says(4, *publish, "--os-snapshot", "nothing")
    assert says(4, *publish, "--managed-image", "nothing")
    assert says(4, *publish, "--image-version", "corp/web/9.9.9")
    assert "neither a file" in says(4, "snapshot", "create", "--source", "nothing")
    twice = ("--os-snapshot", "s1", "--data-snapshot", "1=s1")
    assert says(2, *publish, *twice)  # one source can't be two disks
    assert "--size-gb" in says(2, "disk", "create", "-n", "d")
    assert "agent" in says(2, *publish, "--qga", "x.sock", "--os-snapshot", "s1")
    assert home.json("snapshot", "list")["snapshots"][0]["name"] == "s1"
    assert home.json("disk", "list")["disks"] == []


KILLED = """
import os, sys
from adapters import cli
from pipeline.storage import reuse

convert, calls = reuse.convert, []
def dies(*args, **options):
    calls.append(1)
    if len(calls) == 2:
        os._exit(42)
    return convert(*args, **options)
reuse.convert = dies
sys.exit(cli.run(sys.argv[1:]))
"""


def test_a_copy_that_was_killed_goes_on(home: Home, tmp_path: Path, repository: Path) -> None:
    """The second disk's copy is cut off; the next run reads only that one."""
    disks = ("--os-disk", "os.qcow2", "--data-disk", "0=data.qcow2")
    home.run("publish", "corp/web/1.0.0", *disks)
    regions = ("--target-region", "eu", "--target-region", "uksouth")
    copy = ("publish", "corp/web/2.0.0", "--image-version", "corp/web/1.0.0", *regions)
    env = {**home.env, "PYTHONPATH": str(repository)}
    argv = [sys.executable, "-c", KILLED, *copy]
    assert subprocess.run(argv, env=env, cwd=tmp_path).returncode == 42
    made = home.json(*copy)["version"]
    by_region = {status["region"]: status["result"] for status in made["regions"]}
    assert by_region["UK South"]["bytesRead"] == 4 * MIB
    there = (tmp_path / "uk" / "bases").iterdir()
    assert sorted(path.name for path in there) == sorted(disk["digest"] for disk in made["disks"])
