"""The life of a gallery by its commands, on small disks: definitions, latest, channels,
regions, the bin, retention, cascade; what lies in the zones is judged by qemu-img and the eye."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.storing import pattern
from tests.home import Home, Session

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

MIB = 1 << 20
TEAM = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def home(tmp_path: Path, require: Callable[..., None]) -> Iterator[Home]:
    """Three regions and a gallery; two disks that differ in half of their content."""
    require("qemu-img", "bwrap")
    (tmp_path / "one.raw").write_bytes(pattern(1, MIB) + pattern(2, MIB))
    (tmp_path / "two.raw").write_bytes(pattern(1, MIB) + pattern(3, MIB))
    with Session.begun(tmp_path) as made:
        made.run("init", *(f"--region={name}={tmp_path / name}" for name in ("eu", "us", "asia")))
        yield made


def define(home: Home, name: str, sku: str, *options: str, status: int = 0) -> dict[str, Any]:
    identifier = ("--publisher", "Contoso", "--offer", "web", "--sku", sku)
    kind = ("--os-type", "Linux", "--os-state", "Specialized")
    return home.json("definition", "create", name, *kind, *identifier, *options, status=status)


def publish(home: Home, name: str, disk: str = "one.raw", *options: str) -> None:
    home.run("publish", name, "--os-disk", disk, "--quiet", *options)


def error(home: Home, *args: str, status: int) -> str:
    return str(home.json(*args, status=status)["error"]["code"])


def numbers(document: dict[str, Any]) -> list[str]:
    return [item["name"].rsplit("/", 1)[1] for item in document["versions"]]


def stored(home: Home, region: str) -> tuple[int, int]:
    """How many replicas and bases a region's zone holds."""
    zone = home.path / region
    replicas = [path for path in zone.glob("versions/*/replica-*") if path.is_dir()]
    return len(replicas), len(list((zone / "bases").iterdir()))


def same(one: Path, other: Path) -> None:
    """Equal size and content. Not `compare -s`: what lies in which layer is another matter."""
    argv = ["qemu-img", "info", "--output=json", str(other)]
    info = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert info["virtual-size"] == one.stat().st_size
    argv = ["qemu-img", "compare", "-f", "raw", "-F", info["format"], str(one), str(other)]
    subprocess.run(argv, check=True, capture_output=True)


def test_definitions_are_told_apart_by_three_names(home: Home) -> None:
    home.run("gallery", "create", "corp", "--tags", "team=web")
    define(home, "corp/web", "front")
    define(home, "corp/db", "back")
    assert define(home, "corp/twin", "FRONT", status=5)["error"]["code"] == "Conflict"
    made = home.json(
        *("definition", "update", "corp/web", "--description", "front end"),
        *("--minimum-cpu-core", "2", "--set", "recommended.memory.min=2048"),
    )["definition"]
    assert made["recommended"] == {"vCPUs": {"min": 2}, "memory": {"min": 2048}}
    assert made["features"] == [{"name": "SecurityType", "value": "TrustedLaunchSupported"}]
    update = ("definition", "update", "corp/web")
    for change, code, status in (
        ("osType=Windows", "PropertyChangeNotAllowed", 5),
        ("colour=red", "InvalidParameter", 2),
        ("recommended.vCPUs.max=many", "InvalidParameter", 2),
        ("recommended.vCPUs.max=1", "InvalidParameter", 2),
        ("endOfLifeDate=soon", "BadRequest", 2),
    ):
        assert error(home, *update, "--set", change, status=status) == code
    hibernate = ("--features", "IsHibernateSupported=True")
    assert error(home, *update, *hibernate, status=5) == "PropertyChangeNotAllowed"
    home.run(*update, *hibernate, "--allow-update-image", "true")
    assert error(home, "gallery", "delete", "corp", status=5) == "CannotDeleteResource"


def test_a_version_moves_between_regions(home: Home) -> None:
    home.run("gallery", "create", "corp")
    define(home, "corp/web", "front")
    publish(home, "corp/web/1.0.0", "one.raw", "--target-regions", "eu=2 us")
    assert (stored(home, "eu"), stored(home, "us")) == ((2, 1), (1, 1))
    update = ("version", "update", "corp/web/1.0.0")
    assert error(home, *update, "--target-regions", "eu=2", status=5) == "OperationNotAllowed"
    found = home.json(*update, "--add-region", "asia=2", "--add-region", "eu=4")["version"]
    assert [(item["region"], len(item["result"]["replicas"])) for item in found["regions"]] == [
        ("eu", 4),
        ("us", 1),
        ("asia", 2),
    ]
    assert (stored(home, "eu"), stored(home, "asia")) == ((4, 1), (2, 1))
    for item in found["regions"]:
        for replica in item["result"]["replicas"]:
            for disk in replica["disks"]:
                same(home.path / "one.raw", Path(disk["path"]))
    home.run(*update, "--remove-region", "us", "--add-region", "eu=1")
    assert (stored(home, "eu"), stored(home, "us")) == ((1, 1), (0, 0))
    allowed = ("--allow-replicated-location-deletion", "true")
    home.run(*update, "--target-regions", "EU", *allowed)
    assert stored(home, "asia") == (0, 0)
    assert error(home, *update, "--remove-region", "eu", status=2) == "InvalidParameter"
    assert home.json("verify", "corp/web/1.0.0")["sound"]


def test_what_is_declared_of_the_source(home: Home) -> None:
    home.run("gallery", "create", "corp")
    define(home, "corp/web", "front")
    define(home, "corp/fast", "fast", "--features", "DiskControllerTypes=SCSI,NVMe")
    disk = ("--os-disk", "one.raw", "--source-disk-controller", "nvme")
    code = "InvalidParameter"
    assert error(home, "publish", "corp/web/1.0.0", *disk, status=2) == code
    plan = ("--source-plan", "Contoso/web/small")
    assert error(home, "publish", "corp/fast/1.0.0", *disk, *plan, status=2) == code
    options = (*disk, "--target-regions", "eu us", "--exclude-from-latest-in", "us")
    made = home.json("publish", "corp/fast/1.0.0", *options)["version"]
    assert [item["excludeFromLatest"] for item in made["targetRegions"]] == [False, True]
    assert made["unverified"] == ["hyperVGeneration", "osType", "architecture"]
    shown = home.json("show", "corp/fast/1.0.0")
    assert "not verified when published: hyperVGeneration" in shown["cautions"][0]
    alone = home.json("definition", "show", "corp/fast")
    assert shown["definition"] == alone["definition"]


def test_latest_channels_and_retention(home: Home) -> None:
    home.run("gallery", "create", "corp")
    define(home, "corp/web", "front")
    for number in ("1.0.9", "1.0.10", "0.9.0"):
        disk = "two.raw" if number == "1.0.10" else "one.raw"
        publish(home, f"corp/web/{number}", disk, "--target-regions", "eu us")
    listed = home.json("list", "corp/web")
    assert numbers(listed) == ["1.0.10", "1.0.9", "0.9.0"]
    assert [item["isLatest"] for item in listed["versions"]] == [True, False, False]
    newest = ("version", "update", "corp/web/1.0.10")
    home.run(*newest, "--exclude-from-latest-in", "us")

    def latest(*options: str) -> str:
        return str(home.json("show", "corp/web", *options)["version"]["name"]).rsplit("/", 1)[1]

    assert (latest("--region", "eu"), latest("--region", "us")) == ("1.0.10", "1.0.9")
    home.run(*newest, "--include-in-latest-in", "us", "--exclude-from-latest", "true")
    assert latest() == "1.0.9"
    home.run(*newest, "--exclude-from-latest", "false")
    home.run("promote", "corp/web/1.0.9", "--channel", "prod")
    home.run("export", "corp/web@prod", "--format", "raw", "--out", "prod.raw")
    same(home.path / "one.raw", home.path / "prod.raw")
    assert error(home, "show", "corp/web@beta", status=4) == "ChannelNotFound"
    assert error(home, "version", "delete", "corp/web/1.0.9", status=5) == "VersionInUse"
    apply = ("retention", "apply", "corp/web", "--keep-last", "1")
    plan = home.json(*apply, "--dry-run")
    assert [name.rsplit("/", 1)[1] for name in plan["deleted"]] == ["0.9.0"]
    assert numbers(home.json("list", "corp/web")) == ["1.0.10", "1.0.9", "0.9.0"]
    assert home.json(*apply)["kept"].keys() == plan["kept"].keys()
    assert numbers(home.json("list", "corp/web")) == ["1.0.10", "1.0.9"]
    page = home.json("list", "corp/web", "--limit", "1", "--before", "1.0.10")
    assert (numbers(page), page["total"]) == (["1.0.9"], 2)


def test_deleting_undeleting_and_a_cascade(home: Home) -> None:
    home.run("gallery", "create", "corp", "--soft-delete", "true", "--soft-delete-retention", "3")
    define(home, "corp/web", "front")
    publish(home, "corp/web/1.0.0", "one.raw", "--target-regions", "eu us")
    publish(home, "corp/web/1.0.1", "two.raw", "--target-regions", "eu")
    home.run("deploy", "corp/web/1.0.1", "--region", "eu", "--name", "vm1", "--out", "vms")
    home.run("version", "delete", "corp/web/1.0.1")
    assert numbers(home.json("list", "corp/web")) == ["1.0.0"]
    assert numbers(home.json("list", "corp/web", "--deleted")) == ["1.0.1"]
    assert stored(home, "eu") == (2, 2)  # it is kept
    assert home.json("show", "corp/web/1.0.1")["cautions"]
    assert error(home, "definition", "delete", "corp/web", status=5) == "CannotDeleteResource"
    home.run("version", "undelete", "corp/web/1.0.1")
    assert numbers(home.json("list", "corp/web")) == ["1.0.1", "1.0.0"]
    home.run("version", "delete", "corp/web/1.0.1")
    home.run("version", "purge", "corp/web/1.0.1")
    assert error(home, "show", "corp/web/1.0.1", status=4) == "ResourceNotFound"
    (disk,) = (home.path / "vms/vm1").glob("os.*")
    same(home.path / "two.raw", disk)  # its base stays for it
    publish(home, "corp/web/1.0.1", "one.raw")  # the number is free
    publish(home, "corp/web/1.0.2", "one.raw")
    block = ("--block-deletion-before-end-of-life", "true", "--end-of-life-date", "2999-01-01")
    home.run("version", "update", "corp/web/1.0.0", *block)
    code = "DeleteGalleryImageVersionBlockedBeforeEndOfLife"
    assert error(home, "version", "delete", "corp/web/1.0.0", status=5) == code
    cascade = ("gallery", "delete", "corp", "--cascade")
    assert error(home, *cascade, "--yes", status=5) == code
    assert len(numbers(home.json("list", "corp"))) == 3  # nothing was deleted
    home.run("version", "update", "corp/web/1.0.0", block[0], "false")
    about = ("--publisher-uri", "https://v.example", "--eula", "https://v.example/eula")
    contact = ("--publisher-email", "images@v.example", "--public-name-prefix", "corp")
    home.run("share", "set-permissions", "corp", "Community")
    home.run("share", "enable-community", "corp", *about, *contact)
    assert error(home, *cascade, "--yes", status=5) == "OperationNotAllowed"
    assert len(numbers(home.json("list", "corp"))) == 3
    home.run("share", "reset", "corp")
    plan = home.json(*cascade, "--dry-run")["plan"]
    assert (len(plan["versions"]), len(plan["definitions"])) == (3, 1)
    home.run(*cascade, status=6)  # nobody is there to say yes
    home.run(*cascade, "--yes")
    assert home.json("gallery", "list")["galleries"] == []
    # what the deployed disk depends on: a delta and, where nothing is cloned, its parent
    replicas, bases = stored(home, "eu")
    assert (replicas, bases) in ((0, 1), (0, 2))
    assert stored(home, "us") == (0, 0)
    same(home.path / "two.raw", disk)


def test_names_in_another_subscription_and_group(home: Home) -> None:
    there = ("--subscription", TEAM, "--resource-group", "images")
    assert error(home, "gallery", "create", "corp", *there, status=4) == "SubscriptionNotFound"
    home.run("subscription", "create", TEAM, "--display-name", "Team")
    assert error(home, "gallery", "create", "corp", *there, status=4) == "ResourceGroupNotFound"
    home.run("group", "create", "images", "--subscription", TEAM)
    home.run("gallery", "create", "corp", *there)
    identity = f"/subscriptions/{TEAM}/resourceGroups/images/providers/Microsoft.Compute"
    define(home, "corp/web", "front", *there)
    publish(home, "corp/web/1.0.0", "one.raw", *there)
    version = f"{identity}/galleries/corp/images/web/versions/1.0.0"
    assert home.json("show", "corp/web@latest", *there, status=2)["error"]
    assert home.json("show", "corp/web", *there)["version"]["name"] == version
    assert home.json("show", version)["version"]["name"] == version
    assert error(home, "show", "corp/web", status=4) == "ResourceNotFound"
    home.run("gallery", "delete", "corp", "--cascade", "--yes", *there)
    home.run("group", "delete", "images", "--subscription", TEAM)
    home.run("subscription", "delete", TEAM)
