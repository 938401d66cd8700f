"""The real, used Debian guest generalized: every planted secret is in its disks before, and none
after. Judged by a raw scan of the bytes and by another reader of ext4 (dissect), not by our own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.guestfs.client import GuestfsHost
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from fixtures import canaries
from fixtures.debian import Guest, default_cache
from pipeline.guest.generalize import Generalized, generalize
from pipeline.guest.profiles import select
from pipeline.ports import Chain, ImageFormat, Layer, Meter
from tests.system.phony import flatten, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]
OWN_ID = "ssh_host_"


class Quiet:
    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        yield self

    def advance(self, amount: int) -> None: ...
    def note(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...


@dataclass
class Outcome:
    done: Generalized
    os_disk: Path
    data_disk: Path


def treated(guest: Guest, work: Path) -> Outcome:
    images = QemuImages(Sandbox())
    chains: list[Chain] = [
        images.create_overlay((Layer(path, ImageFormat.RAW),), work / f"{name}.qcow2")
        for name, path in (("os", guest.os_disk), ("data", guest.data_disk))
    ]
    done = generalize(GuestfsHost(Sandbox(), default_cache()), chains, select(), Quiet())
    outputs = [
        flatten(chain[0].path, chain[1].path, chain[0].path.with_suffix(".raw"), free)
        for chain, free in zip(chains, done.free, strict=True)
    ]
    return Outcome(done, *outputs)


@pytest.fixture(scope="module")
def outcome(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    found = treated(guest, tmp_path_factory.mktemp("generalize"))
    yield found
    for path in (found.os_disk, found.data_disk):
        path.unlink()


def test_the_same_source_gives_the_same_bytes(
    guest: Guest, outcome: Outcome, tmp_path: Path
) -> None:
    again = treated(guest, tmp_path)
    for one, other in ((outcome.os_disk, again.os_disk), (outcome.data_disk, again.data_disk)):
        run("cmp", one, other)
        other.unlink()


def test_every_secret_is_there_before(guest: Guest) -> None:
    assert canaries.scan(guest.os_disk) >= canaries.planted("os")
    assert canaries.scan(guest.data_disk) >= canaries.planted("data")


def test_no_secret_is_in_the_bytes_after(outcome: Outcome) -> None:
    assert canaries.scan(outcome.os_disk) == frozenset()
    assert canaries.scan(outcome.data_disk) == frozenset()


def test_another_reader_sees_a_generalized_system(outcome: Outcome) -> None:
    target = pytest.importorskip("dissect.target").Target.open(str(outcome.os_disk))
    assert target.os in ("linux", "debian")
    assert target.fs.path("/etc/machine-id").read_bytes() == b""
    assert not [found for found in target.fs.path("/etc/ssh").iterdir() if OWN_ID in found.name]
    assert target.fs.path("/etc/hostname").read_text() == "localhost\n"
    accounts = target.fs.path("/etc/passwd").read_text()
    shadow = target.fs.path("/etc/shadow").read_text()
    assert "alice" not in accounts + shadow
    assert "bob" not in accounts + shadow
    assert all(line.split(":")[1] in ("*", "!", "!*") for line in shadow.splitlines())
    assert not target.fs.path("/home/alice").exists()
    assert not target.fs.path("/srv/homes/bob").exists()
    drop_in = "/etc/systemd/system/ssh.service.d/50-galleria-host-keys.conf"
    assert "ssh-keygen -A" in target.fs.path(drop_in).read_text()
    assert target.fs.path("/var/log/syslog").stat().st_size == 0


def test_report_names_the_guest_and_every_operation(outcome: Outcome) -> None:
    report = outcome.done.report
    assert report["guest"]["distribution"] == "debian"
    assert [entry["name"] for entry in report["operations"]] == [
        operation.name for operation in select().operations
    ]
    changed = {change["path"] for entry in report["operations"] for change in entry["changes"]}
    assert {"/etc/machine-id", "/home/alice", "/srv/homes/bob", "/etc/shadow-"} <= changed
