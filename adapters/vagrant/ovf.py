"""The OVF of a VirtualBox box (DMTF DSP0243 1.1, which VBoxManage import reads).

Elements of a hardware item are in the order of the alphabet, as the schema of DMTF wants them.
"""

from xml.etree import ElementTree as ET

from pipeline.model import Architecture, OsType
from pipeline.ports.boxes import Box

OVF = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
STREAM = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
# values of CIM_OperatingSystem.OSType: Linux 64-bit, Windows 10
SYSTEMS = {OsType.LINUX: "101", OsType.WINDOWS: "120"}
CPU, MEMORY, ETHERNET, DISK, SATA = 3, 4, 10, 17, 20  # ResourceType
DEFAULT_MEMORY, DEFAULT_CPUS = 1024, 2


def envelope(box: Box, names: tuple[str, ...]) -> str:
    """The descriptor of a machine whose disks have these names in the box."""
    for prefix, uri in (("ovf", OVF), ("rasd", RASD), ("vssd", VSSD)):
        ET.register_namespace(prefix, uri)
    root = ET.Element(f"{{{OVF}}}Envelope", {f"{{{OVF}}}version": "1.0"})
    references = ET.SubElement(root, f"{{{OVF}}}References")
    disks = _section(root, "DiskSection", "Virtual disks")
    for number, (name, disk) in enumerate(zip(names, box.disks, strict=True), 1):
        size = str(disk.path.stat().st_size)
        _element(references, "File", id=f"file{number}", href=name, size=size)
        _element(
            disks,
            "Disk",
            diskId=f"disk{number}",
            fileRef=f"file{number}",
            capacity=str(disk.virtual_size),
            format=STREAM,
        )
    network = _element(_section(root, "NetworkSection", "Networks"), "Network", name="NAT")
    _text(network, OVF, "Description", "The network of the host")
    system = _element(root, "VirtualSystem", id="box")
    _text(system, OVF, "Info", "A virtual machine")
    kind = _section(system, "OperatingSystemSection", "The guest")
    kind.set(f"{{{OVF}}}id", SYSTEMS[box.os_type])
    _hardware(_section(system, "VirtualHardwareSection", "Hardware"), box)
    ET.indent(root)
    text: str = ET.tostring(root, encoding="unicode", xml_declaration=True)
    return text + "\n"


def _hardware(section: ET.Element, box: Box) -> None:
    system = ET.SubElement(section, f"{{{OVF}}}System")
    family = "virtualbox-2.2" if box.architecture is Architecture.X64 else "virtualbox-7.1"
    for name, value in (
        ("ElementName", "Virtual hardware"),
        ("InstanceID", "0"),
        ("VirtualSystemIdentifier", "box"),
        ("VirtualSystemType", family),
    ):
        _text(system, VSSD, name, value)
    cpus, memory = box.vcpus or DEFAULT_CPUS, box.memory_mib or DEFAULT_MEMORY
    _item(section, 1, CPU, f"{cpus} CPUs", VirtualQuantity=str(cpus))
    _item(
        section,
        2,
        MEMORY,
        f"{memory} MB of memory",
        AllocationUnits="MegaBytes",
        VirtualQuantity=str(memory),
    )
    _item(section, 3, SATA, "SATA controller", Address="0", ResourceSubType="AHCI")
    _item(
        section,
        4,
        ETHERNET,
        "Network adapter",
        AutomaticAllocation="true",
        Connection="NAT",
        ResourceSubType="E1000",
    )
    for number in range(len(box.disks)):
        _item(
            section,
            5 + number,
            DISK,
            f"Disk {number + 1}",
            AddressOnParent=str(number),
            HostResource=f"/disk/disk{number + 1}",
            Parent="3",
        )


def _item(section: ET.Element, number: int, kind: int, name: str, **values: str) -> None:
    item = ET.SubElement(section, f"{{{OVF}}}Item")
    values |= {"ElementName": name, "InstanceID": str(number), "ResourceType": str(kind)}
    for key in sorted(values):
        _text(item, RASD, key, values[key])


def _section(parent: ET.Element, name: str, info: str) -> ET.Element:
    section = ET.SubElement(parent, f"{{{OVF}}}{name}")
    _text(section, OVF, "Info", info)
    return section


def _element(parent: ET.Element, tag: str, /, **attributes: str) -> ET.Element:
    qualified = {f"{{{OVF}}}{key}": value for key, value in attributes.items()}
    return ET.SubElement(parent, f"{{{OVF}}}{tag}", qualified)


def _text(parent: ET.Element, namespace: str, name: str, text: str) -> None:
    ET.SubElement(parent, f"{{{namespace}}}{name}").text = text
