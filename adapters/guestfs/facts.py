"""What libguestfs's inspection says of the operating system on a set of disks."""

from adapters.guestfs.devices import ENCRYPTED, Devices
from adapters.guestfs.process import CallFailed, Helper, printable
from pipeline.errors import StageFailed
from pipeline.ports import GuestFacts

EFI_SYSTEM = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"  # GPT type of an EFI system partition

TABLES = {"msdos": "mbr", "gpt": "gpt"}


def chosen_root(helper: Helper, roots: list[str], devices: Devices) -> str:
    """The guest's root file system: the one on the first disk that has any."""
    if not roots:
        locked = [name for name, kind in devices.kinds().items() if kind in ENCRYPTED]
        reason = f"; encrypted: {printable(', '.join(locked))}" if locked else ""
        raise StageFailed(
            f"no operating system was found on the disks{reason}",
            hint="give the disk with the operating system as --os-disk, or use --no-generalize",
        )
    first = [root for root in roots if _disk(helper, root) == _disk(helper, roots[0])]
    if len(first) > 1:
        raise StageFailed(
            f"more than one operating system is on the disk: {printable(', '.join(first))}",
            hint="galleria treats one guest at a time",
        )
    return roots[0]


def facts(helper: Helper, roots: list[str], devices: Devices) -> GuestFacts:
    filesystems = tuple((printable(d), printable(k)) for d, k in devices.kinds().items())
    table, generation = _firmware(helper)
    if not roots:
        return GuestFacts(
            os_type="unknown",
            filesystems=filesystems,
            partition_table=table,
            generation=generation,
        )
    root = roots[0]

    def get(name: str) -> str:
        return printable(str(helper.call(f"inspect_get_{name}", root)))

    major, minor = get("major_version"), get("minor_version")
    points = helper.call("inspect_get_mountpoints", root)
    return GuestFacts(
        os_type=get("type") if get("type") in ("linux", "windows") else "unknown",
        distribution=get("distro"),
        version=f"{major}.{minor}" if (major, minor) != ("0", "0") else "",
        product_name=get("product_name"),
        architecture=get("arch"),
        hostname=get("hostname"),
        generation=generation,
        partition_table=table,
        filesystems=filesystems,
        mountpoints=tuple(sorted((printable(p), printable(d)) for p, d in points.items())),
    )


def _disk(helper: Helper, device: str) -> str:
    """The disk of a partition; a logical volume, which may span disks, is its own."""
    return str(helper.call("part_to_dev", device)) if device.startswith("/dev/sd") else device


def _firmware(helper: Helper) -> tuple[str, str]:
    """The OS disk's partition table, and the generation: V2 boots by UEFI from a GPT's EFI system
    partition, V1 by BIOS."""
    disk = helper.call("list_devices")[0]
    try:
        table = TABLES.get(helper.call("part_get_parttype", disk), "unknown")
    except CallFailed:
        return "none", "unknown"  # parted: unrecognised disk label
    if table != "gpt":
        return table, "V1" if table == "mbr" else "unknown"
    for part in helper.call("part_list", disk):
        if helper.call("part_get_gpt_type", disk, part["part_num"]) == EFI_SYSTEM:
            return table, "V2"
    return table, "V1"
