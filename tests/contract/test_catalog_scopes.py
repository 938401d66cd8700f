"""The contract of catalogs, continued: pages of versions, the bin, channels, scopes, counts; and a
catalog of 10,000 versions. The first part is `test_catalog`."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adapters.catalog import open_catalog
from adapters.catalog.sql import SqlCatalog
from pipeline.model import Channel, Identifier, ResourceGroup, SoftDeletion, Subscription, Tenant
from pipeline.model.names import (
    DefinitionName,
    GalleryName,
    VersionName,
    VersionNumber,
    parse_definition,
    parse_gallery,
    parse_number,
    parse_version,
)
from pipeline.ports.catalog import Catalog, Counts
from tests.contract.conftest import POSTGRES, new_database
from tests.contract.test_catalog import fill
from tests.samples import NOW, definition, gallery, services, version

CORP, WEB = parse_gallery("corp"), parse_definition("corp/web")
TEAM = "11111111-2222-3333-4444-555555555555"
DELETION = SoftDeletion(NOW, NOW, NOW)
LATER = NOW + timedelta(days=1)
MANY = 10_000


def numbers(catalog: Catalog, **options: Any) -> list[str]:
    with catalog.read() as reader:
        return [str(item.number) for item in reader.versions(WEB, **options)]


def test_versions_from_a_number_on_either_way(catalog: Catalog) -> None:
    listed = [f"{a}.{b}.{c}" for a in (1, 2) for b in (0, 10) for c in (0, 2, 11)]
    fill(catalog, *listed)
    middle = parse_number("1.10.2")
    below = ["1.10.0", "1.0.11", "1.0.2", "1.0.0"]
    above = ["1.10.11", "2.0.0", "2.0.2", "2.0.11", "2.10.0", "2.10.2", "2.10.11"]
    assert numbers(catalog, start=middle) == below
    assert numbers(catalog, start=middle, ascending=True) == above
    assert numbers(catalog, ascending=True) == listed
    between = parse_number("1.5.5")  # need not be there
    assert numbers(catalog, start=between) == below[1:]
    assert numbers(catalog, start=between, ascending=True) == ["1.10.0", "1.10.2", *above]


def test_soft_deleted_versions_are_apart(catalog: Catalog) -> None:
    fill(catalog, "1.0.0", "1.0.1", "1.0.2")
    gone = version("corp/web/1.0.1", soft_deleted=DELETION)
    with catalog.write() as writer:
        writer.put_version(gone)
    assert numbers(catalog) == ["1.0.2", "1.0.0"]
    assert numbers(catalog, deleted=True) == ["1.0.1"]
    assert numbers(catalog, deleted=None) == ["1.0.2", "1.0.1", "1.0.0"]
    with catalog.read() as reader:
        assert reader.version(gone.name) == gone
        assert [reader.count_versions(WEB, deleted=flag) for flag in (None, True, False)] == [
            3,
            1,
            2,
        ]
        assert reader.count_versions(parse_definition("corp/none")) == 0
    with catalog.write() as writer:
        writer.put_version(replace(gone, soft_deleted=None))
    assert numbers(catalog, deleted=True) == []


def test_channels(catalog: Catalog) -> None:
    fill(catalog, "1.0.0")
    prod = Channel(WEB, "prod", VersionNumber(1, 0, 0), NOW)
    with catalog.write() as writer:
        for channel in (
            prod,
            replace(prod, name="beta"),
            replace(prod, version=parse_number("2.0.0")),
        ):
            writer.put_channel(channel)
    with catalog.read() as reader:
        assert [(item.name, str(item.version)) for item in reader.channels(WEB)] == [
            ("beta", "1.0.0"),
            ("prod", "2.0.0"),
        ]
        assert reader.channels(parse_definition("corp/other")) == []
    with catalog.write() as writer:
        writer.delete_channel(prod)
        writer.delete_channel(prod)
        assert [item.name for item in writer.channels(WEB)] == ["beta"]
        writer.delete_version(parse_version("corp/web/1.0.0"))
        writer.delete_definition(WEB)  # with its channels
        writer.put_definition(definition())
        assert writer.channels(WEB) == []


def test_scopes(catalog: Catalog) -> None:
    team = Subscription(TEAM, "Team", NOW)
    group = ResourceGroup(TEAM, "Web", "eu", NOW, {"a": "b"})
    with catalog.write() as writer:
        writer.put_subscription(replace(team, display_name="old"))
        writer.put_subscription(team)
        writer.put_resource_group(group)
        writer.put_resource_group(replace(group, name="App"))
    with catalog.read() as reader:
        assert reader.subscriptions() == [team]
        assert [item.name for item in reader.resource_groups(TEAM.upper())] == ["App", "Web"]
        assert reader.resource_groups(TEAM)[1] == group
        assert reader.resource_groups(CORP.subscription) == []
    with catalog.write() as writer:
        writer.delete_resource_group(replace(group, name="APP"))
        writer.delete_subscription(team)
    with catalog.read() as reader:
        assert reader.subscriptions() == []
        assert reader.resource_groups(TEAM) == [group]


def test_tenants(catalog: Catalog) -> None:
    home, team = Tenant(TEAM, "Fabrikam", NOW), Tenant(TEAM.replace("1", "9"), "Team", NOW)
    with catalog.write() as writer:
        writer.put_tenant(team)
        writer.put_tenant(replace(home, display_name="old"))
        writer.put_tenant(home)
    with catalog.read() as reader:
        assert reader.tenants() == [home, team]
    with catalog.write() as writer:
        writer.delete_tenant(team)
        writer.delete_tenant(team)
        assert writer.tenants() == [home]


def test_counts_are_of_a_subscription_in_a_region(catalog: Catalog) -> None:
    fill(catalog, "1.0.0", "1.0.1")
    elsewhere = GalleryName("corp", TEAM)
    with catalog.write() as writer:
        writer.put_gallery(replace(gallery(), name=elsewhere, location="UK South"))
        other = replace(definition(), name=DefinitionName(elsewhere, "web"), location="us")
        writer.put_definition(other)
        name = VersionName(other.name, VersionNumber(1, 0, 0))
        writer.put_version(replace(version(), name=name, uid="u", location="UK South"))
    with catalog.read() as reader:
        assert reader.counts(CORP.subscription, "EU") == Counts(1, 1, 2)
        assert reader.counts(CORP.subscription, "us") == Counts(0, 0, 0)
        assert reader.counts(TEAM.upper(), "uksouth") == Counts(1, 0, 1)
        assert [item.name for item in reader.galleries(TEAM)] == [elsewhere]
        assert len(reader.galleries()) == 2


def test_a_definition_is_found_by_its_identifier(catalog: Catalog) -> None:
    fill(catalog)
    with catalog.read() as reader:
        assert (
            reader.definition_identified(CORP, Identifier("CONTOSO", "Web", "WEB")) == definition()
        )
        assert reader.definition_identified(CORP, Identifier("Contoso", "web", "x")) is None
        other = parse_gallery("other")
        assert reader.definition_identified(other, definition().identifier) is None


def test_columns_are_filled_when_an_old_catalog_is_brought_up_to_date(tmp_path: Path) -> None:
    """What a catalog of the second schema holds is counted in its regions, and is not deleted."""
    url = f"sqlite:///{tmp_path}/catalog.db"
    with contextlib.closing(open_catalog(url)) as made:
        fill(made, "1.0.0")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in ("galleries", "definitions", "versions"):
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN region_key"))
        connection.execute(sa.text("ALTER TABLE versions DROP COLUMN soft_deleted"))
        for table in _added_since_the_second_schema(connection):
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
        _put_back(connection, "0002")
    engine.dispose()
    with contextlib.closing(open_catalog(url)) as made, made.read() as reader:
        assert reader.counts(CORP.subscription, "eu") == Counts(1, 1, 1)
        assert [item.number for item in reader.versions(WEB)] == [version().number]


def _added_since_the_second_schema(connection: sa.Connection) -> list[str]:
    kept = {"galleries", "definitions", "versions", "version_regions", "version_disks"}
    kept |= {"version_reports", "deployments", "alembic_version"}
    kept |= {"principals", "role_assignments", "gallery_shares", "audit", "audit_head"}
    return [name for name in sa.inspect(connection).get_table_names() if name not in kept]


def test_tenants_of_a_catalog_of_the_fifth_schema_are_there(url: str) -> None:
    """Its subscriptions say which there are; the default one needs no making."""
    team = Subscription(TEAM, "Team", NOW, tenant=TEAM.replace("1", "9"))
    with contextlib.closing(open_catalog(url)) as made:
        fill(made, "1.0.0")
        with made.write() as writer:
            writer.put_subscription(team)
            writer.put_subscription(replace(team, id=TEAM.replace("1", "8"), created=LATER))
            writer.put_subscription(Subscription(CORP.subscription, "default", NOW))
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE tenants"))
        _put_back(connection, "0005")
    engine.dispose()
    with contextlib.closing(open_catalog(url)) as made, made.read() as reader:
        assert reader.tenants() == [Tenant(team.tenant, team.tenant, NOW)]
        assert reader.version(version().name) == version()
        assert len(reader.subscriptions()) == 3


def test_a_catalog_of_the_sixth_schema_loses_its_steps_alone(url: str) -> None:
    with contextlib.closing(open_catalog(url)) as made:
        fill(made, "1.0.0")
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        _put_back(connection, "0006")
        connection.execute(sa.text("INSERT INTO steps VALUES ('k', '{}')"))
    with contextlib.closing(open_catalog(url)) as made, made.read() as reader:
        assert reader.version(version().name) == version()
        assert made.check().problems == ()
    with engine.connect() as connection:
        assert not sa.inspect(connection).has_table("steps")
    engine.dispose()


def test_what_processes_owned_of_a_catalog_of_the_tenth_schema_is_free(url: str) -> None:
    process = {"host": "h", "bootId": "b", "pidNamespace": 1, "pid": 2, "startTicks": 3}
    with contextlib.closing(open_catalog(url)) as made:
        fill(made, "1.0.0")
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    tables = sa.MetaData()
    with engine.begin() as connection:
        tables.reflect(connection)
        versions = tables.tables["versions"]
        owned = {
            **connection.execute(sa.select(versions.c.document)).scalar_one(),
            "owner": process,
        }
        connection.execute(sa.update(versions).values(document=owned))
        _lose_cut(connection)
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0010'"))
    engine.dispose()
    with contextlib.closing(open_catalog(url)) as made, made.read() as reader:
        assert reader.version(version().name) == version()


def _put_back(connection: sa.Connection, schema: str) -> None:
    """Let it be of a schema before the seventh, which has a table that is no more, and lacks those
    that came later."""
    connection.execute(sa.text("CREATE TABLE steps (key VARCHAR(128) PRIMARY KEY, output JSON)"))
    for table in ("identity", "zones", "runs", "scrubs"):
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
    _lose_cut(connection)
    connection.execute(
        sa.text("UPDATE alembic_version SET version_num = :schema"), {"schema": schema}
    )


def _lose_cut(connection: sa.Connection) -> None:
    """Let it be of a schema before the twelfth, whose audit record can't be cut, and that knows no
    credentials."""
    for table in ("tokens", "credentials"):
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("DROP TRIGGER IF EXISTS audit_cut ON audit"))
        connection.execute(sa.text("DROP FUNCTION IF EXISTS audit_is_cut_at_its_base"))
    connection.execute(sa.text("DROP TABLE IF EXISTS audit_base"))


# --- 10,000 versions ----------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", POSTGRES], scope="module")
def crowded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SqlCatalog]:
    """A definition of 10,000 versions: one is put, the others are copies of its rows."""
    directory = tmp_path_factory.mktemp("crowded")
    url = new_database(request.param, directory, request.getfixturevalue)
    catalog = open_catalog(url)
    fill(catalog, "0.0.0")
    driver = url.replace("postgresql:", "postgresql+psycopg:")
    engine = sa.create_engine(driver)
    with engine.begin() as connection:
        _multiply(connection)
    engine.dispose()
    yield catalog
    catalog.close()


def _multiply(connection: sa.Connection) -> None:
    tables = sa.MetaData()
    tables.reflect(connection)
    rows = {
        name: [dict(row._mapping) for row in connection.execute(sa.select(tables.tables[name]))]
        for name in ("versions", "version_regions", "version_disks")
    }
    (first,) = rows["versions"]
    identity = f"{version('corp/web/0.0.0').name.definition.arm_id}/versions"
    copies = [
        {
            **first,
            "id": first["id"] + index,
            "minor": index // 100,
            "patch": index % 100,
            "uid": f"{index:032x}",
            "document": {
                **first["document"],
                "uid": f"{index:032x}",
                "name": f"{identity}/0.{index // 100}.{index % 100}",
            },
        }
        for index in range(1, MANY)
    ]
    connection.execute(sa.insert(tables.tables["versions"]), copies)
    for name in ("version_regions", "version_disks"):
        parts = [
            {**row, "version_id": first["id"] + index}
            for index in range(1, MANY)
            for row in rows[name]
        ]
        connection.execute(sa.insert(tables.tables[name]), parts)


@pytest.mark.timeout(180)
def test_ten_thousand_versions_cost_a_tenth_of_a_second(crowded: SqlCatalog) -> None:
    """CPU of this process, all of: a page of the list with its total, latest, show, parents, and
    the number of the next version."""
    service = services(catalog=crowded).gallery
    middle = parse_version("corp/web/0.50.0")
    operations: dict[str, Callable[[], Any]] = {
        "list": lambda: service.list_versions(WEB, limit=100),
        "next page": lambda: service.list_versions(WEB, limit=100, before=middle.number),
        "count": lambda: service.count_versions(WEB),
        "latest": lambda: service.resolve("corp/web", "eu"),
        "show": lambda: service.resolve("corp/web/0.50.0"),
        "parents": lambda: service.parents_of(middle),
    }
    assert len(service.list_versions(WEB, limit=1)) == 1  # connected, compiled
    found: dict[str, Any] = {}
    for name, operation in operations.items():
        took = []
        for _ in range(3):  # one of them may have to collect the garbage of a whole test run
            started = time.process_time()
            found[name] = operation()
            took.append(time.process_time() - started)
        assert min(took) < 0.1, f"{name} took {min(took) * 1000:.0f} ms"
    assert found["count"] == MANY
    assert str(found["latest"].number) == "0.99.99"
    assert str(found["next page"][0].number) == "0.49.99"
