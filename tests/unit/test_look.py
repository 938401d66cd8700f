"""What a guest consists of, the bill of materials, the report's digest, the gate."""

import hashlib
import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from fixtures.windows_states import HOSTS, STATES
from pipeline.data.digest import digest
from pipeline.errors import Refused
from pipeline.guest.checks import Evidence
from pipeline.guest.inventory import inventory
from pipeline.guest.packages import installed
from pipeline.guest.report import redacted
from pipeline.guest.sbom import bill, packages_in, purl
from pipeline.guest.survey import check_os_state, survey_guest
from pipeline.model import OsState
from pipeline.ports import FreeSpace, GuestFacts, Package
from tests.contract.memory_guest import MemoryGuest, MemorySession
from tests.unit.test_generalize import Quiet

FACTS = GuestFacts("linux", "debian", "12.5", architecture="x86_64")
DPKG = """\
Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b2
Description: shell
 Package: not a field
 Version: 9

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libc6
Status: hold ok installed
Architecture: amd64
Version: 1:2.36-9
"""
APK = "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nF:lib\n\nP:busybox\nV:1.36.1-r5\nA:x86_64\n"
DESC = "%NAME%\npacman\n\n%VERSION%\n6.0.2-8\n\n%ARCH%\nx86_64\n\n%DESC%\n%NAME%\n"


def session(guest: MemoryGuest, *rpms: Package) -> MemorySession:
    return MemorySession(guest, FACTS, FreeSpace(()), rpms=rpms)


def test_every_database_is_read() -> None:
    guest = MemoryGuest()
    guest.plant("/var/lib/dpkg/status", DPKG)
    guest.plant("/lib/apk/db/installed", APK)
    guest.plant("/var/lib/pacman/local/pacman-6.0.2-8/desc", DESC)
    guest.plant("/var/lib/pacman/local/ALPM_DB_VERSION", "9\n")
    guest.plant("/usr/lib/sysimage/rpm/rpmdb.sqlite", b"SQLite")
    kernel = Package("kernel", "6.6.1-100.fc39", "x86_64", "rpm")
    assert installed(guest, session(guest, kernel)) == (
        Package("bash", "5.2.15-2+b2", "amd64", "deb"),
        Package("busybox", "1.36.1-r5", "x86_64", "apk"),
        kernel,
        Package("libc6", "1:2.36-9", "amd64", "deb"),
        Package("musl", "1.2.4-r2", "x86_64", "apk"),
        Package("pacman", "6.0.2-8", "x86_64", "alpm"),
    )


def test_without_an_rpm_database_librpm_is_not_asked() -> None:
    guest = MemoryGuest()
    guest.plant("/var/lib/dpkg/status", DPKG)
    kernel = Package("kernel", "1", "x86_64", "rpm")
    assert kernel not in installed(guest, session(guest, kernel))


@pytest.mark.parametrize(
    "package",
    [
        Package("bash", "5.2.15-2+b2", "amd64", "deb"),
        Package("libc6", "1:2.36-9~x", "amd64", "deb"),
        Package("kernel", "2:6.6.1-100.fc39", "x86_64", "rpm"),
        Package("a/../b?c#d@e", "1 2%", "", "apk"),
    ],
)
def test_package_urls_are_what_their_own_library_reads(package: Package) -> None:
    read = PackageURL.from_string(purl(package, FACTS))
    qualifiers = read.qualifiers
    assert isinstance(qualifiers, dict)
    epoch = f"{qualifiers['epoch']}:" if "epoch" in qualifiers else ""
    assert (read.type, read.name) == (package.kind, package.name)
    assert f"{epoch}{read.version}" == package.version
    assert qualifiers.get("arch", "") == package.architecture
    assert qualifiers["distro"] == "debian-12.5"


def test_the_bill_is_valid_cyclonedx_and_comes_back() -> None:
    packages = (
        Package("bash", "5.2", "amd64", "deb"),
        Package("evil\x1b[2J\udc80", "1\n", "", "apk"),
    )
    document = bill(packages, FACTS)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    assert packages_in(document) == packages
    assert bill(packages, FACTS) == document
    assert bill(packages[:1], FACTS)["serialNumber"] != document["serialNumber"]


def test_inventory_lists_files_accounts_and_packages() -> None:
    guest = MemoryGuest()
    guest.plant("/var/lib/dpkg/status", DPKG)
    guest.plant("/etc/ssh/sshd_config", "Port 22\n")
    guest.plant("/etc/bad\x1bname", "x")
    guest.plant("/etc/group", "sudo:x:27:ann,bob\nann:x:1000:\nbroken\n")
    guest.plant("/etc/passwd", "root:x:0:0:r:/root:/bin/sh\nann:x:1000:1000::/srv/ann:/bin/sh\n")
    found = inventory(guest, session(guest), FACTS)
    expected = hashlib.sha256(b"Port 22\n").hexdigest()
    assert expected.startswith(found["files"]["/etc/ssh/sshd_config"])
    assert "/etc/bad\\x1bname" in found["files"]
    assert found["users"]["ann"] == {
        "uid": "1000",
        "gid": "1000",
        "home": "/srv/ann",
        "shell": "/bin/sh",
        "groups": ["sudo"],
    }
    assert [item.name for item in packages_in(found["sbom"])] == ["bash", "libc6"]


def test_a_windows_guest_lists_programs_profiles_and_files() -> None:
    facts = GuestFacts("windows", "windows", "10.0")
    guest = MemoryGuest()
    seen = survey_guest(guest, session(guest), facts, Evidence("half-way", ("why",)))
    assert seen.document()["inventory"] == {}
    assert seen.document()["check"] == {"verdict": "half-way", "reasons": ["why"]}
    for path, content in STATES[0].files().items():
        guest.plant(f"/{path}", content)
    found = survey_guest(guest, session(guest), facts, Evidence("generalized", ())).inventory
    assert packages_in(found["sbom"]) == (
        Package("Contoso Agent", "1.2.3", "x64", "generic"),
        Package("Contoso Old", "", "x86", "generic"),
    )
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found["sbom"])) is None
    for component in found["sbom"]["components"]:
        assert PackageURL.from_string(component["purl"]).name == component["name"]
    home = "C:\\Users\\Administrator"
    assert found["users"] == {"Administrator": {"rid": "500", "home": home}}
    assert list(found["files"]) == [f"/{HOSTS}"]
    damaged = guest.read("/Windows/System32/config/SOFTWARE", 1 << 24)[:4096]
    guest.plant("/Windows/System32/config/SOFTWARE", damaged)
    assert survey_guest(guest, session(guest), facts, Evidence("unknown", ())).inventory == {}


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/var/log/journal/0123456789abcdef0123456789ABCDEF", "/var/log/journal/<id>"),
        ("/var/log/journal/0123456789abcdef0123456789ABCDEF0", None),
        (
            "/var/lib/NetworkManager/internal-123e4567-e89b-12d3-a456-426614174000-eth0.lease",
            "/var/lib/NetworkManager/internal-<id>-eth0.lease",
        ),
        ("/etc/net/52:54:00:ab:cd:ef.network", "/etc/net/<id>.network"),
        ("/etc/a\x1bb", "/etc/a\\x1bb"),
        ("/etc/machine-id", None),
    ],
)
def test_names_that_are_identities_are_not_told(path: str, shown: str | None) -> None:
    assert redacted(path) == (path if shown is None else shown)


def test_the_digest_outlives_json_and_sees_every_change() -> None:
    report: dict[str, Any] = {"b": [1, {"x": "\u00e9\ud800"}], "a": None}
    assert digest(json.loads(json.dumps(report))) == digest(report)
    assert digest({"a": None, "b": report["b"]}) == digest(report)
    assert digest({**report, "a": False}) != digest(report)
    assert len(digest(report)) == 64


def report_of(verdict: str) -> dict[str, Any]:
    return {"check": {"verdict": verdict, "reasons": ["/etc/machine-id holds an id"]}}


@pytest.mark.parametrize("verdict", ["specialized", "half-way"])
def test_a_contradiction_is_refused_or_recorded(verdict: str) -> None:
    report = report_of(verdict)
    with pytest.raises(Refused, match=rf"{verdict}: /etc/machine-id holds an id"):
        check_os_state(report, OsState.GENERALIZED, Quiet(), force=False)
    assert (
        check_os_state(report, OsState.GENERALIZED, Quiet(), force=True)["check"]["forced"] is True
    )
    assert check_os_state(report, OsState.SPECIALIZED, Quiet(), force=False) == report


@pytest.mark.parametrize("verdict", ["generalized", "unknown"])
def test_what_contradicts_nothing_is_taken(verdict: str) -> None:
    report = report_of(verdict)
    assert check_os_state(report, OsState.GENERALIZED, Quiet(), force=False) == report


def test_a_windows_must_be_known_to_be_generalized() -> None:
    report = {**report_of("unknown"), "guest": {"os_type": "windows"}}
    with pytest.raises(Refused):
        check_os_state(report, OsState.GENERALIZED, Quiet(), force=False)
    assert (
        check_os_state(report, OsState.GENERALIZED, Quiet(), force=True)["check"]["forced"] is True
    )


def test_a_generalized_guest_declared_specialized_is_warned_of() -> None:
    warned: list[str] = []

    class Heard(Quiet):
        def warn(self, message: str) -> None:
            warned.append(message)

    report = report_of("generalized")
    assert check_os_state(report, OsState.SPECIALIZED, Heard(), force=False) == report
    assert "says Specialized, but the guest is generalized" in warned[0]
