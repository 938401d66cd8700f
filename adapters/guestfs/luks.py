"""Encrypted volumes (LUKS): opened in the appliance with the keys that the user gave.

A key reaches the appliance over the helper's pipe, never by a command line, and is not kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.guestfs.devices import Device, Devices
from adapters.guestfs.process import CallFailed, Helper, printable
from pipeline.errors import InvalidParameter, NotFound, Refused

KIND = "crypto_LUKS"
SPOKEN = ":key:"  # what follows is the passphrase itself
OPEN_SECONDS = 600.0  # argon2 under software emulation
LIMIT = 8192  # bytes of a key; what cryptsetup takes interactively is less
HINT = (
    "give a file with its passphrase: --key-file FILE, or --key-file DEVICE:file:FILE (DEVICE: "
    "name or UUID); - is standard input"
)


@dataclass(frozen=True, slots=True)
class Key:
    """`device` is libguestfs's name or the UUID of a volume, or "all"."""

    device: str
    secret: str

    def __repr__(self) -> str:
        return f"Key({self.device!r})"


def parse_key(text: str) -> Key:
    """FILE, DEVICE:file:FILE or DEVICE:key:PASSPHRASE; `-` is standard input, and /dev/fd/N a
    descriptor. A file's last line end is no part of it. Raises NotFound for a file that is not
    there."""
    device, mark, secret = text.partition(SPOKEN)
    if mark:
        return Key(device or "all", secret)
    device, mark, name = text.partition(":file:")
    path = Path(name if mark else text)
    if str(path) == "-":
        path = Path("/dev/stdin")
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no key file {path}") from None
    if len(content) > LIMIT:
        raise InvalidParameter(f"{path} is no key: larger than {LIMIT} bytes")
    try:
        return Key(device if mark else "all", content.decode().removesuffix("\n"))
    except UnicodeDecodeError:
        raise InvalidParameter(f"{path} is no passphrase: its text is not UTF-8") from None


def unlock(helper: Helper, found: Devices, keys: Sequence[Key], *, writable: bool) -> list[str]:
    """Open what the keys open; returns the nodes that this made."""
    opened = []
    for device in found.devices:
        fitting = [key for key in keys if key.device in (*_names(device), "all")]
        if device.kind != KIND or not fitting:
            continue
        name = f"luks-{device.tags.get('UUID', device.node.rpartition('/')[2]).lower()}"
        if not any(_open(helper, device, key, name, writable=writable) for key in fitting):
            raise Refused(f"no given key opens {printable(device.name)}", hint=HINT)
        opened.append(f"/dev/mapper/{name}")
    if opened:
        helper.call("lvm_scan", True)
    return opened


def refuse_locked(found: Devices, opened: Sequence[str]) -> None:
    """An encrypted volume that stays locked can't be generalized. Raises Refused."""
    for device in found.devices:
        if device.kind == KIND and opened_node(device) not in opened:
            raise Refused(f"{printable(device.name)} is encrypted (LUKS) and locked", hint=HINT)


def opened_node(device: Device) -> str:
    """What an encrypted volume is called when it is opened."""
    return f"/dev/mapper/luks-{device.tags.get('UUID', '').lower()}"


def _names(device: Device) -> tuple[str, ...]:
    return (device.name, device.tags.get("UUID", ""))


def _open(helper: Helper, device: Device, key: Key, name: str, *, writable: bool) -> bool:
    try:
        helper.call(
            "cryptsetup_open",
            device.name,
            key.secret,
            name,
            readonly=not writable,
            crypttype="luks",
            timeout=OPEN_SECONDS,
        )
    except CallFailed:
        return False
    return True
