"""What a new VM has: a name and identifiers that no other one has, hardware, and the keys of its
firmware."""

import re
import secrets
import uuid
from dataclasses import replace

from pipeline.errors import InvalidParameter
from pipeline.model import Forward, Hardware, ImageVersion, SignatureTemplate
from pipeline.model.deployments import USER_NETWORK

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DEFAULT_MEMORY = 2048  # MiB
DEFAULT_VCPUS = 2

_NETWORK = re.compile(r"(?:bridge:)?[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MEMORY = range(16, (16 << 20) + 1)  # MiB; up to 16 TiB
_VCPUS = range(1, 4097)
_PORTS = range(1, 65536)


def check_name(name: str) -> None:
    """A VM's name is also its directory's, and its libvirt domain's."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f"{name!r} can't be the name of a VM: letters, digits, '.', '_' and '-', at most 64, "
            "the first a letter or digit"
        )


def check_hardware(hardware: Hardware, count: int) -> None:
    """What no host could give to `count` VMs. Raises InvalidParameter."""
    memory, vcpus = hardware.memory_mib, hardware.vcpus
    if memory is not None and memory not in _MEMORY:
        raise InvalidParameter(f"a VM can't have {memory} MiB of memory: 16 MiB to 16 TiB")
    if vcpus is not None and vcpus not in _VCPUS:
        raise InvalidParameter(f"a VM can't have {vcpus} CPUs: 1 to {_VCPUS[-1]}")
    if hardware.network and not _NETWORK.fullmatch(hardware.network):
        raise InvalidParameter(
            f"{hardware.network!r} is not the name of a network",
            hint="user, none, bridge:NAME, or a network of libvirt",
        )
    if not hardware.forwards:
        return
    if hardware.network not in ("", USER_NETWORK):
        raise InvalidParameter(
            f"ports are forwarded in user-mode networking only, not with {hardware.network!r}",
            hint="leave the network out, or make it user",
        )
    ports = [forwarded(hardware, index).forwards for index in range(count)]
    taken = [forward.host for forwards in ports for forward in forwards]
    for port in (*taken, *(forward.guest for forward in hardware.forwards)):
        if port not in _PORTS:
            raise InvalidParameter(f"{port} is not a port: 1 to {_PORTS[-1]}")
    if len(set(taken)) < len(taken):
        raise InvalidParameter(
            "two VMs or guests' ports would have one port of the host",
            hint="each further VM takes the next number: leave room between the ports",
        )


def forwarded(hardware: Hardware, index: int) -> Hardware:
    """The hardware of one VM of several: its ports of the host are `index` further."""
    forwards = tuple(Forward(item.host + index, item.guest) for item in hardware.forwards)
    return replace(hardware, forwards=forwards)


def new_uuid() -> str:
    return str(uuid.uuid4())


def new_mac_address() -> str:
    """In the range of QEMU and KVM, 52:54:00."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))


def enrolled_keys(version: ImageVersion) -> bool:
    """Whether its VMs start with keys in their firmware. Of Microsoft's two templates host firmware
    has both or neither, so either one means both."""
    names = version.security_profile.uefi_settings.signature_template_names
    return SignatureTemplate.NONE not in names
