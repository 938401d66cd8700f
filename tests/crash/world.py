"""A small publish in a world of its own, that can be made to die or fail at each durable step."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.app import Session, create_zones
from adapters.catalog.sql import SqlCatalog
from adapters.config import Config, ZonePlace
from adapters.filesystem import durable
from pipeline.jobs.prepare import PublishRequest
from pipeline.model import (
    Identifier,
    ImageDefinition,
    ImageVersion,
    OsState,
    OsType,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.access import Identity
from pipeline.model.names import parse_definition, parse_gallery, parse_version
from pipeline.model.sources import DiskSource
from pipeline.publish import publish
from tests.application import open_session
from tests.contract.storing import pattern

DURABLE = (
    "sync_file",
    "sync_directory",
    "sync_file_system",
    "rename_new",
    "replace",
    "remove_tree",
)
DIED = 42
LIMIT = 1000  # more durable steps than any job has
# All steps at night; in every run one of three, others each time.
EVERY = pytest.mark.parametrize(
    "every", [3, pytest.param(1, marks=pytest.mark.nightly)], ids=["some", "all"]
)

Step = Callable[[str], None]  # called before and after every durable step, with its name


class World:
    """A source disk, a configuration with two regions, a gallery and a definition."""

    def __init__(self, root: Path) -> None:
        self.source = root / "disk.raw"
        with self.source.open("wb") as file:
            for position in range(0, 4 << 20, 1 << 20):
                file.seek(position)
                file.write(pattern(position, 300_000))
            file.truncate(4 << 20)
        self.config = Config(
            regions={"eu": (ZonePlace(root / "eu"),), "us": (ZonePlace(root / "us"),)},
            source_region="eu",
            catalog=f"sqlite:///{root / 'catalog.db'}",
            work=root / "work",
            cache=root / "cache",
            logs=root / "logs",
            captures=root / "captures",
            immutable=False,
        )
        create_zones(self.config, Identity("root@host"))
        with self.app() as app:
            app.gallery.create_gallery(parse_gallery("corp"), "eu")
            app.gallery.create_definition(
                ImageDefinition(
                    parse_definition("corp/web"),
                    "eu",
                    OsType.LINUX,
                    Identifier("Contoso", "web", "front"),
                    os_state=OsState.SPECIALIZED,
                )
            )

    @contextmanager
    def app(self) -> Iterator[Session]:
        with open_session(self.config) as app:
            yield app

    def publish(self, number: str) -> ImageVersion:
        request = PublishRequest(
            VersionRequest(
                parse_version(f"corp/web/{number}"),
                "",
                target_regions=(TargetRegion("eu", 2), TargetRegion("us", 1)),
            ),
            (DiskSource(None, self.source),),
            None,
        )
        with self.app() as app:
            return publish(request, app.context)

    def debris(self) -> list[str]:
        """What should not be there once nothing runs."""
        scratch = self.config.work / "galleria"
        found = list(scratch.iterdir()) if scratch.exists() else []
        for region in self.config.regions:
            zone = self.config.regions[region][0].path
            found += (zone / "staging").iterdir()
        return [str(path) for path in found]


def interpose(patch: pytest.MonkeyPatch, step: Step) -> None:
    """Call `step` before and after every primitive that makes something durable or visible, in
    files (`durable`) and in the catalog (a transaction's end)."""

    def around(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            step(f"before {name}")
            result = original(*args, **kwargs)
            step(f"after {name}")
            return result

        return call

    for name in DURABLE:
        patch.setattr(durable, name, around(name, getattr(durable, name)))
    for name in ("write", "rebuild"):
        patch.setattr(SqlCatalog, name, transaction(getattr(SqlCatalog, name), step))


def transaction(begin: Callable[..., Any], step: Step) -> Callable[..., Any]:
    @contextmanager
    def stepped(*args: Any) -> Iterator[Any]:
        step("before commit")
        with begin(*args) as writer:
            yield writer
        step("after commit")

    return stepped


def die_at(k: int) -> Step:
    """A step that ends the process, as SIGKILL would, at the k-th call."""
    calls = iter(range(1, k + 1))

    def step(_name: str) -> None:
        if next(calls, k) == k:
            os._exit(DIED)

    return step


def in_child(job: Callable[[], object], k: int) -> int:
    """Do a job in a forked process that dies at its k-th step; its exit status: DIED, or 0 if it
    came to its end."""
    return in_child_with(job, die_at(k))


def in_child_with(job: Callable[[], object], step: Step) -> int:
    """Do a job in a forked process that calls `step` at each durable step; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                interpose(patch, step)
                job()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_every_step(
    root: Path,
    prepare: Callable[[World], object],
    job: Callable[[World], object],
    then: Callable[[World, bool], object],
) -> int:
    """Do a job in a world that was prepared, killed at its k-th step, for each k in turn. `then` is
    called after each with whether the job came to its end; returns how many steps there are."""
    live, kept = root / "live", root / "kept"
    live.mkdir()
    world = World(live)
    prepare(world)
    shutil.copytree(live, kept, symlinks=True)
    for k in range(1, LIMIT):
        status = in_child(partial(job, world), k)
        assert status in (0, DIED), f"step {k} ended with {status}"
        then(world, status == 0)
        if status == 0:
            return k
        shutil.rmtree(live)
        shutil.copytree(kept, live, symlinks=True)
    raise AssertionError("it never ends")


class FailAt:
    """A step that fails once with an OSError, at the k-th call (before steps only: what has been
    done can't fail any more); `failed` says whether it came to that."""

    def __init__(self, k: int, number: int) -> None:
        self._left = k
        self._number = number
        self.failed = False

    def __call__(self, name: str) -> None:
        self._left -= name.startswith("before")
        if name.startswith("before") and self._left == 0:
            self.failed = True
            raise OSError(self._number, os.strerror(self._number))


ERRORS = (errno.ENOSPC, errno.EIO)
