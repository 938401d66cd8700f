"""One suite for the Guest port: the in-memory double and a real appliance must agree.

The appliance is launched once for the whole module; each test has a directory of its own.
"""

import hashlib
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.guestfs.client import GuestfsHost
from adapters.guestfs.guest import GuestfsGuest
from adapters.process.sandbox import Sandbox
from fixtures import hive
from fixtures.debian import default_cache
from pipeline.errors import Refused
from pipeline.ports import Guest, ImageFormat, Layer
from pipeline.ports.hives import RegistryValue
from tests.contract.memory_guest import MemoryGuest
from tests.system.phony import debian_disk

pytestmark = pytest.mark.timeout(600)
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    work = tmp_path_factory.mktemp("contract")
    disk = debian_disk(work / "disk.raw", work / "tree")
    host = GuestfsHost(Sandbox(), default_cache())
    with host.session([(Layer(disk, ImageFormat.RAW),)], writable=True) as session:
        yield session.mount()


@pytest.fixture(params=["memory", pytest.param("guestfs", marks=pytest.mark.system)])
def guest(request: pytest.FixtureRequest) -> Guest:
    found: Guest = (
        MemoryGuest() if request.param == "memory" else request.getfixturevalue("appliance")
    )
    return found


@pytest.fixture
def home(guest: Guest) -> str:
    path = f"/work/{next(NUMBERS)}"
    guest.mkdir(path)
    return path


def test_write_makes_keeps_and_replaces(guest: Guest, home: str) -> None:
    path = f"{home}/file"
    guest.write(path, b"long content")
    found = guest.stat(path)
    assert found is not None
    assert (found.kind, found.mode, found.uid, found.length) == ("file", 0o644, 0, 12)
    guest.write(path, b"x", mode=0o600)
    guest.write(path, b"\xff\n")
    found = guest.stat(path)
    assert found is not None
    assert (found.mode, found.length) == (0o600, 2)
    assert guest.read(path) == b"\xff\n"


def test_long_files_are_written_and_read_whole(guest: Guest, home: str) -> None:
    content = bytes(range(256)) * 20_000
    guest.write(f"{home}/long", content)
    assert guest.read(f"{home}/long", limit=len(content) + 1) == content
    assert guest.read(f"{home}/long", limit=3) == content[:3]


def test_truncate_keeps_the_file(guest: Guest, home: str) -> None:
    guest.write(f"{home}/log", b"secret", mode=0o640)
    guest.truncate(f"{home}/log")
    found = guest.stat(f"{home}/log")
    assert found is not None
    assert (found.kind, found.mode, found.length) == ("file", 0o640, 0)


def test_listings(guest: Guest, home: str) -> None:
    guest.mkdir(f"{home}/d/e")
    guest.write(f"{home}/d/e/f", b"123")
    guest.write(f"{home}/.hidden", b"")
    guest.symlink("d", f"{home}/link")
    assert guest.names(home) == [".hidden", "d", "link"]
    assert [(path, found.kind, found.length) for path, found in guest.find(home)] == [
        (f"{home}/.hidden", "file", 0),
        (f"{home}/d", "directory", guest.find(home)[1][1].length),
        (f"{home}/d/e", "directory", guest.find(home)[2][1].length),
        (f"{home}/d/e/f", "file", 3),
        (f"{home}/link", "symlink", 1),
    ]
    assert guest.glob(f"{home}/*") == [f"{home}/d", f"{home}/link"]
    assert guest.glob(f"{home}/d/*/f") == [f"{home}/d/e/f"]
    assert guest.names(f"{home}/link") == []  # a link is no directory


def test_what_was_seen_is_forgotten_when_it_changes(guest: Guest, home: str) -> None:
    def kinds() -> list[str | None]:
        found = [guest.stat(f"{home}{path}") for path in ("/a", "/a/b", "/a/b/f")]
        return [None if stat is None else stat.kind for stat in found]

    def length() -> int | None:
        found = guest.stat(f"{home}/a/b/f")
        return None if found is None else found.length

    assert kinds() == [None, None, None]
    guest.mkdir(f"{home}/a/b")
    assert kinds() == ["directory", "directory", None]
    guest.write(f"{home}/a/b/f", b"1234")
    assert (kinds()[2], length()) == ("file", 4)
    guest.write(f"{home}/a/b/f", b"12")
    assert length() == 2
    guest.truncate(f"{home}/a/b/f")
    assert length() == 0
    guest.remove(f"{home}/a")
    assert kinds() == [None, None, None]
    guest.symlink("elsewhere", f"{home}/a")
    assert kinds() == ["symlink", None, None]
    guest.mkdir(f"{home}/elsewhere/b")
    assert kinds() == ["symlink", "directory", None]
    guest.remove(f"{home}/a")
    assert kinds() == [None, None, None]
    assert guest.names(f"{home}/elsewhere") == ["b"]


def test_large_trees_too_are_listed_and_removed(guest: Guest, home: str) -> None:
    paths = []
    for index in range(40):
        guest.mkdir(f"{home}/tree/{index:02}")
        guest.write(f"{home}/tree/{index:02}/f", b"x")
        paths += [f"{home}/tree/{index:02}", f"{home}/tree/{index:02}/f"]
    guest.symlink("..", f"{home}/tree/00/up")
    found = guest.find(f"{home}/tree")
    assert [path for path, _ in found] == sorted([*paths, f"{home}/tree/00/up"])
    assert {stat.kind for _, stat in found} == {"directory", "file", "symlink"}
    guest.write(f"{home}/stays", b"x")
    guest.remove(f"{home}/tree")
    assert guest.find(home) == [(f"{home}/stays", guest.stat(f"{home}/stays"))]


def test_a_file_or_a_tree_gets_another_name(guest: Guest, home: str) -> None:
    guest.mkdir(f"{home}/old")
    guest.write(f"{home}/old/deep", b"1")
    guest.write(f"{home}/there", b"2")
    assert guest.stat(f"{home}/new") is None
    guest.set_name(f"{home}/old", "new")
    assert guest.read(f"{home}/new/deep") == b"1"
    assert (guest.stat(f"{home}/old"), guest.names(home)) == (None, ["new", "there"])
    for name in ("there", "../out"):
        with pytest.raises(Refused):
            guest.set_name(f"{home}/new", name)
    assert guest.read(f"{home}/there") == b"2"


def test_what_is_absent_is_no_error(guest: Guest, home: str) -> None:
    for path in (f"{home}/no", f"{home}/no/where"):
        assert guest.stat(path) is None
        assert guest.names(path) == guest.glob(f"{path}/*") == []
        assert guest.find(path) == []
        assert guest.real(path) == path
        guest.remove(path)
    guest.write(f"{home}/file", b"")
    assert guest.stat(f"{home}/file/below") is None


def test_remove_takes_trees_and_never_follows(guest: Guest, home: str) -> None:
    guest.mkdir(f"{home}/tree/deep")
    guest.write(f"{home}/kept", b"1")
    guest.mkdir(f"{home}/other")
    guest.write(f"{home}/other/file", b"1")
    guest.symlink("../../kept", f"{home}/tree/deep/link")
    guest.symlink(f"{home}/other", f"{home}/tree/directory")
    guest.symlink(f"{home}/kept", f"{home}/link")
    guest.remove(f"{home}/tree")
    guest.remove(f"{home}/link")
    assert guest.names(home) == ["kept", "other"]
    assert guest.names(f"{home}/other") == ["file"]


def test_links_in_the_middle_lead_where_the_guest_says(guest: Guest, home: str) -> None:
    guest.mkdir(f"{home}/a/b")
    guest.symlink(f"{home}/a", f"{home}/absolute")
    guest.symlink("absolute/b", f"{home}/relative")
    assert guest.real(f"{home}/relative/file") == f"{home}/a/b/file"
    guest.write(f"{home}/relative/file", b"1")
    assert guest.names(f"{home}/a/b") == ["file"]
    assert guest.stat(f"{home}/relative/file") == guest.stat(f"{home}/a/b/file")
    guest.remove(f"{home}/relative/file")
    assert guest.names(f"{home}/a/b") == []
    guest.remove(f"{home}/absolute")
    assert guest.stat(f"{home}/relative/file") is None
    assert guest.real(f"{home}/relative/file") == f"{home}/relative/file"


def test_absolute_links_do_not_leave_the_guest(guest: Guest, home: str) -> None:
    guest.symlink("/../../../work", f"{home}/up")
    assert guest.real(f"{home}/up/x") == "/work/x"


def test_loops_lead_nowhere(guest: Guest, home: str) -> None:
    guest.symlink("two", f"{home}/one")
    guest.symlink("one", f"{home}/two")
    assert guest.stat(f"{home}/one/file") is None
    found = guest.stat(f"{home}/one")
    assert found is not None
    assert found.kind == "symlink"


def test_links_are_not_written_through(guest: Guest, home: str) -> None:
    guest.write(f"{home}/target", b"kept")
    guest.symlink("target", f"{home}/link")
    for forbidden in (
        lambda: guest.write(f"{home}/link", b"x"),
        lambda: guest.truncate(f"{home}/link"),
        lambda: guest.read(f"{home}/link"),
    ):
        with pytest.raises(Refused):
            forbidden()
    assert guest.read(f"{home}/target") == b"kept"
    assert guest.readlink(f"{home}/link") == "target"


def test_slashes_may_be_doubled(guest: Guest, home: str) -> None:
    """As in a home of passwd(5)."""
    guest.write(f"{home}/file", b"x")
    assert guest.names(f"/{home}") == ["file"]
    assert guest.real(f"/{home}//file") == f"{home}/file"
    assert guest.read(f"/{home}/file") == b"x"


def test_paths_that_climb_are_refused(guest: Guest, home: str) -> None:
    with pytest.raises(Refused):
        guest.stat(f"{home}/../x")
    with pytest.raises(Refused):
        guest.remove("relative")


def test_mkdir_is_content_with_what_is_there(guest: Guest, home: str) -> None:
    guest.mkdir(f"{home}/x/y", mode=0o700)
    guest.mkdir(f"{home}/x/y")
    found = guest.stat(f"{home}/x/y")
    assert found is not None
    assert (found.kind, found.mode) == ("directory", 0o700)


@pytest.mark.parametrize("name", ["new\nline", "sp ace'\"$(x)", "-rf", "\udcff\udcfe", "*"])
def test_hostile_names(guest: Guest, home: str, name: str) -> None:
    plain = not name.startswith("\udcff")
    if plain:
        guest.write(f"{home}/{name}", b"1")
    elif isinstance(guest, MemoryGuest):
        guest.plant(f"{home}/{name}", b"1")
    else:
        assert isinstance(guest, GuestfsGuest)
        guest._script(f"printf 1 > '/sysroot{home}/{name}'")
    assert guest.names(home) == [name]
    assert guest.glob(f"{home}/*") == [f"{home}/{name}"]
    assert [path for path, _ in guest.find(home)] == [f"{home}/{name}"]
    found = guest.stat(f"{home}/{name}")
    assert found is not None
    assert (found.kind, found.length) == ("file", 1)
    guest.truncate(f"{home}/{name}")
    assert guest.find(home)[0][1].length == 0
    guest.remove(f"{home}/{name}")
    assert guest.names(home) == []


@pytest.mark.system
def test_immutable_files_are_changed_all_the_same(appliance: Guest) -> None:
    assert isinstance(appliance, GuestfsGuest)
    appliance.mkdir("/attributes/tree")
    for name in ("truncated", "written", "removed", "tree/file"):
        appliance.write(f"/attributes/{name}", b"secret")
        flag = "+a" if name == "truncated" else "+i"
        appliance._script(f"chattr {flag} /sysroot/attributes/{name}")
    appliance.truncate("/attributes/truncated")
    appliance.write("/attributes/written", b"new")
    appliance.remove("/attributes/removed")
    appliance.remove("/attributes/tree")
    assert appliance.names("/attributes") == ["truncated", "written"]
    assert appliance.read("/attributes/truncated") == b""
    assert appliance.read("/attributes/written") == b"new"


@pytest.fixture
def registry(guest: Guest, home: str) -> str:
    content = {
        "Setup": {"CmdLine": hive.text("old"), "SetupType": hive.number(0)},
        "Update": {name: hive.text(f"value of {name}") for name in ("One", "Two", "Three")},
        "Update\\Below": {"Kept": hive.texts("a", "b")},
        "Single": {"Only": hive.text("a secret that must not stay in the file")},
    }
    guest.write(f"{home}/HIVE", hive.write(hive.tree(content)))
    return f"{home}/HIVE"


def test_a_hive_is_read_without_regard_to_case(guest: Guest, registry: str) -> None:
    with guest.hive(registry) as opened:
        assert sorted(opened.keys("")) == ["Setup", "Single", "Update"]
        assert sorted(opened.values("UPDATE")) == ["One", "Three", "Two"]
        assert opened.has("update\\below")
        assert not opened.has("update\\nothing\\below")
        assert opened.get("setup", "SETUPTYPE") == RegistryValue(4, b"\0\0\0\0")
        assert opened.get("setup", "nothing") is None
        assert opened.get("nothing", "nothing") is None
        assert opened.keys("nothing") == opened.values("nothing") == []


def test_a_hive_is_changed(guest: Guest, registry: str) -> None:
    new = RegistryValue(1, "new\0".encode("utf-16-le"))
    with guest.hive(registry, writable=True) as opened:
        opened.set("setup", "cmdline", new)
        opened.set("Services\\Mine", "Start", RegistryValue(4, b"\2\0\0\0"))
        opened.delete("update", "two")
        opened.delete("update", "two")
        opened.delete("Single", "Only")
        assert opened.get("update", "Two") is None
    with guest.hive(registry) as opened:
        assert opened.get("Setup", "CmdLine") == new
        assert opened.get("Services\\Mine", "Start") == RegistryValue(4, b"\2\0\0\0")
        assert sorted(opened.values("Update")) == ["One", "Three"]
        assert opened.values("Single") == []
        assert opened.has("Single")
        assert opened.get("Update\\Below", "Kept") is not None
    content = guest.read(registry)
    assert "value of Two".encode("utf-16-le") not in content
    assert "a secret".encode("utf-16-le") not in content
    assert "value of One".encode("utf-16-le") in content


def test_what_is_no_hive_is_refused(guest: Guest, home: str) -> None:
    guest.write(f"{home}/HIVE", b"regf of nothing" * 1000)
    with pytest.raises(Refused), guest.hive(f"{home}/HIVE"):
        pass


def test_digests_of_a_tree(guest: Guest, home: str) -> None:
    odd = f"{home}/d/new\nline \udcff"
    guest.mkdir(f"{home}/d/e")
    guest.write(f"{home}/d/e/f", b"123")
    guest.write(odd.replace("\udcff", "x"), b"")
    guest.symlink("e/f", f"{home}/d/link")
    assert guest.digests(f"{home}/d") == {
        f"{home}/d/e/f": hashlib.sha256(b"123").hexdigest(),
        odd.replace("\udcff", "x"): hashlib.sha256(b"").hexdigest(),
    }
    assert guest.digests(f"{home}/absent") == {}


def cpio(directory: Path, *names: str) -> bytes:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    listed = "\n".join(names).encode()
    done = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        input=listed, cwd=directory, capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.system
@pytest.mark.parametrize("packer", ["gzip", "zstd", "xz", "cat", "lz4"])
def test_initramfs(appliance: Guest, tmp_path: Path, packer: str) -> None:
    """The way distributions make them: microcode first, stored and padded, then the compressed
    rest."""
    early = cpio(tmp_path / "early", "kernel/x86/microcode/intel.bin")
    late = cpio(tmp_path / "late", "init", "lib/hv_vmbus.ko")
    if packer == "lz4":  # what the appliance can't unpack
        packed = bytes.fromhex("02214c18") + late
    else:
        argv = [packer] if packer == "cat" else [packer, "-c"]
        packed = subprocess.run(argv, input=late, capture_output=True, check=True).stdout
    path = f"/initrd-{packer}"
    appliance.write(path, early + bytes(1024) + packed)
    own = ["kernel/x86/microcode/intel.bin"]
    rest = [] if packer == "lz4" else ["init", "lib/hv_vmbus.ko"]
    assert appliance.initramfs(path) == sorted(own + rest)
    appliance.write(path, b"no archive")
    assert appliance.initramfs(path) == []
