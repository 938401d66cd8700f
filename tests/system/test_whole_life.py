"""One session that walks the whole life of a gallery, by its commands: defined, published, found,
moved, broken and mended, shared three ways, deployed, scaled, deleted, brought back, and gone.

Its chapters depend on each other, in this order; what each can do beyond that is tested apart
(test_gallery_life, test_sharing, test_deploying, test_publish). The disks that come out are judged
by qemu-img, what lies in the zones by the eye.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.storing import pattern
from tests.home import Session
from tests.system.conftest import Mount

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MIB = 1 << 20
PARTNER = "22222222-2222-2222-2222-222222222222"
FABRIKAM = "33333333-3333-3333-3333-333333333333"
CONFLICT, NOT_FOUND, INVALID, PARTIAL = 5, 4, 2, 7
SPECIALIZED = ("--os-type", "Linux", "--os-state", "Specialized", "--hyper-v-generation", "V1")


class Life(Session):
    """The commands of the session, and what is looked at between them."""

    def define(self, name: str, sku: str, status: int = 0) -> dict[str, Any]:
        terms = ("--publisher", "Contoso", "--offer", "web", "--sku", sku)
        return self.json("definition", "create", name, *SPECIALIZED, *terms, status=status)

    def publish(self, name: str, disk: str, *options: str, status: int = 0) -> dict[str, Any]:
        disks = ("--os-disk", disk, "--data-disk", "3=data.raw")
        return self.json("publish", name, *disks, *options, status=status)

    def refused(self, *args: str, status: int) -> str:
        error = self.json(*args, status=status)["error"]
        return f"{error['code']}: {error['message']}"

    def latest(self, *options: str) -> str:
        name: str = self.json("show", "corp/web", *options)["version"]["name"]
        return name.rpartition("/")[2]

    def states(self, name: str) -> dict[str, str]:
        regions = self.json("show", name)["version"]["regions"]
        return {item["region"]: item["state"] for item in regions}

    def stored(self, region: str) -> tuple[int, int]:
        """How many replicas and bases the region's zone holds."""
        zone = self.path / region
        return len(list(zone.glob("versions/*/replica-*"))), len(list((zone / "bases").iterdir()))

    def same(self, disk: dict[str, Any], other: str) -> None:
        argv = ["qemu-img", "compare", "-f", disk["format"], "-F", "raw", disk["path"], other]
        subprocess.run(argv, check=True, capture_output=True)


@pytest.fixture
def life(tmp_path: Path, mount: Mount, require: Callable[..., None]) -> Iterator[Life]:
    """Three regions, one of them on a small file system of its own, and three disks."""
    require("qemu-img", "bwrap")
    first = pattern(1, 4 * MIB)
    (tmp_path / "one.raw").write_bytes(first + bytes(4 * MIB))
    (tmp_path / "two.raw").write_bytes(first[: 3 * MIB] + pattern(2, MIB) + bytes(4 * MIB))
    (tmp_path / "data.raw").write_bytes(pattern(3, MIB))
    (tmp_path / "asia").symlink_to(mount("ext4", size_mib=32))
    with Life.begun(tmp_path) as made:
        made.run("init", *(f"--region={name}={tmp_path / name}" for name in ("eu", "us", "asia")))
        yield made


def test_the_whole_life_of_a_gallery(life: Life) -> None:
    definitions(life)
    versions_and_latest(life)
    regions(life)
    a_region_fails_and_is_retried(life)
    a_shallow_version(life)
    sharing(life)
    deploying(life)
    a_scale_set(life)
    the_bin(life)
    the_end(life)


def definitions(life: Life) -> None:
    """Two share publisher and offer; none shares all three."""
    life.run("gallery", "create", "corp", "--soft-delete", "true")
    life.define("corp/web", "front")
    life.define("corp/db", "back")
    assert life.define("corp/twin", "front", status=CONFLICT)["error"]["code"] == "Conflict"
    assert len(life.json("definition", "list", "corp")["definitions"]) == 2


def versions_and_latest(life: Life) -> None:
    """The highest number by its parts, but for what is excluded, everywhere or in one region."""
    life.publish("corp/web/1.0.9", "one.raw", "--target-regions", "eu=2 us")
    life.publish("corp/web/1.0.10", "two.raw", "--target-regions", "eu=2 us")
    assert life.latest() == "1.0.10"
    update = ("version", "update", "corp/web/1.0.10")
    life.run(*update, "--exclude-from-latest-in", "us")
    assert (life.latest("--region", "eu"), life.latest("--region", "us")) == ("1.0.10", "1.0.9")
    life.run(*update, "--include-in-latest-in", "us", "--exclude-from-latest", "true")
    assert life.latest() == "1.0.9"
    soon = datetime.now(UTC) + timedelta(seconds=5)  # when it is past, it is not taken
    end = ("--end-of-life-date", soon.isoformat())
    life.run(*update, "--exclude-from-latest", "false", *end)
    while datetime.now(UTC) < soon:
        time.sleep(0.1)
    shown = life.json("show", "corp/web")
    assert shown["version"]["name"].endswith("/1.0.10")  # end of life never changes it
    assert "end of life" in " ".join(shown["cautions"])


def regions(life: Life) -> None:
    """Replicas come and go; a region goes only by an explicit act."""
    update = ("version", "update", "corp/web/1.0.10")
    assert life.stored("eu")[0] == 4
    life.run(*update, "--add-region", "eu=4")
    assert life.stored("eu")[0] == 6
    life.run(*update, "--add-region", "eu=1", "--remove-region", "us")
    assert (life.stored("eu")[0], life.stored("us")[0]) == (3, 1)
    assert "OperationNotAllowed" in life.refused(
        "version", "update", "corp/web/1.0.9", "--target-regions", "eu=2", status=CONFLICT
    )


def a_region_fails_and_is_retried(life: Life) -> None:
    """A full disk costs one region; it is made up for without the source."""
    ballast = life.path / "asia" / "ballast"
    free = os.statvfs(life.path / "asia")
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, (free.f_bavail - 64) * free.f_frsize)
    three = life.path / "three.raw"
    three.write_bytes(Path("two.raw").read_bytes()[::-1])
    targets = ("--target-regions", "eu us asia", "--no-preflight")
    life.publish("corp/web/1.1.0", "three.raw", *targets, status=PARTIAL)
    assert life.states("corp/web/1.1.0") == {"eu": "Completed", "us": "Completed", "asia": "Failed"}
    assert (life.latest("--region", "eu"), life.latest("--region", "us")) == ("1.1.0", "1.1.0")
    ballast.unlink()
    three.unlink()
    life.run("replicate", "corp/web/1.1.0", "--retry")
    assert set(life.states("corp/web/1.1.0").values()) == {"Completed"}
    assert life.json("verify", "corp/web/1.1.0")["sound"]


def a_shallow_version(life: Life) -> None:
    """Ready at once and without a copy, as long as its source stays as it was."""
    lasting = life.path / "lasting.raw"
    lasting.write_bytes(Path("one.raw").read_bytes())
    before = life.stored("eu")[1]
    life.publish("corp/db/1.0.0", "lasting.raw", "--replication-mode", "Shallow")
    assert life.stored("eu")[1] == before
    place = ("--region", "eu", "--out", "vms", "--name")
    made = life.json("deploy", "corp/db/1.0.0", *place, "db1")["deployment"]
    life.same(made["disks"][0], "one.raw")
    life.run("deployed", "release", "db1")
    with lasting.open("r+b") as file:
        file.write(b"changed")
    assert "SourceChanged" in life.refused("deploy", "corp/db", *place, "db2", status=CONFLICT)
    life.run("version", "delete", "corp/db/1.0.0")
    life.run("version", "purge", "corp/db/1.0.0")


def sharing(life: Life) -> None:
    """With a role, with a partner's subscription, with everyone."""
    place = ("--region", "eu", "--out", "vms", "--name")
    life.run("principal", "create", "alice")
    hidden = "The resource 'corp/web/1.1.0' was not found."
    show = ("--as", "alice", "show", "corp/web/1.1.0")
    assert hidden in life.refused(*show, status=NOT_FOUND)
    reader = ("--role", "Compute Gallery Image Reader", "--scope", "corp/web")
    life.run("role", "assign", "--assignee", "alice", *reader)
    assert life.json(*show)["version"]["name"].endswith("/web/versions/1.1.0")
    life.run("principal", "create", "bob", "--subscription-ids", PARTNER)
    life.run("principal", "create", "carol", "--tenant", FABRIKAM)
    life.run("share", "set-permissions", "corp", "Groups")
    life.run("share", "add", "corp", "--subscription-ids", PARTNER)
    (shared,) = life.json("--as", "bob", "list-shared")["galleries"]
    assert life.json("--as", "carol", "list-shared")["galleries"] == []
    latest = f"{shared['uniqueId']}/Images/web/Versions/latest"
    life.run("--as", "bob", "deploy", latest, *place, "bob1")
    life.run("share", "reset", "corp")
    life.refused("--as", "bob", "show", latest, status=NOT_FOUND)
    life.run("share", "set-permissions", "corp", "Community")
    about = ("--publisher-uri", "https://contoso.example", "--publisher-email", "i@contoso.example")
    terms = ("--eula", "https://contoso.example/eula", "--public-name-prefix", "contoso")
    life.run("share", "enable-community", "corp", *about, *terms)
    (public,) = life.json("--as", "carol", "list-community")["galleries"]
    life.run("--as", "carol", "deploy", f"{public['uniqueId']}/Images/web", *place, "carol1")
    life.run("share", "reset", "corp")
    life.run("deployed", "release", "bob1", "carol1")
    assert life.run("audit", "verify")


def deploying(life: Life) -> None:
    """Fifty VMs of two disks each, at once; they outlive their version."""
    began = time.process_time()
    deploy = ("deploy", "corp/web/1.0.9", "--region", "eu", "--name", "vm", "--out", "vms")
    life.run(*deploy, "--count", "50")
    assert time.process_time() - began < 8  # the process's own, below a sixth of a second each
    found = life.json("deployed", "list", "corp/web")["deployments"]
    assert len({item["uuid"] for item in found}) == 50
    for item in (found[0], found[49]):
        life.same(item["disks"][0], "one.raw")
        life.same(item["disks"][1], "data.raw")
    life.run("deployed", "release", *(item["name"] for item in found[1:]))
    life.run("version", "delete", "corp/web/1.0.9")
    life.run("version", "purge", "corp/web/1.0.9")
    life.same(found[0]["disks"][0], "one.raw")
    life.run("deployed", "release", found[0]["name"])


def a_scale_set(life: Life) -> None:
    """It scales out with what `latest` means by then, and changes its image only to its like."""
    create = ("scale-set", "create", "web", "--image", "corp/web", "--region", "eu", "--out", "set")
    life.run(*create, "--count", "2")
    life.publish("corp/web/1.2.0", "one.raw")
    life.run("scale-set", "scale", "web", "--count", "3")
    members = life.json("scale-set", "show", "web")["deployments"]
    numbers = [item["version"].rpartition("/")[2] for item in members]
    assert numbers == ["1.1.0", "1.1.0", "1.2.0"]
    life.run("publish", "corp/db/2.0.0", "--os-disk", "one.raw")
    change = ("scale-set", "update", "web", "--image")
    assert "data-disk layout" in life.refused(*change, "corp/db/2.0.0", status=INVALID)
    life.run(*change, "corp/web/1.2.0")


def the_bin(life: Life) -> None:
    """What was deleted is kept, still to be used, and brought back; what was purged is gone."""
    scale = ("scale-set", "scale", "web", "--count")
    life.run("version", "delete", "corp/web/1.2.0")
    assert life.latest() == "1.1.0"
    (deleted,) = life.json("list", "corp/web", "--deleted")["versions"]
    assert deleted["name"].endswith("/1.2.0")
    assert "is deleted and can be used until" in life.run(*scale, "4").stderr
    life.run("version", "undelete", "corp/web/1.2.0")
    assert life.latest() == "1.2.0"
    life.run("version", "delete", "corp/web/1.2.0")
    life.run("version", "purge", "corp/web/1.2.0")
    gone = life.refused(*scale, "5", status=NOT_FOUND)
    assert "'web' can't scale out: its image 'corp/web/1.2.0' is gone" in gone
    members = life.json("scale-set", "show", "web")["deployments"]
    life.same(members[3]["disks"][0], "one.raw")  # what was made of it lives on
    life.run("scale-set", "delete", "web")


def the_end(life: Life) -> None:
    """Versions, then definitions, then the gallery; with a plan, in one command. Nothing stays."""
    assert "CannotDeleteResource" in life.refused("gallery", "delete", "corp", status=CONFLICT)
    cascade = ("gallery", "delete", "corp", "--cascade")
    plan = life.json(*cascade, "--dry-run")["plan"]
    assert (len(plan["versions"]), len(plan["definitions"])) == (3, 2)
    life.run(*cascade, "--yes")
    assert life.json("gallery", "list")["galleries"] == []
    for region in ("eu", "us", "asia"):
        assert life.stored(region) == (0, 0)
    assert life.run("audit", "verify")
