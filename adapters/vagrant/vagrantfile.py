"""The Vagrantfile in a box: defaults that a user's own Vagrantfile overrides.

Only numbers and words of galleria's own are written into it, as it is Ruby that Vagrant runs.
"""

import hashlib

from pipeline.model import Architecture, OsType
from pipeline.ports.boxes import Box, Provider

# UEFI that is code and variables in one file, which libvirt takes as a ROM: the variables are the
# machine's own then, and gone when it stops. Debian and Ubuntu, Arch, openSUSE.
FIRMWARE = (
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/edk2/x64/OVMF.4m.fd",
    "/usr/share/qemu/ovmf-x86_64.bin",
)
QEMU = ("/usr/share/qemu", "/opt/homebrew/share/qemu", "/usr/local/share/qemu")


def vagrantfile(box: Box) -> str:
    """The text. A synced folder would need programs in the guest that nobody has asked for."""
    settings = {
        Provider.LIBVIRT: {"libvirt": _libvirt, "qemu": _qemu},
        Provider.VIRTUALBOX: {"virtualbox": _virtualbox},
    }[box.provider]
    lines = ['config.vm.synced_folder ".", "/vagrant", disabled: true']
    if box.os_type is OsType.WINDOWS:
        lines += ["config.vm.guest = :windows", 'config.vm.communicator = "winrm"']
    if box.provider is Provider.VIRTUALBOX:
        lines.append(f'config.vm.base_mac = "{_mac(box.seed)}"')
    for name, make in settings.items():
        if settled := make(box):
            lines.append(f"config.vm.provider :{name} do |{name}|")
            lines += [f"  {line}" for line in settled]
            lines.append("end")
    body = "".join(f"  {line}\n" for line in lines)
    return f'Vagrant.configure("2") do |config|\n{body}end\n'


def _libvirt(box: Box) -> list[str]:
    lines = []
    if box.architecture is Architecture.X64:
        lines.append('libvirt.machine_type = "q35"')
    else:
        lines += ['libvirt.machine_arch = "aarch64"', 'libvirt.machine_type = "virt"']
    if box.os_type is OsType.WINDOWS:
        lines += ['libvirt.disk_bus = "sata"', 'libvirt.nic_model_type = "e1000e"']
    else:
        lines += ['libvirt.disk_bus = "virtio"', 'libvirt.nic_model_type = "virtio"']
    if box.uefi and box.architecture is Architecture.X64:
        lines.append(f"firmware = {_first(FIRMWARE)}")
        lines.append("libvirt.loader = firmware if firmware")
    return [*lines, *_size(box, "libvirt", "cpus", "")]


def _qemu(box: Box) -> list[str]:
    """The plugin's own defaults are those of a Mac: its place of QEMU's files has to be there."""
    x64 = box.architecture is Architecture.X64
    lines = [
        f'qemu.arch = "{"x86_64" if x64 else "aarch64"}"',
        f'qemu.machine = "{"q35" if x64 else "virt"},accel=kvm:hvf:tcg"',
        'qemu.cpu = "max"',
        'qemu.net_device = "virtio-net-pci"',
        f"directory = {_first(QEMU)}",
        "qemu.qemu_dir = directory if directory",
    ]
    if box.uefi and x64:
        lines.append(f"firmware = {_first(FIRMWARE)}")
        lines.append('qemu.extra_qemu_args = ["-bios", firmware] if firmware')
    return [*lines, *_size(box, "qemu", "smp", "M")]


def _first(paths: tuple[str, ...]) -> str:
    """Ruby for the first of these paths that is there."""
    names = ", ".join(f'"{path}"' for path in paths)
    return f"[{names}].find {{ |path| File.exist?(path) }}"


def _virtualbox(box: Box) -> list[str]:
    lines = _size(box, "virtualbox", "cpus", "")
    if box.uefi:
        lines.append('virtualbox.customize ["modifyvm", :id, "--firmware", "efi"]')
    return lines


def _size(box: Box, name: str, cpus: str, unit: str) -> list[str]:
    lines = []
    if box.memory_mib:
        memory = f'"{box.memory_mib}{unit}"' if unit else str(box.memory_mib)
        lines.append(f"{name}.memory = {memory}")
    if box.vcpus:
        lines.append(f"{name}.{cpus} = {box.vcpus}")
    return lines


def _mac(seed: str) -> str:
    """In VirtualBox's range, 08:00:27."""
    return "080027" + hashlib.blake2s(seed.encode(), digest_size=3).hexdigest().upper()
