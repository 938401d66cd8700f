"""Descriptions of VMs: libvirt domain, qemu command line, seed, firmware."""

import email
import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from adapters.vms import domain, firmware, line, parts, seed
from pipeline.deploying.machine import check_hardware, check_name, forwarded
from pipeline.deploying.profile import check
from pipeline.errors import EnvironmentMissing, InvalidParameter
from pipeline.model import (
    Architecture,
    Forward,
    Hardware,
    HostCaching,
    HyperVGeneration,
    OsProfile,
    OsState,
    OsType,
)
from pipeline.ports import ImageFormat, ReplicaDisk
from pipeline.ports.vms import Machine
from tests import samples

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGd1ZXN0IGtleSBvZiBhIGJvb3QgdGVzdCBvbmx5ISEh ada"
HOME = Path("/srv/v,ms/web1")


def disk(lun: int | None) -> ReplicaDisk:
    name = "os" if lun is None else f"data-{lun}"
    path = HOME / f"{name}.qcow2"
    return ReplicaDisk(lun, path, ImageFormat.QCOW2, "overlay", "d", 1 << 20)


MACHINE = Machine(
    name="web1",
    home=HOME,
    uuid="27ba120a-447d-4dc5-8829-6e425eed8ae6",
    mac_address="52:54:00:01:02:03",
    os_type=OsType.LINUX,
    generation=HyperVGeneration.V1,
    architecture=Architecture.X64,
    secure_boot=False,
    memory_mib=1024,
    vcpus=3,
    disks=(disk(None), disk(0), disk(7)),
    profile=OsProfile("web1"),
    title="corp/web/1.0.0",
)


def firmware_in(directory: Path, name: str, *features: str, length: int = 64) -> Path:
    template = directory / f"{name}.vars"
    template.write_bytes(bytes(length))
    (directory / f"{name}.code").write_bytes(b"code")
    descriptor = {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": str(directory / f"{name}.code"), "format": "raw"},
            "nvram-template": {"filename": str(template), "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
        "features": list(features),
    }
    (directory / f"{name}.json").write_text(json.dumps(descriptor))
    return template


def test_a_linux_machine_finds_its_data_disks_by_lun() -> None:
    root = ET.fromstring(domain.domain(MACHINE, parts.plan(MACHINE, "kvm")))  # noqa: S314 - our own
    assert root.findtext("uuid") == MACHINE.uuid
    assert root.findtext("memory") == "1024"
    assert root.findtext("vcpu") == "3"
    found = [
        (
            item.find("source").get("file"),  # type: ignore[union-attr]
            item.find("target").attrib,  # type: ignore[union-attr]
            None if (where := item.find("address")) is None else where.get("unit"),
        )
        for item in root.iter("disk")
    ]
    assert found == [
        (f"{HOME}/os.qcow2", {"dev": "vda", "bus": "virtio"}, None),
        (f"{HOME}/data-0.qcow2", {"dev": "sda", "bus": "scsi"}, "0"),
        (f"{HOME}/data-7.qcow2", {"dev": "sdb", "bus": "scsi"}, "7"),
        (f"{HOME}/seed.iso", {"dev": "vdb", "bus": "virtio"}, None),
    ]
    assert root.find("os/loader") is None
    assert root.find("devices/interface/mac").get("address") == MACHINE.mac_address  # type: ignore[union-attr]


CACHING: dict[int | None, HostCaching] = {
    None: HostCaching.NONE,
    0: HostCaching.READ_ONLY,
    7: HostCaching.READ_WRITE,
}
CACHES = {"os": "none", "data-0": "writethrough", "data-7": "writeback", "seed": None}


@pytest.mark.parametrize("os_type", list(OsType))
def test_host_caching_is_the_cache_mode_of_both_descriptions(os_type: OsType) -> None:
    machine = replace(MACHINE, os_type=os_type, host_caching=CACHING)
    start = parts.plan(machine, "kvm")
    root = ET.fromstring(domain.domain(machine, start))  # noqa: S314 - our own
    found = {
        Path(item.find("source").get("file", "")).stem: item.find("driver").get("cache")  # type: ignore[union-attr]
        for item in root.iter("disk")
    }
    assert found == CACHES
    words = line.arguments(machine, start)
    nodes = [json.loads(word) for word in words if word.startswith("{")]
    devices = [word for word in words if ",drive=disk" in word]
    said = [
        (node.get("cache"), device.rpartition("write-cache=")[2].partition(",")[0])
        for node, device in zip(nodes, devices, strict=True)
    ]
    # what libvirt makes of the three words: cache.direct and the guest's write cache
    assert said[:3] == [
        ({"direct": True}, "on"),
        ({"direct": False}, "off"),
        ({"direct": False}, "on"),
    ]
    assert said[3][0] is None


def interface(machine: Machine) -> ET.Element:
    text = domain.domain(machine, parts.plan(machine, "kvm"))
    found = ET.fromstring(text).find("devices/interface")  # noqa: S314 - our own
    assert found is not None
    return found


def netdev(machine: Machine) -> str:
    words = line.arguments(machine, parts.plan(machine, "kvm"))
    return words[words.index("-netdev") + 1]


def test_the_network_is_the_one_that_was_asked_for() -> None:
    assert interface(MACHINE).find("source").attrib == {"network": "default"}  # type: ignore[union-attr]
    assert netdev(MACHINE) == "user,id=net"
    named = replace(MACHINE, network="lab")
    assert interface(named).find("source").attrib == {"network": "lab"}  # type: ignore[union-attr]
    bridged = replace(MACHINE, network="bridge:br0")
    assert interface(bridged).get("type") == "bridge"
    assert interface(bridged).find("source").attrib == {"bridge": "br0"}  # type: ignore[union-attr]
    assert netdev(bridged) == "bridge,id=net,br=br0"
    alone = replace(MACHINE, network="none")
    root = ET.fromstring(domain.domain(alone, parts.plan(alone, "kvm")))  # noqa: S314 - our own
    assert root.find("devices/interface") is None
    assert "-netdev" not in line.arguments(alone, parts.plan(alone, "kvm"))


def test_forwarded_ports_are_of_the_loopback_address() -> None:
    machine = replace(MACHINE, forwards=(Forward(2222, 22), Forward(8080, 80)))
    assert netdev(machine) == (
        "user,id=net,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp:127.0.0.1:8080-:80"
    )
    found = interface(machine)
    assert found.get("type") == "user"
    assert [port.find("range").attrib for port in found.iter("portForward")] == [  # type: ignore[union-attr]
        {"start": "2222", "to": "22"},
        {"start": "8080", "to": "80"},
    ]
    assert {port.get("address") for port in found.iter("portForward")} == {"127.0.0.1"}


def test_a_machine_is_run_by_what_works_here() -> None:
    for accelerator, kind, mode, accel in (
        ("kvm", "kvm", "host-passthrough", "kvm:tcg"),
        ("tcg", "qemu", "maximum", "tcg"),
    ):
        start = parts.plan(MACHINE, accelerator)
        root = ET.fromstring(domain.domain(MACHINE, start))  # noqa: S314 - our own
        assert (root.get("type"), root.find("cpu").get("mode")) == (kind, mode)  # type: ignore[union-attr]
        assert f'"${{ACCEL:-{accel}}}"' in line.script(MACHINE, start)


HARDWARE = [
    (Hardware(memory_mib=1), 1, "1 MiB of memory"),
    (Hardware(vcpus=0), 1, "0 CPUs"),
    (Hardware(network="a b"), 1, "not the name of a network"),
    (Hardware(network="bridge:"), 1, "not the name of a network"),
    (Hardware(network="x,id=y"), 1, "not the name of a network"),
    (Hardware(network="bridge:br0", forwards=(Forward(1, 1),)), 1, "user-mode networking only"),
    (Hardware(network="none", forwards=(Forward(1, 1),)), 1, "user-mode networking only"),
    (Hardware(forwards=(Forward(0, 22),)), 1, "0 is not a port"),
    (Hardware(forwards=(Forward(65535, 22),)), 2, "65536 is not a port"),
    (Hardware(forwards=(Forward(80, 1), Forward(80, 2))), 1, "one port of the host"),
    (Hardware(forwards=(Forward(80, 1), Forward(81, 2))), 2, "one port of the host"),
]


@pytest.mark.parametrize(("hardware", "count", "text"), HARDWARE)
def test_hardware_that_no_host_gives_is_refused(hardware: Hardware, count: int, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        check_hardware(hardware, count)


def test_each_vm_has_ports_of_its_own() -> None:
    hardware = Hardware(forwards=(Forward(2200, 22), Forward(8000, 80)))
    check_hardware(hardware, 100)
    assert forwarded(hardware, 3).forwards == (Forward(2203, 22), Forward(8003, 80))


def test_windows_needs_no_drivers_of_others() -> None:
    many = tuple(disk(lun) for lun in (None, *range(7)))
    machine = replace(MACHINE, os_type=OsType.WINDOWS, disks=many)
    start = parts.plan(machine, "kvm")
    assert {item.bus for item in start.disks} == {"sata"}
    assert [item.address for item in start.disks][5:8] == [(0, 5), (1, 0), (1, 1)]
    assert start.disks[-1].cdrom
    words = line.arguments(machine, start)
    assert "ich9-ahci,id=sata1" in words
    assert "ide-hd,bus=sata1.0,drive=disk6" in words
    assert "ide-cd,bus=sata1.2,drive=disk8" in words


def test_a_script_holds_any_path() -> None:
    home = Path('/srv/it\'s, "here" $(date)')
    path = home / "os.qcow2"
    machine = replace(MACHINE, home=home, disks=(replace(disk(None), path=path),))
    text = line.script(machine, parts.plan(machine, "kvm"))
    done = subprocess.run(
        ["sh", "-c", text.replace("exec qemu-system-x86_64", "printf '%s\\n'")],
        capture_output=True,
        text=True,
        check=True,
    )
    nodes = [json.loads(word) for word in done.stdout.splitlines() if word.startswith("{")]
    assert nodes[0]["file"]["filename"] == str(path)
    assert shlex.split(text, comments=True)[-1] == "$@"


def test_firmware_is_found_by_its_descriptor(tmp_path: Path) -> None:
    def find(
        *, secure_boot: bool = False, keys: bool = True, length: int | None = None
    ) -> firmware.Firmware:
        return firmware.find(
            Architecture.X64,
            secure_boot=secure_boot,
            enrolled_keys=keys,
            nvram_length=length,
            directories=(tmp_path,),
        )

    with pytest.raises(EnvironmentMissing, match="no UEFI firmware for x86_64"):
        find()
    plain = firmware_in(tmp_path, "60-plain")
    secure = firmware_in(tmp_path, "40-secure", "secure-boot", "enrolled-keys", "requires-smm")
    setup = firmware_in(tmp_path, "50-open", "secure-boot", "requires-smm")
    small = firmware_in(tmp_path, "70-small", length=32)
    assert (find().template, find().needs_smm) == (plain, False)
    assert (find(secure_boot=True).template, find(secure_boot=True).needs_smm) == (secure, True)
    assert find(secure_boot=True, keys=False).template == setup
    assert find(keys=False).template == plain
    # the version's own NVRAM decides: another build would not read it
    assert find(length=32).template == small
    with pytest.raises(EnvironmentMissing, match="for NVRAM of 33 bytes"):
        find(length=33)
    (tmp_path / "60-plain.json").write_text("")  # hidden by the administrator
    assert find().template == small


def test_a_seed_is_what_cloud_init_looks_for(tmp_path: Path, require: Callable[..., None]) -> None:
    require("blkid")
    profile = OsProfile("web1", "ada", (KEY,))
    path = tmp_path / "seed.iso"
    path.write_bytes(seed.seed(profile, MACHINE.uuid))
    probe = ["blkid", "-p", "-o", "value", "-s", "LABEL", "-s", "TYPE", str(path)]
    found = subprocess.run(probe, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["CIDATA", "iso9660"]
    meta = {"instance-id": MACHINE.uuid, "local-hostname": "web1"}
    assert json.dumps(meta).encode() in path.read_bytes()
    assert seed.user_data(profile).encode() in path.read_bytes()


def test_custom_data_comes_after_the_configuration() -> None:
    profile = OsProfile("web1", custom_data="#!/bin/sh\necho ä\n")
    whole = email.message_from_string(seed.user_data(profile))
    config, custom = list(whole.walk())[1:]
    assert config.get_content_type() == "text/cloud-config"
    content = custom.get_payload(decode=True)
    assert isinstance(content, bytes)
    assert content.decode() == profile.custom_data


def test_without_custom_data_the_configuration_stands_alone() -> None:
    text = seed.user_data(OsProfile("web1", ssh_keys=(KEY,)))
    first, _, rest = text.partition("\n")
    assert first == "#cloud-config"
    assert json.loads(rest)["ssh_authorized_keys"] == [KEY]
    users = json.loads(seed.user_data(OsProfile("w", "ada", (KEY,))).partition("\n")[2])["users"]
    assert users[0]["name"] == "ada"
    assert users[0]["ssh_authorized_keys"] == [KEY]


def test_generalized_needs_a_profile_and_specialized_takes_none() -> None:
    generalized = samples.definition(os_state=OsState.GENERALIZED)
    specialized = replace(generalized, os_state=OsState.SPECIALIZED)
    check(generalized, OsProfile("web1"))
    check(specialized, None)
    with pytest.raises(InvalidParameter, match="Required parameter 'osProfile' is missing"):
        check(generalized, None)
    with pytest.raises(InvalidParameter, match="Parameter 'osProfile' is not allowed"):
        check(specialized, OsProfile("web1"))


@pytest.mark.parametrize(
    "profile",
    [
        OsProfile("web_1"),
        OsProfile("-web"),
        OsProfile("1234"),
        OsProfile("w" * 65),
        OsProfile("web\n"),
        OsProfile("web", "root"),
        OsProfile("web", "Ada Lovelace"),
        OsProfile("web", "ada", ("-----BEGIN OPENSSH PRIVATE KEY-----",)),
        OsProfile("web", "ada", (f"{KEY}\n{KEY}",)),
        OsProfile("web", "ada", (KEY.replace("ISEh ", " "),)),  # cut
        OsProfile("web", "ada", (KEY.replace("ssh-ed25519", "ssh-rsa"),)),
        OsProfile("web", custom_data="ä" * 40000),
    ],
)
def test_a_profile_that_would_not_work_is_refused(profile: OsProfile) -> None:
    with pytest.raises(InvalidParameter):
        check(samples.definition(), profile)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".web", "w" * 65, "we b", "web\n"])
def test_a_vm_s_name_is_a_file_name(name: str) -> None:
    with pytest.raises(InvalidParameter):
        check_name(name)


def test_device_names_go_on_after_z() -> None:
    names = [parts.device_name("sd", index) for index in (0, 25, 26, 51, 52, 701, 702)]
    assert names == ["sda", "sdz", "sdaa", "sdaz", "sdba", "sdzz", "sdaaa"]
