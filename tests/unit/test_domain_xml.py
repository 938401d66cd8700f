"""libvirt's domain XML: what is read of it, and what is refused."""

from pathlib import Path

import pytest

from adapters.process import command
from adapters.process.sandbox import Sandbox
from adapters.sources import libvirt
from adapters.sources.domains import Machine, parse_domain
from pipeline.errors import (
    DescriptionInvalid,
    EnvironmentMissing,
    GalleriaError,
    InvalidParameter,
    NotFound,
)
from pipeline.model.descriptions import Description
from pipeline.model.sources import Backing, DiskSource, VmSource
from pipeline.ports import ImageFormat

ROOT = Path("/vms")
BARE = Sandbox(enabled=False)
URI = "test:///nowhere"
DOMAIN = """<domain type='kvm'>
 <name>web</name>
 <metadata><l:libosinfo xmlns:l='http://libosinfo.org/xmlns/libvirt/domain/1.0'>
  <l:os id='http://debian.org/debian/12'/></l:libosinfo></metadata>
 <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type><nvram>/vms/VARS.fd</nvram></os>
 <devices>
  <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
  <disk type='file' device='disk'>
   <driver name='qemu' type='raw'/><source file='/vms/data.raw'/><target dev='vdb' bus='virtio'/>
  </disk>
  <disk type='file' device='disk'>
   <driver name='qemu' type='qcow2'/><source file='/vms/top.qcow2'/>
   <backingStore type='file'><format type='qcow2'/><source file='mid.qcow2'/>
    <backingStore type='file'><format type='vpc'/><source file='/vms/base.vhd'/><backingStore/>
    </backingStore>
   </backingStore>
   <target dev='vda' bus='virtio'/><boot order='1'/>
  </disk>
 </devices>
</domain>"""


def parse(text: str) -> Machine:
    return parse_domain(text.encode(), ROOT)


def test_a_domain_is_its_disks_and_its_firmware() -> None:
    machine = parse(DOMAIN)
    below = (
        Backing(ROOT / "mid.qcow2", ImageFormat.QCOW2),
        Backing(ROOT / "base.vhd", ImageFormat.VHD),
    )
    assert machine.disks == (
        DiskSource(None, ROOT / "top.qcow2", declared=ImageFormat.QCOW2, backing=below),
        DiskSource(0, ROOT / "data.raw", declared=ImageFormat.RAW),
    )
    assert machine.description == Description("V2", "x64", "SCSI", "Linux")
    assert (machine.name, machine.nvram, machine.live) == ("web", ROOT / "VARS.fd", False)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (" firmware='efi'", "", Description("V1", "x64", "SCSI", "Linux")),
        (
            " firmware='efi'>",
            "><loader type='pflash'>x</loader>",
            Description("V2", "x64", "SCSI", "Linux"),
        ),
        ("x86_64", "aarch64", Description("V2", "Arm64", "SCSI", "Linux")),
        (" arch='x86_64'", "", Description("V2", None, "SCSI", "Linux")),
        (
            "dev='vda' bus='virtio'",
            "dev='nvme0n1' bus='nvme'",
            Description("V2", "x64", "NVMe", "Linux"),
        ),
        (
            "debian.org/debian/12",
            "microsoft.com/win/2k22",
            Description("V2", "x64", "SCSI", "Windows"),
        ),
        ("debian.org/debian/12", "freebsd.org/freebsd/14", Description("V2", "x64", "SCSI", None)),
    ],
)
def test_what_a_domain_says_of_itself(old: str, new: str, expected: Description) -> None:
    assert old in DOMAIN
    assert parse(DOMAIN.replace(old, new)).description == expected


def test_without_a_boot_order_the_first_disk_is_the_os_disk() -> None:
    machine = parse(DOMAIN.replace("<boot order='1'/>", ""))
    assert [(disk.lun, disk.path.name) for disk in machine.disks] == [
        (None, "data.raw"),
        (0, "top.qcow2"),
    ]


def test_an_absurd_boot_order_is_none() -> None:
    machine = parse(DOMAIN.replace("<boot order='1'/>", f"<boot order='{'9' * 5000}'/>"))
    assert machine.disks[0].path.name == "data.raw"


def test_a_device_is_named_as_a_disk() -> None:
    """Whether it may be read is asked when it is opened."""
    block = DOMAIN.replace("type='file' device='disk'", "type='block' device='disk'", 1)
    machine = parse(block.replace("file='/vms/data.raw'", "dev='/dev/vg/data'"))
    assert str(machine.disks[1].path) == "/dev/vg/data"


def test_sectors_are_recorded() -> None:
    block = "<blockio logical_block_size='4096' physical_block_size='4096'/>"
    machine = parse(DOMAIN.replace("<boot order='1'/>", f"<boot order='1'/>{block}"))
    assert machine.disks[0].sector_size == 4096


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("<domain", "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain", "DTD"),
        ("</domain>", "", "not XML"),
        ("domain", "network", "not a libvirt domain"),
        ("type='file' device='disk'", "type='network' device='disk'", "only files"),
        ("type='file' device='disk'", "type='block' device='disk'", "only files"),
        ("type='file' device='disk'", "type='volume' device='disk'", "only files"),
        ("device='disk'", "device='lun'", "whole disks"),
        ("device='disk'", "device='floppy'", None),
        ("type='qcow2'/><source file='/vms/top", "type='luks'/><source file='/vms/top", "format"),
        ("<format type='vpc'/>", "", "no format"),
        ("<source file='/vms/data.raw'/>", "", "only files"),
        ("<source file='/vms/data.raw'/>", "<source file=''/>", "no file"),
        ("<boot order='1'/>", "<encryption format='luks'/>", "encryption"),
        ("<boot order='1'/>", "<mirror type='file' job='copy'/>", "mirror"),
        ("<boot order='1'/>", "<transient/>", "transient"),
        ("<boot order='1'/>", "<shareable/>", "shareable"),
        ("'/vms/data.raw'/>", "'/vms/data.raw'><slices/></source>", "slices"),
        ("x86_64", "s390x", "s390x"),
        ("<nvram>", "<nvram format='qcow2'>", "NVRAM"),
        ("<devices>", "<devices>" + " " * (2 << 20), "larger"),
        ("disk type", "disc type", None),
    ],
)
def test_what_is_not_known_is_refused(old: str, new: str, text: str | None) -> None:
    assert old in DOMAIN
    changed = DOMAIN.replace(old, new)
    if text is None:
        changed = changed.replace("</disk>", "</disc>") if "disc" in new else changed
        text = "no disks"
    with pytest.raises(DescriptionInvalid, match=text):
        parse(changed)


def test_a_chain_has_an_end() -> None:
    layer = "<backingStore type='file'><format type='raw'/><source file='x'/>"
    deep = DOMAIN.replace("<backingStore/>", layer * 100 + "</backingStore>" * 100)
    with pytest.raises(DescriptionInvalid, match="more than"):
        parse(deep)


def test_domains_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(DOMAIN)
    (tmp_path / "b.xml").write_text("<x/>")
    (tmp_path / "c.txt").write_text("?")
    (_, first), (_, second) = libvirt.list_machines(tmp_path, URI, BARE)
    assert isinstance(first, Machine)
    assert isinstance(second, DescriptionInvalid)
    with pytest.raises(NotFound, match="no such directory"):
        libvirt.list_machines(tmp_path / "none", URI, BARE)


def test_names_are_not_options() -> None:
    with pytest.raises(InvalidParameter, match="no name"):
        libvirt.read_machine(VmSource("-rf"), URI, BARE)
    with pytest.raises(NotFound, match="no such file"):
        libvirt.read_machine(VmSource("/nowhere/vm.xml"), URI, BARE)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("error: failed to get domain 'web'", NotFound),
        ("error: failed to connect to the hypervisor", EnvironmentMissing),
    ],
)
def test_a_libvirt_that_does_not_answer_is_no_machine_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, kind: type[GalleriaError]
) -> None:
    virsh = tmp_path / "virsh"
    virsh.write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    virsh.chmod(0o755)
    monkeypatch.setattr(command, "PATH", str(tmp_path))
    with pytest.raises(kind, match="libvirt does not tell") as caught:
        libvirt.read_machine(VmSource("web"), URI, BARE)
    assert type(caught.value) is kind
