"""How each kind of name may be spelled; `names` has the names. Message texts are Azure's."""

import re
from collections.abc import Iterable

from pipeline.errors import InvalidParameter

LATEST = "latest"
EDGE = "/"  # between a region and the name of an edge zone of it

_GALLERY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.]{0,78}[A-Za-z0-9])?")
_DEFINITION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9])?")
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]")
_RESOURCE_GROUP = re.compile(r"[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]")
_GUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_CHANNEL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_IDENTIFIER_LENGTH = {"publisher": 128, "offer": 64, "sku": 64}
_REGION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,62}[A-Za-z0-9])?")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What an error adds when a known name is close to the one that was given."""
    from difflib import get_close_matches

    names = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), names, n=1)
    return f"; did you mean {names[close[0]]}?" if close else ""


def check_channel(name: str) -> str:
    """The name of a channel, in lower case."""
    if not _CHANNEL.fullmatch(name) or name.lower() == LATEST:
        raise InvalidParameter(
            f"The channel name {name!r} is invalid: 1 to 64 letters, digits, _ - and ., starting "
            f"with a letter, and not {LATEST!r}."
        )
    return name.lower()


def check_tenant(text: str) -> str:
    """A tenant's GUID, in lower case."""
    return _guid(text, "tenant")


def check_subscription(text: str) -> str:
    """A subscription's GUID, in lower case."""
    return _guid(text, "subscription")


def is_guid(text: str) -> bool:
    """Whether this is a GUID, in either case."""
    return _GUID.fullmatch(text) is not None


def _guid(text: str, what: str) -> str:
    if not is_guid(text):
        raise InvalidParameter(
            f"The provided {what} identifier {text!r} is malformed or invalid.",
            plain=f"{text!r} is not the id of a {what}",
            hint="it is a GUID, such as 11111111-2222-3333-4444-555555555555",
            code=f"Invalid{what.capitalize()}Id",
        )
    return text.lower()


def check_resource_group(name: str) -> str:
    if not _RESOURCE_GROUP.fullmatch(name):
        raise InvalidParameter(
            f"Resource group name {name!r} is invalid: 1 to 90 letters, digits, "
            "_ ( ) - and ., not ending in a period."
        )
    return name


def region_key(name: str) -> str:
    """What two spellings of one region have in common: `UK South` is `uksouth`."""
    return name.replace(" ", "").lower()


def check_region(name: str) -> str:
    """The display name of a region, without surrounding blanks; raises InvalidParameter."""
    text = name.strip()
    if not _REGION.fullmatch(text):
        raise InvalidParameter(
            f"The region name {name!r} is invalid: 1 to 64 letters, digits, blanks, _ - and ., "
            "starting and ending with a letter or digit."
        )
    return text


def check_place(name: str) -> str:
    """A region, or an edge zone of one: `eu/paris`; raises InvalidParameter."""
    region, slash, zone = name.partition(EDGE)
    if not slash:
        return check_region(name)
    place = f"{check_region(region)}{EDGE}{check_region(zone)}"
    if len(place) > 64:
        raise InvalidParameter(
            f"The edge zone {name!r} is invalid: it and its region have 64 characters at most."
        )
    return place


def check_identifier(part: str, value: str) -> None:
    """Check a publisher, offer or sku (`part` says which)."""
    longest = _IDENTIFIER_LENGTH[part]
    if len(value) > longest or not _IDENTIFIER.fullmatch(value):
        raise InvalidParameter(
            f"Asset name galleryImage.properties.identifier.{part} is not valid: {value!r}. It "
            "cannot be empty. Allowed characters are uppercase or lowercase letters, digits, "
            "hyphen(-), period (.), underscore (_). Names are not allowed to end with period(.). "
            f"The length of the name cannot exceed {longest}.",
            plain=f"the {part} {value!r} is not valid",
            hint=f"1 to {longest} letters, digits, -, . and _, not ending with a period",
        )


def check_gallery(name: str) -> None:
    if _GALLERY.fullmatch(name):
        return
    _refuse_trailing(name)
    raise InvalidParameter(
        f"Gallery name is invalid: {name!r}. Allowed characters are English alphanumeric "
        "characters, with underscores, and periods allowed in the middle, up to 80 characters "
        "total." + _first_bad(name, "_."),
        plain=f"{name!r} can't be the name of a gallery.{_first_bad(name, '_.')}",
        hint="1 to 80 letters, digits, _ and ., starting and ending with a letter or digit"
        + "; no dash, as in Azure" * ("-" in name),
    )


def check_definition(name: str) -> None:
    if _DEFINITION.fullmatch(name):
        return
    _refuse_trailing(name)
    raise InvalidParameter(
        f"The entity name {name!r} is invalid according to its validation rule: "
        r"^[^_\W][\w-._]{0,79}(?<![-.])$." + _first_bad(name, "_.-"),
        plain=f"{name!r} can't be the name of an image definition.{_first_bad(name, '_.-')}",
        hint="1 to 80 letters, digits, _ - and ., starting and ending with a letter or digit",
    )


def _refuse_trailing(name: str) -> None:
    core = name.rstrip("._-")
    if core and core != name and name.isascii() and len(name) <= 80:
        raise InvalidParameter(
            f"The provided resource name {name!r} has these invalid trailing characters: "
            f"{name[len(core) :]}. The name can not end with characters: _ - .",
            plain=f"{name!r} can't be a name: it ends with {name[len(core) :]!r}",
            hint="end it with a letter or digit",
        )


def _first_bad(name: str, allowed: str) -> str:
    for position, character in enumerate(name, start=1):
        edge = position in (1, len(name))
        if not (character.isascii() and character.isalnum()) and (edge or character not in allowed):
            return f" The character {character!r} at position {position} is not allowed."
    return f" It has {len(name)} characters." if len(name) > 80 else ""
