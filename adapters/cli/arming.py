"""`galleria generalize --arm-sysprep`: what a person has to do with the disk that it makes."""

import shlex
from pathlib import Path

from adapters.text import printable
from pipeline.ports import ImageFormat

# the disk where every Windows has a driver for it; no network, so that no update comes between
MACHINE = (*("-cpu", "max", "-smp", "2", "-m", "4096", "-nic", "none", "-rtc", "base=localtime"),)
FIRMWARE = (
    Path("/usr/share/OVMF/OVMF_CODE_4M.fd"),
    Path("/usr/share/OVMF/OVMF_CODE.fd"),
    Path("/usr/share/edk2/ovmf/OVMF_CODE.fd"),
)


def boot_command(disk: Path, format: ImageFormat, generation: str, accelerator: str) -> str:
    """A shell command that boots an armed disk. It restarts once and powers off at the end.
    `accelerator` is one that works: with "kvm:tcg" QEMU aborts where KVM is there but broken."""
    name = {ImageFormat.VHD: "vpc"}.get(format, format.value)
    argv = ["qemu-system-x86_64", "-machine", f"q35,accel={accelerator}", *MACHINE]
    if generation == "V2":
        firmware = next((path for path in FIRMWARE if path.exists()), FIRMWARE[0])
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={firmware}"]
    # a comma in a file name is doubled (qemu-options)
    path = str(disk.absolute()).replace(",", ",,")
    argv += ["-drive", f"if=ide,format={name},file={path}"]
    return shlex.join(argv)


def instructions(disk: Path, command: str) -> str:
    return (
        f"wrote {printable(str(disk))}: its next boot runs sysprep /generalize /oobe /shutdown. "
        "Boot it once:\n"
        f"  {command}\n"
        "It restarts, waits two minutes, runs Sysprep and powers off. Then see what came of it:\n"
        f"  galleria generalize {shlex.quote(str(disk))} --check"
    )
