"""`galleria catalog rebuild`: a lost catalog made again from what the zones say of it."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.zones import layout
from tests.home import DEFINE, Session

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MIB = 1 << 20
GUID = "11111111-2222-3333-4444-555555555555"
# What an operator may ask of a catalog: each answer is to be the same, to the byte.
QUESTIONS = (
    "gallery list",
    "gallery show corp",
    "gallery show shared",
    "definition list corp",
    "definition show corp/web",
    "list corp/web",
    "list corp/web --deleted",
    "show corp/web/1.0.0",
    "show corp/web/1.0.2",
    "show corp/web@prod",
    "snapshot list",
    "snapshot show snap",
    "disk list",
    "disk show d",
    "deployed list",
    "scale-set list",
    "scale-set show set",
    "principal list",
    "role list",
    "tenant list",
    "subscription list",
    "group list",
    "share show shared",
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Session]:
    for seed in range(4):
        (tmp_path / f"{seed}.raw").write_bytes(bytes([seed + 1]) * MIB + bytes(MIB))
    with Session.begun(tmp_path, GALLERIA_IMMUTABLE="false") as made:
        made.run("init", "--region", "eu=eu", "--region", "us=us1,us2")
        yield made


def publish(home: Session, number: int, *options: str) -> None:
    disk = f"{number}.raw"
    home.run("publish", f"corp/web/1.0.{number}", "--os-disk", disk, *options)


def furnish(home: Session) -> None:
    """One of everything, changed after it was made."""
    home.run("gallery", "create", "corp", "--soft-delete", "true")
    home.run("gallery", "create", "shared", "--permissions", "Groups", "--tags", "a=b")
    home.run(*DEFINE)
    home.run("tenant", "create", GUID)
    home.run("subscription", "create", GUID, "--tenant", GUID, "--display-name", "lab")
    home.run("group", "create", "g1")
    home.run("share", "add", "shared", "--subscription-ids", GUID)
    home.run("principal", "create", "eve")
    home.run("role", "assign", "--assignee", "eve", "--role", "Reader", "--scope", "corp")
    publish(home, 0, "--target-region", "eu", "--target-region", "us=2", "--tags", "a=b")
    publish(home, 1)
    publish(home, 2)
    home.run("version", "update", "corp/web/1.0.0", "--tags", "owner=sre")
    home.run("version", "update", "corp/web/1.0.0", "--end-of-life-date", "2030-01-01")
    home.run("promote", "corp/web/1.0.0", "--channel", "prod")
    home.run("version", "delete", "corp/web/1.0.1")  # into the bin
    home.run("snapshot", "create", "3.raw", "-n", "snap")
    home.run("disk", "create", "-n", "d", "--image-version", "corp/web/1.0.0")
    home.run("deploy", "corp/web/1.0.2", "--region", "eu", "--name", "vm", "--out", "vms")
    create = ("scale-set", "create", "set", "--image", "corp/web/1.0.0", "--region", "eu")
    home.run(*create, "--out", "vms", "--count", "2")


def answers(home: Session) -> dict[str, str]:
    found = {}
    for question in QUESTIONS:
        found[question] = home.run(*question.split(), "--json").stdout
    return found


def catalog(home: Session) -> Path:
    return home.path / "state/galleria/catalog.db"


def lose(home: Session) -> None:
    for path in catalog(home).parent.glob("catalog.db*"):
        path.unlink()


def rebuild(home: Session, status: int = 0) -> dict[str, Any]:
    return home.json("catalog", "rebuild", status=status)


def bases(home: Session) -> set[str]:
    return {path.name for path in home.path.glob("*/bases/*")}


def test_everything_is_there_again_to_the_byte(home: Session) -> None:
    furnish(home)
    before, kept = answers(home), bases(home)
    head = home.json("audit", "verify")["head"]
    lose(home)
    made = rebuild(home)
    assert (made["problems"], made["recovered"]) == ([], [])
    assert {item["kind"]: item["count"] for item in made["counts"]} == {
        **{"principals": 1, "roles": 1, "galleries": 2, "definitions": 1, "channels": 1},
        **{"versions": 3, "snapshots": 1, "disks": 1, "deployments": 3, "scale sets": 1},
    }
    assert made["auditHead"] == head
    after = answers(home)
    for question in QUESTIONS:
        assert after[question] == before[question], question
    # the record goes on where it was, and what was given to verify it then still does
    home.run("audit", "verify", "--head", head)
    assert home.json("catalog", "check")["whole"] is True
    # and it is a catalog like any other: what VMs and disks need stays, all can be changed
    home.run("version", "delete", "corp/web/1.0.2")
    home.run("gc", "--grace", "0s")
    assert bases(home) == kept
    home.run("verify", "corp/web/1.0.0")
    (disk,) = home.json("deployed", "list")["deployments"][2]["disks"]
    argv = ["qemu-img", "compare", "-f", disk["format"], "-F", "raw", disk["path"], "2.raw"]
    assert subprocess.run(argv, cwd=home.path, capture_output=True).returncode == 0
    publish(home, 3)


def test_it_can_be_lost_again_and_again(home: Session) -> None:
    furnish(home)
    before = answers(home)
    for _ in range(2):
        lose(home)
        rebuild(home)
        home.run("gallery", "create", "more")
        home.run("gallery", "delete", "more")
    assert answers(home) == before


def test_a_catalog_with_content_is_left_alone(home: Session) -> None:
    furnish(home)
    before = catalog(home).read_bytes()
    error = rebuild(home, status=5)["error"]
    assert "has content: 2 galleries, 2 resources, 3 deployed VMs" in error["message"]
    assert catalog(home).read_bytes() == before


def test_an_empty_catalog_in_its_place_is_filled(home: Session) -> None:
    """As `init` makes one when the old one is gone; the zones are the lost one's."""
    furnish(home)
    before = answers(home)
    lose(home)
    home.run("init", "--adopt", "eu", "--adopt", "us1", "--adopt", "us2", "--force", *REGIONS)
    rebuild(home)
    assert answers(home) == before
    home.run("verify", "corp/web/1.0.0")
    publish(home, 3)


REGIONS = ("--region", "eu=eu", "--region", "us=us1,us2")


def test_a_zone_that_lags_is_brought_up_later(home: Session) -> None:
    furnish(home)
    aside = home.path / "aside"
    (home.path / "us1").rename(aside)  # its file system is not mounted
    home.run("version", "update", "corp/web/1.0.0", "--tags", "owner=dev")
    home.run("promote", "corp/web/1.0.2", "--channel", "test")
    home.run("principal", "delete", "eve")
    aside.rename(home.path / "us1")
    before = answers(home)
    kept = shutil.copytree(catalog(home).parent, home.path / "kept")
    lose(home)
    rebuild(home)  # by the newest zone, though another one says otherwise
    assert answers(home) == before
    lose(home)
    shutil.copytree(kept, catalog(home).parent, dirs_exist_ok=True)
    home.run("gallery", "update", "shared", "--description", "x")
    for name in ("eu", "us2"):  # the one that lagged is all that is left
        (home.path / name).rename(home.path / f"{name}-lost")
    before = {q: home.run(*q.split(), "--json").stdout for q in ("principal list", "gallery list")}
    lose(home)
    made = rebuild(home)
    assert len([text for text in made["problems"] if "galleria-zone.json" in text]) == 2
    for question, answer in before.items():
        assert home.run(*question.split(), "--json").stdout == answer


def test_a_damaged_record_is_taken_from_another_zone(home: Session) -> None:
    furnish(home)
    before = answers(home)
    for index, path in enumerate(sorted((home.path / "eu/catalog").glob("*.json"))):
        if path.name != "head.json":
            path.chmod(0o600)
            path.write_bytes(b"rot" if index % 2 else path.read_bytes().replace(b"a", b"b", 1))
    lose(home)
    made = rebuild(home)
    assert answers(home) == before
    assert all("can't be used" in text for text in made["problems"])
    assert made["problems"]


# Who worked on a version, as it was written before there were runs.
PROCESS = {"host": "b", "bootId": "b", "pidNamespace": 1, "pid": 2, "startTicks": 3}


def records(home: Session) -> list[Path]:
    return [path for zone in ("eu", "us1", "us2") for path in (home.path / zone).glob("catalog/*")]


def test_zones_of_an_earlier_galleria_tell_what_they_can(home: Session) -> None:
    """Versions and what they are in, snapshots and disks; not what was said of them later."""
    furnish(home)
    before = json.loads(answers(home)["show corp/web/1.0.0"])
    for zone in ("eu", "us1", "us2"):
        shutil.rmtree(home.path / zone / "catalog")
        for path in (home.path / zone).glob("versions/*/version.json"):
            record = json.loads(path.read_text())
            del record["checksum"]
            record["document"].get("version", {})["owner"] = PROCESS
            path.unlink()
            path.write_bytes(layout.encode(record))
    lose(home)
    made = rebuild(home)
    assert made["auditHead"] is None
    assert sorted(made["recovered"]) == sorted(
        ["corp", "corp/web", "corp/web/1.0.0", "corp/web/1.0.1", "corp/web/1.0.2", "d", "snap"]
    )
    after = home.json("show", "corp/web/1.0.0")
    for name in ("uid", "fingerprint", "disks", "provisioningState", "targetRegions"):
        assert after["version"][name] == before["version"][name]
    assert after["generalizeReport"] == before["generalizeReport"]
    assert after["version"]["tags"] == {"a": "b"}  # as it was published
    home.run("verify", "corp/web/1.0.0")
    home.run("disk", "show", "d")
    home.run("audit", "verify")
    publish(home, 3)


def test_what_a_zone_lacks_is_said(home: Session) -> None:
    furnish(home)
    for path in (home.path / "us1").glob("versions/corp+web+1.0.0*"):
        shutil.rmtree(path)
    for path in (home.path / "us2").glob("versions/corp+web+1.0.0*"):
        shutil.rmtree(path)
    lose(home)
    made = rebuild(home)
    assert made["problems"] == ["corp/web/1.0.0: no zone of us that is there holds it"]


def test_records_are_private_and_bounded(home: Session) -> None:
    furnish(home)
    for path in records(home):
        assert path.stat().st_mode & 0o077 == 0
    count = len(records(home))
    for index in range(5):
        home.run("version", "update", "corp/web/1.0.0", "--tags", f"n={index}")
    assert len(records(home)) == count  # none is left beside the new one


def test_a_zone_that_can_t_be_written_only_lags(home: Session) -> None:
    furnish(home)
    place = home.path / "us1/catalog"
    shutil.rmtree(place)
    place.write_text("in the way")
    home.run("version", "update", "corp/web/1.0.0", "--tags", "owner=dev")
    place.unlink()
    home.run("version", "update", "corp/web/1.0.0", "--tags", "owner=ops")
    assert len(list(place.iterdir())) == len(list((home.path / "eu/catalog").iterdir()))


def test_zones_of_two_catalogs_are_told_apart(home: Session) -> None:
    furnish(home)
    other = ("--catalog", f"sqlite:///{home.path}/other.db", "--config", "o.toml")
    home.run("init", "--adopt", "us2", "--region", "us=us2", *other)
    lose(home)
    error = rebuild(home, status=5)["error"]
    assert "the zones belong to different catalogs" in error["message"]


def test_where_no_zone_is_nothing_is_made(home: Session) -> None:
    furnish(home)
    for name in ("eu", "us1", "us2"):
        (home.path / name).rename(home.path / f"{name}-lost")
    lose(home)
    assert "no zone tells of a catalog" in rebuild(home, status=3)["error"]["message"]
    assert not catalog(home).exists()


def test_a_principal_can_t(home: Session) -> None:
    lose(home)
    error = home.json("--as", "eve", "catalog", "rebuild", status=6)["error"]
    assert "whether eve may rebuild it" in error["message"]


def test_a_link_in_place_of_the_records_is_not_followed(home: Session) -> None:
    furnish(home)
    theirs = home.path / "theirs"
    (home.path / "us1/catalog").rename(theirs)
    before = sorted(theirs.iterdir())
    (home.path / "us1/catalog").symlink_to(theirs)
    home.run("gallery", "create", "more")
    assert sorted(theirs.iterdir()) == before
