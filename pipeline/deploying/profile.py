"""What an OS profile must be, and when there must be one (the texts are Azure's)."""

import base64
import re
from dataclasses import replace

from pipeline.errors import InvalidParameter
from pipeline.model import ImageDefinition, OsProfile, OsState, OsType

CUSTOM_DATA_LIMIT = 65535  # bytes; Azure's
_NAME_LIMIT = {OsType.LINUX: 64, OsType.WINDOWS: 15}
_COMPUTER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# openssh: type, base64, comment. A private key does not look like this.
_SSH_KEY = re.compile(r"(ssh-|ecdsa-sha2-|sk-)[A-Za-z0-9@.-]+ [A-Za-z0-9+/]+=*( [^\r\n]*)?")


def check(definition: ImageDefinition, profile: OsProfile | None) -> None:
    """Generalized images need a profile, specialized ones take none."""
    if definition.os_state is OsState.SPECIALIZED:
        if profile is not None:
            raise InvalidParameter(
                "Parameter 'osProfile' is not allowed.",
                plain="the image is Specialized: it keeps its accounts and computer name",
                hint="leave out --hostname, --admin-username, --ssh-key and --custom-data",
            )
        return
    if profile is None:
        raise InvalidParameter(
            "Required parameter 'osProfile' is missing (null).",
            plain="the image is Generalized: a VM that is made from it needs a computer name",
            hint="give it one with --hostname",
        )
    _computer_name(profile.computer_name, definition.os_type)
    user = profile.admin_username
    if user and (not _USER.fullmatch(user) or user == "root"):
        raise InvalidParameter(
            f"The Admin Username specified is not allowed: {user!r}.",
            plain=f"the user name {user!r} is not allowed",
            hint="a small letter, then small letters, digits, '-' and '_', at most 32; not root",
        )
    for key in profile.ssh_keys:
        if not _is_public_key(key):
            raise InvalidParameter(
                "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid.",
                plain=f"not a whole SSH public key: {key[:40]!r}",
                hint="give the whole line of a .pub file: ssh-ed25519 AAAA... comment",
            )
    length = len(profile.custom_data.encode())
    if length > CUSTOM_DATA_LIMIT:
        raise InvalidParameter(
            f"Custom data in OSProfile must have at most {CUSTOM_DATA_LIMIT} bytes; it has "
            f"{length}.",
            plain=f"the custom data has {length} bytes; at most {CUSTOM_DATA_LIMIT} are allowed",
        )


def nobody_can_log_in(definition: ImageDefinition, profile: OsProfile | None) -> bool:
    """Whether a generalized Linux machine gets neither a key nor data that may bring one. A user
    without a key has no password either."""
    return (
        definition.os_type is OsType.LINUX
        and profile is not None
        and not (profile.ssh_keys or profile.custom_data)
    )


def _is_public_key(line: str) -> bool:
    """Whether it is whole: a key that was cut would be found out when nobody can log in. In base64
    are strings with their lengths (RFC 4253, 6.6), of which the first names the type again."""
    if not _SSH_KEY.fullmatch(line):
        return False
    kind, encoded = line.split(" ")[:2]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except ValueError:
        return False
    fields = []
    at = 0
    while at < len(blob):
        start = at + 4
        at = start + int.from_bytes(blob[at:start], "big")
        fields.append(blob[start:at])
    return at == len(blob) and len(fields) > 1 and fields[0] == kind.encode()


def _computer_name(name: str, os_type: OsType) -> None:
    limit = _NAME_LIMIT[os_type]
    if not _COMPUTER_NAME.fullmatch(name) or len(name) > limit or name.isdecimal():
        raise InvalidParameter(
            f"{os_type.value} host name {name!r} is not valid: letters, digits and '-', at most "
            f"{limit} of them, not digits alone, no '-' at the ends.",
            code="InvalidParameter",
        )


def with_defaults(profile: OsProfile, definition: ImageDefinition, name: str) -> OsProfile | None:
    """What was asked for with the VM's name as computer name; None of a specialized image, where
    nothing was asked for."""
    if definition.os_state is OsState.SPECIALIZED and profile == OsProfile(""):
        return None
    return replace(profile, computer_name=profile.computer_name or name)


def named(profile: OsProfile | None, name: str) -> OsProfile | None:
    """The profile of one machine of several."""
    return None if profile is None else replace(profile, computer_name=name)
