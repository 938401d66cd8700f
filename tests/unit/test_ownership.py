"""A zone belongs to one catalog, and is where it was."""

import shutil
from pathlib import Path

import pytest

from adapters.catalog import open_catalog
from adapters.filesystem import durable
from adapters.process.sandbox import Sandbox
from adapters.zones import create_zone
from adapters.zones.ownership import (
    OWNER_FILE,
    adopt,
    check_there,
    file_system_of,
    identify,
    is_lost,
    moved_from,
    owner_of,
)
from pipeline.errors import Conflict, EnvironmentMissing, VerificationFailed


class Memory:
    """A catalog, as far as zones go."""

    def __init__(self, identity: str) -> None:
        self.identity = identity * 32
        self.seen: dict[str, str] = {}
        self.places: dict[str, str] = {}

    def zones_seen(self) -> dict[str, str]:
        return dict(self.seen)

    def zone_file_systems(self) -> dict[str, str]:
        return dict(self.places)

    def see_zone(self, directory: str, zone: str, file_system: str) -> None:
        self.seen[directory] = zone
        self.places[directory] = file_system


@pytest.fixture
def mine() -> Memory:
    return Memory("a")


def zone(path: Path, name: str = "eu") -> Path:
    create_zone(path, name=name, region=name, sandbox=Sandbox(), immutable=False)
    return path


def test_the_first_catalog_that_uses_a_zone_owns_it(mine: Memory, tmp_path: Path) -> None:
    eu = zone(tmp_path / "eu")
    for _ in range(2):
        identify(eu, mine, [eu])
        owner = owner_of(eu)
        assert owner is not None
        assert owner.catalog == mine.identity
        assert mine.seen == {str(eu): owner.zone}


def test_a_zone_of_another_catalog_is_refused_until_it_is_adopted(
    mine: Memory, tmp_path: Path
) -> None:
    eu, other = zone(tmp_path / "eu"), Memory("b")
    identify(eu, mine, [eu])
    with pytest.raises(Conflict, match="belongs to another catalog") as caught:
        identify(eu, other, [eu])
    assert f"init --adopt {eu}" in caught.value.hint
    assert other.seen == {}
    adopt(eu, other)
    identify(eu, other, [eu])
    assert other.seen == mine.seen  # the zone is the same one
    with pytest.raises(Conflict, match="another catalog"):
        identify(eu, mine, [eu])


def test_zones_whose_mounts_are_swapped_are_noticed(mine: Memory, tmp_path: Path) -> None:
    eu, us = zone(tmp_path / "eu"), zone(tmp_path / "us", "us")
    for path in (eu, us):
        identify(path, mine, [eu, us])
    eu.rename(tmp_path / "x")
    us.rename(eu)
    (tmp_path / "x").rename(us)
    for path in (eu, us):
        with pytest.raises(Conflict, match="not the one that was there before"):
            identify(path, mine, [eu, us])


def test_a_zone_may_be_moved(mine: Memory, tmp_path: Path) -> None:
    eu = zone(tmp_path / "eu")
    identify(eu, mine, [eu])
    moved = eu.rename(tmp_path / "moved")
    identify(moved, mine, [moved])
    assert mine.seen[str(moved)] == mine.seen[str(eu)]
    copied = tmp_path / "copied"
    shutil.copytree(moved, copied)
    with pytest.raises(Conflict, match="not the one"):  # two zones can't be the same one
        identify(copied, mine, [moved, copied])


def test_a_directory_that_is_not_mounted_does_not_become_a_second_zone(
    mine: Memory, tmp_path: Path
) -> None:
    eu = zone(tmp_path / "eu")
    check_there(tmp_path / "us", mine)  # a new one
    identify(eu, mine, [eu])
    check_there(eu, mine)
    eu.rename(tmp_path / "unmounted")
    eu.mkdir()
    mine.places[str(eu)] = "its own"  # the mount point lies on another one
    with pytest.raises(EnvironmentMissing, match="not mounted, or it is lost") as caught:
        check_there(eu, mine)
    assert f"init --adopt {eu}" in caught.value.hint
    zone(eu)  # what somebody made in its place all the same
    with pytest.raises(Conflict, match="not the one"):
        identify(eu, mine, [eu])
    adopt(eu, mine)
    identify(eu, mine, [eu])


def test_a_zone_that_nobody_may_write_to_is_as_it_always_was(
    mine: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eu = zone(tmp_path / "eu")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(durable, "write_file", refuse)
    identify(eu, mine, [eu])
    assert owner_of(eu) is None
    assert mine.seen == {}


@pytest.mark.parametrize("content", ["", "{}", '{"format_version": 1, "zone_id": ["a", "list"]}'])
def test_a_damaged_owner_is_told_and_can_be_replaced(
    mine: Memory, tmp_path: Path, content: str
) -> None:
    eu = zone(tmp_path / "eu")
    (eu / OWNER_FILE).write_text(content)
    with pytest.raises(VerificationFailed, match=OWNER_FILE):
        identify(eu, mine, [eu])
    adopt(eu, mine)
    identify(eu, mine, [eu])


def test_a_catalog_in_a_database_remembers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/catalog.db"
    first = open_catalog(url)
    first.see_zone("/srv/eu", "1" * 32)
    first.see_zone("/srv/eu", "2" * 32)
    first.see_zone("/srv/us", "2" * 32)
    again = open_catalog(url)
    assert again.identity == first.identity
    assert again.zones_seen() == {"/srv/eu": "2" * 32, "/srv/us": "2" * 32}
    other = open_catalog(f"sqlite:///{tmp_path}/other.db")
    assert len(other.identity) == 32
    assert other.identity != first.identity
    for catalog in (first, again, other):
        catalog.close()


# --- lost and moved -------------------------------------------------------------------------------


def test_an_empty_directory_is_a_lost_zone_where_its_file_system_is_mounted(
    mine: Memory, tmp_path: Path
) -> None:
    eu = zone(tmp_path / "eu")
    assert not is_lost(eu, mine)  # nobody knows it
    identify(eu, mine, [eu])
    assert mine.places == {str(eu): file_system_of(eu)}
    assert not is_lost(eu, mine)
    shutil.rmtree(eu)
    assert not is_lost(eu, mine)  # not even a directory: perhaps it is not mounted
    eu.mkdir()
    assert is_lost(eu, mine)
    with pytest.raises(EnvironmentMissing, match="is lost") as caught:
        check_there(eu, mine)
    assert "galleria repair" in caught.value.hint
    (eu / "lost+found").mkdir()
    assert is_lost(eu, mine)
    (eu / "other").mkdir()
    assert not is_lost(eu, mine)


def test_the_mount_point_of_a_zone_is_not_a_lost_zone(mine: Memory, tmp_path: Path) -> None:
    eu = zone(tmp_path / "eu")
    identify(eu, mine, [eu])
    mine.places[str(eu)] = "another"
    shutil.rmtree(eu)
    eu.mkdir()
    assert not is_lost(eu, mine)
    with pytest.raises(EnvironmentMissing, match="not mounted, or it is lost"):
        check_there(eu, mine)


def test_a_zone_that_was_moved_tells_where_it_was(mine: Memory, tmp_path: Path) -> None:
    eu, new = zone(tmp_path / "eu"), tmp_path / "new"
    assert moved_from(eu, mine, [eu]) == []
    identify(eu, mine, [eu])
    assert moved_from(eu, mine, [eu]) == []
    eu.rename(new)
    assert moved_from(new, mine, [new]) == [eu]
    assert moved_from(new, mine, [eu, new]) == []  # both are configured: one is not where it was
    assert moved_from(new, Memory("b"), [new]) == []
    identify(new, mine, [new])
    assert moved_from(new, mine, [new]) == []
