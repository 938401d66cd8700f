"""Where a Linux guest would mount what is on its disks.

Asked in the order in which systemd takes them: fstab(5), `systemd.mount-extra=` on the kernel's
command line (systemd-fstab-generator(8)), mount units (systemd.mount(5)), and the types of a GPT's
partitions (systemd-gpt-auto-generator(8), the Discoverable Partitions Specification). A line that
can't be followed is told and skipped: it ends nothing.
"""

import hashlib
import hmac
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.guestfs.btrfs import TOP_LEVEL, Listing
from adapters.guestfs.devices import Device, Devices
from adapters.guestfs.process import printable
from pipeline.guest.operations import Editor, lines_of

MOUNTABLE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat")
NOT_MOUNTED = ("/proc", "/sys", "/dev", "/run")
UNITS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
SUBVOLUME = ("subvol=", "subvolid=")
# what sets the kernel's command line, as far as it lies on the root's file system
COMMAND_LINES = (
    *("/etc/kernel/cmdline", "/etc/cmdline.d/*.conf", "/etc/default/grub"),
    *("/boot/loader/entries/*.conf", "/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"),
)
EXTRA = re.compile(r"(?<![^\s\"'=])(?:rd\.)?systemd\.mount-extra=([^\s\"']+)")
TAGS = ("UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=")
OCTAL = re.compile(r"\\([0-7]{3})")
# names that say which partition of some disk, but not of which
PART = re.compile(
    r"/dev/(?:disk/by-(?:id|path|diskseq)/.*-part|mapper/mpath[a-z]+(?:-part|p)?"
    r"|mapper/[0-9a-f]{16,}(?:-part|p)|nvme\d+n\d+p|mmcblk\d+p|nbd\d+p|(?:xv|[vhs])d[a-z]+)(\d+)"
)
WHOLE = re.compile(r"/dev/(?:disk/by-(?:id|path|diskseq)/.*|mapper/mpath[a-z]+|nvme\d+n\d+)")
OWN_PART = re.compile(r"/dev/sd[a-z]+(\d*)")
VAR = uuid.UUID("4d21b016-b534-45c2-a9fb-5c16e091fd2d")
# partition type -> where it goes, the first of these that there is
TYPES: Mapping[str, tuple[str, ...]] = {
    "933ac7e1-2eb4-4f13-b844-0e14e2aef915": ("/home",),
    "3b8f8425-20e0-4f3b-907f-1a25a76f98e8": ("/srv",),
    str(VAR): ("/var",),
    "7ec6f557-3bc5-4aca-b293-16ef5df639d1": ("/var/tmp",),  # noqa: S108 - the guest's
    "8484680c-9521-48c6-9c11-b0720656f69e": ("/usr",),  # x86-64
    "b0e01050-ee5f-4390-949a-9101b17104e9": ("/usr",),  # AArch64
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": ("/boot",),
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": ("/efi", "/boot"),
}


Listings = Callable[[Device], Listing]  # the subvolumes of a btrfs


@dataclass(frozen=True, slots=True)
class Line:
    """One mount that the guest asks for, and where it does."""

    spec: str
    point: str
    kind: str
    options: tuple[str, ...]
    source: str

    @property
    def binds(self) -> bool:
        return bool({"bind", "rbind"} & set(self.options))

    @property
    def is_local(self) -> bool:
        return self.spec.startswith(("/dev/", *TAGS))

    def skipped(self, why: str) -> str:
        return printable(f"{self.source}: {self.spec} at {self.point} is skipped: {why}")


@dataclass(slots=True)
class Mounts:
    """`points`: mount point -> device or subvolume; `binds`: mount point -> directory; `notes` are
    the lines that were skipped, and why; `of_machine_id`: the partition (its UUID) that is /var as
    long as the guest has its machine id."""

    points: dict[str, str]
    binds: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    of_machine_id: str = ""


def read(reader: Editor, root: str, found: Devices, listings: Listings) -> Mounts:
    """The mounts of the guest whose root is mounted."""
    lines = [*fstab(reader.text("/etc/fstab")), *extra(reader), *units(reader)]
    opened = encrypted(reader.text("/etc/crypttab"), found)
    mounts = place(lines, root, found, opened, listings)
    _discover(reader, root, found, mounts)
    return mounts


def fstab(text: str) -> Iterator[Line]:
    for line in lines_of(text):
        fields = line.split()
        if len(fields) >= 2 and not fields[0].startswith("#"):
            fields = [OCTAL.sub(lambda match: chr(int(match[1], 8)), item) for item in fields]
            kind = fields[2] if len(fields) > 2 else "auto"
            options = tuple(fields[3].split(",")) if len(fields) > 3 else ()
            yield Line(fields[0], fields[1], kind.strip(","), options, "/etc/fstab")


def extra(reader: Editor) -> Iterator[Line]:
    """What the kernel's command line adds: WHAT:WHERE[:TYPE[:OPTIONS]], none of them quoted."""
    for path in (path for pattern in COMMAND_LINES for path in reader.guest.glob(pattern)):
        for said in EXTRA.findall(reader.text(path)):
            spec, _, rest = said.partition(":")
            point, _, rest = rest.partition(":")
            kind, _, options = rest.partition(":")
            names = [OCTAL.sub(lambda match: chr(int(match[1], 8)), item) for item in (spec, point)]
            yield Line(names[0], names[1], kind or "auto", tuple(options.split(",")), path)


def units(reader: Editor) -> Iterator[Line]:
    """systemd.mount(5): of two units of one name the one of the machine's owner counts."""
    seen = set()
    for directory in UNITS:
        for path in reader.guest.glob(f"{directory}/*.mount"):
            name = path.rpartition("/")[2]
            if name not in seen:
                seen.add(name)
                yield from _unit(reader.text(path), path)


def _unit(text: str, path: str) -> Iterator[Line]:
    values, section = {}, ""
    for line in (line.strip() for line in lines_of(text)):
        if line.startswith("["):
            section = line
        key, mark, value = line.partition("=")
        if mark and section == "[Mount]":
            values[key.strip()] = value.strip().strip('"')
    if values.get("What") and values.get("Where", "").startswith("/"):
        options = tuple(values.get("Options", "").split(","))
        yield Line(values["What"], values["Where"], values.get("Type", "auto"), options, path)


def encrypted(crypttab: str, found: Devices) -> dict[str, str]:
    """crypttab(5): what the guest calls its opened volumes -> what they are called here."""
    names = {}
    for line in lines_of(crypttab):
        fields = line.split()
        if len(fields) < 2 or fields[0].startswith("#"):
            continue
        device = find(fields[1], found)
        number = fields[1][5:] if device is None else device.tags.get("UUID", "")
        if device is not None or fields[1].startswith("UUID="):
            names[f"/dev/mapper/{fields[0]}"] = f"/dev/mapper/luks-{number.lower()}"
    return names


def place(
    lines: Iterable[Line],
    root: str,
    found: Devices,
    opened: Mapping[str, str],
    listings: Listings,
) -> Mounts:
    """Which of the lines are about these disks, and which device each means. What a line names
    exactly is taken first; then what only one device that is left can be."""
    mounts = Mounts({"/": root})
    guessed = []
    for line in lines:
        point = line.point.rstrip("/")
        if not point.startswith("/") or point in NOT_MOUNTED or line.kind == "swap":
            continue
        if point in mounts.points or point in mounts.binds:
            continue
        if ".." in point.split("/") or "\0" in point:
            mounts.notes.append(line.skipped("'..' in its mount point"))
        elif line.binds:
            _bind(line, point, mounts)
        elif line.is_local:
            device = find(opened.get(line.spec, line.spec), found)
            if device is None:
                guessed.append(line)
            else:
                _add(line, point, device, mounts, listings)
    for line in guessed:
        taken = {device_name(name) for name in mounts.points.values()}
        device = _only(line, [item for item in found.devices if item.name not in taken])
        if device is None:
            mounts.notes.append(line.skipped("nothing on the given disks is known by that name"))
        else:
            _add(line, line.point.rstrip("/"), device, mounts, listings)
    return mounts


def _bind(line: Line, point: str, mounts: Mounts) -> None:
    if line.spec.startswith("/") and ".." not in line.spec.split("/"):
        mounts.binds[point] = line.spec.rstrip("/")
    else:
        mounts.notes.append(line.skipped("it is no plain path"))


def _add(line: Line, point: str, device: Device, mounts: Mounts, listings: Listings) -> None:
    if device.kind not in MOUNTABLE:
        mounts.notes.append(line.skipped(f"its file system is {device.kind}"))
        return
    named = [option for option in line.options if option.startswith(SUBVOLUME)]
    if device.kind != "btrfs" or not named:
        mounts.points[point] = device.name
    elif volume := subvolume(named, lambda: listings(device)):
        mounts.points[point] = f"btrfsvol:{device.name}/{volume}"
    elif volume is None:
        mounts.notes.append(line.skipped("no subvolume has that number"))
    elif listings(device).default:
        mounts.notes.append(line.skipped("it names the top of all subvolumes"))
    else:
        mounts.points[point] = device.name


def _only(line: Line, left: Sequence[Device]) -> Device | None:
    """The one device that a name can mean which says a partition's number, but no disk."""
    part = PART.fullmatch(line.spec)
    if part is None and not WHOLE.fullmatch(line.spec):
        return None
    number = part[1] if part else ""
    kinds = MOUNTABLE if line.kind == "auto" else tuple(line.kind.split(","))
    fitting = [
        device
        for device in left
        if device.kind in MOUNTABLE
        and device.kind in kinds
        and (own := OWN_PART.fullmatch(device.name)) is not None
        and own[1] == number
    ]
    return fitting[0] if len(fitting) == 1 else None


def subvolume(options: Sequence[str], listing: Callable[[], Listing]) -> str | None:
    """The path of the subvolume that a mount with these options mounts, "" for the top; None: it is
    not there."""
    named = [option for option in options if option.startswith(SUBVOLUME)]
    if not named:
        return listing().default
    key, _, value = named[-1].partition("=")
    if key == "subvol":
        return value.strip("/")
    if value in ("0", str(TOP_LEVEL)):
        return ""
    paths = [item.path for item in listing().subvolumes if str(item.number) == value]
    return paths[0] if paths else None


def device_name(mountable: str) -> str:
    """The device of libguestfs's name of a btrfs subvolume, "btrfsvol:/dev/sda2/root"."""
    if not mountable.startswith("btrfsvol:"):
        return mountable
    parts = mountable.removeprefix("btrfsvol:").split("/")
    # /dev/sda2/SUBVOLUME, or /dev/GROUP/VOLUME/SUBVOLUME
    plain = parts[2].startswith(("sd", "md")) and parts[2][-1:].isalnum()
    return "/".join(parts[:3] if plain else parts[:4])


def find(spec: str, found: Devices) -> Device | None:
    """The device that a name means beyond doubt."""
    key, mark, value = spec.partition("=")
    if mark and not spec.startswith("/"):
        tag = {"PARTUUID": "PART_ENTRY_UUID", "PARTLABEL": "PART_ENTRY_NAME"}.get(key, key)
        value = value.strip('"')
        same = [item for item in found.devices if _same(item.tags.get(tag), value, tag)]
        return same[0] if len(same) == 1 else None
    for prefix, tag in (
        ("/dev/disk/by-uuid/", "UUID"),
        ("/dev/disk/by-label/", "LABEL"),
        ("/dev/disk/by-partuuid/", "PARTUUID"),
        ("/dev/disk/by-partlabel/", "PARTLABEL"),
    ):
        if spec.startswith(prefix):
            return find(f"{tag}={_unescaped(spec.removeprefix(prefix))}", found)
    if spec.startswith("/dev/disk/by-id/dm-uuid-LVM-"):
        wanted = spec.removeprefix("/dev/disk/by-id/dm-uuid-LVM-")
        same = [item for item in found.devices if item.tags.get("LVM_UUID") == wanted]
        return same[0] if len(same) == 1 else None
    spec = spec.replace("/dev/disk/by-id/dm-name-", "/dev/mapper/", 1)
    if spec.startswith("/dev/mapper/") and found.find(spec) is None:
        # device-mapper writes a hyphen of a name twice
        name = re.sub("(?<!-)-(?!-)", "/", spec.removeprefix("/dev/mapper/"), count=1)
        group, _, volume = name.partition("/")
        return found.find(f"/dev/{group.replace('--', '-')}/{volume.replace('--', '-')}")
    # vda1, xvda1, hda1: what the guest's own bus called the same disk
    renamed = re.sub(r"^/dev/(?:xv|[vhs])d([a-z]+\d*)$", r"/dev/sd\1", spec)
    return found.find(renamed)


def _unescaped(name: str) -> str:
    r"""udev writes what is unsafe in a name of a link as \x20."""
    raw = re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), name)
    try:
        return raw.encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name


def _same(tag: str | None, value: str, name: str) -> bool:
    if tag is None:
        return False
    if name in ("LABEL", "PART_ENTRY_NAME"):
        return tag in (value, _visible(value))
    return tag.lower() == value.lower()


def _visible(name: str) -> str:
    """A name as blkid(8) prints it: bytes that are no printable ASCII as ^X and M-X."""
    shown = ""
    for byte in name.encode("utf-8", "surrogateescape"):
        high, low = divmod(byte, 128)
        shown += "M-" * high + (f"^{chr(low ^ 64)}" if low < 32 or low == 127 else chr(low))
    return shown


def _discover(reader: Editor, root: str, found: Devices, mounts: Mounts) -> None:
    """Partitions that their types place, as far as no line places something else there."""
    disk = device_name(root).rstrip("0123456789")
    taken = {device_name(name) for name in mounts.points.values()}
    for device in found.devices:
        kind = device.tags.get("PART_ENTRY_TYPE", "").lower()
        own_disk = device.name.rstrip("0123456789") == disk
        if kind not in TYPES or not own_disk or device.name in taken:
            continue
        free = [point for point in TYPES[kind] if _is_free(reader, point, mounts)]
        if not free or device.kind not in MOUNTABLE:
            continue
        number = device.tags.get("PART_ENTRY_UUID", "").lower()
        if free[0] == "/var":
            if number != var_partition(reader.text("/etc/machine-id")):
                continue  # another system's /var
            mounts.of_machine_id = number
        mounts.points[free[0]] = device.name
        taken.add(device.name)


def _is_free(reader: Editor, point: str, mounts: Mounts) -> bool:
    return point not in mounts.points and point not in mounts.binds and reader.is_directory(point)


def var_partition(machine_id: str) -> str:
    """The UUID that a /var's partition must have for the machine with that id to mount it."""
    try:
        key = bytes.fromhex(machine_id.strip())
    except ValueError:
        return ""
    raw = bytearray(hmac.new(key, VAR.bytes, hashlib.sha256).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))
