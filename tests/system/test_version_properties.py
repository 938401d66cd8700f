"""Properties of a version in the zones, and in what is deployed from it: storage strategy,
additional replicas, edge zones, host caching."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.home import DEFINE, Home, deletable

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

MIB = 1 << 20
VERSION = "corp/web/1.0.0"


def replicas(home: Home, zone: str) -> int:
    """How many disks of replicas lie in a zone's directory."""
    found = (home.path / zone).rglob("*")
    return sum(path.is_file() and path.stem == "os" for path in found)


SPEC = """\
apiVersion: galleria/v1
kind: ImageVersion
image: {gallery: corp, definition: web, version: 1.1.0}
source: {imageVersion: corp/web/1.0.0}
targetRegions: [{name: UK South, storageAccountType: Standard_ZRS}]
wait: none
"""


def ended(home: Home, version: str) -> dict[str, Any]:
    """A version, when nobody works on it any more."""
    while True:
        found: dict[str, Any] = home.json("show", version)["version"]
        if found["provisioningState"] in ("Succeeded", "Failed"):
            return found
        time.sleep(0.5)  # the test's time limit ends it


def test_where_a_version_lies_and_how_its_disks_are_cached(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require("qemu-img", "bwrap")
    home = Home(tmp_path)
    home.env["GALLERIA_ZRS_SAME_FILESYSTEM"] = "true"
    zones = ",".join(f"{tmp_path}/{name}" for name in ("a", "b", "c"))
    home.run(
        *("init", "--region", f"UK South={zones},{tmp_path}/fast:premium"),
        *("--region", f"us={tmp_path}/us", "--region", f"UK South/leeds={tmp_path}/leeds"),
    )
    with (tmp_path / "web.raw").open("wb") as file:
        file.write(b"galleria" * 1024)
        file.truncate(8 * MIB)
    home.run("gallery", "create", "corp")
    home.run(*DEFINE, "--hyper-v-generation", "V1")
    try:
        home.run(
            *("publish", VERSION, "--os-disk", "web.raw", "--quiet"),
            *("--target-regions", "UK South=3 us", "--storage-account-strategy"),
            *("PreferStandard_ZRS", "--additional-replicas", "UK South=2=Premium_LRS"),
            *("--target-edge-zones", "UK South=leeds=2", "--host-caching", "ReadOnly"),
        )
        shown = home.json("show", VERSION)
        version = shown["version"]
        assert version["storageAccountStrategy"] == "PreferStandard_ZRS"
        kinds = {item["name"]: item["storageAccountType"] for item in version["targetRegions"]}
        assert kinds == {
            "UK South": "Standard_ZRS",
            "us": "Standard_LRS",
            "UK South/leeds": "Standard_LRS",
        }
        assert shown["targetExtendedLocations"] == [
            {
                "name": "UK South",
                "extendedLocation": {"name": "leeds", "type": "EdgeZone"},
                "extendedLocationReplicaCount": 2,
                "storageAccountType": "Standard_LRS",
            }
        ]
        assert {"type": "DeclaredProperties", "status": "Unknown"}.items() <= shown[
            "validationsProfile"
        ]["executedValidations"][0].items()
        counts = {zone: replicas(home, zone) for zone in ("a", "b", "c", "fast", "leeds", "us")}
        assert counts == {"a": 1, "b": 1, "c": 1, "fast": 2, "leeds": 2, "us": 1}

        home.run(
            *("version", "update", VERSION, "--add-region", "uksouth=3", "--quiet"),
            *("--additional-replicas", "uksouth=1=Premium_LRS"),
        )
        assert (replicas(home, "a"), replicas(home, "fast")) == (1, 1)
        home.run("version", "update", VERSION, "--target-regions", "UK South=3", status=5)
        home.run("version", "update", VERSION, "--add-region", "us=1=Standard_ZRS", status=2)

        home.run(
            *("deploy", VERSION, "--region", "uk south/LEEDS", "--name", "web1", "--out", "vms")
        )
        root = ET.parse(tmp_path / "vms/web1/domain.xml").getroot()  # noqa: S314 - our own
        assert [item.get("cache") for item in root.iter("driver")][:1] == ["writethrough"]

        (tmp_path / "web.yaml").write_text(SPEC)
        (begun,) = home.json("build", "web.yaml")["versions"]
        assert Path(begun["log"]).exists()
        copy = ended(home, "corp/web/1.1.0")
        assert copy["provisioningState"] == "Succeeded"
        assert copy["disks"][0]["hostCaching"] == "ReadOnly"
        (again,) = home.json("build", "web.yaml")["versions"]
        assert again["published"] is False

        check_images(home)

        home.run("version", "update", VERSION, "--remove-region", "UK South/leeds", "--quiet")
        assert replicas(home, "leeds") == 0
        missing = home.json(
            *("deploy", VERSION, "--region", "UK South/leeds", "--name", "w", "--out", "vms"),
            status=4,
        )
        assert missing["error"]["code"] == "GalleryImageNotFound"
    finally:
        deletable(tmp_path)


def check_images(home: Home) -> None:
    """A managed image in every zone of its region, one in the premium zone, a version of it."""

    def zones_with(digest: str) -> set[str]:
        found = ("a", "b", "c", "fast", "leeds", "us")
        return {zone for zone in found if any((home.path / zone).rglob(f"*{digest}*"))}

    with (home.path / "gold.raw").open("wb") as file:
        file.write(b"gold" * 1024)
        file.truncate(8 * MIB)
    create = ("image", "create", "--os-disk", "gold.raw", "--no-generalize", "-n")
    resilient = home.json(*create, "gold", "--zone-resilient", "true", "-l", "uksouth")
    digest = resilient["contents"][0]["digest"]
    assert zones_with(digest) == {"a", "b", "c"}
    profile = home.json("image", "show", "gold")["storageProfile"]
    assert (profile["zoneResilient"], profile["osDisk"]["caching"]) == (True, "None")
    home.run(*create, "us", "-l", "us", "--zone-resilient", "true", status=2)
    home.run("image", "delete", "gold", "--quiet")
    assert zones_with(digest) == set()

    fast = home.json(*create, "fast", "--storage-sku", "Premium_LRS")
    assert zones_with(digest) == {"fast"}
    assert fast["storageProfile"]["osDisk"]["storageAccountType"] == "Premium_LRS"
    home.run("publish", "corp/web/1.2.0", "--managed-image", "fast", "--quiet")
    (disk,) = home.json("show", "corp/web/1.2.0")["version"]["disks"]
    assert (disk["digest"], disk["hostCaching"]) == (digest, "ReadOnly")
