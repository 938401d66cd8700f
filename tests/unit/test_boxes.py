"""Vagrant boxes: what is packed for each provider, and a guest that lets Vagrant in."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from adapters.vagrant import VagrantBoxes
from adapters.vagrant.ovf import envelope
from adapters.vagrant.vagrantfile import vagrantfile
from pipeline.errors import Conflict, Refused
from pipeline.guest.operations import Editor
from pipeline.guest.profiles import select
from pipeline.guest.vagrant import KEYS, is_insecure, open_to_vagrant
from pipeline.model import Architecture, OsType
from pipeline.ports.boxes import Box, BoxDisk, Provider
from tests.contract.memory_guest import MemoryGuest

GIB = 1 << 30
OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
ACCOUNTS = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000::/home/ada:/bin/bash\n"


def box_of(directory: Path, provider: Provider, count: int = 1) -> Box:
    disks = []
    for number in range(count):
        path = directory / f"disk-{number}"
        path.write_bytes(b"disk %d" % number)
        disks.append(BoxDisk(path, GIB + number))
    return Box(provider, tuple(disks), OsType.LINUX, Architecture.X64, uefi=False, seed="x")


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:gz") as tar:
        return {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]


def test_one_disk_is_version_one_of_the_format(tmp_path: Path) -> None:
    target = tmp_path / "web.box"
    VagrantBoxes().write(box_of(tmp_path, Provider.LIBVIRT), target)
    found = members(target)
    assert json.loads(found["metadata.json"]) == {
        "provider": "libvirt",
        "architecture": "amd64",
        "format": "qcow2",
        "virtual_size": 1,
    }
    assert found["box.img"] == b"disk 0"
    assert sorted(found) == ["Vagrantfile", "box.img", "metadata.json"]


def test_a_box_of_libvirt_is_one_of_qemu_too(tmp_path: Path) -> None:
    """vagrant-qemu registers itself with the box format libvirt: it finds no others."""
    text = vagrantfile(replace(box_of(tmp_path, Provider.LIBVIRT), uefi=True, vcpus=3))
    qemu = text.partition("config.vm.provider :qemu do |qemu|")[2].partition("  end\n")[0]
    lines = [line.strip() for line in qemu.splitlines()]
    assert 'qemu.arch = "x86_64"' in lines
    assert 'qemu.extra_qemu_args = ["-bios", firmware] if firmware' in lines
    assert "qemu.smp = 3" in lines
    assert "config.vm.provider :libvirt do |libvirt|" in text


def test_several_disks_are_version_two(tmp_path: Path) -> None:
    target = tmp_path / "web.box"
    box = box_of(tmp_path, Provider.LIBVIRT, 2)
    VagrantBoxes().write(replace(box, architecture=Architecture.ARM64), target)
    found = members(target)
    document = json.loads(found["metadata.json"])
    assert document["disks"] == [{"path": "box_1.img"}, {"path": "box_2.img"}]
    assert document["architecture"] == "arm64"
    assert (found["box_1.img"], found["box_2.img"]) == (b"disk 0", b"disk 1")


def test_a_virtualbox_box_describes_its_disks(tmp_path: Path) -> None:
    target = tmp_path / "web.box"
    box = replace(box_of(tmp_path, Provider.VIRTUALBOX, 2), memory_mib=3000, vcpus=3)
    VagrantBoxes().write(box, target)
    found = members(target)
    assert json.loads(found["metadata.json"])["provider"] == "virtualbox"
    root = ET.fromstring(found["box.ovf"])  # noqa: S314 - our own
    files = {item.get(f"{OVF}id"): item.get(f"{OVF}href") for item in root.iter(f"{OVF}File")}
    for number, disk in enumerate(root.iter(f"{OVF}Disk")):
        assert found[str(files[disk.get(f"{OVF}fileRef")])] == b"disk %d" % number
        assert disk.get(f"{OVF}capacity") == str(GIB + number)
    quantities = {
        item.findtext(f"{RASD}ResourceType"): item.findtext(f"{RASD}VirtualQuantity")
        for item in root.iter(f"{OVF}Item")
    }
    assert (quantities["3"], quantities["4"]) == ("3", "3000")
    parents = [
        (item.findtext(f"{RASD}HostResource"), item.findtext(f"{RASD}Parent"))
        for item in root.iter(f"{OVF}Item")
        if item.findtext(f"{RASD}ResourceType") == "17"
    ]
    assert parents == [("/disk/disk1", "3"), ("/disk/disk2", "3")]


def test_the_ovf_is_in_the_order_of_its_schema(tmp_path: Path) -> None:
    """DSP8023: of each section the Info first; of each item all elements by the alphabet, three of
    them always. (`xmllint --schema` of DMTF's own files agrees.)"""
    box = replace(box_of(tmp_path, Provider.VIRTUALBOX, 2), uefi=True)
    root = ET.fromstring(envelope(box, ("one.vmdk", "two.vmdk")))  # noqa: S314 - our own
    assert [local(child) for child in root] == [
        *("References", "DiskSection", "NetworkSection", "VirtualSystem"),
    ]
    sections = [item for item in root.iter() if local(item).endswith("Section")]
    assert len(sections) == 4
    assert all(local(section[0]) == "Info" for section in sections)
    items = list(root.iter(f"{OVF}Item"))
    for item in items:
        names = [local(child) for child in item]
        assert names == sorted(names)
        assert {"ElementName", "InstanceID", "ResourceType"} <= set(names)
    numbers = [item.findtext(f"{RASD}InstanceID") for item in items]
    assert len(set(numbers)) == len(items)
    assert {item.findtext(f"{RASD}Parent", "3") for item in items} <= set(numbers)


def local(element: ET.Element) -> str:
    return element.tag.partition("}")[2]


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    box = box_of(tmp_path, Provider.LIBVIRT)
    VagrantBoxes().write(box, tmp_path / "one.box")
    VagrantBoxes().write(box, tmp_path / "two.box")
    assert (tmp_path / "one.box").read_bytes() == (tmp_path / "two.box").read_bytes()
    with pytest.raises(Conflict):
        VagrantBoxes().check_target(tmp_path / "one.box")


@pytest.mark.parametrize("provider", list(Provider))
@pytest.mark.parametrize("os_type", list(OsType))
@pytest.mark.parametrize("architecture", list(Architecture))
@pytest.mark.parametrize("uefi", [False, True])
def test_the_vagrantfile_is_sound_ruby(
    provider: Provider,
    os_type: OsType,
    architecture: Architecture,
    uefi: bool,
    tmp_path: Path,
    require: Callable[..., None],
) -> None:
    require("ruby")
    box = Box(provider, (), os_type, architecture, uefi, memory_mib=2048, vcpus=2, seed="x")
    path = tmp_path / "Vagrantfile"
    path.write_text(vagrantfile(box))
    program = shutil.which("ruby") or "ruby"
    done = subprocess.run([program, "-wc", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2048" in path.read_text()


def guest(**files: str) -> MemoryGuest:
    found = MemoryGuest()
    for path, text in {
        "/etc/passwd": ACCOUNTS,
        "/etc/shadow": "root:*:1::::::\n",
        "/etc/group": "root:x:0:\nstaff:x:1001:\n",
        "/usr/sbin/sshd": "sshd",
        "/usr/bin/sudo": "sudo",
        "/etc/skel/.profile": "PATH=/bin\n",
        "/lib/systemd/system/ssh.service": "[Service]\n",
        **files,
    }.items():
        found.plant(path, text)
    return found


def test_the_guest_gets_what_vagrant_logs_in_with() -> None:
    found = guest()
    assert open_to_vagrant(Editor(found, "box")) == ()
    # 1000 is Ada's, 1001 a group's
    assert found.read("/etc/passwd").decode().splitlines()[-1].startswith("vagrant:x:1002:1002:")
    assert found.read("/etc/shadow").decode().splitlines()[-1].startswith("vagrant:*:")
    assert found.read("/etc/group").decode().splitlines()[-1] == "vagrant:x:1002:"
    keys = found.read("/home/vagrant/.ssh/authorized_keys").decode().splitlines()
    assert [line.split()[:2] for line in keys] == [key.split() for key in KEYS]
    for path, mode in (
        ("/home/vagrant", 0o755),
        ("/home/vagrant/.ssh", 0o700),
        ("/home/vagrant/.ssh/authorized_keys", 0o600),
    ):
        stat = found.stat(path)
        assert stat is not None
        assert (stat.uid, stat.gid, stat.mode) == (1002, 1002, mode)
    assert found.read("/home/vagrant/.profile") == b"PATH=/bin\n"
    sudoers = found.stat("/etc/sudoers.d/vagrant")
    assert sudoers is not None
    assert (sudoers.uid, sudoers.mode) == (0, 0o440)
    wants = "/etc/systemd/system/multi-user.target.wants/ssh.service"
    assert found.readlink(wants) == "/lib/systemd/system/ssh.service"


def test_a_second_time_changes_nothing() -> None:
    found = guest()
    open_to_vagrant(Editor(found, "box"))
    again = Editor(found, "box")
    open_to_vagrant(again)
    assert again.changes == []


def test_a_user_that_is_there_keeps_its_keys_and_its_home() -> None:
    found = guest(**{"/etc/passwd": ACCOUNTS + "vagrant:x:1003:1004::/srv/vagrant:/bin/sh\n"})
    found.plant("/srv/vagrant/.ssh/authorized_keys", "ssh-ed25519 AAAA mine\n", uid=1003)
    open_to_vagrant(Editor(found, "box"))
    assert found.read("/etc/passwd").decode().count("\nvagrant:") == 1
    lines = found.read("/srv/vagrant/.ssh/authorized_keys").decode().splitlines()
    assert lines[0] == "ssh-ed25519 AAAA mine"
    assert [is_insecure(line) for line in lines] == [False, True, True]
    stat = found.stat("/srv/vagrant/.ssh")
    assert stat is not None
    assert (stat.uid, stat.gid) == (1003, 1004)


def test_a_guest_without_a_server_or_sudo() -> None:
    found = guest()
    found.remove("/usr/bin/sudo")
    assert "no sudo" in open_to_vagrant(Editor(found, "box"))[0]
    found.remove("/usr/sbin/sshd")
    with pytest.raises(Refused, match="no SSH server"):
        open_to_vagrant(Editor(found, "box"))


def test_the_profile_keeps_what_a_box_needs() -> None:
    plan = select("vagrant", keep_users=["ada"])
    assert plan.policy.keep_users == {"vagrant", "ada"}
    assert plan.policy.keep_insecure_keys
    assert not select("sysprep", keep_users=["vagrant"]).policy.keep_insecure_keys
