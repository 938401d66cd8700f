"""Rot in every kind of file of a version: detected, and repaired from another region.

What is damaged is a whole region's copy; what is right is judged by qemu-img and by the source's
bytes, never by galleria's own reader.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.chunks import CHUNK_SIZE
from tests.contract.storing import changed, pattern
from tests.home import DEFINE, Session, deletable

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]

FIRST = pattern(1, 3 * CHUNK_SIZE) + bytes(2 * CHUNK_SIZE) + pattern(2, 3 * CHUNK_SIZE + 4096)
SECOND = changed(FIRST, 1, 6)
CONTENTS = {"corp/web/1.0.0": FIRST, "corp/web/1.0.1": SECOND}
NVRAM = 540_672  # bytes of OVMF's with 4 MiB
VARIABLES = {"corp/web/1.0.0": pattern(3, NVRAM), "corp/web/1.0.1": pattern(4, NVRAM)}
DOMAIN = """<domain type='kvm'><name>web</name>
<os firmware='efi'><type arch='x86_64'>hvm</type><nvram>VARS.fd</nvram></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='source.raw'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>"""

FLIPS = 12  # random ones in every run of the suite
MANY_FLIPS = 1000  # at night
SEED = 20261201

# By its name, every file of the region that something depends on.
FILES = {
    "raw base": "bases/*/base.raw",
    "delta base": "bases/*/base.qcow2",
    "manifest": "bases/*/manifest",
    "record of a base": "bases/*/base.json",
    "record of a version": "versions/*/version.json",
    "firmware's variables": "versions/*/nvram.fd",
    "replica": "versions/*/replica-0/os.*",
}


@dataclass(frozen=True)
class World:
    """Two versions in two regions, one of which is damaged again and again; a VM of each."""

    home: Session
    spare: Path  # a copy of the region as it was

    @property
    def region(self) -> Path:
        return self.home.path / "us"

    def restore(self) -> None:
        deletable(self.region)
        shutil.rmtree(self.region)
        shutil.copytree(self.spare, self.region, symlinks=True)

    def files(self, kind: str) -> list[Path]:
        return sorted(self.region.glob(FILES[kind]))

    def scrub(self, *options: str, status: int) -> dict[str, Any]:
        return self.home.json("scrub", "--region", "us", *options, status=status)

    def check_right(self) -> None:
        """Every replica and VM has, by qemu's account, what was published."""
        for version, content in CONTENTS.items():
            number = version.rpartition("/")[2]
            for disk in (
                *self.region.glob(f"versions/*{number}*/replica-0/os.*"),
                *self.home.path.glob(f"vms/vm-{number}/os.*"),
            ):
                flat = self.home.path / "flat.raw"
                argv = ["qemu-img", "convert", "-f", disk.suffix[1:], "-O", "raw"]
                subprocess.run([*argv, str(disk), str(flat)], check=True)
                assert flat.read_bytes() == content, disk
            (variables,) = self.region.glob(f"versions/*{number}*/nvram.fd")
            assert variables.read_bytes() == VARIABLES[version], variables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    path = tmp_path_factory.mktemp("rot")
    with Session.begun(path, GALLERIA_IMMUTABLE="false") as home:
        home.run("init", "--region", f"eu={path}/eu", "--region", f"us={path}/us")
        home.run("gallery", "create", "corp")
        home.run(*DEFINE)
        source, variables = path / "source.raw", path / "VARS.fd"
        (path / "web.xml").write_text(DOMAIN)
        for version, content in CONTENTS.items():
            source.write_bytes(content)
            variables.write_bytes(VARIABLES[version])
            home.run("publish", version, "--vm", "web.xml", "--target-regions", "eu us")
            name = f"vm-{version.rpartition('/')[2]}"
            home.run("deploy", version, "--region", "us", "--name", name, "--out", f"{path}/vms")
        source.unlink()  # nothing can be repaired from it
        spare = path / "spare"
        shutil.copytree(path / "us", spare, symlinks=True)
        yield World(home, spare)


@pytest.fixture
def world(made: World) -> Iterator[World]:
    made.restore()
    yield made
    made.restore()


# --- what is done to a file -----------------------------------------------------------------------


def writable(path: Path) -> Path:
    path.chmod(0o644)
    return path


def flip(path: Path, others: list[Path], chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content))
    content[at] ^= 1 << chance.randrange(8)
    writable(path).write_bytes(content)


def zero(path: Path, others: list[Path], chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    while True:  # something that was not zero before
        at = chance.randrange(0, len(content), 512)
        if any(content[at : at + 512]):
            content[at : at + 512] = bytes(len(content[at : at + 512]))
            writable(path).write_bytes(content)
            return


def swap(path: Path, others: list[Path], chance: random.Random) -> None:
    """Two neighbouring pieces change places."""
    content = bytearray(path.read_bytes())
    size = CHUNK_SIZE if len(content) >= 2 * CHUNK_SIZE else max(1, len(content) // 4)
    one, two = content[:size], content[size : 2 * size]
    content[: 2 * size] = two + one
    writable(path).write_bytes(content)


def truncate(path: Path, others: list[Path], chance: random.Random) -> None:
    os.truncate(writable(path), chance.randrange(path.stat().st_size))


def lengthen(path: Path, others: list[Path], chance: random.Random) -> None:
    with writable(path).open("ab") as file:
        file.write(b"\0" * 65536)


def missing(path: Path, others: list[Path], chance: random.Random) -> None:
    path.unlink()


def stale(path: Path, others: list[Path], chance: random.Random) -> None:
    """Another file of the same kind in its place."""
    (other,) = (one for one in others if one != path)
    shutil.copyfile(other, writable(path))


DAMAGES: tuple[Callable[[Path, list[Path], random.Random], None], ...] = (
    flip,
    zero,
    swap,
    truncate,
    lengthen,
    missing,
    stale,
)


def damaged_and_repaired(world: World, path: Path) -> None:
    found = world.scrub(status=1)
    assert found["findings"], path
    assert not found["sound"]
    shown = world.home.json("list", "corp")["versions"]
    assert any("us" in version.get("degradedRegions", ()) for version in shown)
    mended = world.home.json("repair", "--region", "us")
    assert all(item["repaired"] for item in mended["findings"]), mended
    assert world.scrub(status=0)["findings"] == []
    shown = world.home.json("list", "corp")["versions"]
    assert all("degradedRegions" not in version for version in shown)
    world.check_right()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", FILES)
def test_damage_is_detected_and_repaired(
    world: World, kind: str, damage: Callable[[Path, list[Path], random.Random], None]
) -> None:
    files = world.files(kind)
    assert files
    if damage is stale and len(files) < 2:
        pytest.skip("there is no other file of this kind")
    damage(files[0], files, random.Random(SEED))  # noqa: S311 - the same damage each time
    damaged_and_repaired(world, files[0])


def flips(count: int, world: World) -> None:
    chance = random.Random(SEED)  # noqa: S311 - the same damage each time
    files = [path for kind in FILES for path in world.files(kind)]
    for number in range(count):
        world.restore()
        path = chance.choice(files)
        flip(path, [], chance)
        found = world.home.json("scrub", "--region", "us", "--repair", status=0)
        assert found["findings"], (number, path)
        assert all(item["repaired"] for item in found["findings"]), (number, path, found)
        world.check_right()


def test_random_flips_are_repaired(world: World) -> None:
    flips(FLIPS, world)


@pytest.mark.nightly
@pytest.mark.timeout(14400)
def test_many_random_flips_are_repaired(world: World) -> None:
    flips(MANY_FLIPS, world)


def test_a_region_that_is_lost_whole_is_made_again(world: World) -> None:
    for part in ("bases", "versions"):
        shutil.rmtree(world.region / part)
        (world.region / part).mkdir()
    found = world.scrub(status=1)
    assert {item["subject"] for item in found["findings"]} >= {"record missing"}
    world.home.json("repair", "--region", "us")
    assert world.scrub(status=0)["findings"] == []
    world.check_right()


def test_chunks_come_from_copies_that_are_both_bad(world: World) -> None:
    """No copy is whole, and what each has lost the other has."""
    eu = world.home.path / "eu"
    spare = world.home.path / "spare-eu"
    shutil.copytree(eu, spare, symlinks=True)
    try:
        for zone, chunk in ((world.region, 0), (eu, 2)):
            (base,) = zone.glob("bases/*/base.raw")
            with writable(base).open("r+b") as file:
                file.seek(chunk * CHUNK_SIZE + 77)
                file.write(b"rot")
        found = world.home.json("repair")
        assert {item["region"] for item in found["findings"]} == {"eu", "us"}
        assert world.home.json("scrub")["sound"]
        world.check_right()
    finally:
        shutil.rmtree(eu)
        spare.rename(eu)


def test_what_nothing_has_is_told_and_stays(world: World) -> None:
    eu = world.home.path / "eu"
    spare = world.home.path / "spare-eu"
    shutil.copytree(eu, spare, symlinks=True)
    try:
        for zone in (world.region, eu):
            (base,) = zone.glob("bases/*/base.raw")
            with writable(base).open("r+b") as file:
                file.seek(2 * CHUNK_SIZE + 77)
                file.write(b"rot")
        found = world.home.json("repair", "--region", "us", status=1)
        (bad,) = (item for item in found["findings"] if item["path"].endswith("base.raw"))
        assert bad["lost"] == [{"start": 2 * CHUNK_SIZE, "length": CHUNK_SIZE}]
        assert bad["versions"] == ["corp/web/1.0.0"]
        assert bad["machines"] == ["vm-1.0.0"]
        assert not bad["repaired"]
    finally:
        shutil.rmtree(eu)
        spare.rename(eu)
