"""What is on a set of disks: the operating system, where it is mounted, how it boots."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adapters.guestfs import roots
from adapters.guestfs.devices import ENCRYPTED, Devices
from adapters.guestfs.process import Helper, printable
from pipeline.errors import StageFailed
from pipeline.ports import Guest, GuestFacts
from pipeline.sources.partitions import ESP

MBR_ESP = "0xef"
TABLES = {"dos": "mbr", "gpt": "gpt", "": "none"}


@dataclass(frozen=True, slots=True)
class System:
    """`mountpoints`: mount point -> libguestfs's name of the device or subvolume; empty when
    `problem` says why there is none that could be mounted."""

    facts: GuestFacts
    mountpoints: Mapping[str, str]
    problem: str = ""


def examine(helper: Helper, devices: Devices, look: Callable[[], Guest]) -> System:
    """`look` gives a view of what is mounted, for the quick inspection of the plain case."""
    root = roots.inspect(helper, devices, look)
    if root is not None:
        known = {
            "os_type": "linux",
            "distribution": root.distribution,
            "version": root.version,
            "product_name": root.product_name,
            "architecture": root.architecture,
            "hostname": root.hostname,
        }
        return System(_facts(known, devices, root.mountpoints), root.mountpoints)
    found = helper.call("inspect_os")
    if not found:
        locked = [name for name, kind in devices.kinds().items() if kind in ENCRYPTED]
        reason = f"; encrypted: {printable(', '.join(locked))}" if locked else ""
        problem = f"no operating system was found on the disks{reason}"
        return System(_facts({"os_type": "unknown"}, devices, {}), {}, problem)
    problem = ""
    first = [name for name in found if _disk(name) == _disk(found[0])]
    if len(first) > 1:
        problem = f"more than one operating system is on the disk: {printable(', '.join(first))}"
    points = helper.call("inspect_get_mountpoints", found[0])
    return System(_facts(_asked(helper, found[0]), devices, points), points, problem)


def mountable(system: System) -> Mapping[str, str]:
    """Where to mount what. Raises StageFailed where there is no single operating system."""
    if system.problem or "/" not in system.mountpoints:
        raise StageFailed(
            system.problem or "the guest's root file system is not on the disks",
            hint="galleria treats one guest at a time"
            if system.mountpoints
            else "give the disk with the operating system as --os-disk, --key for an encrypted "
            "one, or use --no-generalize",
        )
    return system.mountpoints


def device_of(mountable_name: str) -> str:
    """The device of libguestfs's name of a btrfs subvolume, "btrfsvol:/dev/sda2/root"."""
    if not mountable_name.startswith("btrfsvol:"):
        return mountable_name
    parts = mountable_name.removeprefix("btrfsvol:").split("/")
    # /dev/sda2/SUBVOLUME, or /dev/GROUP/VOLUME/SUBVOLUME
    plain = parts[2].startswith(("sd", "md")) and parts[2][-1:].isalnum()
    return "/".join(parts[:3] if plain else parts[:4])


def _asked(helper: Helper, root: str) -> dict[str, str]:
    def get(name: str) -> str:
        return printable(str(helper.call(f"inspect_get_{name}", root)))

    major, minor = get("major_version"), get("minor_version")
    os_type = get("type")
    return {
        "os_type": os_type if os_type in ("linux", "windows") else "unknown",
        "distribution": get("distro"),
        "version": f"{major}.{minor}" if (major, minor) != ("0", "0") else "",
        "product_name": get("product_name"),
        "architecture": get("arch"),
        "hostname": get("hostname"),
    }


def _facts(known: dict[str, str], devices: Devices, points: Mapping[str, str]) -> GuestFacts:
    table, generation = _firmware(devices)
    return GuestFacts(
        **{key: printable(value) for key, value in known.items()},
        generation=generation,
        partition_table=table,
        filesystems=tuple((printable(d), printable(k)) for d, k in devices.kinds().items()),
        mountpoints=tuple(sorted((printable(p), printable(d)) for p, d in points.items())),
    )


def _disk(device: str) -> str:
    """The disk of a partition; a logical volume, which may span disks, is its own."""
    return device.rstrip("0123456789") if device.startswith("/dev/sd") else device


def _firmware(devices: Devices) -> tuple[str, str]:
    """The OS disk's partition table, and the generation: V2 boots by UEFI from an EFI system
    partition, V1 by BIOS."""
    name, types = devices.tables[0]
    table = TABLES.get(name, "unknown")
    if {str(ESP), MBR_ESP} & {kind.lower() for kind in types}:
        return table, "V2"
    return table, "V1" if table in ("mbr", "gpt") else "unknown"
