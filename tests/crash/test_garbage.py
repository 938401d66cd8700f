"""Garbage collection killed at every durable step: it leaves garbage, and nothing that depends on
what is gone; the same command collects the rest."""

import shutil
import subprocess
from pathlib import Path

import pytest

from adapters.vms import HostVmDirectories
from pipeline.deploying.deploy import DeployRequest, deploy
from pipeline.jobs.delete import delete_version
from pipeline.jobs.garbage import collect_all
from pipeline.jobs.verify import verify_version
from pipeline.model.garbage import Keep
from pipeline.model.names import parse_definition, parse_version
from tests.crash.world import World, at_every_step

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900)]

TOKEN = "c" * 32


def furnish(world: World) -> None:
    """A version; a VM whose version was deleted; bases that nobody needs, deltas on each other;
    something in staging and in quarantine."""
    root = world.source.parent
    world.publish("1.0.0")
    for index, number in enumerate(("1.0.1", "1.0.2", "1.0.3"), 1):
        with world.source.open("r+b") as file:
            file.seek(index << 20)
            file.write(bytes([index]) * 70_000)
        world.publish(number)
        if number == "1.0.1":
            shutil.copyfile(world.source, root / "vm.raw")
    with world.app() as app:
        version = app.gallery.get_version(parse_version("corp/web/1.0.1"))
        request = DeployRequest(("vm",), root / "vms", "eu")
        deploy(version, request, HostVmDirectories(), app.context)
    aside = root / "aside"
    for region in ("eu", "us"):
        shutil.copytree(zone(world, region) / "bases", aside / region, symlinks=True)
    with world.app() as app:
        for number in ("1.0.3", "1.0.2", "1.0.1"):
            delete_version(parse_version(f"corp/web/{number}"), app.context)
    for region in ("eu", "us"):  # as if the collector had never run
        place = zone(world, region) / "bases"
        for base in (aside / region).iterdir():
            if not (place / base.name).exists():
                shutil.copytree(base, place / base.name)
        (zone(world, region) / "quarantine" / f"{'d' * 64}-{TOKEN}").mkdir(parents=True)
        (zone(world, region) / "staging" / TOKEN).mkdir()
        marker = b"galleria: this directory is being made\n"
        (zone(world, region) / "staging" / f"{TOKEN}.lock").write_bytes(marker)
    shutil.rmtree(aside)


def zone(world: World, region: str) -> Path:
    return world.config.regions[region][0].path


def bases(world: World, region: str) -> int:
    return len(list((zone(world, region) / "bases").iterdir()))


def collect(world: World) -> None:
    with world.app() as app:
        collect_all(app.context, Keep(unused=0, quarantine=0))


def check(world: World) -> None:
    """What is needed is there and sound, by galleria's own account and by qemu's."""
    with world.app() as app:
        (version,) = app.gallery.list_versions(parse_definition("corp/web"))
        for region in ("eu", "us"):
            assert all(v.sound for v in verify_version(version, app.zones[region], app.context))
        (vm,) = app.gallery.list_deployments()
        (disk,) = vm.disks
    vm_disk = world.source.with_name("vm.raw")
    argv = ["qemu-img", "compare", "-f", disk.format, "-F", "raw", disk.path, str(vm_disk)]
    assert subprocess.run(argv, capture_output=True).returncode == 0


def test_a_collection_that_is_killed(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        furnish(world)
        assert bases(world, "eu") == bases(world, "us") == 4
        check(world)

    def then(world: World, done: bool) -> None:
        check(world)
        collect(world)
        check(world)
        assert not list(zone(world, "us").glob("quarantine/*"))
        assert world.debris() == []
        assert bases(world, "eu") == bases(world, "us") == 2

    assert at_every_step(tmp_path, prepare, collect, then) > 8
