"""What stands between a guest and a visible version: the state that its definition declares,
Azure's checklist, the boot check; and the dry run, which passes all of them and leaves nothing. The
guest is one in memory, so that it is counted how often an appliance would have been started."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.app import Session
from adapters.catalog import open_catalog
from adapters.cli.proof import diff_text
from adapters.cli.publish import plan_text
from adapters.cli.report import report_text
from pipeline.errors import EnvironmentMissing, InvalidParameter, NoSpace, Refused, StageFailed
from pipeline.guest.profiles import select
from pipeline.jobs.context import JobContext
from pipeline.jobs.diff import difference
from pipeline.jobs.dry_run import try_publish
from pipeline.jobs.plan import preview
from pipeline.jobs.prepare import PublishRequest
from pipeline.jobs.verify import verify_report
from pipeline.model import (
    Architecture,
    HyperVGeneration,
    Identifier,
    ImageDefinition,
    OsState,
    OsType,
    ReplicationMode,
    VersionRequest,
)
from pipeline.model.names import parse_definition, parse_version
from pipeline.model.resource_names import ResourceKind, parse_resource
from pipeline.model.sources import AnySource, DiskSource, ManagedImageSource, VersionSource
from pipeline.ports import GuestFacts, GuestHost
from pipeline.ports.boots import Boots, MachineKind
from pipeline.publish import publish
from pipeline.resources.images import create_image
from pipeline.resources.snapshots import Properties, create_snapshot
from tests.contract.memory_guest import MemoryGuest, MemoryHost
from tests.system.test_generalize import Quiet
from tests.system.test_publish import Lab
from tests.unit.test_azure import FILES
from tests.unit.test_boot_check import CONSOLE, Script

pytestmark = pytest.mark.system

FACTS = GuestFacts(
    "linux",
    "debian",
    "12",
    architecture="x86_64",
    generation="V1",
    filesystems=(("/dev/sda1", "ext4"),),
    mountpoints=(("/", "/dev/sda1"),),
)
LOCKED = GuestFacts("unknown", filesystems=(("/dev/sda1", "BitLocker"),))
DEFINITIONS = {
    "corp/linux": (OsType.LINUX, OsState.GENERALIZED),
    "corp/kept": (OsType.LINUX, OsState.SPECIALIZED),
    "corp/windows": (OsType.WINDOWS, OsState.GENERALIZED),
    "corp/own": (OsType.WINDOWS, OsState.SPECIALIZED),
}
USED: dict[str, str | None] = {
    "/etc/machine-id": "0" * 32,
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "/usr/bin/ssh-keygen": "",
    "/usr/lib/systemd/systemd": "",
    "/usr/lib/systemd/system/ssh.service": "[Service]\nExecStart=/usr/sbin/sshd -D\n",
}


class Heard(Quiet):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


class House:
    """A gallery whose guests are in memory."""

    def __init__(self, lab: Lab, app: Session, disk: Path) -> None:
        self.lab, self.app = lab, app
        self.source = DiskSource(None, disk)
        self.progress = Heard()

    def host(self, changes: dict[str, str | None] | None = None) -> MemoryHost:
        """A used guest that Azure would take, but for `changes`."""
        guest = MemoryGuest()
        for path, content in (FILES | USED | (changes or {})).items():
            if content is not None:
                guest.plant(path, content)
        return MemoryHost(guest, FACTS)

    def context(self, host: GuestHost, boots: Boots | None = None) -> JobContext:
        context = self.app.context
        return replace(context, guests=host, boots=boots or context.boots, progress=self.progress)

    def request(self, name: str, source: AnySource | None = None, **how: Any) -> PublishRequest:
        how = {"plan": select(), **how}
        return PublishRequest(
            VersionRequest(parse_version(name), ""), (source or self.source,), **how
        )

    def report(self, name: str) -> dict[str, Any]:
        return dict(self.app.gallery.report(parse_version(name)) or {})

    def nothing_is_left(self) -> bool:
        """In the catalog, the zones, the work directory."""
        names = [parse_definition(name) for name in DEFINITIONS]
        versions = [found for name in names for found in self.app.gallery.list_versions(name)]
        zone = next(iter(self.lab.config.regions.values()))[0].path
        kept = [*zone.glob("versions/*"), *zone.glob("bases/*"), *zone.glob("staging/*")]
        return not versions and not kept and not list(self.lab.config.work.glob("*/*"))


@pytest.fixture
def house(tmp_path: Path, require: Callable[..., None]) -> Iterator[House]:
    require("qemu-img", "bwrap", "sfdisk")
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.write(b"\xfa\x33\xc0".ljust(440, b"\x90"))
        file.truncate(32 << 20)
    table = b"label: dos\nstart=2048, type=83, bootable\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, check=True)
    lab = Lab(tmp_path, {"eu": tmp_path / "eu"})
    with ExitStack() as stack:
        app = stack.enter_context(lab.app())
        for number, (name, (os_type, os_state)) in enumerate(DEFINITIONS.items()):
            app.gallery.create_definition(
                ImageDefinition(
                    parse_definition(name),
                    "eu",
                    os_type,
                    Identifier("Contoso", "gates", str(number)),
                    os_state=os_state,
                    hyper_v_generation=HyperVGeneration.V1,
                )
            )
        yield House(lab, app, disk)


def test_a_dry_run_is_the_run_and_leaves_nothing(house: House) -> None:
    request = house.request("corp/linux/1.0.0", validate=True, boot_check=True)
    context = house.context(house.host(), Script("GRUB\n", CONSOLE))
    preview, tried = try_publish(request, context)
    assert preview.action.value == "publish"
    assert house.nothing_is_left()
    assert tried["check"]["verdict"] == "generalized"
    assert tried["boot"]["hostname"] == "web-7"
    assert {item["name"]: item["result"] for item in tried["operations"]}["machine-id"] == "changed"
    warned, house.progress.warnings = house.progress.warnings, []
    publish(request, house.context(house.host(), Script("GRUB\n", CONSOLE)))
    assert house.report("corp/linux/1.0.0") == tried
    assert house.progress.warnings == warned
    # and once more: nothing would be done
    preview, again = try_publish(request, context)
    assert (preview.action.value, again) == ("nothing", tried)


@pytest.mark.parametrize(
    ("refusal", "how"),
    [
        ("is specialized: /etc/machine-id holds an id", {"plan": None}),
        ("ssh server", {"validate": True}),
        ("no login prompt|ended", {"boot_check": True}),
    ],
)
def test_a_dry_run_is_refused_what_the_run_is(
    house: House, refusal: str, how: dict[str, Any]
) -> None:
    request = house.request("corp/linux/1.0.0", **how)
    for run in (try_publish, publish):
        host = house.host({"/usr/sbin/sshd": None})
        with pytest.raises((Refused, StageFailed), match=refusal):
            run(request, house.context(host, Script("panic\n", ends="it has ended")))
        assert len(host.sessions) == 1
        assert house.nothing_is_left()


def test_what_azure_would_not_take_is_not_published(house: House) -> None:
    request = house.request("corp/linux/1.0.0", validate=True)
    wrong: dict[str, str | None] = {
        "/etc/fstab": "/dev/sdb1 /data ext4 x 0 0\n",
        "/usr/sbin/sshd": None,
    }
    with pytest.raises(StageFailed) as caught:
        publish(request, house.context(house.host(wrong)))
    assert "fstab by UUID or label: /dev/sdb1 on /data; ssh server: not installed" in (
        caught.value.message
    )
    assert "name file systems by UUID= or LABEL=" in caught.value.hint
    assert house.nothing_is_left()


def test_a_warning_warns_and_is_recorded(house: House) -> None:
    host = house.host({"/etc/fstab": "UUID=2 none swap sw 0 0\n"})
    publish(house.request("corp/linux/1.0.0", validate=True), house.context(host))
    assert len(host.sessions) == 1  # the checks are made in the appliance that generalizes
    (warning,) = [text for text in house.progress.warnings if "swap on the OS disk" in text]
    assert "UUID=2 in fstab" in warning
    found = house.report("corp/linux/1.0.0")["validation"]
    results = {item["check"]: item["result"] for item in found["findings"]}
    assert found["for"] == "azure"
    assert results["no swap on the OS disk"] == "warn"
    assert results["OS state"] == "ok"
    assert results["generation"] == "ok"
    assert len(results) >= 25
    shown = report_text(house.report("corp/linux/1.0.0"))
    assert "no swap on the OS disk: UUID=2 in fstab" in shown


def test_disks_that_are_published_as_they_are_are_checked_too(house: House) -> None:
    host = house.host({"/usr/sbin/sshd": None})
    request = house.request("corp/kept/1.0.0", plan=None, validate=True)
    with pytest.raises(StageFailed, match="ssh server: not installed"):
        publish(request, house.context(host))
    assert house.nothing_is_left()
    publish(replace(request, validate=False), house.context(host))
    assert "validation" not in house.report("corp/kept/1.0.0")


def test_what_was_looked_at_is_not_looked_at_again(house: House) -> None:
    """A version, and a managed image, of the same bytes: no appliance."""
    host = house.host()
    context = house.context(host)
    first = publish(house.request("corp/linux/1.0.0", validate=True), context)
    assert len(host.sessions) == 1
    copy = publish(
        house.request("corp/linux/2.0.0", VersionSource("corp/linux/1.0.0")), house.context(host)
    )
    assert len(host.sessions) == 1
    assert copy.disks[0].digest == first.disks[0].digest
    report, before = house.report("corp/linux/2.0.0"), house.report("corp/linux/1.0.0")
    assert report == {
        **{key: value for key, value in before.items() if key != "validation"},
        "copied_from": first.name.arm_id,
    }
    verdicts = list(verify_report(copy, report, house.app.zones["eu"]))
    assert verdicts
    assert all(verdict.sound for verdict in verdicts)
    # asked for what the report does not have, it is looked at
    again = house.request("corp/linux/2.0.1", VersionSource("corp/linux/2.0.0"), validate=True)
    publish(again, context)
    assert len(host.sessions) == 2
    # a report that is not what it was is noticed, and not believed
    with closing(open_catalog(house.lab.config.catalog)) as catalog, catalog.write() as writer:
        writer.put_report(first.name, {**before, "profile": "another"})
    changed = house.report("corp/linux/1.0.0")
    (bad,) = [v for v in verify_report(first, changed, house.app.zones["eu"]) if not v.sound]
    assert bad.subject == "report"
    publish(house.request("corp/linux/2.0.2", VersionSource("corp/linux/1.0.0")), context)
    assert len(host.sessions) == 3


DPKG = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n\n"


def test_a_difference_names_packages_files_users_and_blocks(house: House) -> None:
    old = {
        "/var/lib/dpkg/status": DPKG.format("bash", "5.1") + DPKG.format("telnet", "1"),
        "/etc/app.conf": "old",
        "/etc/gone.conf": "",
    }
    new = {
        "/var/lib/dpkg/status": DPKG.format("bash", "5.2") + DPKG.format("curl", "8"),
        "/etc/app.conf": "new",
        "/etc/come.conf": "",
        "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\nweb:x:33:33:web:/srv:/bin/false\n",
    }
    first = publish(house.request("corp/linux/1.0.0"), house.context(house.host({**old})))
    with house.source.path.open("r+b") as disk:
        disk.seek(20 << 20)
        disk.write(b"changed")
    second = publish(house.request("corp/linux/1.0.1"), house.context(house.host({**new})))
    before, after = house.report("corp/linux/1.0.0"), house.report("corp/linux/1.0.1")
    found = difference(first, second, before, after, house.app.context)
    text = diff_text(first, second, found)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    for row in (
        *("added curl 8", "removed telnet 1", "upgraded bash 5.1 5.2"),
        *("added /etc/come.conf", "removed /etc/gone.conf", "changed /etc/app.conf"),
        *("added web", "changed root", "os 32 MiB 256 KiB"),
    ):
        assert row in rows, text
    same = difference(second, second, after, after, house.app.context)
    assert "no package, configuration file or user differs" in diff_text(second, second, same)
    assert [disk.changed for disk in same.disks] == [0]


def test_a_managed_image_is_looked_at_once_and_a_snapshot_never(house: House) -> None:
    host = house.host()
    context = house.context(host)
    properties = Properties("eu")
    name = parse_resource("golden", ResourceKind.IMAGE)
    image = create_image(name, (house.source,), select(), properties, context)
    assert len(host.sessions) == 1
    publish(house.request("corp/linux/1.0.0", ManagedImageSource(image.id)), context)
    assert len(host.sessions) == 1
    report = house.report("corp/linux/1.0.0")
    assert report["copied_from"] == image.id
    assert report["check"]["verdict"] == "generalized"
    assert report["inventory"]["users"]
    kept = create_snapshot(
        parse_resource("before", ResourceKind.SNAPSHOT), house.source, properties, context
    )
    assert len(host.sessions) == 1
    assert kept.contents[0].digest == image.contents[0].digest


def test_a_volume_that_bitlocker_hides_is_no_generalized_windows(house: House) -> None:
    host = MemoryHost(MemoryGuest(), LOCKED)
    request = house.request("corp/windows/1.0.0", plan=None)
    for run in (try_publish, publish):
        with pytest.raises(Refused, match="encrypted with BitLocker"):
            run(request, house.context(host))
        assert house.nothing_is_left()
    publish(replace(request, force=True), house.context(host))
    report = house.report("corp/windows/1.0.0")
    assert report["guest"]["os_type"] == "windows"
    assert (report["check"]["verdict"], report["check"]["forced"]) == ("unknown", True)
    # as a specialized one it is taken, and what is known of it is said; as a Linux it is refused
    publish(house.request("corp/own/1.0.0", plan=None), house.context(host))
    (reason,) = house.report("corp/own/1.0.0")["check"]["reasons"]
    assert reason.startswith("bitlocker: /dev/sda1 is encrypted with BitLocker")
    with pytest.raises(InvalidParameter, match="Windows"):
        publish(house.request("corp/kept/1.0.0", plan=None), house.context(host))


def test_a_shallow_version_is_booted_too(house: House) -> None:
    request = house.request("corp/linux/1.0.0", boot_check=True)
    shallow = replace(request.version, replication_mode=ReplicationMode.SHALLOW)
    request = replace(request, version=shallow)
    with pytest.raises(StageFailed, match=r"no login prompt|ended"):
        publish(request, house.context(house.host(), Script("GRUB\n", ends="it ended")))
    assert house.nothing_is_left()
    script = Script("GRUB\n", CONSOLE)
    publish(request, house.context(house.host(), script))
    assert house.report("corp/linux/1.0.0")["boot"]["hostname"] == "web-7"
    assert script.machine is not None
    assert script.machine.disks[0][-1].path == house.source.path


def test_a_machine_that_cannot_be_booted_here_is_told_before_any_work(house: House) -> None:
    class Missing(Script):
        def check(self, kind: MachineKind) -> None:
            assert kind.architecture is Architecture.X64
            raise EnvironmentMissing("no emulator")

    host = house.host()
    request = house.request("corp/linux/1.0.0", boot_check=True)
    for run in (try_publish, publish):
        with pytest.raises(EnvironmentMissing, match="no emulator"):
            run(request, house.context(host, Missing()))
    assert host.sessions == []
    assert house.nothing_is_left()


# --- one prepared plan ---------------------------------------------------------------------------


def shallowly(request: PublishRequest) -> PublishRequest:
    """The same in mode Shallow."""
    return replace(
        request, version=replace(request.version, replication_mode=ReplicationMode.SHALLOW)
    )


def test_a_shallow_version_of_a_generalized_image_is_not_generalized_again(house: House) -> None:
    host = house.host()
    publish(house.request("corp/linux/1.0.0"), house.context(host))
    request = shallowly(house.request("corp/linux/2.0.0", VersionSource("corp/linux/1.0.0")))
    _, tried = try_publish(request, house.context(host))
    made = publish(request, house.context(host))
    assert len(host.sessions) == 1
    assert house.report("corp/linux/2.0.0") == tried
    assert tried["copied_from"] == parse_version("corp/linux/1.0.0").arm_id
    (zone,) = house.app.zones["eu"]
    ((overlay,),) = (replica.disks for replica in zone.find_version(made.zone_key) or ())
    mapped = subprocess.run(
        ["qemu-img", "map", "--output=json", overlay.path], capture_output=True, check=True
    )
    assert {extent["depth"] for extent in json.loads(mapped.stdout) if extent["data"]} <= {1, 2}


def test_no_shallow_run_asks_for_space_that_it_does_not_need(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    (zone,) = house.app.zones["eu"]
    monkeypatch.setattr(type(zone), "free_bytes", lambda _: 1 << 20)
    full = house.request("corp/linux/1.0.0")
    for run in (try_publish, publish):
        with pytest.raises(NoSpace):
            run(full, house.context(house.host()))
        assert house.nothing_is_left()
    try_publish(shallowly(full), house.context(house.host()))
    publish(shallowly(full), house.context(house.host()))


def test_no_shallow_run_takes_an_internal_snapshot(house: House) -> None:
    disk = house.source.path.with_name("disk.qcow2")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", house.source.path, disk], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", disk], check=True)
    source = DiskSource(None, disk, "before")
    request = shallowly(house.request("corp/linux/1.0.0", source))
    for run in (preview, try_publish, publish):
        with pytest.raises(Refused, match="an internal snapshot"):
            run(request, house.context(house.host()))
        assert house.nothing_is_left()


DONE: dict[str, str | None] = {"/etc/machine-id": ""}


@pytest.mark.parametrize(
    ("how", "shallow"),
    [
        ({}, False),
        ({}, True),
        ({"plan": None}, False),
        ({"plan": select("none")}, False),  # no operation, and yet free space is zeroed
        ({"plan": select("minimal")}, False),
        ({"source": VersionSource("corp/linux/0.1.0")}, False),
        ({"source": VersionSource("corp/linux/0.1.0")}, True),
    ],
)
def test_a_plan_says_what_is_done(
    house: House, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], shallow: bool
) -> None:
    (zone,) = house.app.zones["eu"]
    monkeypatch.setattr(type(zone), "free_bytes", lambda _: 1 << 40)
    publish(house.request("corp/linux/0.1.0"), house.context(house.host()))
    request = house.request("corp/linux/1.0.0", **how)
    if shallow:
        request = shallowly(request)
    host = house.host(DONE)
    planned = preview(request, house.context(host))
    assert host.sessions == []
    assert try_publish(request, house.context(house.host(DONE)))[0] == planned
    made = publish(request, house.context(host))
    document, text = planned.document(), plan_text(planned)
    assert document["version"] == made.name.arm_id
    assert document["generalized"] == made.generalized
    assert [disk.virtual_size for disk in planned.disks] == [d.virtual_size for d in made.disks]
    assert [str(disk.path) for disk in planned.disks] == [d.source.path for d in made.disks]
    assert [disk.format.value for disk in planned.disks] == [d.source.format for d in made.disks]
    ((status,), (region,)) = made.regions, planned.regions
    assert (region.region, region.zones) == (status.region, (zone.path,))
    assert region.replicas == len(status.result.replicas)
    report = house.report("corp/linux/1.0.0")
    done = [] if "copied_from" in report else report.get("operations", ())
    assert list(document["operations"]) == [item["name"] for item in done]
    generalized = "profile" in report and "copied_from" not in report
    assert ("generalize  no" in text) is not generalized
    # and once it is there, what it is stays what was said
    again = preview(request, house.context(host))
    (region,) = again.regions
    assert (again.action.value, region.done) == ("nothing", True)
    assert replace(again, action=planned.action, regions=planned.regions) == planned
