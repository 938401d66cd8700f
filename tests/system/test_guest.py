"""The fixture guest is what it says: a real Debian on sound disks, with every canary in place."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from dissect.target import Target

from fixtures import canaries, debian
from fixtures.assemble import OS_SIZE
from fixtures.disk import Layout

pytestmark = pytest.mark.system


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )


def changed_bytes(one: Path, other: Path, chunk: int = 256 << 10) -> int:
    """Bytes in chunks that differ."""
    with one.open("rb") as left, other.open("rb") as right:
        return sum(
            chunk
            for _ in range(one.stat().st_size // chunk)
            if left.read(chunk) != right.read(chunk)
        )


@pytest.fixture(params=["V1", "V2"])
def either(request: pytest.FixtureRequest) -> debian.Guest:
    found = request.getfixturevalue({"V1": "guest", "V2": "guest_v2"}[request.param])
    assert isinstance(found, debian.Guest)
    return found


@pytest.mark.timeout(1800)
def test_the_partition_table_and_file_system_are_sound(either: debian.Guest) -> None:
    table = json.loads(run("sfdisk", "--json", str(either.os_disk)).stdout)["partitiontable"]
    assert table["label"] == {"V1": "dos", "V2": "gpt"}[either.generation]
    verify = run("sfdisk", "--verify", str(either.os_disk))
    assert verify.returncode == 0, verify.stdout + verify.stderr
    offset = Layout(either.generation, OS_SIZE).root_offset
    assert table["partitions"][-1]["start"] * 512 == offset
    for target in (f"{either.os_disk}?offset={offset}", str(either.data_disk)):
        check = run("e2fsck", "-f", "-n", target)
        assert check.returncode == 0, check.stdout


def test_dissect_sees_a_debian(guest: debian.Guest) -> None:
    target = Target.open(str(guest.os_disk))
    assert target.os == "linux"
    assert "Debian" in (target.version or "")
    assert target.hostname == canaries.value("hostname")
    homes = {user.name: str(user.home) for user in target.users()}
    assert homes["bob"] == "/srv/homes/bob"


def test_every_canary_lies_where_its_record_says(guest: debian.Guest) -> None:
    target = Target.open(str(guest.os_disk))
    for canary in canaries.CANARIES:
        if canary.path:
            assert canary.value.encode() in target.fs.path(canary.path).read_bytes(), canary


def test_the_scan_finds_them_all_in_the_source(guest: debian.Guest) -> None:
    assert canaries.scan(guest.os_disk) == canaries.planted("os")
    assert canaries.scan(guest.data_disk) == canaries.planted("data")


def test_the_scan_sees_into_formats(guest: debian.Guest, tmp_path: Path) -> None:
    image = tmp_path / "data.qcow2"
    convert = ("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2")
    assert run(*convert, str(guest.data_disk), str(image)).returncode == 0
    assert canaries.scan_guest(image, "qcow2", tmp_path) == canaries.planted("data")
    assert list(tmp_path.iterdir()) == [image]


def test_deleted_files_are_really_deleted(guest: debian.Guest) -> None:
    """The residue lies in blocks that the file system calls free: that is what must not go on."""
    target = Target.open(str(guest.os_disk))
    assert not target.fs.path("/residue").exists()
    length = guest.data_disk.stat().st_size
    position = guest.data_disk.read_bytes().index(canaries.DELETED_DATA.value.encode())
    assert position < length
    said = run("debugfs", "-R", f"testb {position // 4096}", str(guest.data_disk)).stdout
    assert "not in use" in said


def test_a_change_is_small_and_sound(guest: debian.Guest, tmp_path: Path) -> None:
    changed = tmp_path / "changed.raw"
    before = guest.os_disk.stat()
    debian.change_a_little(guest.os_disk, changed)
    assert guest.os_disk.stat().st_mtime_ns == before.st_mtime_ns
    offset = Layout("V1", OS_SIZE).root_offset
    assert run("e2fsck", "-f", "-n", f"{changed}?offset={offset}").returncode == 0
    target = Target.open(str(changed))
    assert target.fs.path("/etc/app.conf").read_text() == "release = 1.0.1\n"
    assert 0 < changed_bytes(guest.os_disk, changed) < before.st_blocks * 512 // 20


def test_the_cache_is_used_and_cleaned(guest: debian.Guest, tmp_path: Path) -> None:
    """In a cache of its own: other processes use the user's."""
    store = tmp_path / "fixtures"
    abandoned, forgotten = store / "staging-killed", store / "guest-v1-0000000000000000"
    abandoned.mkdir(parents=True)
    (abandoned / "half").write_text("half")
    forgotten.mkdir()
    os.utime(forgotten, (0, 0))
    (store / guest.directory.name).symlink_to(guest.directory)
    found = debian.build("V1", tmp_path)
    assert found.directory == store / guest.directory.name
    assert found.os_disk.samefile(guest.os_disk)
    assert not abandoned.exists()
    assert not forgotten.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become an ordinary user")
@pytest.mark.timeout(1800)
def test_an_ordinary_user_assembles_it(
    guest: debian.Guest, repository: Path, require: Callable[..., None]
) -> None:
    """From the same tree, under fakeroot: owners and modes are as root makes them."""
    require("fakeroot")
    tree = debian.pristine_tree(())
    # not below pytest's own directory: that one is closed to other users
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        work.chmod(0o777)
        shutil.copytree(repository / "fixtures", work / "code" / "fixtures")
        for package in ("adapters", "pipeline"):
            shutil.copytree(repository / package, work / "code" / package)
        shutil.copy(tree, work / "tree.tar")
        store = work / "cache"
        store.mkdir(mode=0o777)
        store.chmod(0o777)
        done = subprocess.run(
            [
                *("fakeroot", "--", "/usr/bin/python3", "-m", "fixtures.assemble"),
                *(str(work / "tree.tar"), "V1", str(store)),
            ],
            user=65534,
            group=65534,
            extra_groups=[],
            cwd=work / "code",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(work / "code")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        target = Target.open(str(store / "os.raw"))
        assert target.fs.path("/home/alice/.netrc").stat().st_uid == 1000
        assert target.fs.path("/etc/shadow").stat().st_uid == 0
        assert target.fs.path("/etc/shadow").stat().st_gid == 42
        assert target.fs.path("/usr/bin/sudo").stat().st_mode & 0o7777 == 0o4755
