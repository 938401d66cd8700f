"""What the libvirt domain and the qemu command line of a machine have in common.

Linux: the OS disk and the seed are virtio block devices, data disks are on a virtio SCSI controller
under their LUNs, where guests find them as Azure's do. Windows has no virtio drivers of its own:
everything is on SATA, data disks in the order of their LUNs.
"""

from dataclasses import dataclass
from pathlib import Path

from adapters.vms import firmware
from pipeline.model import Architecture, HostCaching, HyperVGeneration, OsType
from pipeline.ports import ImageFormat
from pipeline.ports.vms import Machine

SATA_PORTS = 6  # of one controller (ICH9)
SEED = "seed.iso"
NVRAM = "nvram.fd"
LOOPBACK = "127.0.0.1"  # where forwarded ports are, for this host alone

_MACHINE = {Architecture.X64: ("x86_64", "q35"), Architecture.ARM64: ("aarch64", "virt")}


@dataclass(frozen=True, slots=True)
class Disk:
    """`device` is what libvirt calls it; `address` controller and unit, on scsi and sata."""

    path: Path
    format: ImageFormat
    bus: str  # virtio, scsi, sata
    device: str
    address: tuple[int, int] = (0, 0)
    cdrom: bool = False
    readonly: bool = False
    caching: HostCaching | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """How a machine is started; `card` is the model of its network card, `code` and `nvram` are
    those of UEFI."""

    arch: str
    machine: str
    card: str
    disks: tuple[Disk, ...]
    code: Path | None = None
    template: Path | None = None
    nvram: Path | None = None
    needs_smm: bool = False
    accelerator: str = "kvm"


def plan(machine: Machine, accelerator: str) -> Start:
    """`accelerator` is "kvm" where that works here, else "tcg". Raises EnvironmentMissing when a
    UEFI machine finds no firmware here."""
    arch, board = _MACHINE[machine.architecture]
    windows = machine.os_type is OsType.WINDOWS
    disks = tuple(_sata(machine) if windows else _virtio(machine))
    card = "e1000e" if windows else "virtio"
    if machine.generation is HyperVGeneration.V1:
        return Start(arch, board, card, disks, accelerator=accelerator)
    length = None if machine.nvram is None else len(machine.nvram)
    found = firmware.find(
        machine.architecture,
        secure_boot=machine.secure_boot,
        enrolled_keys=machine.enrolled_keys,
        nvram_length=length,
    )
    nvram = machine.home / NVRAM
    return Start(
        arch,
        board,
        card,
        disks,
        code=found.code,
        template=found.template,
        nvram=nvram,
        needs_smm=found.needs_smm,
        accelerator=accelerator,
    )


def _virtio(machine: Machine) -> list[Disk]:
    disks = []
    data = 0
    for disk in machine.disks:
        caching = machine.host_caching.get(disk.lun)
        if disk.lun is None:
            disks.append(Disk(disk.path, disk.format, "virtio", "vda", caching=caching))
        else:
            device, address = device_name("sd", data), (0, disk.lun)
            disks.append(Disk(disk.path, disk.format, "scsi", device, address, caching=caching))
            data += 1
    if machine.profile is not None:
        seed = machine.home / SEED
        disks.append(Disk(seed, ImageFormat.RAW, "virtio", "vdb", readonly=True))
    return disks


def _sata(machine: Machine) -> list[Disk]:
    files = [
        (disk.path, disk.format, False, machine.host_caching.get(disk.lun))
        for disk in machine.disks
    ]
    if machine.profile is not None:
        files.append((machine.home / SEED, ImageFormat.RAW, True, None))
    return [
        Disk(
            path,
            format,
            "sata",
            device_name("sd", index),
            divmod(index, SATA_PORTS),
            cdrom=cdrom,
            readonly=cdrom,
            caching=caching,
        )
        for index, (path, format, cdrom, caching) in enumerate(files)
    ]


def device_name(prefix: str, index: int) -> str:
    """sda ... sdz, sdaa ..., as the kernel counts."""
    letters = ""
    while index >= 0:
        letters = chr(ord("a") + index % 26) + letters
        index = index // 26 - 1
    return prefix + letters
