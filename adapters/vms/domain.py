"""A machine as a libvirt domain (https://libvirt.org/formatdomain.html)."""

from xml.etree import ElementTree as ET

from adapters.vms.parts import Disk, Start
from pipeline.model import Architecture, HostCaching
from pipeline.ports.vms import Machine

# Azure's host caching in libvirt's words: by the host not at all; reads; reads and writes
CACHE = {
    HostCaching.NONE: "none",
    HostCaching.READ_ONLY: "writethrough",
    HostCaching.READ_WRITE: "writeback",
}


def domain(machine: Machine, start: Start) -> bytes:
    """The XML of the domain."""
    root = ET.Element("domain", type="kvm")
    _text(root, "name", machine.name)
    _text(root, "uuid", machine.uuid)
    _text(root, "title", f"{machine.name}, from {machine.title}")
    _text(root, "memory", str(machine.memory_mib), unit="MiB")
    _text(root, "vcpu", str(machine.vcpus))
    _firmware(root, start)
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    if machine.architecture is Architecture.X64:
        ET.SubElement(features, "apic")
    if start.needs_smm:
        ET.SubElement(features, "smm", state="on")
    ET.SubElement(root, "cpu", mode="host-passthrough")
    _devices(ET.SubElement(root, "devices"), machine, start)
    ET.indent(root)
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _firmware(root: ET.Element, start: Start) -> None:
    system = ET.SubElement(root, "os")
    _text(system, "type", "hvm", arch=start.arch, machine=start.machine)
    if start.code is not None:
        secure = {"secure": "yes"} if start.needs_smm else {}
        _text(system, "loader", str(start.code), readonly="yes", type="pflash", **secure)
        _text(system, "nvram", str(start.nvram))
    ET.SubElement(system, "boot", dev="hd")


def _devices(devices: ET.Element, machine: Machine, start: Start) -> None:
    for disk in start.disks:
        _disk(devices, disk)
    if any(disk.bus == "scsi" for disk in start.disks):
        ET.SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    network = ET.SubElement(devices, "interface", type="network")
    ET.SubElement(network, "mac", address=machine.mac_address)
    ET.SubElement(network, "source", network="default")
    ET.SubElement(network, "model", type=start.network)
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "target", port="0")
    console = ET.SubElement(devices, "console", type="pty")
    ET.SubElement(console, "target", type="serial", port="0")
    entropy = ET.SubElement(devices, "rng", model="virtio")
    _text(entropy, "backend", "/dev/urandom", model="random")


def _disk(devices: ET.Element, disk: Disk) -> None:
    element = ET.SubElement(devices, "disk", type="file", device="cdrom" if disk.cdrom else "disk")
    driver = ET.SubElement(element, "driver", name="qemu", type=disk.format.value)
    if disk.caching is not None:
        driver.set("cache", CACHE[disk.caching])
    if not disk.readonly:
        driver.set("discard", "unmap")
    ET.SubElement(element, "source", file=str(disk.path))
    ET.SubElement(element, "target", dev=disk.device, bus=disk.bus)
    if disk.readonly:
        ET.SubElement(element, "readonly")
    if disk.bus != "virtio":
        controller, unit = disk.address
        where = {"controller": str(controller), "bus": "0", "target": "0", "unit": str(unit)}
        ET.SubElement(element, "address", {"type": "drive", **where})


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text
