"""A machine as a libvirt domain (https://libvirt.org/formatdomain.html)."""

from xml.etree import ElementTree as ET

from adapters.vms.parts import LOOPBACK, Disk, Start
from pipeline.model import Architecture, HostCaching
from pipeline.model.deployments import BRIDGE, NO_NETWORK, USER_NETWORK
from pipeline.ports.vms import Machine

# Azure's host caching in libvirt's words: by the host not at all; reads; reads and writes
CACHE = {
    HostCaching.NONE: "none",
    HostCaching.READ_ONLY: "writethrough",
    HostCaching.READ_WRITE: "writeback",
}


DEFAULT_NETWORK = "default"  # the one that libvirt comes with


def domain(machine: Machine, start: Start) -> bytes:
    """The XML of the domain."""
    kvm = start.accelerator == "kvm"
    root = ET.Element("domain", type="kvm" if kvm else "qemu")
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
    ET.SubElement(root, "cpu", mode="host-passthrough" if kvm else "maximum")
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
    if machine.network != NO_NETWORK:
        _network(devices, machine, start.card)
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "target", port="0")
    console = ET.SubElement(devices, "console", type="pty")
    ET.SubElement(console, "target", type="serial", port="0")
    entropy = ET.SubElement(devices, "rng", model="virtio")
    _text(entropy, "backend", "/dev/urandom", model="random")


def _network(devices: ET.Element, machine: Machine, card: str) -> None:
    """Ports are forwarded by passt alone (libvirt 9.0)."""
    bridge = machine.network.removeprefix(BRIDGE)
    if machine.forwards or machine.network == USER_NETWORK:
        kind, source = "user", {}
    elif bridge != machine.network:
        kind, source = "bridge", {"bridge": bridge}
    else:
        kind, source = "network", {"network": machine.network or DEFAULT_NETWORK}
    interface = ET.SubElement(devices, "interface", type=kind)
    ET.SubElement(interface, "mac", address=machine.mac_address)
    if source:
        ET.SubElement(interface, "source", source)
    if machine.forwards:
        ET.SubElement(interface, "backend", type="passt")
    for forward in machine.forwards:
        port = ET.SubElement(interface, "portForward", proto="tcp", address=LOOPBACK)
        ET.SubElement(port, "range", start=str(forward.host), to=str(forward.guest))
    ET.SubElement(interface, "model", type=card)


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
