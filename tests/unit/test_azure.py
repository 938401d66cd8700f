"""Azure's checklist, check by check: what is right passes, each thing that is wrong is found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import hive
from fixtures.hive import Key, number, text
from pipeline.azure.disk import disk_findings, file_findings, state_finding
from pipeline.azure.linux import linux_findings
from pipeline.azure.windows import PROXY, STARTS, windows_findings
from pipeline.guest.checks import Evidence
from pipeline.guest.findings import Finding, failed
from pipeline.model import HyperVGeneration, OsState
from pipeline.ports import GuestFacts, ImageFacts, ImageFormat
from pipeline.sources.partitions import Partition, PartitionTable
from tests.contract.memory_guest import MemoryGuest

MIB, GIB = 1 << 20, 1 << 30
FACTS = GuestFacts(
    "linux",
    "debian",
    "12",
    architecture="x86_64",
    generation="V2",
    filesystems=(("/dev/sda1", "vfat"), ("/dev/sda2", "ext4")),
    mountpoints=(("/", "/dev/sda2"), ("/boot/efi", "/dev/sda1")),
)
CONFIG = "CONFIG_HYPERV=m\nCONFIG_HYPERV_STORAGE=m\nCONFIG_UDF_FS=m\nCONFIG_VFAT_FS=m\n"
MODULES = "net/hv_netvsc.ko.xz: x.ko\nhid/hid-hyperv.ko:\npci/pci-hyperv.ko:\n"
ENTRY = (
    "  linux /vmlinuz-6.1 root=UUID=1 console=tty1 console=ttyS0,115200n8 earlyprintk=ttyS0"
    " net.ifnames=0\n"
)
FILES = {
    "/etc/fstab": "# comment /dev/sda1\nUUID=1 / ext4 defaults 0 1\nLABEL=x /boot/efi vfat x 0 0\n",
    "/boot/efi/EFI/BOOT/BOOTX64.EFI": "MZ",
    "/boot/vmlinuz-6.1": "",
    "/boot/vmlinuz-5.10": "",
    "/boot/config-6.1": CONFIG,
    "/boot/initrd.img-6.1": "init lib/hv/hv_vmbus.ko lib/scsi/hv_storvsc.ko.zst",
    "/lib/modules/6.1/modules.dep": MODULES,
    "/boot/grub/grub.cfg": ENTRY,
    "/usr/sbin/waagent": "",
    "/etc/systemd/system/multi-user.target.wants/walinuxagent.service": "",
    "/etc/waagent.conf": "Provisioning.Agent = auto\nResourceDisk.Format=n\n",
    "/usr/bin/cloud-init": "",
    "/etc/cloud/cloud.cfg.d/90_dpkg.cfg": "datasource_list: [ Azure, None ]\n",
    "/usr/sbin/sshd": "",
    "/etc/systemd/system/multi-user.target.wants/ssh.service": "",
    "/etc/netplan/50-cloud-init.yaml": "network: {ethernets: {eth0: {dhcp4: true}}}\n",
}


def checked(changes: dict[str, str | None], facts: GuestFacts = FACTS) -> dict[str, Finding]:
    guest = MemoryGuest()
    for path, content in (FILES | changes).items():
        if content is not None:
            guest.plant(path, content)
    return {item.check: item for item in linux_findings(guest, facts)}


def test_a_sound_guest_passes_every_check() -> None:
    findings = checked({})
    assert {item.check: item.found for item in findings.values() if item.result != "ok"} == {}
    assert len(findings) >= 17


@pytest.mark.parametrize(
    ("changes", "check", "result"),
    [
        ({"/etc/fstab": "/dev/sdb1 /data ext4 x 0 0\n"}, "fstab by UUID or label", "fail"),
        ({"/etc/fstab": "/dev/disk/cloud/azure_resource-part1 /mnt auto x\n"},
         "no resource disk in fstab", "warn"),
        ({"/etc/fstab": "UUID=2 none swap sw 0 0\n"}, "no swap on the OS disk", "warn"),
        ({"/boot/efi/EFI/BOOT/BOOTX64.EFI": None}, "UEFI boot loader", "fail"),
        ({"/boot/efi/EFI/BOOT/BOOTX64.EFI": None, "/boot/efi/EFI/debian/shimx64.efi": ""},
         "UEFI boot loader", "warn"),
        ({"/boot/initrd.img-6.1": "init hv_vmbus.ko"}, "Hyper-V drivers at boot", "fail"),
        ({"/boot/initrd.img-6.1": ""}, "Hyper-V drivers at boot", "unknown"),
        ({"/boot/initrd.img-6.1": None}, "Hyper-V drivers at boot", "fail"),
        ({"/boot/initrd.img-6.1": None,
          "/boot/config-6.1": CONFIG.replace("=m", "=y")}, "Hyper-V drivers at boot", "ok"),
        ({"/boot/initrd.img-6.1": None,
          "/lib/modules/6.1/modules.builtin": "kernel/hv_vmbus.ko\nkernel/hv_storvsc.ko\n"},
         "Hyper-V drivers at boot", "ok"),
        ({"/boot/vmlinuz-6.1": None, "/boot/vmlinuz-5.10": None},
         "Hyper-V drivers at boot", "unknown"),
        ({"/lib/modules/6.1/modules.dep": ""}, "driver hv_netvsc", "fail"),
        ({"/etc/modprobe.d/cis.conf": "install udf /bin/true\n"}, "driver udf", "fail"),
        ({"/etc/modprobe.d/cis.conf": "# blacklist vfat\nblacklist vfat\n"}, "driver vfat", "fail"),
        ({"/boot/grub/grub.cfg": ENTRY.replace("console=ttyS0,115200n8", "")},
         "kernel arguments", "warn"),
        ({"/boot/grub/grub.cfg": ENTRY.replace("earlyprintk", "rhgb quiet x")},
         "kernel arguments", "warn"),
        ({"/boot/grub/grub.cfg": ENTRY.replace("net.ifnames=0", "")},
         "names of network cards", "info"),
        ({"/boot/grub/grub.cfg": ENTRY.replace("earlyprintk=ttyS0", "")}, "early messages", "info"),
        ({"/lib/modules/6.1/modules.dep": ""}, "driver hid_hyperv", "warn"),
        ({"/lib/modules/6.1/modules.dep": ""}, "driver pci_hyperv", "warn"),
        ({"/boot/loader/entries/a.conf": "options $kernelopts x\n",
          "/boot/grub2/grubenv": "kernelopts=root=UUID=1 console=ttyS0 console=tty0\n"},
         "kernel arguments", "warn"),
        ({"/boot/grub/grub.cfg": None}, "kernel arguments", "unknown"),
        ({"/usr/sbin/waagent": None}, "Azure Linux agent", "warn"),
        ({"/usr/sbin/waagent": None, "/etc/cloud/cloud-init.disabled": ""},
         "provisioning agent", "fail"),
        ({"/etc/waagent.conf": "Provisioning.Agent=waagent\n"}, "one provisioner", "fail"),
        ({"/etc/waagent.conf": "ResourceDisk.Format=y\n"},
         "one keeper of the resource disk", "warn"),
        ({"/etc/cloud/cloud.cfg.d/99-installer.cfg": "datasource_list: [None]\n"},
         "cloud-init takes Azure", "fail"),
        ({"/etc/cloud/cloud.cfg.d/x.cfg": "network: {config: disabled}\n"},
         "cloud-init takes Azure", "fail"),
        ({"/etc/systemd/system/multi-user.target.wants/ssh.service": None}, "ssh server", "fail"),
        ({"/etc/systemd/system/multi-user.target.wants/ssh.service": None,
          "/etc/runlevels/default/sshd": ""}, "ssh server", "ok"),
        ({"/etc/sysconfig/network-scripts/ifcfg-eth0": "BOOTPROTO=static\n"},
         "network by DHCP", "fail"),
        ({"/etc/network/interfaces": "iface lo inet static\niface eth0 inet static\n"},
         "network by DHCP", "fail"),
        ({"/etc/NetworkManager/system-connections/a": "[ipv4]\nx=1\nmethod=manual\n[ipv6]\n"},
         "network by DHCP", "fail"),
        ({"/etc/NetworkManager/system-connections/a": "[ipv4]\nx=1\n[ipv6]\nmethod=manual\n"},
         "network by DHCP", "ok"),
        ({"/etc/netplan/50-cloud-init.yaml": "a:\n  match:\n    macaddress: 00:15:5d:01:02:03\n"},
         "no configuration bound to a MAC address", "fail"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(changes: dict[str, str | None], check: str, result: str) -> None:
    found = checked(changes)[check]
    assert found.result == result, found
    assert found.fix or result in ("ok", "unknown")


def test_facts_of_the_disks_count() -> None:
    swap = replace(FACTS, filesystems=(*FACTS.filesystems, ("/dev/sda3", "swap")))
    assert checked({}, swap)["no swap on the OS disk"].result == "warn"
    volumes = replace(FACTS, mountpoints=(("/", "/dev/vg/root"), ("/boot/efi", "/dev/sda1")))
    assert checked({}, volumes)["no LVM on the OS disk"].result == "warn"


def test_hostile_files_take_no_time() -> None:
    blank = "\n" * (1 << 19)
    paths = (
        "network/interfaces",
        "netplan/a.yaml",
        "systemd/network/a.network",
        "modprobe.d/a.conf",
    )
    assert len(checked({f"/etc/{path}": blank for path in paths})) >= 17


def test_hostile_names_are_escaped() -> None:
    found = checked({"/etc/fstab": "/dev/sda1\x1b[2J / ext4 x 0 0\n"})["fstab by UUID or label"]
    assert "\x1b" not in found.found


TABLE = PartitionTable("mbr", "V1", (Partition(1, MIB, GIB, "0x83"),))


def disk(virtual_size: int = 2 * GIB, table: PartitionTable = TABLE) -> dict[str, str]:
    found = disk_findings(virtual_size, table, FACTS, HyperVGeneration.V1)
    return {item.check: item.result for item in found}


def test_disks() -> None:
    assert set(disk().values()) == {"ok"}
    assert disk(2 * GIB + 512)["whole MiB"] == "info"
    assert disk(10 * MIB)["upload size"] == "fail"
    assert disk(20 * MIB)["upload size"] == "ok"  # 20,972,032 with its footer: the smallest
    assert disk(1500 * GIB)["OS disk size"] == "warn"
    odd = replace(TABLE, partitions=(Partition(1, 63 * 512, GIB, "0x83"),))
    assert disk(table=odd)["alignment"] == "warn"
    assert disk(table=PartitionTable("gpt", "V2"))["generation"] == "fail"
    assert disk(table=PartitionTable("none", "unknown"))["generation"] == "fail"
    far = replace(TABLE, partitions=(Partition(1, MIB, 3 << 40, "0x83"),))
    assert disk(table=far)["MBR limit"] == "fail"


def test_files() -> None:
    raw = ImageFacts(Path("x"), ImageFormat.RAW, "raw", GIB, GIB, GIB)
    vhd = replace(raw, format=ImageFormat.VHD)
    assert [item.result for item in file_findings(raw, ())] == ["fail"]
    assert [item.result for item in file_findings(vhd, ())] == ["ok"]
    (bad,) = failed(file_findings(vhd, ("the checksum is wrong",)))
    assert bad.found == "the checksum is wrong"


@pytest.mark.parametrize(
    ("declared", "verdict", "result"),
    [
        (OsState.GENERALIZED, "generalized", "ok"),
        (OsState.GENERALIZED, "specialized", "fail"),
        (OsState.SPECIALIZED, "specialized", "ok"),
        (OsState.SPECIALIZED, "generalized", "fail"),
        (OsState.GENERALIZED, "half-way", "fail"),
        (OsState.GENERALIZED, "unknown", "unknown"),
        (None, "specialized", "info"),
    ],
)
def test_states(declared: OsState | None, verdict: str, result: str) -> None:
    assert state_finding(declared, Evidence(verdict, ("why",))).result == result


def plant(guest: MemoryGuest, change: Callable[[Key], None]) -> MemoryGuest:
    """A Windows as Azure wants it, and what `change` makes of its SYSTEM hive."""
    system, software = Key(), Key()
    put(system, "Select", Current=number(1))
    put(system, "ControlSet001\\Services\\netvsc", Start=number(3))
    for service, (start, _) in STARTS.items():
        put(system, f"ControlSet001\\Services\\{service}", Start=number(start))
    control = "ControlSet001\\Control"
    put(system, f"{control}\\Terminal Server", fDenyTSConnections=number(0))
    put(system, f"{control}\\TimeZoneInformation", RealTimeIsUniversal=number(1))
    put(system, "ControlSet001\\Services\\partmgr\\Parameters", SanPolicy=number(1))
    place = text("%SystemRoot%\\TEMP")
    put(system, f"{control}\\Session Manager\\Environment", TEMP=place, TMP=place)
    change(system)
    for name, root in (("SYSTEM", system), ("SOFTWARE", software)):
        guest.plant(f"/Windows/System32/config/{name}", hive.write(root))
    return guest


def put(root: Key, path: str, **values: hive.Value) -> None:
    for part in path.split("\\"):
        root = root.keys.setdefault(part, Key())
    root.values.update(values)


WINDOWS = GuestFacts("windows", "windows", architecture="x86_64")


def windows(change: Callable[[Key], None] = lambda root: None) -> dict[str, str]:
    guest = plant(MemoryGuest(), change)
    return {item.check: item.result for item in windows_findings(guest, WINDOWS)}


def test_a_sound_windows_passes() -> None:
    found = windows()
    assert {check for check, result in found.items() if result != "ok"} == {"serial console (EMS)"}


@pytest.mark.parametrize("service", STARTS)
@pytest.mark.parametrize("start", [None, 4])
def test_services_that_do_not_start(service: str, start: int | None) -> None:
    def change(root: Key) -> None:
        values = root.keys["ControlSet001"].keys["Services"].keys[service].values
        values.clear()
        if start is not None:
            values["Start"] = number(start)

    assert windows(change)[f"service {service}"] == STARTS[service][1].value


def test_what_is_wrong_outside_of_the_registry() -> None:
    guest = plant(MemoryGuest(), lambda root: None)
    guest.plant("/Windows/Panther/setupact.log", "x")
    facts = replace(WINDOWS, architecture="i386", filesystems=(("/dev/sda2", "BitLocker"),))
    found = {item.check: item.result for item in windows_findings(guest, facts)}
    assert found["64 bits"] == "fail"
    assert found["BitLocker off"] == "fail"
    assert found["no Panther directory"] == "warn"
    assert "UEFI boot loader" not in found
    guest.remove("/Windows/System32/config/SOFTWARE")
    uefi = replace(facts, generation="V2")
    found = {item.check: item.result for item in windows_findings(guest, uefi)}
    assert found["UEFI boot loader"] == "unknown"
    assert found["registry SOFTWARE"] == "unknown"


def test_a_proxy_is_found() -> None:
    guest = plant(MemoryGuest(), lambda root: None)
    software = Key()
    put(software, PROXY, WinHttpSettings=hive.Value(3, b"\x18\0\0\0\0\0\0\0\3\0\0\0"))
    guest.plant("/Windows/System32/config/SOFTWARE", hive.write(software))
    found = {item.check: item.result for item in windows_findings(guest, WINDOWS)}
    assert found["no WinHTTP proxy"] == "warn"


@pytest.mark.parametrize(
    ("path", "values", "check", "result"),
    [
        ("Services\\netvsc", {"Start": number(4)}, "network driver", "fail"),
        (
            "Control\\Terminal Server\\WinStations\\RDP-Tcp",
            {"PortNumber": number(3390)},
            "remote desktop",
            "fail",
        ),
        (
            "Services\\partmgr\\Parameters",
            {"SanPolicy": number(3)},
            "disks come online",
            "warn",
        ),
        (
            "Control\\Session Manager\\Environment",
            {"TEMP": text("D:\\tmp")},
            "TEMP is the default",
            "warn",
        ),
        (
            "Control\\Session Manager\\Environment",
            {"TMP": text("D:\\tmp")},
            "TMP is the default",
            "warn",
        ),
        ("Control\\Terminal Server", {"fDenyTSConnections": number(1)}, "remote desktop", "fail"),
        (
            "Control\\Terminal Server\\WinStations\\RDP-Tcp",
            {"SSLCertificateSHA1Hash": hive.Value(3, b"hash")},
            "no certificate bound to remote desktop",
            "warn",
        ),
        (
            "Services\\Tcpip\\Parameters\\PersistentRoutes",
            {"10.0.0.0,255.0.0.0,10.0.0.1,1": text("")},
            "no static routes",
            "warn",
        ),
        (
            "Control\\TimeZoneInformation",
            {"RealTimeIsUniversal": number(0)},
            "clock in UTC",
            "warn",
        ),
    ],
)
def test_what_is_wrong_in_a_windows(
    path: str, values: dict[str, hive.Value], check: str, result: str
) -> None:
    found = windows(lambda root: put(root, f"ControlSet001\\{path}", **values))
    assert found[check] == result
