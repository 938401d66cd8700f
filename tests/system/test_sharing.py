"""A gallery is shared three ways, by the installed command: with roles, with subscriptions and
tenants, with everyone. What was done and refused is in the record, and the record shows tampering.
"""

import hashlib
import random
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.home import Home, deletable

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ZERO = "00000000-0000-0000-0000-000000000000"
LAB = "11111111-1111-1111-1111-111111111111"
PARTNER = "22222222-2222-2222-2222-222222222222"
FABRIKAM = "33333333-3333-3333-3333-333333333333"
UNIQUE = f"/SharedGalleries/{ZERO}-CORP"
NOT_FOUND, REFUSED, CONFLICT = 4, 6, 5
MIB = 1 << 20


@pytest.fixture
def home(tmp_path: Path, require: Callable[..., None]) -> Iterator[Home]:
    require("qemu-img", "bwrap")
    made = Home(tmp_path)
    made.run("init", "--region", f"eu={tmp_path}/eu", "--region", f"us={tmp_path}/us")
    with (tmp_path / "web.raw").open("wb") as file:
        file.write(random.Random(7).randbytes(MIB))  # noqa: S311 - a pattern
        file.truncate(8 * MIB)
    yield made
    deletable(tmp_path)


def define(home: Home, name: str, *more: str) -> None:
    home.run(
        *("definition", "create", name, "--os-type", "Linux", "--os-state", "Specialized"),
        *("--publisher", "Contoso", "--offer", "o", "--sku", name.replace("/", "-"), *more),
    )


def publish(home: Home, name: str, *more: str, status: int = 0) -> None:
    home.run(*more, "publish", name, "--os-disk", "web.raw", "--quiet", status=status)


def refusal(home: Home, *args: str, status: int) -> dict[str, Any]:
    error: dict[str, Any] = home.json(*args, status=status)["error"]
    return error


def deployed(home: Home, name: str) -> str:
    """SHA-256 of the disk that was deployed for a VM, as qemu-img reads it."""
    (disk,) = [path for path in (home.path / "vms" / name).iterdir() if path.stem == "os"]
    raw = home.path / f"{name}.raw"
    kind = disk.suffix.lstrip(".")
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", disk, raw], check=True)
    return hashlib.sha256(raw.read_bytes()).hexdigest()


def test_three_ways(home: Home) -> None:
    content = hashlib.sha256((home.path / "web.raw").read_bytes()).hexdigest()
    by = "--as"
    home.run("gallery", "create", "corp", "--description", "ours")
    define(home, "corp/web")
    define(home, "corp/db")
    publish(home, "corp/web/1.0.0")

    # 1. roles
    home.run("principal", "create", "ci", "--type", "ServicePrincipal")
    home.run("principal", "create", "alice")
    home.run("principal", "create", "devs", "--type", "Group", "--member", "alice")
    publisher = "Compute Gallery Artifacts Publisher"
    assert refusal(home, "--as", "ci", "list", "corp/web", status=NOT_FOUND)
    home.run("role", "assign", "--assignee", "ci", "--role", publisher, "--scope", "corp")
    publish(home, "corp/web/1.1.0", by, "ci", status=REFUSED)  # this host's files are not its own
    files = "Storage Account Contributor"
    home.run("role", "assign", "--assignee", "ci", "--role", files)
    reader = ("--role", "compute gallery image reader", "--scope", "corp/web")
    home.run("role", "assign", "--assignee", "devs", *reader)
    publish(home, "corp/web/1.1.0", by, "ci")
    seen = home.json(by, "alice", "list")
    assert [item["name"].rsplit("/", 1)[1] for item in seen["versions"]] == ["1.1.0", "1.0.0"]
    (gallery,) = home.json(by, "alice", "gallery", "list")["galleries"]
    assert "description" not in gallery
    (only,) = home.json(by, "alice", "definition", "list", "corp")["definitions"]
    assert only["name"].endswith("/images/web")
    nothing = refusal(home, by, "alice", "definition", "show", "corp/db", status=NOT_FOUND)
    assert nothing["message"] == "The resource 'corp/db' was not found."
    forbidden = refusal(home, by, "alice", "gallery", "show", "corp", status=REFUSED)
    assert forbidden["code"] == "AuthorizationFailed"
    assert "Microsoft.Compute/galleries/read" in forbidden["message"]
    publish(home, "corp/web/1.2.0", by, "alice", status=REFUSED)
    assert refusal(home, by, "nobody", "list", status=NOT_FOUND)["code"] == "PrincipalNotFound"

    # 2. direct: a partner's subscription and a tenant
    home.run("principal", "create", "bob", "--subscription-ids", PARTNER)
    home.run("principal", "create", "carol", "--tenant", FABRIKAM)
    home.run("share", "add", "corp", "--tenant-ids", FABRIKAM, status=CONFLICT)
    home.run("share", "set-permissions", "corp", "groups")
    home.run(by, "ci", "share", "add", "corp", "--tenant-ids", FABRIKAM, status=REFUSED)
    ids = ("--subscription-ids", f"{PARTNER} {LAB}", "--tenant-ids", FABRIKAM)
    home.run("share", "add", "corp", *ids)
    home.run("share", "remove", "corp", "--subscription-ids", LAB)
    shown = home.json("share", "show", "corp")
    assert shown["sharingProfile"] == {
        "permissions": "Groups",
        "groups": [
            {"type": "Subscriptions", "ids": [PARTNER]},
            {"type": "AADTenants", "ids": [FABRIKAM]},
        ],
    }
    assert shown["identifier"] == {"uniqueId": UNIQUE}
    assert shown["sharingStatus"] == {"aggregatedState": "Succeeded"}
    for name in ("bob", "carol"):
        (shared,) = home.json(by, name, "list-shared")["galleries"]
        assert shared["uniqueId"] == UNIQUE
        to_tenants = home.json(by, name, "list-shared", "--shared-to", "tenant", "-l", "EU")
        assert len(to_tenants["galleries"]) == (name == "carol")
        assert home.json(by, name, "gallery", "list")["galleries"] == []
        assert refusal(home, by, name, "show", "corp/web/1.0.0", status=NOT_FOUND)
    versions = home.json(by, "bob", "list", f"{UNIQUE}/Images/web")["versions"]
    assert [item["name"] for item in versions] == ["1.1.0", "1.0.0"]
    view = home.run(by, "bob", "--json", "show", f"{UNIQUE}/Images/web/Versions/latest").stdout
    assert "1.1.0" in view
    for hidden in (str(home.path), "web.raw", "resourceGroups", "replicas", "owner"):
        assert hidden not in view
    latest = f"{UNIQUE}/Images/web/Versions/latest"
    home.run(by, "bob", "deploy", latest, "--region", "eu", "--name", "bob1", "--out", "vms")
    assert deployed(home, "bob1") == content
    unseen = refusal(home, by, "alice", "show", latest, status=NOT_FOUND)
    assert unseen["message"] == f"The resource '{UNIQUE}' was not found."
    home.run("share", "reset", "corp")
    assert refusal(home, by, "bob", "show", latest, status=NOT_FOUND) == unseen

    # 3. community
    home.run("share", "set-permissions", "corp", "Community")
    about = ("--publisher-uri", "https://contoso.example", "--eula", "https://contoso.example/eula")
    contact = ("--publisher-email", "images@contoso.example", "--public-name-prefix", "contoso")
    public = home.json("share", "enable-community", "corp", *about, *contact)
    id = public["identifier"]["uniqueId"]
    assert re.fullmatch(r"/CommunityGalleries/contoso-[0-9a-f-]{36}", id)
    (community,) = home.json(by, "carol", "list-community")["galleries"]
    assert home.json(by, "carol", "list-community", "--location", "eu", "--show-next-marker") == {
        "galleries": [community],
        "nextMarker": None,
    }
    after = ("--marker", community["name"])
    assert home.json(by, "carol", "list-community", *after)["galleries"] == []
    assert community["communityMetadata"]["publisherContact"] == "images@contoso.example"
    only_latest = home.json(by, "carol", "list", f"{id}/Images/web")["versions"]
    assert [item["name"] for item in only_latest] == ["1.1.0"]
    place = ("--region", "eu", "--name", "carol1", "--out", "vms")
    made = home.run(by, "carol", "--json", "deploy", f"{id}/Images/web", *place)
    assert deployed(home, "carol1") == content
    named = f"{id}/Images/web/Versions/1.1.0"
    assert home.json(by, "carol", "deployed", "list")["deployments"][0]["image"] == named
    grow = ("--image", f"{id}/Images/web", "--region", "eu", "--out", "sets", "--count", "1")
    group = home.run(by, "carol", "--json", "scale-set", "create", "carols", *grow)
    told = [made.stdout, made.stderr, group.stdout, group.stderr]
    told += [home.run(by, "carol", *words).stdout for words in (
        ("deployed", "list"), ("scale-set", "list"), ("scale-set", "show", "carols"))]  # fmt: skip
    told += [path.read_text() for path in home.path.glob("vms/carol1/*.*") if path.suffix in
             (".xml", ".sh")]  # fmt: skip
    assert len(told) == 9
    for text in told:
        assert "corp" not in text
    home.run(by, "bob", "scale-set", "delete", "carols", status=NOT_FOUND)
    home.run(by, "carol", "scale-set", "delete", "carols")
    home.run("gallery", "update", "corp", "--description", "still ours")
    assert home.json(by, "carol", "list-community")["galleries"] == [community]

    # what was done and refused
    denied = home.json("audit", "list", "--denied")["entries"]
    assert {entry["actor"] for entry in denied} == {"ci", "alice", "bob", "carol"}
    mine = home.json("audit", "list", "--actor", "ci", "--object", "corp")["entries"]
    assert mine == []  # an object is named by its whole id
    whole = (
        f"/subscriptions/{ZERO}/resourceGroups/galleria/providers/Microsoft.Compute/galleries/corp"
    )
    mine = home.json("audit", "list", "--actor", "ci", "--object", whole)["entries"]
    assert {entry["action"].rsplit("/", 2)[-2] for entry in mine} == {"versions", "share"}
    head = home.json("audit", "verify")["head"]
    catalog = home.path / "state/galleria/catalog.db"
    forge(catalog, "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")
    cut = refusal(home, "audit", "verify", status=1)
    assert cut["code"] == "VerificationFailed"
    # whoever rewrites the end as well is found out by a head that was kept elsewhere
    forge(catalog, "UPDATE audit_head SET seq = (SELECT max(seq) FROM audit), hash = "
          "(SELECT hash FROM audit ORDER BY seq DESC LIMIT 1)")  # fmt: skip
    home.run("audit", "verify")
    assert "shorter" in refusal(home, "audit", "verify", "--head", head, status=1)["message"]


def forge(catalog: Path, statement: str) -> None:
    with closing(sqlite3.connect(catalog)) as connection:
        for trigger in ("audit_update", "audit_delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        connection.execute(statement)
        connection.commit()


def test_subscriptions_and_tenants(home: Home) -> None:
    """Galleries of several subscriptions, and a role that a guest alone can use."""
    home.run("tenant", "create", FABRIKAM, "--display-name", "Fabrikam")
    home.run("subscription", "create", LAB, "--tenant", FABRIKAM)
    home.run("gallery", "create", "corp")
    home.run("--subscription", LAB, "gallery", "create", "lab")
    assert len(home.json("gallery", "list")["galleries"]) == 1
    assert len(home.json("gallery", "list", "--all-subscriptions")["galleries"]) == 2
    define(home, "lab/web", "--subscription", LAB)
    home.run("--subscription", LAB, "publish", "lab/web/1.0.0", "--os-disk", "web.raw", "--quiet")
    assert home.json("list")["versions"] == []
    assert len(home.json("list", "--all-subscriptions")["versions"]) == 1
    home.run("principal", "create", "dave")
    home.run("--subscription", LAB, "role", "assign", "--assignee", "dave", "--role", "Reader",
             "--scope", "lab")  # fmt: skip
    assert home.json("--as", "dave", "list", "--all-subscriptions")["versions"] == []
    show = ("--as", "dave", "--subscription", LAB, "gallery", "show", "lab")
    assert refusal(home, *show, status=REFUSED)["code"] == "LinkedAuthorizationFailed"
    home.run("principal", "create", "dave", "--guest-of", FABRIKAM)
    home.run(*show)
    assert len(home.json("--as", "dave", "list", "--all-subscriptions")["versions"]) == 1
    home.env["GALLERIA_PRINCIPAL"] = "dave"
    assert home.json("role", "list")["roleAssignments"][0]["role"] == "Reader"
    home.run("gallery", "create", "mine", status=NOT_FOUND)
