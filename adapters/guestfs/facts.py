"""What is on a set of disks: the operating system, where it is mounted, how it boots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from adapters.guestfs import roots
from adapters.guestfs.devices import ENCRYPTED, Devices
from adapters.guestfs.process import CallFailed, Helper, printable
from pipeline.errors import StageFailed
from pipeline.ports import Guest, GuestFacts
from pipeline.sources.partitions import ESP

MBR_ESP = "0xef"
TABLES = {"dos": "mbr", "gpt": "gpt", "": "none"}


@dataclass(frozen=True, slots=True)
class System:
    """`mountpoints`: mount point -> libguestfs's name of the device or subvolume, and `binds`:
    mount point -> directory; empty when `problem` says why there is none that could be mounted."""

    facts: GuestFacts
    mountpoints: Mapping[str, str]
    problem: str = ""
    binds: Mapping[str, str] = field(default_factory=dict)


def find_system(helper: Helper, devices: Devices, view: Callable[[], Guest]) -> System:
    """Which system is on the disks; `view` gives a guest of what is mounted."""
    found = roots.inspect(helper, devices, view)
    if found.sure and len(found.roots) == 1 and not found.images:
        return _own(found.roots[0], devices)
    if found.images:
        problem = (
            f"{printable(', '.join(found.images))} holds an image-mode system (ostree): its files "
            "lie in deployments, which galleria does not generalize"
        )
        facts = replace(_facts({"os_type": "unknown"}, devices, {}), notes=(problem,))
        return System(facts, {}, problem)
    asked = inspected(helper)
    if asked is None:
        if len(found.roots) == 1:
            return _own(found.roots[0], devices)
        asked = [root.device for root in found.roots]
        if asked:
            return System(_facts({"os_type": "linux"}, devices, {}), {}, _several(asked))
    if not asked:
        locked = [name for name, kind in devices.kinds().items() if kind in ENCRYPTED]
        reason = f"; encrypted: {printable(', '.join(locked))}" if locked else ""
        problem = f"no operating system was found on the disks{reason}"
        return System(_facts({"os_type": "unknown"}, devices, {}), {}, problem)
    first = [name for name in asked if _disk(name) == _disk(asked[0])]
    problem = _several(first) if len(first) > 1 else ""
    own = next((root for root in found.roots if root.device == asked[0]), None)
    if own is not None and not problem:
        known = _asked(helper, asked[0]) if own.distribution == roots.UNNAMED else None
        return _own(own, devices, known)
    points = helper.call("inspect_get_mountpoints", asked[0])
    return System(_facts(_asked(helper, asked[0]), devices, points), points, problem)


def inspected(helper: Helper) -> list[str] | None:
    """The roots that libguestfs finds; None: a line of fstab that it can't follow ended it."""
    try:
        return list(helper.call("inspect_os"))
    except CallFailed:
        helper.call("umount_all")  # what it was looking at is still mounted, to be read
        return None


def _several(names: Sequence[str]) -> str:
    return f"more than one operating system is on the disk: {printable(', '.join(names))}"


def _own(root: roots.Root, devices: Devices, asked: dict[str, str] | None = None) -> System:
    """The system as galleria's own inspection found it; `asked` is what libguestfs calls it."""
    known = asked or {
        "os_type": "linux",
        "distribution": root.distribution or "unknown",
        "version": root.version,
        "product_name": root.product_name,
        "architecture": root.architecture,
        "hostname": root.hostname,
    }
    mounts = root.mounts
    facts = replace(
        _facts(known, devices, mounts.points),
        notes=tuple(mounts.notes),
        var_partition=mounts.of_machine_id,
    )
    return System(facts, mounts.points, binds=mounts.binds)


def mountable(system: System) -> Mapping[str, str]:
    """Where to mount what. Raises StageFailed where there is no single operating system."""
    if system.problem or "/" not in system.mountpoints:
        raise StageFailed(
            system.problem or "the guest's root file system is not on the disks",
            hint="galleria treats one guest at a time"
            if system.mountpoints
            else "give the disk with the operating system as --os-disk, --key-file for an "
            "encrypted one, or use --no-generalize",
        )
    return system.mountpoints


def _asked(helper: Helper, root: str) -> dict[str, str]:
    def get(name: str) -> str:
        return printable(str(helper.call(f"inspect_get_{name}", root)))

    major, minor = get("major_version"), get("minor_version")
    os_type = get("type")
    version = f"{major}.{minor.zfill(2) if get('distro') == 'ubuntu' else minor}"
    return {
        "os_type": os_type if os_type in ("linux", "windows") else "unknown",
        "distribution": get("distro"),
        "version": version if (major, minor) != ("0", "0") else "",
        "product_name": get("product_name"),
        "architecture": get("arch"),
        "hostname": get("hostname"),
    }


def _facts(known: dict[str, str], devices: Devices, points: Mapping[str, str]) -> GuestFacts:
    table, generation = _firmware(devices)
    said = {key: printable(value) for key, value in known.items()}
    return GuestFacts(
        os_type=said["os_type"],
        distribution=said.get("distribution", "unknown"),
        version=said.get("version", ""),
        product_name=said.get("product_name", ""),
        architecture=said.get("architecture", "unknown"),
        hostname=said.get("hostname", ""),
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
