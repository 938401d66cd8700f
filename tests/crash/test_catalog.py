"""A catalog that is rebuilt, restored, or told to its zones, killed at every durable step: it is
the old one or the new one, and the same command finishes."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.app import local_account, rebuild_catalog, restore_catalog
from adapters.catalog import open_catalog
from adapters.catalog.copies import backup
from pipeline.errors import Conflict
from pipeline.gallery import descriptions
from pipeline.model.access import Identity
from pipeline.model.names import parse_gallery, parse_version
from pipeline.ports.catalog import CatalogReader
from tests.crash.world import World, at_every_step

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900)]

V100 = parse_version("corp/web/1.0.0")
ME = Identity(local_account())

Job = Callable[[World], None]


def catalog(world: World) -> Path:
    return world.source.with_name("catalog.db")


def said(world: World) -> dict[str, object]:
    """All that a catalog says, but for who works on it."""

    def all_of(reader: CatalogReader) -> dict[str, object]:
        names = descriptions.everything(reader)
        return {name: descriptions.described(reader, name) for name in names}

    with contextlib.closing(open_catalog(world.config.catalog)) as opened:
        assert opened.check().problems == ()
        with opened.read() as reader:
            return all_of(reader)


def integrity(path: Path) -> object:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("PRAGMA integrity_check").fetchall()


def killed(root: Path, prepare: Job, job: Job, then: Callable[[World, bool], None]) -> int:
    """Kill the job at each step, in a world that has version 1.0.0 and was prepared."""

    def published(world: World) -> None:
        world.publish("1.0.0")
        prepare(world)

    return at_every_step(root, published, job, then)


def rebuild(world: World) -> None:
    rebuild_catalog(world.config, ME)


def test_a_rebuild_that_is_killed(tmp_path: Path) -> None:
    wanted: dict[str, object] = {}

    def lose(world: World) -> None:
        wanted.update(said(world))
        for path in catalog(world).parent.glob("catalog.db*"):
            path.unlink()

    def then(world: World, done: bool) -> None:
        with contextlib.suppress(Conflict):  # it had come to its end
            rebuild(world)
        assert said(world) == wanted
        with world.app() as app:
            assert app.zones["eu"][0].find_version(app.gallery.get_version(V100).zone_key)

    assert killed(tmp_path, lose, rebuild, then) > 1


def test_a_restore_that_is_killed(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        with contextlib.closing(open_catalog(world.config.catalog)) as opened:
            backup(opened, world.source.with_name("backup.db"))
        with world.app() as app:
            app.gallery.create_gallery(parse_gallery("later"), "eu")

    def restore(world: World) -> None:
        restore_catalog(world.config, ME, world.source.with_name("backup.db"))

    def then(world: World, done: bool) -> None:
        assert integrity(catalog(world)) == [("ok",)]
        with world.app() as app:
            names = [item.name.name for item in app.gallery.list_galleries()]
        assert names == ["corp"] if done else names in (["corp"], ["corp", "later"])
        restore(world)
        with world.app() as app:
            assert [item.name.name for item in app.gallery.list_galleries()] == ["corp"]
        said(world)

    assert killed(tmp_path, prepare, restore, then) > 3


def test_zones_are_told_the_rest_by_the_next_change(tmp_path: Path) -> None:
    def change(world: World) -> None:
        with world.app() as app:
            app.gallery.promote(V100, "prod")
            app.gallery.create_gallery(parse_gallery("later"), "eu")
            app.gallery.delete_gallery(parse_gallery("later"))

    def then(world: World, done: bool) -> None:
        with world.app() as app:
            app.gallery.create_gallery(parse_gallery("last"), "eu")
        wanted = said(world)
        for path in catalog(world).parent.glob("catalog.db*"):
            path.unlink()
        made = rebuild_catalog(world.config, ME)
        assert made.rebuilt.problems == ()
        assert said(world) == wanted

    assert killed(tmp_path, lambda _: None, change, then) > 12
