"""A publish that dies, or whose disk fails, at every durable step: nothing half-visible, and the
same command finishes the job (SQLite's way of testing: fail the k-th operation, for every k)."""

import contextlib
import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import Conflict, GalleriaError
from pipeline.jobs.verify import verify_version
from pipeline.model import ProvisioningState
from pipeline.model.names import parse_definition
from tests.crash.world import DIED, ERRORS, EVERY, FailAt, World, in_child, interpose

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1800)]

LIMIT = 1000  # more durable steps than a publish has


def check_visible(world: World) -> None:
    """Whatever is visible is whole: a Completed region's bases and replicas read as published."""
    with world.app() as app:
        for version in app.gallery.list_versions(parse_definition("corp/web")):
            for region in version.completed_regions:
                verdicts = list(verify_version(version, app.zones[region], app.context))
                expected = 1 + version.replicas_in(
                    next(target for target in version.target_regions if target.name == region)
                )
                assert len(verdicts) == expected, f"{region} misses something"
                assert [verdict for verdict in verdicts if not verdict.sound] == []


def check_finished(world: World) -> None:
    with world.app() as app:
        (version,) = app.gallery.list_versions(parse_definition("corp/web"))
        assert version.provisioning_state is ProvisioningState.SUCCEEDED
        assert sorted(version.completed_regions) == ["eu", "us"]
        used = {disk.digest for disk in version.disks}
        for region in ("eu", "us"):
            zone = world.config.regions[region][0].path
            assert {path.name for path in (zone / "bases").iterdir()} == used, "an orphan base"
            assert len(list((zone / "versions").iterdir())) == 1, "an orphan version"
    check_visible(world)
    assert world.debris() == []


def worlds(root: Path, every: int) -> Iterator[tuple[int, World]]:
    """A world for each step, or for one of `every` so many, others in each run."""
    for k in range(random.randint(1, every), LIMIT, every):  # noqa: S311 - no secret
        place = root / str(k)
        place.mkdir()
        yield k, World(place)


@EVERY
def test_killed_at_every_durable_step(tmp_path: Path, every: int) -> None:
    for k, world in worlds(tmp_path, every):
        status = in_child(partial(world.publish, "1.0.0"), k)
        if status == 0:
            break
        assert status == DIED, f"step {k} ended with {status}"
        check_visible(world)
        again(world)
        check_finished(world)
    assert k > 20, "the publish has too few durable steps to be true"


def again(world: World) -> None:
    """The same command once more: it completes the version, or finds it complete."""
    if finished(world):
        with pytest.raises(Conflict, match="already exists"):
            world.publish("1.0.0")
    else:
        world.publish("1.0.0")


def finished(world: World) -> bool:
    with world.app() as app:
        versions = app.gallery.list_versions(parse_definition("corp/web"))
        return any(v.provisioning_state is ProvisioningState.SUCCEEDED for v in versions)


@EVERY
@pytest.mark.parametrize("number", ERRORS, ids=os.strerror)
def test_failing_at_every_durable_step(tmp_path: Path, number: int, every: int) -> None:
    for k, world in worlds(tmp_path, every):
        step = FailAt(k, number)
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(GalleriaError, OSError):
            interpose(patch, step)
            world.publish("1.0.0")
        if not step.failed:
            break
        check_visible(world)
        again(world)
        check_finished(world)
    assert finished(world)
    assert k > 20, "the publish has too few durable steps to be true"
