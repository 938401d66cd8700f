"""The registry of a Windows guest: values decoded, the current control set, and whether a hive's
file is all there is.

A hive is dirty when its base block is not valid or its two sequence numbers differ: the rest of the
truth is in its logs, and what is written then is overwritten when they are replayed. A log that is
not empty says nothing by itself: Windows leaves entries in it that the hive has. ("Windows registry
file format specification", github.com/msuhanov/regf, "Dirty state of a hive")
"""

import re
import struct
from collections.abc import Iterator
from functools import reduce

from pipeline.guest.windows.tree import CONFIG, Tree, is_file
from pipeline.ports import Guest
from pipeline.ports.hives import Hive, RegistryValue

SZ, EXPAND_SZ, DWORD, MULTI_SZ = 1, 2, 4, 7
HIVES = ("SYSTEM", "SOFTWARE", "SECURITY", "SAM", "DEFAULT")
LOGS = (".LOG1", ".LOG2", ".LOG")
LOG_LIMIT = 16 << 20  # bytes of a log that are looked at
ENTRY = struct.Struct("<4sIII")  # signature, length, flags, sequence number
MEMORY = "Control\\Session Manager\\Memory Management"
# existing paging files are named as NT paths; "?:" is a volume that Windows chooses
PAGING = re.compile(r"(?:\\\?\?\\)?[A-Za-z?]:((?:\\[^\\*?\[\]]+)+)")


def hive_path(tree: Tree, name: str) -> str | None:
    return tree.at(f"{CONFIG}/{name}")


def text(hive: Hive, key: str, name: str) -> str | None:
    """A string; None when the value is absent or of another type."""
    found = hive.get(key, name)
    if found is None or found.kind not in (SZ, EXPAND_SZ):
        return None
    return found.data.decode("utf-16-le", "replace").split("\0")[0]


def number(hive: Hive, key: str, name: str) -> int | None:
    found = hive.get(key, name)
    if found is None or found.kind != DWORD or len(found.data) != 4:
        return None
    return int(struct.unpack("<I", found.data)[0])


def texts(hive: Hive, key: str, name: str) -> list[str]:
    """The strings of a REG_MULTI_SZ that are not empty."""
    found = hive.get(key, name)
    if found is None or found.kind != MULTI_SZ:
        return []
    return [item for item in found.data.decode("utf-16-le", "replace").split("\0") if item]


def as_text(content: str) -> RegistryValue:
    return RegistryValue(SZ, f"{content}\0".encode("utf-16-le"))


def as_number(content: int) -> RegistryValue:
    return RegistryValue(DWORD, struct.pack("<I", content))


def control_set(system: Hive) -> str:
    """The control set that the guest boots with: CurrentControlSet exists only in a running
    Windows."""
    return f"ControlSet{number(system, 'Select', 'Current') or 1:03d}"


def paging_files(system: Hive) -> tuple[str, ...]:
    """Where Windows keeps paging files, as paths without their drive: which volume a letter means
    is only known in the running guest (and forgotten by Sysprep)."""
    key = f"{control_set(system)}\\{MEMORY}"
    listed = [*texts(system, key, "PagingFiles"), *texts(system, key, "ExistingPageFiles")]
    found = (PAGING.fullmatch(_without_sizes(entry)) for entry in listed)
    paths = (match[1].replace("\\", "/") for match in found if match)
    return tuple(dict.fromkeys(path for path in paths if "/../" not in f"{path}/"))


def _without_sizes(entry: str) -> str:
    """An entry of PagingFiles is a file, and its smallest and largest size in MiB."""
    words = entry.rsplit(None, 2)
    sizes = len(words) == 3 and words[1].isdecimal() and words[2].isdecimal()
    return (words[0] if sizes else entry).strip()


def dirty_hives(tree: Tree) -> Iterator[tuple[str, str]]:
    """Hives that must not be written, or trusted, and why: (path, reason)."""
    for name in HIVES:
        path = hive_path(tree, name)
        if path is not None and is_file(tree.guest, path):
            reason = _doubt(tree, path)
            if reason:
                yield path, reason


def _doubt(tree: Tree, path: str) -> str:
    header = tree.guest.read(path, 512)
    if len(header) < 512 or header[:4] != b"regf":
        return "it is no registry hive"
    primary, secondary = struct.unpack_from("<II", header, 4)
    if primary != secondary:
        return f"its sequence numbers differ ({primary} and {secondary})"
    if struct.unpack_from("<I", header, 508)[0] != _checksum(header):
        return "the checksum of its header is wrong"
    # Windows ignores such entries of a hive that calls itself clean; still, something was not
    # written in order, so it is Windows that should look at it first
    for suffix in LOGS:
        log = tree.at(path + suffix)
        newest = _newest_entry(tree.guest, log) if log else None
        if newest is not None and newest > primary:
            return f"{suffix[1:]} has change {newest}, the hive only {primary}"
    return ""


def _checksum(header: bytes) -> int:
    found: int = reduce(lambda one, other: one ^ other, struct.unpack_from("<127I", header))
    return {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(found, found)


def _newest_entry(guest: Guest, path: str) -> int | None:
    """The highest sequence number in a log of the format since Windows 8.1; None without any."""
    if not is_file(guest, path):
        return None
    content = guest.read(path, LOG_LIMIT)
    newest = None
    at = 512
    while at + ENTRY.size <= len(content):
        signature, length, _, sequence = ENTRY.unpack_from(content, at)
        if signature != b"HvLE" or length < 512:
            break
        newest = max(sequence, newest or 0)
        at += -(-length // 512) * 512
    return newest
