"""Deploying many VMs, and scaling out, killed at every durable step or failing at one: the same
command goes on, and nothing is half there with a status that says otherwise."""

import errno
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from adapters.vms import STAGING, HostVmDirectories
from pipeline.deploying import scale_sets
from pipeline.deploying.deploy import DeployRequest, deploy, vm_names
from pipeline.deploying.release import release
from pipeline.errors import Conflict, HeldByRun
from pipeline.model import Deployment
from pipeline.model.names import parse_version
from pipeline.model.runs import RunKind
from tests.crash.world import DIED, LIMIT, FailAt, World, at_every_step, in_child, interpose

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1800)]

COUNT = 6  # more than are synced one by one
V100 = parse_version("corp/web/1.0.0")

Job = Callable[[World], None]


def out(world: World) -> Path:
    return world.source.parent / "vms"


def deploy_all(world: World) -> None:
    request = DeployRequest(vm_names("vm", COUNT), out(world), "eu")
    with world.app() as app:
        version = app.gallery.get_version(V100)
        deploy(version, request, HostVmDirectories(), app.context)


def make_set(world: World) -> None:
    with world.app() as app:
        machines = HostVmDirectories()
        scale_sets.create("vm", "corp/web", "eu", out(world), None, 0, machines, app.context)


def scale(world: World, count: int = COUNT) -> None:
    with world.app() as app:
        found = app.gallery.get_scale_set("vm")
        scale_sets.scale(found, count, HostVmDirectories(), app.context)


def recorded(world: World) -> list[Deployment]:
    with world.app() as app:
        return app.records.deployments()


def uuid_of(home: Path) -> str:
    found = re.search(r"<uuid>(.*)</uuid>", (home / "domain.xml").read_text())
    assert found is not None
    return found[1]


def check_all(world: World) -> None:
    """Every VM is there, as it is recorded, with its disks; and nothing else is."""
    known = {item.name: item for item in recorded(world)}
    assert sorted(known) == sorted(vm_names("vm", COUNT))
    assert sorted(path.name for path in out(world).glob("vm-*")) == sorted(known)
    for item in known.values():
        assert uuid_of(Path(item.directory)) == item.uuid
        assert [Path(disk.path).parent for disk in item.disks] == [Path(item.directory)]
        assert all(Path(disk.path).stat().st_size for disk in item.disks)
        assert item.making is None
    assert len({item.mac_address for item in known.values()}) == COUNT


def check_meanwhile(world: World) -> None:
    """What is in place is whole and recorded; what it depends on is there."""
    known = {item.directory: item for item in recorded(world)}
    if out(world).exists():
        for home in out(world).iterdir():
            if home.name != STAGING:
                assert uuid_of(home) == known[str(home)].uuid
    bases = world.config.regions["eu"][0].path / "bases"
    assert len(list(bases.iterdir())) == 1


def killed(root: Path, begin: Job, job: Job, then: Job) -> int:
    """Kill the job at each step, in a world that has version 1.0.0 and what `begin` makes; what is
    there meanwhile is whole, and `then` goes on. Returns how many steps there are."""

    def prepare(world: World) -> None:
        world.publish("1.0.0")
        begin(world)

    def after(world: World, done: bool) -> None:
        check_meanwhile(world)
        (check_all if done else then)(world)

    return at_every_step(root, prepare, job, after)


def nothing(_: World) -> None:
    pass


def again(job: Job) -> Job:
    def then(world: World) -> None:
        before = {item.name: item.uuid for item in recorded(world)}
        placed = {path.name for path in out(world).glob("vm-*")}
        try:
            job(world)
        except Conflict:  # it had come to its end, but for the last word
            assert len(placed) == COUNT
        else:
            assert not (out(world) / STAGING).exists() or job is scale
        check_all(world)
        after = {item.name: item.uuid for item in recorded(world)}
        assert {name: before[name] for name in placed} == {name: after[name] for name in placed}

    return then


def test_a_deployment_of_many_that_is_killed(tmp_path: Path) -> None:
    assert killed(tmp_path, nothing, deploy_all, again(deploy_all)) > COUNT


def test_a_scale_out_that_is_killed(tmp_path: Path) -> None:
    assert killed(tmp_path, make_set, scale, again(scale)) > COUNT


@pytest.mark.nightly
def test_what_a_killed_deployment_left_can_be_released(tmp_path: Path) -> None:
    def then(world: World) -> None:
        with world.app() as app:
            known = app.gallery.list_deployments()
            release(known, HostVmDirectories(), app.context, keep_disks=False)
        assert recorded(world) == []
        assert [path.name for path in out(world).glob("vm-*")] == []

    assert killed(tmp_path, nothing, deploy_all, then) > COUNT


@pytest.mark.parametrize("job", [deploy_all, pytest.param(scale, marks=pytest.mark.nightly)])
def test_a_deployment_that_fails_is_undone_whole(job: Job, tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publish("1.0.0")
    make_set(world)
    for k in range(1, LIMIT):
        if failing(job, world, k) == "done":
            check_all(world)
            return
        check_meanwhile(world)
        known = recorded(world)
        # undone, or (only the last word failed) all in place and unfinished
        assert len(known) in (0, COUNT)
        assert {Path(item.directory) for item in known} == set(out(world).glob("vm-*"))
        with world.app() as app:
            release(known, HostVmDirectories(), app.context, keep_disks=False)
    raise AssertionError("it never ends")


def failing(job: Job, world: World, k: int) -> str:
    """Do a job in another process, where the k-th durable step fails; what it ended with."""

    def child(world: World) -> None:
        with pytest.MonkeyPatch.context() as patch:
            interpose(patch, FailAt(k, errno.ENOSPC))
            job(world)

    return in_child_fails(child, world)


def test_other_vms_of_the_name_are_no_beginning(tmp_path: Path) -> None:
    """Only the same request goes on with what is there; and not while somebody makes it."""
    world = World(tmp_path)
    world.publish("1.0.0")
    deploy_all(world)
    with pytest.raises(Conflict, match=r"'vm-1' in .* is deployed already"):
        deploy_all(world)
    with world.app() as app:
        found = app.gallery.list_deployments()
        release(found, HostVmDirectories(), app.context, keep_disks=False)
    # the records are made; then the process ends
    status = next(k for k in range(1, LIMIT) if _recorded_after(world, k))
    assert status
    with world.app() as app:
        other = DeployRequest(vm_names("vm", COUNT - 1), out(world), "eu")
        version = app.gallery.get_version(V100)
        with pytest.raises(Conflict, match=r"'vm-1' in .* is one of an unfinished deployment"):
            deploy(version, other, HostVmDirectories(), app.context)
    deploy_all(world)
    check_all(world)


def _recorded_after(world: World, k: int) -> bool:
    assert in_child(partial(deploy_all, world), k) == DIED
    return bool(recorded(world))


def test_a_foreign_directory_in_a_vm_s_place_stays(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publish("1.0.0")
    next(k for k in range(1, LIMIT) if _recorded_after(world, k))
    theirs = out(world) / "vm-6" / "notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(Conflict, match="vm-6 exists already"):
        deploy_all(world)
    assert theirs.read_text() == "mine"
    theirs.unlink()
    theirs.parent.rmdir()
    deploy_all(world)
    check_all(world)


def test_two_processes_do_not_make_the_same_vms(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publish("1.0.0")

    class Slow(HostVmDirectories):
        """While VMs are placed, somebody else asks for them, or wants them gone."""

        def place(self, staged: object, homes: object) -> None:
            for act in (deploy_all, give_up):
                assert in_child_fails(act, world) == "HeldByRun"
            super().place(staged, homes)  # type: ignore[arg-type]

    def give_up(world: World) -> None:
        with world.app() as app:
            known = app.gallery.list_deployments()
            release(known, HostVmDirectories(), app.context, keep_disks=False)

    request = DeployRequest(vm_names("vm", COUNT), out(world), "eu")
    with world.app() as app:
        deploy(app.gallery.get_version(V100), request, Slow(), app.context)
    check_all(world)


def in_child_fails(job: Job, world: World) -> str:
    """Do a job in another process; the name of the error that it ends with."""
    note = world.source.with_name("note")

    def child() -> None:
        try:
            job(world)
            note.write_text("done")
        except Exception as error:
            note.write_text(type(error).__name__)

    assert in_child(child, 10**9) == 0
    return note.read_text()


def test_a_scale_set_is_scaled_by_one_at_a_time(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publish("1.0.0")
    make_set(world)
    with world.app() as app:
        found = app.gallery.get_scale_set("vm")
        with (
            app.job_runs.opened(RunKind.SCALE, "/"),
            app.gallery.scaling(found) as (_, members),
        ):
            assert members == []
            assert in_child_fails(scale, world) == "HeldByRun"
    assert in_child_fails(scale, world) == "done"
    check_all(world)


def test_what_is_changed_of_a_scale_set_while_it_is_scaled_stays(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publish("1.0.0")
    make_set(world)

    def other_image(world: World) -> None:
        with world.app() as app:
            found = app.gallery.get_scale_set("vm")
            scale_sets.change_image(found, "corp/web/1.0.0", app.context)

    class Meanwhile(HostVmDirectories):
        def place(self, staged: object, homes: object) -> None:
            assert in_child_fails(other_image, world) == "done"
            super().place(staged, homes)  # type: ignore[arg-type]

    with world.app() as app:
        found = app.gallery.get_scale_set("vm")
        scale_sets.scale(found, COUNT, Meanwhile(), app.context)
        assert app.gallery.get_scale_set("vm").image == "corp/web/1.0.0"
        assert app.gallery.get_scale_set("vm").owner is None
    check_all(world)


def test_a_set_whose_scaler_died_is_free(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publish("1.0.0")
    make_set(world)
    assert in_child(partial(scale, world), 5) == DIED
    with world.app() as app, world.app() as other:
        found = app.gallery.get_scale_set("vm")
        assert found.owner is not None
        with (
            app.job_runs.opened(RunKind.SCALE, "/"),
            other.job_runs.opened(RunKind.SCALE, "/"),
            app.gallery.scaling(found),
            pytest.raises(HeldByRun),
            other.gallery.scaling(found),
        ):
            pass
    scale(world)
    check_all(world)
