"""Who may read what galleria makes: its user, or a group that is configured; never more than who
could read the source. Judged by stat(2), for every umask that a user may have."""

import grp
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.storing import pattern
from tests.home import Session

pytestmark = pytest.mark.system
MIB = 1 << 20
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGd1ZXN0IGtleSBvZiBhIGJvb3QgdGVzdCBvbmx5ISEh ada"
OUTPUTS = (("vhd", ""), ("raw", ""), ("qcow2", ""), ("vhdx", "dynamic"))


@pytest.fixture
def home(tmp_path: Path, require: Callable[..., None]) -> Iterator[Session]:
    require("qemu-img", "bwrap")
    tmp_path.chmod(0o755)
    source = tmp_path / "secret.raw"
    source.write_bytes(pattern(1, 2 * MIB) + bytes(MIB))
    source.chmod(0o600)
    with Session.begun(tmp_path) as made:
        yield made


@pytest.fixture(params=(0o000, 0o022, 0o077), ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def wide(root: Path, bits: int = 0o077) -> dict[str, str]:
    """Everything below a directory, and itself, whose mode has some of these bits."""
    paths = [root, *root.rglob("*")]
    return {str(path): oct(mode(path)) for path in paths if mode(path) & bits}


def set_up(home: Session, *options: str) -> None:
    home.run("init", "--region", "eu=eu", "--region", "us=us", *options)
    home.run("gallery", "create", "corp")
    home.run(
        *("definition", "create", "corp/web", "--os-type", "Linux", "--os-state", "Generalized"),
        *("--publisher", "p", "--offer", "o", "--sku", "s"),
    )
    home.run("publish", "corp/web/1.0.0", "--os-disk", "secret.raw", "--no-generalize",
             "--target-region", "eu=2",
             "--target-region", "us")  # fmt: skip


def deploy(home: Session) -> None:
    home.run(
        *("deploy", "corp/web/1.0.0", "--region", "eu", "--out", "vms", "--name", "vm"),
        *("--admin-username", "me", "--ssh-key", KEY),
    )


def test_what_is_made_of_a_private_disk_is_private(home: Session, umask: int) -> None:
    set_up(home)
    deploy(home)
    home.run("disk", "create", "-n", "one", "--region", "eu", "--image-version", "corp/web/1.0.0")
    home.run("disk", "create", "-n", "two", "--region", "eu", "--size-gb", "1", "--out", "d/e")
    found = [path for name in ("eu", "us", "vms", "state", "cache", "d/e")
             if (path := home.path / name).exists()]  # fmt: skip
    assert {name: bits for path in found for name, bits in wide(path).items()} == {}
    bases = [*home.path.glob("?[us]/bases/*/base.raw"), *home.path.glob("eu/versions/*/*/*.*")]
    assert {mode(path) for path in bases} == {0o400}
    assert {mode(path) for path in (home.path / "vms/vm").glob("os.*")} == {0o600}
    assert mode(home.path / "vms/vm/start.sh") == 0o700


@pytest.mark.parametrize(
    ("source", "umask_", "expected"),
    [
        (0o600, 0o000, 0o600),
        (0o600, 0o022, 0o600),
        (0o644, 0o022, 0o644),
        (0o644, 0o077, 0o600),
        (0o640, 0o022, 0o640),
        (0o444, 0o000, 0o644),
        (0o604, 0o000, 0o600),  # the group is shut out
        (0o666, 0o000, 0o644),
    ],
    ids=oct,
)
def test_outputs_are_no_wider_than_the_source_and_the_umask(
    home: Session, source: int, umask_: int, expected: int
) -> None:
    (home.path / "secret.raw").chmod(source)
    old = os.umask(umask_)
    try:
        for format, subformat in OUTPUTS:
            out = home.path / f"out.{format}"
            options = ("--subformat", subformat) if subformat else ()
            home.run("convert", "secret.raw", "--to", format, "--out", str(out), *options)
            assert oct(mode(out)) == oct(expected), format
    finally:
        os.umask(old)


def test_another_group_gains_nothing(home: Session) -> None:
    """What a group may read is for that group: the output has another one."""
    if os.geteuid() != 0:
        pytest.skip("giving files to other groups needs root")
    source = home.path / "secret.raw"
    source.chmod(0o640)
    os.chown(source, -1, 12345)
    home.run("convert", "secret.raw", "--to", "vhd", "--out", "out.vhd")
    assert mode(home.path / "out.vhd") == 0o600


def test_what_holds_nothing_of_an_image_is_as_the_umask_says(home: Session, umask: int) -> None:
    home.run("--config", "etc/galleria.toml", "init", "--region", "eu=eu")
    home.run("--config", "etc/galleria.toml", "metrics", "--out", "galleria.prom")
    for name in ("etc/galleria.toml", "galleria.prom"):
        assert oct(mode(home.path / name)) == oct(0o644 & ~umask | 0o600)
    assert oct(mode(home.path / "etc")) == oct(0o777 & ~umask)


def test_exports_are_no_wider_than_the_base(home: Session, umask: int) -> None:
    set_up(home)
    for format, subformat in OUTPUTS:
        options = ("--subformat", subformat) if subformat else ()
        home.run("export", "corp/web/1.0.0", "--to", format, "--out", f"out.{format}", *options)
        assert oct(mode(home.path / f"out.{format}")) == oct(0o600)


def test_a_configured_group_may_read_zones_and_use_vms(home: Session, umask: int) -> None:
    group = grp.getgrgid(os.getegid() if os.geteuid() else grp.getgrnam("daemon").gr_gid)
    set_up(home, "--group", group.gr_name)
    deploy(home)
    home.run("disk", "create", "-n", "one", "--region", "eu", "--image-version", "corp/web/1.0.0")
    files = [
        *home.path.glob("eu/bases/*/base.*"),
        *home.path.glob("eu/versions/*/*/os.*"),
        *home.path.glob("eu/disks/*/os.*"),
        *home.path.glob("vms/vm/*"),
    ]
    assert len(files) >= 6
    for path in files:
        assert path.stat().st_gid == group.gr_gid, path
        owner = mode(path) >> 6
        assert oct(mode(path)) == oct(owner << 6 | (owner & 7) << 3), path
        for directory in path.relative_to(home.path).parents[:-1]:
            facts = (home.path / directory).stat()
            assert (facts.st_gid, oct(stat.S_IMODE(facts.st_mode))) == (group.gr_gid, "0o2750")
    # others' files are no business of the group
    assert wide(home.path / "state") == {}
    assert wide(home.path / "eu", 0o007) == wide(home.path / "vms", 0o007) == {}
