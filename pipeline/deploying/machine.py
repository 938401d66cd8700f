"""What a new VM has that no other one has: a name, identifiers; and the keys of its firmware."""

import re
import secrets
import uuid

from pipeline.errors import InvalidParameter
from pipeline.model import ImageVersion, SignatureTemplate

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DEFAULT_MEMORY = 2048  # MiB
DEFAULT_VCPUS = 2


def check_name(name: str) -> None:
    """A VM's name is also its directory's, and its libvirt domain's."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f"{name!r} can't be the name of a VM: letters, digits, '.', '_' and '-', at most 64, "
            "the first a letter or digit"
        )


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
