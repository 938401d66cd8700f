"""Checks in a Linux guest. Only reads; what is quoted of it is escaped."""

import re
from collections.abc import Iterator

from pipeline.azure.kernel import boot_arguments, driver_findings
from pipeline.data.text import printable
from pipeline.guest.findings import Finding, Severity, verdict
from pipeline.guest.operations import Editor
from pipeline.ports import Guest, GuestFacts

BY_NAME = re.compile(r"/dev/(?:sd|hd|vd|xvd|nvme)[a-z0-9]")
# In lines, blanks are no line breaks: a file of nothing else would be gone through again for each.
IFCFG = re.compile(r"(?mi)^[ \t]*BOOTPROTO=\"?(static|none)\b")
INTERFACES = re.compile(r"(?m)^[ \t]*iface[ \t]+(?!lo\b)\S+[ \t]+inet[ \t]+static")
KEYFILE = re.compile(r"(?mis)^\[ipv4\](?:(?!^\[).)*?^method=manual")
STATIC = {
    "/etc/sysconfig/network-scripts/ifcfg-*": IFCFG,
    "/etc/network/interfaces": INTERFACES,
    "/etc/network/interfaces.d/*": INTERFACES,
    "/etc/netplan/*.yaml": re.compile(r"(?m)^[ \t]*addresses[ \t]*:[ \t\r]*(\[|$)"),
    "/etc/NetworkManager/system-connections/*": KEYFILE,
    "/etc/systemd/network/*.network": re.compile(r"(?mi)^[ \t]*Address[ \t]*="),
}
BOUND = {
    "/etc/sysconfig/network-scripts/ifcfg-*": re.compile(r"(?mi)^[ \t]*HWADDR="),
    "/etc/netplan/*.yaml": re.compile(r"(?m)^[ \t]*macaddress[ \t]*:"),
    "/etc/NetworkManager/system-connections/*": re.compile(r"(?mi)^mac-address="),
    "/etc/systemd/network/*": re.compile(r"(?mi)^[ \t]*(Permanent)?MACAddress[ \t]*="),
    "/etc/udev/rules.d/*persistent-net.rules": re.compile(r"(?m)^[^#\n]*ATTR\{address\}"),
}
SSH_UNITS = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")
WANTS = "/etc/systemd/system/{}.wants/{}"
TARGETS = ("multi-user.target", "sockets.target", "cloud-init.target", "default.target")


def linux_findings(guest: Guest, facts: GuestFacts) -> Iterator[Finding]:
    reader = Editor(guest, "validate")  # used for its reading half
    yield from _storage(reader, facts)
    yield from _loader(reader, facts)
    yield from driver_findings(reader)
    yield from boot_arguments(reader)
    yield from _provisioning(reader)
    yield _ssh(reader)
    yield from _network(reader)


def _storage(reader: Editor, facts: GuestFacts) -> Iterator[Finding]:
    lines = [line.split("#")[0].split() for line in reader.text("/etc/fstab").splitlines()]
    entries = [fields for fields in lines if len(fields) >= 3]
    yield verdict(
        "fstab by UUID or label",
        Severity.FAIL,
        (
            f"{fields[0]} on {fields[1]}"
            for fields in entries
            if BY_NAME.match(printable(fields[0]))
        ),
        "name file systems by UUID= or LABEL=: Azure's disks change their order",
        f"{len(entries)} entries",
    )
    yield verdict(
        "no resource disk in fstab",
        Severity.WARN,
        (printable(fields[0]) for fields in entries if "azure_resource" in fields[0]),
        "leave the resource disk to the agent or cloud-init",
    )
    swap = [f"{device} is swap" for device, kind in facts.filesystems if kind == "swap"]
    swap += [f"{printable(fields[0])} in fstab" for fields in entries if fields[2] == "swap"]
    yield verdict(
        "no swap on the OS disk",
        Severity.WARN,
        swap,
        "remove it: Azure bills OS disk traffic; put swap on the resource disk",
    )
    yield verdict(
        "no LVM on the OS disk",
        Severity.WARN,
        (
            f"{point} is on {device}"
            for point, device in facts.mountpoints
            if not BY_NAME.match(device) and not device.startswith("btrfsvol:")
        ),
        "plain partitions: names of volumes clash when the disk is attached to another such VM",
    )


def _loader(reader: Editor, facts: GuestFacts) -> Iterator[Finding]:
    if facts.generation != "V2":
        return
    places = [point for point, _ in facts.mountpoints if point in ("/boot/efi", "/efi", "/boot")]
    loaders = [
        f"{printable(directory)}/{printable(name)}"
        for point in places
        for directory in reader.guest.glob(f"{point}/[Ee][Ff][Ii]/*")
        for name in reader.guest.names(directory)
        if name.lower().endswith(".efi")
    ]
    if not loaders and "/boot/efi" not in places:
        said = "the EFI system partition is not in fstab"
        yield Finding("UEFI boot loader", Severity.FAIL, None, said)
        return
    fallback = any(path.lower().endswith("/efi/boot/bootx64.efi") for path in loaders)
    found = ", ".join(sorted(loaders)[:5]) or "no loader on the EFI system partition"
    fix = "grub-install --removable puts EFI/BOOT/BOOTX64.EFI there: a new VM has no boot entries"
    severity = Severity.WARN if loaders else Severity.FAIL
    yield Finding("UEFI boot loader", severity, fallback, found, "" if fallback else fix)


def _provisioning(reader: Editor) -> Iterator[Finding]:
    agent = any(reader.exists(path) for path in ("/usr/sbin/waagent", "/usr/bin/waagent"))
    agent_on = agent and _enabled(reader, "waagent.service", "walinuxagent.service")
    init = reader.exists("/usr/bin/cloud-init") and not reader.exists(
        "/etc/cloud/cloud-init.disabled"
    )
    names = [name for name, there in (("waagent", agent_on), ("cloud-init", init)) if there]
    yield Finding(
        "provisioning agent",
        Severity.FAIL,
        bool(names),
        " and ".join(names) or "neither waagent nor cloud-init is installed and enabled",
        "" if names else "install cloud-init (and waagent, for extensions)",
    )
    yield Finding(
        "Azure Linux agent",
        Severity.WARN,
        agent_on,
        "enabled" if agent_on else "not enabled" if agent else "not installed",
        "" if agent_on else "install waagent: without it there are no VM extensions",
    )
    conf = dict(
        line.split("=", 1)
        for line in reader.text("/etc/waagent.conf").replace(" ", "").splitlines()
        if "=" in line and not line.startswith("#")
    )
    wanted = conf.get("Provisioning.Agent", "auto").split("#")[0].lower()
    problems = []
    if wanted == "cloud-init" and not init:
        problems.append("waagent.conf leaves provisioning to cloud-init, which is not enabled")
    if wanted in ("waagent", "disabled") and init:
        problems.append(f"waagent.conf says {printable(wanted)}, but cloud-init is enabled too")
    yield verdict(
        "one provisioner", Severity.FAIL, problems, "set Provisioning.Agent=auto", printable(wanted)
    )
    formats = init and conf.get("ResourceDisk.Format", "n").startswith("y")
    yield verdict(
        "one keeper of the resource disk",
        Severity.WARN,
        ["both waagent (ResourceDisk.Format=y) and cloud-init format it"] if formats else [],
        "ResourceDisk.Format=n in /etc/waagent.conf",
    )
    if init:
        yield from _cloud_init(reader)


def _cloud_init(reader: Editor) -> Iterator[Finding]:
    sources, problems = "", []
    for path in ("/etc/cloud/cloud.cfg", *reader.guest.glob("/etc/cloud/cloud.cfg.d/*.cfg")):
        text = reader.text(path)
        listed = re.search(r"(?m)^datasource_list\s*:\s*\[?([^\]\n]*(?:\n\s*-[^\n]*)*)", text)
        sources = listed.group(1) if listed else sources
        if re.search(r"(?m)^network\s*:\s*\{?\s*config\s*:\s*disabled", text):
            problems.append(f"{printable(path)} turns cloud-init's network off")
    if sources and "azure" not in sources.lower():
        problems.append(f"datasource_list has no Azure: {printable(sources.strip())}")
    yield verdict(
        "cloud-init takes Azure",
        Severity.FAIL,
        problems,
        "datasource_list: [ Azure ], and remove what the installer left in /etc/cloud/cloud.cfg.d",
        "nothing is in the way",
    )


def _ssh(reader: Editor) -> Finding:
    there = any(reader.exists(path) for path in ("/usr/sbin/sshd", "/usr/bin/sshd"))
    on = there and _enabled(reader, *SSH_UNITS)
    found = "enabled" if on else "not enabled" if there else "not installed"
    return Finding("ssh server", Severity.FAIL, on, found, "" if on else "install and enable sshd")


def _enabled(reader: Editor, *units: str) -> bool:
    wanted = (WANTS.format(target, unit) for target in TARGETS for unit in units)
    openrc = (f"/etc/runlevels/default/{unit.split('.')[0]}" for unit in units)
    return any(reader.exists(path) for path in (*wanted, *openrc))


def _network(reader: Editor) -> Iterator[Finding]:
    yield verdict(
        "network by DHCP",
        Severity.FAIL,
        _matching(reader, STATIC),
        "let the first network card use DHCP: Azure gives fixed addresses that way too",
        "no static address",
    )
    yield verdict(
        "no configuration bound to a MAC address",
        Severity.FAIL,
        _matching(reader, BOUND),
        "remove it (galleria generalize, operation network-state): each VM has another",
        "none",
    )


def _matching(reader: Editor, rules: dict[str, re.Pattern[str]]) -> list[str]:
    return [
        printable(path)
        for pattern, rule in rules.items()
        for path in (reader.guest.glob(pattern) if "*" in pattern else [pattern])
        if rule.search(reader.text(path)) and not path.endswith("/ifcfg-lo")
    ]
