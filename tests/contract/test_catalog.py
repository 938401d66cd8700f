"""The contract of catalogs, over the in-memory double, SQLite and PostgreSQL; and what a database
adds: durability, several processes at once, a schema that is brought up to date."""

import contextlib
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adapters.catalog import open_catalog
from adapters.catalog.sql import SqlCatalog
from pipeline.errors import Conflict, EnvironmentMissing, GalleriaError, HeldByRun, NotFound
from pipeline.model import (
    DeployedDisk,
    Deployment,
    HyperVGeneration,
    Identifier,
    ImageShape,
    ImageVersion,
    OsProfile,
    OsState,
    OsType,
    ProvisioningState,
    RegionResult,
    RegionStatus,
    ReplicationState,
    ScaleSet,
    TargetRegion,
)
from pipeline.model.names import (
    DefinitionName,
    GalleryName,
    VersionName,
    VersionNumber,
    parse_definition,
    parse_gallery,
    parse_version,
)
from pipeline.model.runs import RunState
from pipeline.model.scrubs import ByteRange, ScrubRecord
from pipeline.ports.catalog import Catalog
from tests.samples import (
    NOW,
    OWNER,
    definition,
    disk,
    gallery,
    request,
    services,
    version,
)

CORP, WEB = parse_gallery("corp"), parse_definition("corp/web")
V100 = parse_version("corp/web/1.0.0")
ROOT = Path(__file__).parents[2]


def fill(catalog: Catalog, *numbers: str) -> None:
    with catalog.write() as writer:
        writer.put_gallery(gallery())
        writer.put_definition(definition())
        for number in numbers:
            writer.put_version(version(f"corp/web/{number}"))


# --- the contract -------------------------------------------------------------------------------


def test_an_empty_catalog_has_nothing(catalog: Catalog) -> None:
    with catalog.read() as reader:
        assert reader.gallery(CORP) is None
        assert reader.gallery_in_subscription(CORP) is None
        assert reader.galleries() == []
        assert reader.definition(WEB) is None
        assert reader.definitions(CORP) == []
        assert reader.version(V100) is None
        assert list(reader.versions(WEB)) == []
        assert reader.report(V100) is None
        assert reader.deployments() == []


def test_what_is_put_comes_back_whole(catalog: Catalog) -> None:
    rich = version(
        owner=OWNER,
        owned_since=NOW,
        disks=(disk(), disk(3, "d3", 35 << 40)),
        target_regions=(TargetRegion("us", 1), TargetRegion("UK South"), TargetRegion("eu", 2)),
        regions=(
            RegionStatus(
                "us",
                ReplicationState.COMPLETED,
                100,
                result=RegionResult(({"index": 0, "path": "ü/\u2028"},), ("delta",), 1 << 50, 2, 3),
            ),
            RegionStatus("UK South", ReplicationState.FAILED, 17, "no space left on 'z1'"),
            RegionStatus("eu"),
        ),
        stats={"stages": {"convert": 1.25}, "none": None},
        tags={"Ä": "ß"},
    )
    with catalog.write() as writer:
        writer.put_gallery(gallery(tags={"a": "b"}))
        writer.put_definition(definition())
        writer.put_version(rich)
        writer.put_report(V100, {"changes": [{"path": "/etc/ä"}]})
        assert writer.version(V100) == rich
    with catalog.read() as reader:
        assert reader.gallery(CORP) == gallery(tags={"a": "b"})
        assert reader.definition(WEB) == definition()
        assert reader.version(V100) == rich
        assert list(reader.versions(WEB)) == [rich]
        assert reader.report(V100) == {"changes": [{"path": "/etc/ä"}]}


def test_putting_again_replaces(catalog: Catalog) -> None:
    fill(catalog, "1.0.0")
    changed = version(
        provisioning_state=ProvisioningState.FAILED,
        attempt=2,
        target_regions=(TargetRegion("us"),),
        regions=(RegionStatus("us", ReplicationState.FAILED, 3),),
        disks=(),
    )
    with catalog.write() as writer:
        writer.put_report(V100, {"kept": 1})
        writer.put_gallery(gallery("CORP", description="new"))
        writer.put_definition(definition("Corp/Web", description="new"))
        writer.put_version(changed)
    with catalog.read() as reader:
        assert [item.description for item in reader.galleries()] == ["new"]
        assert [item.description for item in reader.definitions(CORP)] == ["new"]
        assert list(reader.versions(WEB)) == [changed]
        assert reader.report(V100) == {"kept": 1}


def test_names_are_found_in_any_case_and_only_in_their_scope(catalog: Catalog) -> None:
    fill(catalog, "1.0.0")
    elsewhere = GalleryName("corp", subscription="11111111-2222-3333-4444-555555555555")
    with catalog.write() as writer:
        writer.put_gallery(replace(gallery(), name=elsewhere))
        writer.put_definition(replace(definition(), name=DefinitionName(elsewhere, "web")))
    with catalog.read() as reader:
        assert reader.version(parse_version("CORP/wEb/1.0.0")) == version()
        assert reader.gallery(GalleryName("corp", resource_group="other")) is None
        assert reader.gallery_in_subscription(GalleryName("CORP", resource_group="x")) == gallery()
        other = DefinitionName(elsewhere, "web")
        assert reader.version(VersionName(other, V100.number)) is None
        assert list(reader.versions(other)) == []
        assert [item.name for item in reader.definitions(elsewhere)] == [other]


def test_lists_are_in_order(catalog: Catalog) -> None:
    names = ["corp/b_1", "corp/A", "corp/b-1", "corp/B.1", "corp/a1"]
    with catalog.write() as writer:
        for name in ("zeta", "Corp", "alpha"):
            writer.put_gallery(gallery(name))
        for name in names:
            writer.put_definition(definition(name))
    with catalog.read() as reader:
        assert [item.name.name for item in reader.galleries()] == ["alpha", "Corp", "zeta"]
        found = [item.name.name for item in reader.definitions(CORP)]
        assert found == ["A", "a1", "b-1", "B.1", "b_1"]


def test_versions_come_newest_first_by_number(catalog: Catalog) -> None:
    numbers = [
        f"{a}.{b}.{c}" for a, b, c in itertools.product((0, 1, 2, 10), (0, 9, 10), range(11))
    ]
    fill(catalog, *numbers[::-1][::2], *numbers[::-1][1::2], "2147483647.0.0")
    with catalog.read() as reader:
        found = [item.number for item in reader.versions(WEB)]
        first = next(reader.versions(WEB))
    assert len(found) == len(numbers) + 1
    assert [(n.major, n.minor, n.patch) for n in found] == sorted(
        ((n.major, n.minor, n.patch) for n in found), reverse=True
    )
    assert first.number == VersionNumber(2147483647, 0, 0)


def test_a_version_that_changes_is_what_was_put_last(catalog: Catalog) -> None:
    """Regions come, go and change places, disks too; in one transaction, and in one each."""

    def state(names: str, disks: str, **changes: Any) -> ImageVersion:
        return version(
            target_regions=tuple(TargetRegion(name) for name in names.split()),
            regions=tuple(RegionStatus(name) for name in names.split()),
            disks=tuple(disk(lun or None, digest) for lun, digest in enumerate(disks.split())),
            **changes,
        )

    states = [
        state("eu us", "a b"),
        state("us eu", "a b"),
        state("us eu", "a c", attempt=2),
        state("us asia eu", "c"),
        state("eu", "c a b", attempt=3),
        state("asia eu us", ""),
    ]
    fill(catalog)
    for item in states:
        with catalog.write() as writer:
            writer.put_version(item)
        with catalog.read() as reader:
            assert reader.version(V100) == item
    with catalog.write() as writer:
        for item in states:
            writer.put_version(item)
            assert writer.version(V100) == item
            assert list(writer.versions(WEB)) == [item]
        writer.delete_version(V100)
        assert writer.version(V100) is None
        writer.put_version(states[0])
    with catalog.read() as reader:
        assert reader.version(V100) == states[0]


def test_deleting(catalog: Catalog) -> None:
    fill(catalog, "1.0.0", "1.0.1")
    with catalog.write() as writer:
        writer.put_report(V100, {})
        writer.delete_version(V100)
        writer.delete_version(V100)
    with catalog.write() as writer:
        assert [str(v.number) for v in writer.versions(WEB)] == ["1.0.1"]
        writer.put_version(version())
        assert writer.report(V100) is None
    with pytest.raises(Conflict), catalog.write() as writer:
        writer.delete_definition(WEB)
    with pytest.raises(Conflict), catalog.write() as writer:
        writer.delete_gallery(CORP)
    with catalog.write() as writer:
        for number in ("1.0.0", "1.0.1"):
            writer.delete_version(parse_version(f"corp/web/{number}"))
        writer.delete_definition(WEB)
        writer.delete_definition(WEB)
        writer.delete_gallery(CORP)
        writer.delete_gallery(CORP)
    with catalog.read() as reader:
        assert reader.galleries() == []


def test_a_parent_must_exist(catalog: Catalog) -> None:
    with pytest.raises(NotFound, match="Parent resource 'corp'"), catalog.write() as writer:
        writer.put_definition(definition())
    with pytest.raises(NotFound, match="Parent resource 'corp/web'"), catalog.write() as writer:
        writer.put_version(version())
    with pytest.raises(NotFound, match=r"'corp/web/1\.0\.0'"), catalog.write() as writer:
        writer.put_report(V100, {})


def test_a_transaction_that_fails_leaves_nothing(catalog: Catalog) -> None:
    fill(catalog)
    with contextlib.suppress(ZeroDivisionError), catalog.write() as writer:
        writer.put_version(version())
        writer.put_deployment(Deployment("vm1", "/srv", V100, "u1", "eu", NOW))
        raise ZeroDivisionError
    with catalog.read() as reader:
        assert reader.version(V100) is None
        assert reader.deployments() == []
    fill(catalog, "1.0.0")  # and the catalog still works


def test_deployments_come_back_in_order(catalog: Catalog) -> None:
    os_disk = DeployedDisk(None, "/srv/ä/os.qcow2", "qcow2", "d0")
    first = Deployment("vm1", "/srv/ä", V100, "u1", "eu", NOW, (os_disk,))
    second = replace(first, directory="/srv/b", region="us")
    with catalog.write() as writer:
        for item in (second, first, replace(second, region="UK South")):
            writer.put_deployment(item)
    with catalog.read() as reader:
        assert reader.deployments() == [replace(second, region="UK South"), first]


def test_deployments_end_and_scale_sets_are_kept(catalog: Catalog) -> None:
    vm = Deployment("vm1", "/srv/a", V100, "u1", "eu", NOW, zone="eu-2", replica=1, uuid="u")
    shape = ImageShape(OsType.LINUX, HyperVGeneration.V2, OsState.GENERALIZED, (0, 5))
    profile = OsProfile("web", "ada", ("ssh-ed25519 AAAA ada",), "#!/bin/sh\n")
    web = ScaleSet("web", "g/i/latest", "eu", "/srv", NOW, V100, shape, profile)
    with catalog.write() as writer:
        writer.put_deployment(vm)
        for item in (replace(web, name="zoo"), web, replace(web, region="us")):
            writer.put_scale_set(item)
    with catalog.read() as reader:
        assert reader.deployments() == [vm]
        assert reader.scale_sets() == [replace(web, region="us"), replace(web, name="zoo")]
    with catalog.write() as writer:
        writer.delete_deployment(replace(vm, directory="/srv/other"))
        writer.delete_scale_set(web)
    with catalog.read() as reader:
        assert [item.name for item in reader.scale_sets()] == ["zoo"]
        assert reader.deployments() == [vm]
    with catalog.write() as writer:
        writer.delete_deployment(vm)
    with catalog.read() as reader:
        assert reader.deployments() == []


def test_what_a_scrub_showed_is_remembered(catalog: Catalog) -> None:
    rotten = ScrubRecord("/eu", "bases/aa", "eu", NOW, "bytes differ", (ByteRange(0, 262144),))
    sound = ScrubRecord("/eu", "versions/k", "eu", NOW)
    with catalog.write() as writer:
        for item in (sound, replace(rotten, problem="", bad=()), rotten, replace(sound, zone="/a")):
            writer.put_scrub(item)
    with catalog.read() as reader:
        assert reader.scrubs() == [replace(sound, zone="/a"), rotten, sound]
    with catalog.write() as writer:
        writer.delete_scrub("/a", "versions/k")
        writer.delete_scrub("/a", "bases/aa")
    with catalog.read() as reader:
        assert reader.scrubs() == [rotten, sound]


def test_writers_take_turns(catalog: Catalog) -> None:
    """No update is lost: each adds one to what it has read."""
    with catalog.write() as writer:
        writer.put_gallery(gallery(tags={"n": "0"}))
    failures: list[BaseException] = []

    def add() -> None:
        try:
            for _ in range(5):
                with catalog.write() as writer:
                    found = writer.gallery(CORP)
                    assert found is not None
                    count = int(found.tags["n"]) + 1
                    writer.put_gallery(replace(found, tags={"n": str(count)}))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with catalog.read() as reader:
        assert reader.gallery(CORP) == gallery(tags={"n": "20"})


def test_a_sound_catalog_has_no_problems(catalog: Catalog) -> None:
    fill(catalog, "1.0.0")
    assert catalog.check().problems == ()


# --- databases ----------------------------------------------------------------------------------


def test_a_closed_catalog_is_read_by_the_next_process(url: str) -> None:
    first = open_catalog(url)
    fill(first, "1.0.0")
    first.close()
    second = open_catalog(url)
    with second.read() as reader:
        assert reader.version(V100) == version()
    second.close()


def test_readers_see_one_moment(url: str) -> None:
    with contextlib.closing(open_catalog(url)) as one, contextlib.closing(open_catalog(url)) as two:
        fill(one)
        with one.read() as reader:
            assert reader.version(V100) is None
            if url.startswith("postgresql"):  # in SQLite's rollback mode the writer waits instead
                fill(two, "1.0.0")
            assert reader.version(V100) is None


RACE = """
import sys
from adapters.catalog import open_catalog
from pipeline.errors import Conflict
from tests.samples import request, services
ask = services(catalog=open_catalog(sys.argv[1]))
service = ask.gallery
print("ready", ask.job_runs.id, flush=True)
sys.stdin.readline()
for patch in range(int(sys.argv[2])):
    try:
        service.begin_version(request(f"corp/web/1.0.{patch}"))
        print(patch, flush=True)
    except Conflict as error:
        assert "has been working on it" in str(error), error
print("end", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def processes(
    script: str, *arguments: str, count: int = 2
) -> Iterator[list["subprocess.Popen[str]"]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def lines(process: "subprocess.Popen[str]", until: str) -> list[str]:
    assert process.stdout is not None
    found = list(iter(lambda: process.stdout.readline().strip(), until))  # type: ignore[union-attr]
    assert "" not in found
    return found


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_processes_that_publish_one_number_one_wins(url: str) -> None:
    count = 20
    with contextlib.closing(open_catalog(url)) as catalog:
        fill(catalog)
        ids: list[str] = []
        with processes(RACE, url, str(count)) as racers:
            for racer in racers:
                ids.append(said(racer).removeprefix("ready "))
            for racer in racers:
                go(racer)
            won = [lines(racer, "end") for racer in racers]
            assert sorted(map(int, [*won[0], *won[1]])) == list(range(count))
            with catalog.read() as reader:
                found = {str(v.number.patch): v.owner for v in reader.versions(WEB)}
            for id, numbers in zip(ids, won, strict=True):
                assert all(found[n] == id for n in numbers)


def test_a_killed_publisher_leaves_its_number_to_the_next(url: str) -> None:
    with contextlib.closing(open_catalog(url)) as catalog:
        fill(catalog)
        service = services(catalog=catalog).gallery
        with processes(RACE, url, "1", count=1) as (publisher,):
            id = said(publisher).removeprefix("ready ")
            go(publisher)
            assert lines(publisher, "end") == ["0"]
            with pytest.raises(HeldByRun, match=f"run {id}"):
                service.begin_version(request())
            assert not service.is_interrupted(service.get_version(V100))
            os.kill(publisher.pid, signal.SIGKILL)
            publisher.wait()
            if url.startswith("postgresql"):  # a lost connection is not a death: it is waited for
                let_time_pass(catalog, id)
            assert service.is_interrupted(service.get_version(V100))
            assert service.begin_version(request()).attempt == 2
        with catalog.read() as reader:
            ended = reader.run(id)
        assert ended is not None
        assert ended.state is RunState.FAILED
        assert ended.error is not None
        assert "took its work over" in ended.error.message


def let_time_pass(catalog: Catalog, id: str) -> None:
    """As if a run had not been heard of for a while, and its lease still lasted."""
    with catalog.write() as writer:
        found = writer.run(id)
        assert found is not None
        writer.put_run(replace(found, heartbeat=writer.now() - timedelta(seconds=11)))


KILLED = """
import os, signal, sys
from adapters.catalog import open_catalog
from tests.samples import version
with open_catalog(sys.argv[1]).write() as writer:
    for patch in range(200):
        writer.put_version(version(f"corp/web/1.0.{patch}"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_transaction_that_is_killed_leaves_nothing(url: str) -> None:
    with contextlib.closing(open_catalog(url)) as catalog:
        fill(catalog, "2.0.0")
        with processes(KILLED, url, count=1) as (victim,):
            assert victim.wait(30) == -signal.SIGKILL
        with catalog.read() as reader:
            assert [str(v.number) for v in reader.versions(WEB)] == ["2.0.0"]
        assert catalog.check().problems == ()
        fill(catalog, "1.0.0")


OPEN = """
import sys
from adapters.catalog import open_catalog
from pipeline.errors import GalleriaError
print("ready", flush=True)
sys.stdin.readline()
open_catalog(sys.argv[1])
print("opened", flush=True)
"""


def test_processes_that_make_the_catalog_at_once(url: str) -> None:
    with processes(OPEN, url, count=3) as opening:
        for process in opening:
            lines(process, "ready")
        for process in opening:
            go(process)
        for process in opening:
            assert lines(process, "opened") == []


LOADED = """
import sys
from adapters.catalog import open_catalog
assert "sqlalchemy" not in sys.modules
open_catalog(sys.argv[1])
print("alembic" in sys.modules, flush=True)
print("end", flush=True)
"""


def test_migrations_are_loaded_only_when_the_schema_is_behind(url: str) -> None:
    for expected in ("True", "False"):
        with processes(LOADED, url, count=1) as (process,):
            assert lines(process, "end") == [expected]


def test_migrations_make_the_tables_that_the_queries_use(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from adapters.catalog.tables import metadata

    open_catalog(url).close()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_schema_is_the_newest_migration() -> None:
    from alembic.script import ScriptDirectory

    from adapters.catalog import migrations
    from adapters.catalog.tables import SCHEMA

    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [SCHEMA]


def test_a_catalog_of_a_newer_galleria_is_refused(url: str) -> None:
    catalog = open_catalog(url)
    with catalog._transaction(write=True) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    catalog.close()
    with pytest.raises(EnvironmentMissing, match="has schema 9999, which this galleria does not"):
        open_catalog(url)


def test_the_triple_is_unique_in_the_database_too(url: str) -> None:
    with contextlib.closing(open_catalog(url)) as catalog:
        fill(catalog)
        twin = definition("corp/twin", identifier=Identifier("CONTOSO", "web", "WEB"))
        with pytest.raises(Conflict), catalog.write() as writer:
            writer.put_definition(twin)


# --- SQLite -------------------------------------------------------------------------------------


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqlCatalog]:
    with contextlib.closing(open_catalog(f"sqlite:///{tmp_path}/new/catalog.db")) as catalog:
        yield catalog


def test_commits_are_as_durable_as_sqlite_can(sqlite: SqlCatalog, tmp_path: Path) -> None:
    health = sqlite.check()
    assert health.journal == "journal_mode=truncate synchronous=3"
    assert health.engine.startswith("SQLite 3.")
    with sqlite._transaction(write=False) as connection:
        assert connection.scalar(sa.text("PRAGMA foreign_keys")) == 1
        assert connection.scalar(sa.text("PRAGMA busy_timeout")) == 90000
    assert not list(tmp_path.rglob("*-wal"))


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    catalog = open_catalog(f"sqlite:///{path}")
    fill(catalog, *(f"1.0.{patch}" for patch in range(50)))
    catalog.close()
    content = bytearray(path.read_bytes())
    page = content.rindex(b'"fingerprint"') // 4096 * 4096
    content[page : page + 100] = b"\xff" * 100
    path.write_bytes(content)
    with contextlib.closing(open_catalog(f"sqlite:///{path}")) as damaged:
        assert damaged.check().problems


def test_a_row_that_lost_its_parent_is_found(sqlite: SqlCatalog, tmp_path: Path) -> None:
    fill(sqlite, "1.0.0")
    with contextlib.closing(sqlite3.connect(tmp_path / "new" / "catalog.db")) as connection:
        connection.execute("DELETE FROM definitions")  # foreign keys are off by default
        connection.commit()
    assert sqlite.check().problems == ("row 1 of versions refers to a missing row of definitions",)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql://localhost/x", "URL is not understood"),
        ("/var/lib/catalog.db", "URL is not understood"),
        ("postgresql://postgres@/x?host=/nonexistent", "can't be used"),
    ],
)
def test_what_is_no_catalog(url: str, said: str) -> None:
    with pytest.raises(EnvironmentMissing, match=said):
        open_catalog(url)


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(EnvironmentMissing, match="PostgreSQL driver is not installed") as caught:
        open_catalog("postgresql://postgres@/x")
    assert "galleria[postgres]" in caught.value.hint


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_text("my notes " * 200)
    with pytest.raises(GalleriaError, match="not a database"):
        open_catalog(f"sqlite:///{path}")
    assert path.read_text() == "my notes " * 200
