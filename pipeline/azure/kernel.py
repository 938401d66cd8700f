"""Whether a Linux guest's kernels can start on Hyper-V, and what they are told at boot."""

import re
from collections.abc import Iterator

from pipeline.data.text import printable
from pipeline.guest.findings import Finding, Severity, verdict
from pipeline.guest.operations import Editor

CONFIG_LIMIT = 1 << 20
AT_BOOT = {"hv_vmbus": "CONFIG_HYPERV", "hv_storvsc": "CONFIG_HYPERV_STORAGE"}
LATER = {
    "hv_netvsc": ("CONFIG_HYPERV_NET", Severity.FAIL),
    "hid_hyperv": ("CONFIG_HID_HYPERV_MOUSE", Severity.WARN),
    "pci_hyperv": ("CONFIG_PCI_HYPERV", Severity.WARN),
    "udf": ("CONFIG_UDF_FS", Severity.FAIL),
    "vfat": ("CONFIG_VFAT_FS", Severity.FAIL),
}
INITRAMFS = ("initrd.img-{0}", "initramfs-{0}.img", "initrd-{0}", "initrd-{0}.img")
UNVERSIONED = {"vmlinuz-linux": "initramfs-linux.img", "vmlinuz-lts": "initramfs-lts"}
UNWANTED = ("rhgb", "quiet", "crashkernel=auto")


def driver_findings(reader: Editor) -> Iterator[Finding]:
    """Drivers of Hyper-V, of the newest kernel that the guest has."""
    kernels = sorted(
        (
            name
            for name in reader.guest.names(reader.follow("/boot"))
            if name.startswith("vmlinuz-")
        ),
        key=_by_number,
    )
    kernels = [name for name in kernels if "rescue" not in name]
    if not kernels:
        said = "no kernel (vmlinuz-*) in /boot"
        yield Finding("Hyper-V drivers at boot", Severity.FAIL, None, said)
        return
    kernel = kernels[-1]
    version = kernel.removeprefix("vmlinuz-")
    built_in, modules = _modules(reader, version)
    yield _at_boot(reader, kernel, version, built_in)
    blocked = _blacklisted(reader)
    for name, (option, severity) in LATER.items():
        there = _configured(reader, version, option) in ("y", "m") or name in built_in | modules
        problems = [] if there else [f"kernel {printable(version)} has no {name}"]
        problems += [f"{path} forbids {name}" for path in blocked.get(name, ())]
        yield verdict(f"driver {name}", severity, problems, "install or allow it", "there")


def boot_arguments(reader: Editor) -> Iterator[Finding]:
    """What boot entries give the kernel: GRUB's and the boot loader specification's, not only what
    /etc/default/grub would make of them."""
    lines = list(_entries(reader))
    if not lines:
        yield Finding("kernel arguments", Severity.WARN, None, "no boot entries were found")
        return
    problems = []
    for words in lines:
        consoles = [word for word in words if word.startswith("console=")]
        if not consoles or not consoles[-1].startswith("console=ttyS0"):
            problems.append("console=ttyS0 is not the last console")
        problems += [f"{word} is set" for word in UNWANTED if word in words]
    yield verdict(
        "kernel arguments",
        Severity.WARN,
        dict.fromkeys(problems),
        "console=tty1 console=ttyS0 earlyprintk=ttyS0, without rhgb, quiet and crashkernel=auto:"
        " Azure's serial console and boot diagnostics read ttyS0",
        f"{len(lines)} entries",
    )
    plain = all("net.ifnames=0" in words for words in lines)
    yield Finding(
        "names of network cards",
        Severity.INFO,
        plain,
        "net.ifnames=0" if plain else "predictable names: no net.ifnames=0",
        "" if plain else "net.ifnames=0 makes the first one eth0, as Azure recommends",
    )
    early = all(any(word.startswith("earlyprintk=ttyS0") for word in words) for words in lines)
    yield Finding(
        "early messages",
        Severity.INFO,
        early,
        "earlyprintk=ttyS0" if early else "no earlyprintk=ttyS0",
        "" if early else "add it: what fails before the console is there is seen then",
    )


def _at_boot(reader: Editor, kernel: str, version: str, built_in: set[str]) -> Finding:
    title, fix = "Hyper-V drivers at boot", "add hv_vmbus and hv_storvsc to the initramfs"
    wanted = {
        name
        for name, option in AT_BOOT.items()
        if name not in built_in and _configured(reader, version, option) != "y"
    }
    if not wanted:
        return Finding(title, Severity.FAIL, True, f"built into kernel {printable(version)}")
    names = [name.format(version) for name in INITRAMFS]
    names += [UNVERSIONED[kernel]] if kernel in UNVERSIONED else []
    path = next((p for name in names if reader.is_file(p := reader.follow(f"/boot/{name}"))), None)
    if path is None:
        return Finding(
            title, Severity.FAIL, False, "there is no initramfs, and no driver built in", fix
        )
    inside = {_module(name) for name in reader.guest.initramfs(path)}
    if not inside:
        said = f"{printable(path)} could not be listed (packed with lz4?)"
        return Finding(title, Severity.FAIL, None, said)
    missing = sorted(wanted - inside)
    found = f"{printable(path)} lacks {', '.join(missing)}" if missing else f"in {printable(path)}"
    return Finding(title, Severity.FAIL, not missing, found, fix if missing else "")


def _modules(reader: Editor, version: str) -> tuple[set[str], set[str]]:
    """Names of what is built in, and of modules, as depmod(8) lists them."""
    directory = f"/lib/modules/{version}"

    def listed(name: str) -> set[str]:
        real = reader.follow(f"{directory}/{name}")
        if not reader.is_file(real):
            return set()
        text = reader.guest.read(real, 4 * CONFIG_LIMIT).decode(errors="replace")
        return {_module(line.split(":")[0]) for line in text.splitlines()}

    return listed("modules.builtin"), listed("modules.dep")


def _module(path: str) -> str:
    """ "hid_hyperv" of ".../hid-hyperv.ko.xz"."""
    return path.rsplit("/", 1)[-1].split(".ko")[0].replace("-", "_")


def _configured(reader: Editor, version: str, option: str) -> str:
    text = reader.text(f"/boot/config-{version}") or reader.text(f"/lib/modules/{version}/config")
    found = re.search(rf"(?m)^{option}=([ym])$", text)
    return found.group(1) if found else ""


def _blacklisted(reader: Editor) -> dict[str, list[str]]:
    rule = re.compile(
        r"(?m)^[ \t]*(?:blacklist[ \t]+(\S+)"
        r"|install[ \t]+(\S+)[ \t]+/(?:usr/)?s?bin/(?:true|false))"
    )
    found: dict[str, list[str]] = {}
    for directory in ("/etc/modprobe.d", "/lib/modprobe.d", "/usr/lib/modprobe.d"):
        for path in reader.guest.glob(f"{directory}/*.conf"):
            for names in rule.findall(reader.text(path)):
                name = "".join(names).replace("-", "_")
                found.setdefault(name, []).append(printable(path))
    return found


def _entries(reader: Editor) -> Iterator[list[str]]:
    for path in ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/*/grub.cfg"):
        for real in reader.guest.glob(path) if "*" in path else [path]:
            for line in reader.text(real).splitlines():
                words = line.split()
                if words[:1] and words[0] in ("linux", "linux16", "linuxefi"):
                    yield words[1:]
    variables = reader.text("/boot/grub2/grubenv")
    default = re.search(r"(?m)^kernelopts=(.*)$", variables)
    for path in reader.guest.glob("/boot/loader/entries/*.conf"):
        options = re.search(r"(?m)^options\s+(.*)$", reader.text(path))
        if options:
            text = options.group(1).replace("$kernelopts", default.group(1) if default else "")
            yield text.split()


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
