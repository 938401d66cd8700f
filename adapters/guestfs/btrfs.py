"""btrfs's subvolumes: which there are, and the snapshots that keep what generalizing removes.

A snapshot of the root (snapper's, Timeshift's, of a distribution's updates) has the keys, logs and
users of the machine in it, whatever is done to the root itself. Subvolumes that have nothing to do
with what is mounted (the layers of containers) are left alone.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from adapters.guestfs.process import Helper
from adapters.guestfs.shell import quote, run_script

TOP = "/tmp/galleria.top"  # noqa: S108 - in the appliance
TOP_LEVEL = 5  # the id of the subvolume that every file system has
# the path comes last, as any character may be in it
LINE = re.compile(r"^ID (\d+) gen \d+ top level \d+ parent_uuid (\S+) +uuid (\S+) path (.*)$", re.M)
DEFAULT = re.compile(r"^ID (\d+)", re.M)
MOUNTED = re.compile(r"^(\S+) /sysroot\S* btrfs \S*subvolid=(\d+)", re.M)
SNAPPER = re.compile(r"(.*/)?\.snapshots/\d+/snapshot")
DELETE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Subvolume:
    """`path` starts at the top of the file system; `parent` is the UUID of what it is a snapshot
    of, "-" where it is none."""

    number: int
    uuid: str
    parent: str
    path: str

    @property
    def is_snapshot(self) -> bool:
        return self.parent != "-"


@dataclass(frozen=True, slots=True)
class Listing:
    """The subvolumes of a file system, and the path of the one that is mounted when none is named:
    "" is the top."""

    subvolumes: tuple[Subvolume, ...]
    default: str


def listing(helper: Helper, node: str, *, mounted: bool = False) -> Listing:
    """`mounted`: the device is, to be written; else it is only read."""
    script = f"btrfs subvolume list -uq {TOP}; echo =; btrfs subvolume get-default {TOP}"
    return _parsed(_at_top(helper, node, script, "noatime" if mounted else "ro"))


def related(helper: Helper, *, writable: bool) -> dict[str, list[Subvolume]]:
    """The snapshots of everything btrfs that is mounted, by its node; `writable`: to be written."""
    mounts = str(helper.call("debug", "sh", ["cat /proc/mounts"]))
    mounted: dict[str, set[int]] = {}
    for node, number in MOUNTED.findall(mounts):
        mounted.setdefault(node, set()).add(int(number))
    return {
        node: snapshots(listing(helper, node, mounted=writable), numbers)
        for node, numbers in sorted(mounted.items())
    }


def remove(helper: Helper, found: Mapping[str, Iterable[Subvolume]]) -> None:
    """Delete what `related` found."""
    for node, gone in found.items():
        if gone:
            _delete(helper, node, gone)


def snapshots(found: Listing, mounted: Collection[int]) -> list[Subvolume]:
    """Those that descend from what is mounted, or that this descends from; the deepest first."""
    related = {item.uuid for item in found.subvolumes if item.number in mounted}
    while True:
        more = {
            uuid
            for item in found.subvolumes
            if item.uuid in related or item.parent in related
            for uuid in (item.uuid, item.parent)
        } - {"-", *related}
        if not more:
            break
        related |= more
    gone = [
        item
        for item in found.subvolumes
        if item.uuid in related
        and item.number not in mounted
        and item.path != found.default
        and (item.is_snapshot or SNAPPER.fullmatch(item.path))
    ]
    return sorted(gone, key=lambda item: (-item.path.count("/"), item.path))


def unseen(found: Listing, mounted: Iterable[str]) -> list[str]:
    """Paths of subvolumes that are in none of those that were mounted."""
    roots = list(mounted)
    return [
        item.path
        for item in found.subvolumes
        if not any(not root or f"{item.path}/".startswith(f"{root}/") for root in roots)
    ]


def _parsed(output: str) -> Listing:
    listed, _, default = output.rpartition("\n=\n" if "\n=\n" in output else "=\n")
    subvolumes = tuple(
        Subvolume(int(number), uuid, parent, path)
        for number, parent, uuid, path in LINE.findall(listed)
    )
    match = DEFAULT.match(default)
    number = int(match[1]) if match else TOP_LEVEL
    path = next((item.path for item in subvolumes if item.number == number), "")
    return Listing(subvolumes, path)


def _delete(helper: Helper, node: str, gone: Iterable[Subvolume]) -> None:
    steps = []
    for item in gone:
        path = f"{TOP}/{item.path}"
        steps.append(f"btrfs subvolume delete --commit-after {quote(path)} >/dev/null || exit 1")
        if SNAPPER.fullmatch(item.path):  # what snapper says of it lies beside it
            steps.append(f"rm -rf -- {quote(path.removesuffix('/snapshot'))}")
    # until they are really gone, their blocks are not free
    script = f"{'; '.join(steps)}; btrfs subvolume sync {TOP} >/dev/null"
    _at_top(helper, node, script, "noatime")


def _at_top(helper: Helper, node: str, script: str, options: str) -> str:
    output = run_script(
        helper,
        f"mkdir -p {TOP}; mount -t btrfs -o {options},subvolid={TOP_LEVEL} {quote(node)} {TOP} || "
        f"exit 1; ( {script} ); status=$?; umount {TOP}; exit $status",
        timeout=DELETE_SECONDS,
    )
    return output.decode("utf-8", "surrogateescape")
