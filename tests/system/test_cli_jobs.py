"""Every command that touches images, through the installed command, on disks without a guest.

The oracles are qemu-img's: its conversions, its comparisons, its maps.
"""

import hashlib
import json
import os
import pty
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.home import GALLERIA, Home, deletable, furnished

pytestmark = pytest.mark.system

MIB = 1 << 20
CHUNK = 256 << 10


@pytest.fixture
def home(tmp_path: Path, require: Callable[..., None]) -> Iterator[Home]:
    """A gallery for disks as they are, and one small disk in four formats."""
    require("qemu-img", "qemu-nbd", "bwrap")
    made = furnished(Home(tmp_path))
    write_disk(tmp_path / "web.raw", seed=1)
    for name, options in (
        ("qcow2", ["-O", "qcow2"]),
        ("vhdx", ["-O", "vhdx", "-o", "subformat=dynamic"]),
        ("vhd", ["-O", "vpc", "-o", "subformat=dynamic,force_size=on"]),
    ):
        qemu("convert", "-f", "raw", *options, tmp_path / "web.raw", tmp_path / f"web.{name}")
    yield made
    deletable(tmp_path)


def write_disk(path: Path, seed: int) -> None:
    """8 MiB, mostly holes. Data comes in whole chunks: a strict comparison also compares holes."""
    noise = random.Random(seed)  # noqa: S311 - a pattern
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        for start in (0, 3 * MIB, 8 * MIB - CHUNK):
            file.seek(start)
            file.write(noise.randbytes(CHUNK))


def qemu(*args: object) -> str:
    argv = ["qemu-img", *map(str, args)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def same(one: Path, format_one: str, other: Path, format_other: str) -> None:
    qemu("compare", "-s", "-f", format_one, "-F", format_other, one, other)


def same_content(one: Path, format_one: str, other: Path, format_other: str) -> None:
    """Holes aside: VHDX and VHD allocate in blocks of their own."""
    sizes = [
        json.loads(qemu("info", "--output=json", "-f", format, path))["virtual-size"]
        for path, format in ((one, format_one), (other, format_other))
    ]
    assert sizes[0] == sizes[1]
    qemu("compare", "-f", format_one, "-F", format_other, one, other)


def fingerprints(home: Home) -> dict[str, tuple[str, int]]:
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in home.path.glob("web.*")
    }


@pytest.mark.timeout(300)
def test_a_version_from_source_to_vm(home: Home) -> None:
    before = fingerprints(home)
    made = home.json("publish", "corp/web/1.0.0", "--os-disk", "web.vhdx", "--data-disk",
                     "3=web.qcow2", "--target-regions", "eu=2 uksouth", "--tags", "a=b",
                     "--end-of-life-date", "2099-01-31")  # fmt: skip
    version = made["version"]
    assert version["provisioningState"] == "Succeeded"
    assert version["tags"] == {"a": "b"}
    replicas = {state["region"]: state["result"]["replicas"] for state in version["regions"]}
    assert {region: len(listed) for region, listed in replicas.items()} == {"eu": 2, "UK South": 1}
    for replica in [*replicas["eu"], *replicas["UK South"]]:
        assert [disk["lun"] for disk in replica["disks"]] == [None, 3]
        for disk in replica["disks"]:
            same(Path(disk["path"]), disk["format"], home.path / "web.raw", "raw")
    conflict = home.json("publish", "corp/web/1.0.0", "--os-disk", "web.raw", status=5)
    assert "immutable" in conflict["error"]["message"]

    (listed,) = home.json("list", "corp/web")["versions"]
    assert listed["isLatest"]
    assert "eu 2, UK South 1" in home.run("list").stdout
    shown = home.json("show", "corp/web/latest")
    assert shown["version"] == version
    logical = 2 * 8 * MIB
    assert all(0 < found < logical / 2 for found in shown["allocatedBytes"].values())
    text = home.run("show", "corp/web/1.0.0").stdout
    assert "2099-01-31" in text
    assert "replicas in UK South" in text

    assert home.json("verify", "corp/web")["sound"]
    vm = home.json("deploy", "corp/web", "--region", "uksouth", "--name", "vm1", "--out", "vms")
    disks = vm["deployment"]["disks"]
    assert [disk.get("lun") for disk in disks] == [None, 3]
    for disk in disks:
        assert Path(disk["path"]).is_relative_to(home.path / "vms" / "vm1")
        same(Path(disk["path"]), disk["format"], home.path / "web.raw", "raw")
    home.json("deploy", "corp/web", "--region", "eu", "--name", "vm1", "--out", "vms", status=5)
    assert home.json("show", "corp/web")["deployments"] == [vm["deployment"]]
    lineage = home.run("show", "corp/web", "--lineage").stdout
    assert f"into deployed disk {vm['deployment']['directory']}, " in lineage
    assert "from corp/web/1.0.0" in home.run("audit", "list", "--limit", "1").stdout

    home.run("export", "corp/web", "--lun", "3", "--format", "vhdx", "--out", "out.vhdx")
    same_content(home.path / "out.vhdx", "vhdx", home.path / "web.raw", "raw")
    assert home.json("export", "corp/web", "--lun", "1", "--format", "raw", "--out", "x", status=4)
    assert not (home.path / "x").exists()
    assert fingerprints(home) == before


@pytest.mark.timeout(300)
def test_rot_is_found_and_a_region_is_added(home: Home) -> None:
    home.run("publish", "corp/web/1.0.0", "--os-disk", "web.raw")
    more = home.json("replicate", "corp/web/1.0.0", "--region", "uksouth=2")["version"]
    path = {state["region"]: state["result"]["replicas"] for state in more["regions"]}
    assert [len(path[region]) for region in ("eu", "UK South")] == [1, 2]
    (base,) = (home.path / "uk" / "bases").rglob("base.raw")
    subprocess.run(["chattr", "-i", base], check=False, capture_output=True)
    base.chmod(0o600)
    with base.open("r+b") as file:
        file.seek(1000)
        file.write(b"rot")
    found = home.json("verify", "corp/web", status=1)
    assert not found["sound"]
    bad = [verdict for verdict in found["verdicts"] if not verdict["sound"]]
    assert {verdict["region"] for verdict in bad} == {"UK South"}
    assert bad[0]["bad"][0]["start"] == 0
    assert home.json("verify", "corp/web", "--region", "eu", "--scrub")["sound"]
    assert "differ" in home.run("verify", "corp/web", status=1).stdout


@pytest.mark.timeout(300)
def test_build_and_plan(home: Home) -> None:
    spec = home.path / "specs" / "web.yaml"
    spec.parent.mkdir()
    spec.write_text(
        "apiVersion: galleria/v1\nkind: ImageVersion\n"
        "image: {gallery: corp, definition: web, version: next-patch, tags: {team: web}}\n"
        "source: {osDisk: ../web.vhd, dataDisks: [{lun: 0, path: ../web.qcow2}]}\n"
        "targetRegions: [{name: eu, replicas: 2}, {name: uk south, excludeFromLatest: true}]\n"
    )
    fixed = spec.with_name("fixed.yaml")
    fixed.write_text(spec.read_text().replace("next-patch", "2.0.0"))
    plans = home.json("plan", "specs/web.yaml", "specs/fixed.yaml")["plans"]
    assert [plan["version"].rsplit("/", 1)[1] for plan in plans] == ["1.0.0", "2.0.0"]
    assert [plan["action"] for plan in plans] == ["publish", "publish"]
    assert [disk["virtualSize"] for disk in plans[0]["disks"]] == [8 * MIB] * 2
    assert [region["replicas"] for region in plans[0]["regions"]] == [2, 1]
    assert home.json("list")["versions"] == []

    built = home.json("build", "specs/web.yaml", "specs/fixed.yaml")["versions"]
    assert [item["published"] for item in built] == [True, True]
    again = home.json("build", "specs/fixed.yaml")["versions"]
    assert [item["published"] for item in again] == [False]
    assert home.json("plan", "specs/fixed.yaml")["plans"][0]["action"] == "nothing"
    (plan,) = home.json("plan", "specs/web.yaml")["plans"]  # the newest is of these sources
    assert (plan["version"].rsplit("/", 1)[1], plan["action"]) == ("2.0.0", "nothing")
    os.utime(home.path / "web.vhd")
    assert home.json("plan", "specs/web.yaml")["plans"][0]["version"].endswith("/2.0.1")
    assert home.json("build", "specs/fixed.yaml", status=5)["error"]["code"] == "Conflict"
    names = [item["name"].rsplit("/", 1)[1] for item in home.json("list")["versions"]]
    assert names == ["2.0.0", "1.0.0"]


@pytest.mark.timeout(300)
def test_builds_at_once(home: Home) -> None:
    """Two images at a time: each with its own end, and the versions of one in their order."""
    options = ("--os-type", "Linux", "--os-state", "Specialized", "--sku", "other")
    home.run("definition", "create", "corp/other", "--publisher", "c", "--offer", "w", *options)
    spec = (
        "apiVersion: galleria/v1\nkind: ImageVersion\n"
        "image: {{gallery: corp, definition: {}, version: {}}}\n"
        "source: {{osDisk: {}}}\ntargetRegions: [{{name: eu}}]\n"
    )
    for name, values in (
        ("one", ("web", "next-patch", "web.raw")),
        ("two", ("other", "1.0.0", "web.qcow2")),
        ("three", ("web", "next-patch", "web.vhdx")),
        ("absent", ("nothing", "1.0.0", "web.raw")),
    ):
        (home.path / f"{name}.yaml").write_text(spec.format(*values))
    specs = [f"{name}.yaml" for name in ("one", "two", "three")]
    built = home.json("build", "--jobs", "2", *specs)["versions"]
    names = [item["version"]["name"].split("/images/")[1] for item in built]
    assert names == ["web/versions/1.0.0", "other/versions/1.0.0", "web/versions/1.0.1"]
    for item in built:
        stages = {one["name"]: one for one in item["version"]["stats"]["stages"]}
        assert stages["store"]["bytesRead"] > 0
        assert sum(one["wallSeconds"] for one in stages.values()) <= item["seconds"]
    error = home.json("build", "absent.yaml", "two.yaml", status=4)["error"]
    assert error["code"] == "ParentResourceNotFound"
    told = home.run("build", "two.yaml", "one.yaml", "--jobs", "3")
    assert "two.yaml: " not in told.stdout
    rows = [" ".join(line.split()[:-1]) for line in told.stdout.splitlines()]
    assert rows[1:3] == ["two there already corp/other/1.0.0", "one published corp/web/1.0.2"]
    table = home.run("show", "corp/other/1.0.0", "--report").stdout
    assert "STAGE" in table
    assert "store" in table


@pytest.mark.timeout(300)
def test_stages_alone(home: Home) -> None:
    qemu("snapshot", "-c", "before", home.path / "web.qcow2")
    roots = {
        name: home.json("hash", name)["root"]
        for name in ("web.raw", "web.qcow2", "web.qcow2@before", "web.vhdx", "web.vhd")
    }
    assert len(set(roots.values())) == 1, roots
    chunks = home.json("hash", "web.vhdx", "--chunks")["chunks"]
    assert sum(chunk["length"] for chunk in chunks) == 8 * MIB
    assert chunks == home.json("hash", "web.raw", "--chunks")["chunks"]

    for name, format in (("qcow2", "qcow2"), ("vhdx", "vhdx"), ("raw", "raw")):
        home.run("convert", "web.vhd", "--to", name, "--out", f"copy.{name}")
        same_content(home.path / f"copy.{name}", format, home.path / "web.raw", "raw")
    home.run("convert", "web.vhdx", "--to", "vhd", "--out", "copy.vhd")
    assert (home.path / "copy.vhd").stat().st_size == 8 * MIB + 512
    home.run("convert", "web.raw", "--to", "raw", "--out", "copy.raw", status=5)

    looked = home.json("inspect", "web.vhd", "--no-guest")
    assert looked["safe"]
    assert looked["facts"]["virtualSize"] == 8 * MIB
    qemu("create", "-f", "qcow2", "-b", "web.raw", "-F", "raw", home.path / "overlay.qcow2")
    unsafe = home.json("inspect", "overlay.qcow2", "--no-guest", status=6)
    assert not unsafe["safe"]
    assert "backing" in " ".join(unsafe["facts"]["refusals"])
    assert home.json("hash", "overlay.qcow2", status=6)["error"]["code"] == "UnsafeImage"

    kept = home.json("snapshot", "create", "web.vhdx", "--name", "s1", "--region", "uksouth")
    (snapshot,) = kept["snapshots"]
    assert snapshot["contents"][0]["digest"] == roots["web.raw"]
    assert snapshot["location"] == "UK South"
    home.run("snapshot", "export", "s1", "--out", "s1.raw", "--to", "raw")
    assert (home.path / "s1.raw").read_bytes() == (home.path / "web.raw").read_bytes()


def test_progress_is_for_whoever_asks(home: Home) -> None:
    assert home.run("hash", "web.raw", "--quiet").stderr == ""
    plain = home.run("hash", "web.raw").stderr
    assert plain.startswith("hash web.raw: ")
    events = home.run("hash", "web.raw", "--progress", "json").stderr.splitlines()
    assert [json.loads(line)["event"] for line in (events[0], events[-1])] == [
        "started",
        "finished",
    ]
    assert "100%" in home.run("hash", "web.raw", "--progress", "bar").stderr


def test_what_is_not_confirmed_changes_nothing(home: Home) -> None:
    home.run("gallery", "create", "doomed")
    for answer, status, left in (("n", 6, True), ("y", 0, False)):
        master, slave = pty.openpty()
        try:
            os.write(master, f"{answer}\n".encode())
            done = subprocess.run(
                [str(GALLERIA), "gallery", "delete", "doomed", "--cascade"],
                env=home.env,
                cwd=home.path,
                stdin=slave,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            os.close(slave)
            os.close(master)
        assert done.returncode == status, done.stderr
        assert ("nothing was changed" in done.stderr) is left
        names = [item["name"] for item in home.json("gallery", "list")["galleries"]]
        assert any("doomed" in str(name) for name in names) is left
