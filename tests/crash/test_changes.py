"""Changing regions and deleting, killed at every durable step: what is visible is whole, and the
same command finishes the job."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import NotFound
from pipeline.gallery.latest import usable
from pipeline.gallery.rules import VersionChange
from pipeline.jobs.delete import delete_version
from pipeline.jobs.update import update_version
from pipeline.jobs.verify import verify_version
from pipeline.model import ProvisioningState, TargetRegion
from pipeline.model.names import parse_definition, parse_version
from tests.crash.world import World, at_every_step

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1800)]

V100, WEB = parse_version("corp/web/1.0.0"), parse_definition("corp/web")
CHANGE = VersionChange(add=(TargetRegion("eu", 3),), remove=("us",))

Job = Callable[[World], None]


def update(world: World) -> None:
    with world.app() as app:
        update_version(V100, CHANGE, app.context)


def delete(world: World) -> None:
    with world.app() as app:
        delete_version(V100, app.context)


def check_usable(world: World) -> None:
    """Where the version can be used, its base and all replicas that are there are sound: as many
    as there were, or as many as are wanted."""
    with world.app() as app:
        for version in app.gallery.list_versions(WEB):
            for region in version.completed_regions if usable(version) else ():
                verdicts = list(verify_version(version, app.zones[region], app.context))
                assert all(verdict.sound for verdict in verdicts)
                assert len(verdicts) in ((3, 4) if region == "eu" else (2,))


def killed(root: Path, job: Job, check: Callable[[World], None]) -> int:
    """Kill the job at each step, in a world that has version 1.0.0, do it again, and check; returns
    how many steps there are."""

    def then(world: World, done: bool) -> None:
        check_usable(world)
        if not done:
            with contextlib.suppress(NotFound):  # it was done already
                job(world)
        check(world)

    return at_every_step(root, lambda world: world.publish("1.0.0"), job, then)


def zone(world: World, region: str) -> tuple[int, int]:
    """Replicas and bases."""
    path = world.config.regions[region][0].path
    return len(list(path.glob("versions/*/replica-*"))), len(list((path / "bases").iterdir()))


def staging(world: World) -> list[str]:
    """What is left in zones. (The work directory is swept when the next run needs one.)"""
    return [path for path in world.debris() if "/staging/" in path]


def test_an_update_that_is_killed(tmp_path: Path) -> None:
    def check(world: World) -> None:
        with world.app() as app:
            version = app.gallery.get_version(V100)
        assert version.provisioning_state is ProvisioningState.SUCCEEDED
        assert (version.completed_regions, version.leaving) == (("eu",), ())
        assert len(version.regions[0].result.replicas) == 3
        assert (zone(world, "eu"), zone(world, "us")) == ((3, 1), (0, 0))
        assert staging(world) == []

    assert killed(tmp_path, update, check) > 10


def test_a_deletion_that_is_killed(tmp_path: Path) -> None:
    def check(world: World) -> None:
        with world.app() as app:
            assert app.gallery.list_versions(WEB) == []
        assert (zone(world, "eu"), zone(world, "us")) == ((0, 0), (0, 0))
        assert staging(world) == []

    assert killed(tmp_path, delete, check) > 5
