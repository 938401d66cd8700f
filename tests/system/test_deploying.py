"""Replicating and deploying by galleria's commands, on small disks: storage account types, failure
and retry, shallow, background work, many VMs, scale sets. Judged by qemu, qemu-img and the eye."""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.config import load_config
from fixtures import canaries, debian
from pipeline.errors import NoSpace, PartiallyReplicated
from pipeline.jobs import replicate
from pipeline.jobs.replicate import replicate_version
from pipeline.model import TargetRegion
from pipeline.model.names import parse_version
from tests.application import open_session
from tests.conftest import missing
from tests.contract.storing import pattern
from tests.faults import Faulty
from tests.home import Home, Session
from tests.system.conftest import Mount

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

MIB = 1 << 20
USER = dict(os.environ)  # before a test has a home of its own
ZRS = "Standard_ZRS"


class Shop(Session):
    """A gallery's commands, shortened."""

    def define(self, name: str, *options: str) -> None:
        kind = ("--os-type", "Linux", "--publisher", "Contoso", "--offer", "web")
        sku = name.rpartition("/")[2][:64]
        self.run("definition", "create", name, *kind, "--sku", sku, *options)

    def publish(self, version: str, *options: str, status: int = 0) -> dict[str, Any]:
        disks = ("--os-disk", "os.raw", "--data-disk", "3=data.raw")
        return self.json("publish", version, *disks, "--no-generalize", *options, status=status)

    def regions(self, version: str) -> dict[str, dict[str, Any]]:
        shown = self.json("show", version)["version"]["regions"]
        return {status["region"]: status for status in shown}


@pytest.fixture
def session(tmp_path: Path, require: Callable[..., None]) -> Iterator[Callable[..., Shop]]:
    """`session("eu=DIR,DIR", ...)`: a gallery over these regions, with two disks of patterns."""
    require("qemu-img", "bwrap")
    (tmp_path / "os.raw").write_bytes(pattern(1, 2 * MIB) + bytes(2 * MIB))
    (tmp_path / "data.raw").write_bytes(pattern(2, MIB))

    def begin(*regions: str) -> Shop:
        made.run("init", *(f"--region={region}" for region in regions))
        made.run("gallery", "create", "corp")
        made.define("corp/web", "--os-state", "Generalized", "--hyper-v-generation", "V1")
        made.define("corp/pet", "--os-state", "Specialized", "--hyper-v-generation", "V1")
        return made

    with Shop.begun(tmp_path) as made:
        yield begin


def same(path: str, format: str, other: str) -> bool:
    """Whether a disk reads as another one, by qemu-img's account."""
    argv = ["qemu-img", "compare", "-f", format, "-F", "raw", path, other]
    return subprocess.run(argv, capture_output=True).returncode == 0


def shared_blocks(one: Path, other: Path) -> bool:
    """Whether any physical block is in both files, by filefrag's account."""

    def blocks(path: Path) -> set[int]:
        text = subprocess.run(
            ["filefrag", "-v", "-b4096", str(path)], capture_output=True, text=True, check=True
        ).stdout
        found: set[int] = set()
        for row in text.splitlines():
            cells = row.replace("..", " ").replace(":", " ").split()
            if cells and cells[0].isdecimal():
                found |= set(range(int(cells[3]), int(cells[4]) + 1))
        return found

    return bool(blocks(one) & blocks(other))


# --- storage account types -----------------------------------------------------------------------


def test_zrs_has_a_base_of_its_own_in_every_zone(
    session: Callable[..., Shop], mount: Mount, tmp_path: Path, require: Callable[..., None]
) -> None:
    require("filefrag")
    shared = mount("xfs")
    zones = [shared / name for name in ("a", "b", "c")]
    fast = tmp_path / "fast"
    home = session(f"eu={','.join(map(str, zones))},{fast}:premium", f"us={tmp_path / 'us'}")
    refused = home.publish("corp/web/1.0.0", f"--target-region=eu=4={ZRS}", status=6)
    assert "are on one file system" in refused["error"]["message"]
    refused = home.publish(
        "corp/web/1.0.0", "--target-region=eu", f"--target-region=us=1={ZRS}", status=2
    )
    assert "ZRS storage account type is not supported in this region" in str(refused)
    config = home.path / "config" / "galleria" / "config.toml"
    config.write_text("zrs_same_filesystem = true\n" + config.read_text())
    home.publish("corp/web/1.0.0", f"--target-region=eu=4={ZRS}")
    bases = [list(zone.glob("bases/*/base.raw")) for zone in zones]
    assert [len(found) for found in bases] == [2, 2, 2]
    for here, there in ((0, 1), (0, 2), (1, 2)):
        for one in bases[here]:
            for other in bases[there]:
                assert not shared_blocks(one, other)  # copies, not clones of each other
    replicas = [len(list(zone.glob("versions/*/replica-*"))) for zone in zones]
    assert replicas == [2, 1, 1]
    shown = home.regions("corp/web/1.0.0")["eu"]["result"]["replicas"]
    assert [item["index"] for item in shown] == [0, 1, 2, 3]
    assert all(same(item["disks"][0]["path"], "raw", "os.raw") for item in shown)
    made = home.json("deploy", "corp/web/1.0.0", "--region=eu", "--name=w", "--count=4", "--out=vm")
    assert [item["zone"] for item in made["deployments"]] == ["eu-1", "eu-1", "eu-2", "eu-3"]
    home.publish("corp/web/1.0.1", "--target-region=eu=1=Premium_LRS")
    assert len(list(fast.glob("bases/*"))) == 2
    home.publish("corp/web/1.0.2", "--target-region=eu=1")
    assert len(list(fast.glob("versions/*"))) == 1
    home.run("verify", "corp/web/1.0.0")


# --- failure and retry ---------------------------------------------------------------------------


def broken(app: Any, region: str, script: str) -> None:
    """Let storing to a region's zone fail as the script says."""
    app.zones[region] = (Faulty(app.zones[region][0], script, methods=("stage_base",)),)


def test_a_region_that_fails_is_tried_again_alone(
    session: Callable[..., Shop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = session("eu=eu", "us=us", "asia=asia")
    small = tmp_path / "us" / "staging"
    small.rmdir()
    small.write_bytes(b"")  # nothing can be staged there
    targets = [f"--target-region={name}" for name in ("eu", "us", "asia")]
    # preflight would tell that nothing can be written there
    home.publish("corp/pet/1.0.0", *targets, "--no-preflight", status=7)
    states = {name: item["state"] for name, item in home.regions("corp/pet/1.0.0").items()}
    assert states == {"eu": "Completed", "us": "Failed", "asia": "Completed"}
    small.unlink()
    small.mkdir()
    (tmp_path / "os.raw").unlink()  # a retry must not need the source
    monkeypatch.setattr(replicate, "DELAYS", (0.01, 0.02, 0.03))
    name = parse_version("corp/pet/1.0.0")
    with open_session(load_config()) as app:
        broken(app, "us", "N")
        with pytest.raises((NoSpace, OSError)):  # a full disk does not pass by itself
            replicate_version(name, (), app.context, retry=True)
        broken(app, "us", "EE")  # the first two attempts fail for what may pass
        version = replicate_version(name, (), app.context, retry=True)
    assert len(version.completed_regions) == 3
    assert home.regions("corp/pet/1.0.0")["us"]["progress"] == 100
    home.run("verify", "corp/pet/1.0.0")


def test_a_full_file_system_of_out_is_named_and_not_the_zone(
    session: Callable[..., Shop], mount: Mount
) -> None:
    home = session("eu=eu")
    home.publish("corp/pet/1.0.0")
    out = mount("ext4", size_mib=8) / "vms"
    out.mkdir()
    with contextlib.suppress(OSError), (out / "filler").open("wb", buffering=0) as file:
        while True:  # until it is full
            file.write(bytes(4096))
    told = home.json(
        *("deploy", "corp/pet/1.0.0", "--region", "eu", "--name", "web", "--out", str(out)),
        status=8,
    )["error"]
    assert told["code"] == "NoSpace"
    assert str(out) in told["message"]
    assert "zone" not in told["message"] + told["hint"]
    assert [path.name for path in out.iterdir()] == ["filler"]


def test_the_longest_names_can_be_published(session: Callable[..., Shop]) -> None:
    home = session("eu=eu")
    gallery, definition, number = "g" * 80, "d" * 80, "2147483647.2147483647.2147483647"
    home.run("gallery", "create", gallery)
    home.define(f"{gallery}/{definition}", "--os-state=Specialized", "--hyper-v-generation=V1")
    home.publish(f"{gallery}/{definition}/{number}")
    home.run("verify", f"{gallery}/{definition}")


def test_without_retry_a_passing_error_ends_it(session: Callable[..., Shop]) -> None:
    home = session("eu=eu", "us=us")
    home.publish("corp/pet/1.0.0")
    with open_session(load_config()) as app:
        broken(app, "us", "E")
        target = parse_version("corp/pet/1.0.0")
        with pytest.raises((OSError, PartiallyReplicated)):
            replicate_version(target, [TargetRegion("us")], app.context)
    assert home.regions("corp/pet/1.0.0")["us"]["state"] == "Failed"
    home.run("replicate", "corp/pet/1.0.0", "--retry")


# --- background and watching ---------------------------------------------------------------------


def test_a_publication_goes_on_in_the_background(
    session: Callable[..., Shop], tmp_path: Path
) -> None:
    session("eu=eu", "us=us")
    home = Home(tmp_path)  # processes of their own
    disks = ("--os-disk", "os.raw", "--data-disk", "3=data.raw", "--no-generalize")
    regions = ("--target-region=eu", "--target-region=us")
    begun = home.json("publish", "corp/web/1.0.0", *disks, *regions, "--wait=none")
    assert begun["version"]["provisioningState"] == "Creating"
    watched = home.run("show", "corp/web/1.0.0", "--watch").stdout.splitlines()
    assert watched[-1] == "corp/web/1.0.0: Succeeded, replication Completed"
    assert any("us" in line and "100 %  Completed" in line for line in watched)
    deadline = time.monotonic() + 120
    while "Completed" not in Path(begun["log"]).read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "Completed" in Path(begun["log"]).read_text()
    # what is refused is refused at once, with its own status and words
    done = home.run("publish", "corp/web/1.0.0", "--os-disk=data.raw", "--wait=none", status=5)
    assert "already exists" in done.stderr


# --- shallow -------------------------------------------------------------------------------------


def test_a_shallow_version_leans_on_its_source(
    session: Callable[..., Shop], tmp_path: Path
) -> None:
    home = session("eu=eu", "us=us")
    shallow = "--replication-mode=Shallow"
    assert home.publish("corp/pet/1.0.0", shallow, "--target-region=eu=2", status=2)["error"]
    home.publish("corp/pet/1.0.0", shallow)
    assert not list((tmp_path / "eu" / "bases").iterdir())  # no copy
    (status,) = home.regions("corp/pet/1.0.0").values()
    assert (status["state"], status["result"]["methods"]) == ("Completed", ["shallow"] * 2)
    made = home.json("deploy", "corp/pet/latest", "--region=eu", "--name=vm", "--out=vms")
    paths = {disk.get("lun"): disk["path"] for disk in made["deployment"]["disks"]}
    assert same(paths[None], "qcow2", "os.raw")
    assert same(paths[3], "qcow2", "data.raw")
    home.run("export", "corp/pet/1.0.0", "--format=raw", "--out=export.raw")
    assert (tmp_path / "export.raw").read_bytes() == (tmp_path / "os.raw").read_bytes()
    home.run("verify", "corp/pet/1.0.0")
    copy = ("--image-version", "corp/pet/1.0.0")
    home.run("publish", "corp/pet/1.0.1", *copy)
    assert "version corp/pet/1.0.0" in home.run("show", "corp/pet/1.0.1").stdout
    home.run("export", "corp/pet/1.0.1", "--lun=3", "--to=raw", "--out=copy.raw")
    assert (tmp_path / "copy.raw").read_bytes() == (tmp_path / "data.raw").read_bytes()
    with (tmp_path / "data.raw").open("r+b") as file:
        file.write(b"changed")
    assert (
        home.json("publish", "corp/pet/1.0.2", *copy, status=5)["error"]["code"] == "SourceChanged"
    )
    refused = home.json(
        "deploy", "corp/pet/1.0.0", "--region=eu", "--name=b", "--out=vms", status=5
    )
    assert refused["error"]["code"] == "SourceChanged"
    assert "data.raw: modification time" in refused["error"]["message"]
    assert "data.raw: CHANGED: modification time" in home.run("show", "corp/pet/1.0.0").stdout
    home.run("verify", "corp/pet/1.0.0", status=1)
    (tmp_path / "os.raw").rename(tmp_path / "moved.raw")
    refused = home.json(
        "deploy", "corp/pet/1.0.0", "--region=eu", "--name=b", "--out=vms", status=5
    )
    assert "os.raw: it is gone" in refused["error"]["message"]


def test_the_source_of_a_shallow_version_is_not_deleted(
    session: Callable[..., Shop], tmp_path: Path
) -> None:
    home = session("eu=eu")
    home.publish("corp/pet/1.0.0")
    home.run("deploy", "corp/pet/1.0.0", "--region=eu", "--name=vm", "--out=vms")
    (disk,) = (tmp_path / "vms" / "vm").glob("os.*")
    (base,) = (path for path in tmp_path.glob("eu/bases/*/base.raw") if path.stat().st_size > MIB)
    backing = [f"--backing={base}"] if disk.suffix == ".qcow2" else []
    home.run(
        *("publish", "corp/web/1.0.0", "--os-disk", str(disk), *backing, "--no-generalize"),
        "--replication-mode=Shallow",
    )
    refused = home.json("deployed", "release", "vm", status=6)
    assert "a version in replication mode Shallow depends on" in refused["error"]["message"]
    assert disk.exists()
    home.run("version", "delete", "corp/web/1.0.0")
    home.run("deployed", "release", "vm")
    assert not disk.parent.exists()


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_generalized_shallow_version_shows_no_secret(
    guest: debian.Guest,
    session: Callable[..., Shop],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The edits, and zeros over what is free, are in the replica's overlay; the guest that depends
    on the dirty source sees nothing of it."""
    home = session("eu=eu")
    monkeypatch.setenv("GALLERIA_CACHE", str(load_config(env=USER).cache))  # the appliance
    assert canaries.scan(guest.os_disk)
    home.run(
        *("publish", "corp/web/1.0.0", "--os-disk", str(guest.os_disk)),
        *("--data-disk", f"0={guest.data_disk}", "--replication-mode=Shallow"),
    )
    made = home.json("deploy", "corp/web", "--region=eu", "--name=vm", "--out=vms")
    for disk in made["deployment"]["disks"]:
        assert canaries.scan_guest(Path(disk["path"]), "qcow2", tmp_path) == set()
        report = ["qemu-img", "check", "-f", "qcow2", disk["path"]]
        subprocess.run(report, check=True, capture_output=True)


# --- deploying -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "limit"), [("xfs", 3.0), ("ext4", 8.0)])
def test_fifty_vms_are_quickly_there(
    kind: str, limit: float, session: Callable[..., Shop], mount: Mount
) -> None:
    place = mount(kind, size_mib=640)
    home = session(f"eu={place / 'zone'}")
    home.publish("corp/web/1.0.0", "--target-region=eu=2")
    started = time.process_time()
    home.run("deploy", "corp/web", "--region=eu", "--name=w", "--count=50", f"--out={place}/vms")
    # the process's own time: what the disk takes is not for a shared machine to judge
    assert time.process_time() - started < limit
    found = home.json("deployed", "list", "corp/web")["deployments"]
    assert len(found) == 50
    assert {item["replica"] for item in found if "replica" in item} <= {0, 1}
    assert len({item["uuid"] for item in found}) == 50
    assert len({item["macAddress"] for item in found}) == 50
    for item in (found[0], found[49]):
        for disk, source in zip(item["disks"], ("os.raw", "data.raw"), strict=True):
            assert same(disk["path"], disk["format"], source)
    assert sorted(path.name for path in (place / "vms").iterdir()) == sorted(
        item["name"] for item in found
    )
    # the version goes, the VMs stay; then the bases go with the last of them
    home.run("version", "delete", "corp/web/1.0.0")
    assert len(list((place / "zone" / "bases").iterdir())) == 2
    assert same(found[7]["disks"][0]["path"], found[7]["disks"][0]["format"], "os.raw")
    home.run("deployed", "release", *(item["name"] for item in found))
    assert not list((place / "zone" / "bases").iterdir())
    assert not list((place / "vms").iterdir())


def qmp(path: Path, *commands: str) -> list[Any]:
    """What a running qemu answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        stream = connection.makefile("rw")
        json.loads(stream.readline())
        answers = []
        for command in ("qmp_capabilities", *commands):
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
            while "return" not in (answer := json.loads(stream.readline())):
                assert "error" not in answer, answer
            answers.append(answer["return"])
        return answers[1:]


def started(script: Path, control: Path) -> list[Any]:
    """Start a VM by its script, stopped before its first instruction; its block devices."""
    argv = [str(script), "-S", "-qmp", f"unix:{control},server=on,wait=off"]
    process = subprocess.Popen(
        argv,
        env={**os.environ, "ACCEL": "tcg"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert process.poll() is None, process.stderr and process.stderr.read()
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                blocks: list[Any] = qmp(control, "query-block")[0]
                return blocks
            time.sleep(0.05)
        raise AssertionError("qemu does not answer")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("generation", ["V1", "V2"])
def test_qemu_takes_the_command_line(
    generation: str,
    session: Callable[..., Shop],
    tmp_path: Path,
    require: Callable[..., None],
) -> None:
    require("qemu-system-x86_64")
    home = session("eu=eu")
    home.define("corp/x", "--hyper-v-generation", generation)
    home.publish("corp/x/1.0.0")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGd1ZXN0IGtleSBvZiBhIGJvb3QgdGVzdCBvbmx5ISEh ada"
    profile = ("--admin-username=ada", f"--ssh-key={key}")
    home.run("deploy", "corp/x", "--region=eu", "--name=vm", "--out=it's, a dir", *profile)
    directory = tmp_path / "it's, a dir" / "vm"
    blocks = started(directory / "start.sh", tmp_path / "qmp")
    files = {item["inserted"]["image"]["filename"] for item in blocks if "inserted" in item}
    named = {name.rpartition("/")[2] for name in files}
    wanted = {"os.qcow2", "data-3.qcow2"} if list(directory.glob("*.qcow2")) else {"os.raw"}
    assert {*wanted, "seed.iso"} <= named
    assert (directory / "nvram.fd").exists() == (generation == "V2")
    assert key.encode() in (directory / "seed.iso").read_bytes()
    schema = Path("/usr/share/libvirt/schemas/domain.rng")
    if not schema.exists():
        missing("libvirt's schema of domains is not installed")
    require("xmllint")
    check = ["xmllint", "--noout", "--relaxng", str(schema), str(directory / "domain.xml")]
    subprocess.run(check, check=True, capture_output=True)


def test_a_vm_in_use_is_not_released(session: Callable[..., Shop], tmp_path: Path) -> None:
    home = session("eu=eu")
    home.publish("corp/pet/1.0.0")
    done = home.run("deploy", "corp/pet", "--region=eu", "--name=vm", "--out=vms")
    assert "the same computer name" in done.stderr
    refused = home.json(
        *("deploy", "corp/pet", "--region=eu", "--name=b", "--out=vms", "--hostname=b"), status=2
    )
    assert refused["error"]["message"] == "Parameter 'osProfile' is not allowed."
    (disk,) = (tmp_path / "vms" / "vm").glob("os.*")
    with disk.open("r+b"):
        refused = home.json("deployed", "release", "vm", status=5)
        assert "is in use" in refused["error"]["message"]
    assert home.json("deploy", "corp/pet", "--region=eu", "--name=vm", "--out=vms", status=5)
    home.run("deployed", "release", "vm")
    assert "no VM is deployed" in home.run("deployed", "list").stdout


# --- scale sets ----------------------------------------------------------------------------------


def test_the_life_of_a_scale_set(session: Callable[..., Shop], tmp_path: Path) -> None:
    home = session("eu=eu")
    home.publish("corp/web/1.0.0")

    def members() -> dict[str, str]:
        found = home.json("scale-set", "show", "web")["deployments"]
        return {item["name"]: item["version"].rpartition("/")[2] for item in found}

    create = ("scale-set", "create", "web", "--image=corp/web", "--region=eu", "--out=set")
    home.run(*create, "--count=2", "--admin-username=ada")
    assert members() == {"web-1": "1.0.0", "web-2": "1.0.0"}
    assert home.json(*create, status=5)["error"]["message"].endswith("exists already.")
    (tmp_path / "os.raw").write_bytes(bytes(MIB) + b"x" * MIB)
    home.publish("corp/web/1.0.1")
    home.run("scale-set", "scale", "web", "--count=4")  # latest has moved on
    assert members() == {"web-1": "1.0.0", "web-2": "1.0.0", "web-3": "1.0.1", "web-4": "1.0.1"}
    home.run("scale-set", "scale", "web", "--count=3")
    assert list(members()) == ["web-1", "web-2", "web-3"]
    assert not (tmp_path / "set" / "web-4").exists()
    # only an image of the same kind
    home.publish("corp/pet/1.0.0")
    other = home.json("scale-set", "update", "web", "--image=corp/pet", status=2)["error"]
    assert "OS state is Generalized which is different from the updated OS state Spec" in str(other)
    home.run("publish", "corp/web/2.0.0", "--os-disk=os.raw", "--no-generalize")
    other = home.json("scale-set", "update", "web", "--image=corp/web/2.0.0", status=2)["error"]
    assert "data-disk layout is LUNs 3" in other["message"]
    refused = home.json("scale-set", "scale", "web", "--count=5", status=2)["error"]["message"]
    assert "no data disks" in refused  # latest means 2.0.0 now
    home.run("scale-set", "update", "web", "--image=corp/web/1.0.1")
    home.run("version", "delete", "corp/web/1.0.1")
    gone = home.json("scale-set", "scale", "web", "--count=4", status=4)["error"]["message"]
    assert "'web' can't scale out: its image 'corp/web/1.0.1' is gone" in gone
    assert len(members()) == 3  # what is there is not affected
    home.run("scale-set", "delete", "web")
    assert "there are no scale sets" in home.run("scale-set", "list").stdout
    assert not list((tmp_path / "set").iterdir())


def test_a_scale_set_is_hidden_from_who_may_not_see_its_image(
    session: Callable[..., Shop], tmp_path: Path
) -> None:
    home = session("eu=eu")
    home.publish("corp/web/1.0.0")
    home.run("scale-set", "create", "web", "--image=corp/web", "--region=eu", "--out=set",
             "--count=2", "--admin-username=ada")  # fmt: skip
    for name in ("eve", "ray"):
        home.run("principal", "create", name)
    home.run("role", "assign", "--assignee=ray", "--role=Reader", "--scope=corp")

    def told(who: str, *args: str, status: int) -> str:
        return str(home.json("--as", who, *args, status=status)["error"]).replace("'web'", "NAME")

    for verb, *options in (
        ("show",),
        ("scale", "--count=0"),
        ("scale", "--count=3"),
        ("update", "--image=corp/web/1.0.0"),
        ("delete",),
    ):
        there = told("eve", "scale-set", verb, "web", *options, status=4)
        nowhere = told("eve", "scale-set", verb, "none", *options, status=4)
        assert there == nowhere.replace("'none'", "NAME")
        assert "There is no scale set NAME." in there
        if verb != "show":  # and who sees it may not change it
            assert "AuthorizationFailed" in told(
                "ray", "scale-set", verb, "web", *options, status=6
            )
    assert home.json("--as", "eve", "scale-set", "list")["scaleSets"] == []
    assert home.json("--as", "eve", "deployed", "list")["deployments"] == []
    refused = told("ray", "deployed", "release", "web-1", status=6)
    assert "disks/delete" in refused
    (seen,) = home.json("--as", "ray", "scale-set", "list")["scaleSets"]
    assert seen["capacity"] == 2
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["web-1", "web-2"]


# --- cost ----------------------------------------------------------------------------------------


def test_cost_counts_shared_blocks_once(session: Callable[..., Shop], mount: Mount) -> None:
    place = mount("xfs")  # that of us is another one: nothing comes there by cloning
    home = session(f"eu={place / 'eu'}", f"us={mount('xfs') / 'us'}")
    home.publish("corp/web/1.0.0", "--target-region=eu=3", "--target-region=us=2")
    home.publish("corp/web/1.0.1", "--target-region=eu=3", "--target-region=us=2")
    eu, us = home.json("cost", "corp")["regions"]
    content = 3 * MIB  # of both disks; zeros are nothing
    assert (eu["replicas"], us["replicas"]) == (6, 4)
    assert (eu["storedLogicalBytes"], us["storedLogicalBytes"]) == (6 * content, 4 * content)
    assert content <= eu["storedRealBytes"] < content * 1.2
    assert eu["savedBytes"] == eu["storedLogicalBytes"] - eu["storedRealBytes"]
    assert (eu["sentLogicalBytes"], eu["sentRealBytes"]) == (0, 0)
    # the second version is there already: nothing of it is sent
    assert (us["sentLogicalBytes"], us["sentRealBytes"]) == (2 * content, content)
