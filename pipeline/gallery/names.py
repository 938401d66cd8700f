"""What galleries, definitions, versions and regions are called: parse, validate, compare.

Names compare without regard to case and keep the case that they were given. Every name has two
spellings: the short one (`corp/web/1.0.0`) in the default subscription and resource group, and the
ARM id of Azure Compute Gallery. Rules and message texts are those of Azure (its limits page and its
troubleshooting guide), so that scripts that match on them keep working.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from pipeline.errors import InvalidParameter

DEFAULT_TENANT = "00000000-0000-0000-0000-000000000000"
DEFAULT_SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
DEFAULT_RESOURCE_GROUP = "galleria"
LATEST = "latest"
MAX_NUMBER = 2**31 - 1  # each part of a version is a 32-bit signed integer

_GALLERY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.]{0,78}[A-Za-z0-9])?")
_DEFINITION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9])?")
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})")
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]")
_RESOURCE_GROUP = re.compile(r"[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]")
_SUBSCRIPTION = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_CHANNEL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_IDENTIFIER_LENGTH = {"publisher": 128, "offer": 64, "sku": 64}
_REGION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,62}[A-Za-z0-9])?")


class _Named(ABC):
    """What names have in common: they are equal when their ARM ids are, whatever the case."""

    __slots__ = ()

    @property
    @abstractmethod
    def arm_id(self) -> str: ...

    @property
    def key(self) -> str:
        """What two spellings of one name have in common."""
        return self.arm_id.lower()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, _Named) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, slots=True, order=True)
class VersionNumber:
    """Major.Minor.Patch, ordered as integers."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True, slots=True, eq=False)
class GalleryName(_Named):
    name: str
    subscription: str = DEFAULT_SUBSCRIPTION
    resource_group: str = DEFAULT_RESOURCE_GROUP

    def __post_init__(self) -> None:
        _check_gallery(self.name)
        check_subscription(self.subscription)
        check_resource_group(self.resource_group)

    @property
    def is_default_scope(self) -> bool:
        """Whether the short form names it."""
        return (self.subscription, self.resource_group.lower()) == (
            DEFAULT_SUBSCRIPTION,
            DEFAULT_RESOURCE_GROUP,
        )

    @property
    def arm_id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.Compute/galleries/{self.name}"
        )

    def __str__(self) -> str:
        return self.name if self.is_default_scope else self.arm_id


@dataclass(frozen=True, slots=True, eq=False)
class DefinitionName(_Named):
    gallery: GalleryName
    name: str

    def __post_init__(self) -> None:
        _check_definition(self.name)

    @property
    def arm_id(self) -> str:
        return f"{self.gallery.arm_id}/images/{self.name}"

    def __str__(self) -> str:
        short = self.gallery.is_default_scope
        return f"{self.gallery.name}/{self.name}" if short else self.arm_id


@dataclass(frozen=True, slots=True, eq=False)
class VersionName(_Named):
    definition: DefinitionName
    number: VersionNumber

    @property
    def arm_id(self) -> str:
        return f"{self.definition.arm_id}/versions/{self.number}"

    def __str__(self) -> str:
        short = self.definition.gallery.is_default_scope
        return f"{self.definition}/{self.number}" if short else self.arm_id


@dataclass(frozen=True, slots=True)
class Reference:
    """A version to be looked up: one number, what a channel means, or (both None) the latest."""

    definition: DefinitionName
    number: VersionNumber | None
    channel: str | None = None


def parse_number(text: str) -> VersionNumber:
    """Exactly three integers of 0 to 2147483647, without leading zeros, signs or suffixes."""
    match = _NUMBER.fullmatch(text) if text.isascii() else None
    parts = [int(part) for part in match.groups()] if match else []
    if not match or max(parts) > MAX_NUMBER:
        raise InvalidParameter(
            f"The image version name is invalid: {text!r}. The image version name should follow "
            "Major(int).Minor(int).Patch(int) format, for e.g: 1.0.0, 2018.12.1.",
            hint=f"three integers of 0 to {MAX_NUMBER}, no leading zeros, no 'v', no suffix",
        )
    return VersionNumber(*parts)


def parse_gallery(text: str) -> GalleryName:
    """`corp` or an ARM id."""
    gallery, rest = _split(text)
    _expect(rest, 0, text, "a gallery: corp")
    return gallery


def parse_definition(text: str) -> DefinitionName:
    """`corp/web` or an ARM id."""
    gallery, rest = _split(text)
    _expect(rest, 1, text, "an image definition: corp/web")
    return DefinitionName(gallery, rest[0])


def is_definition(text: str) -> bool:
    """Whether it names something in a gallery, and not a gallery."""
    return len(_split(text)[1]) > 0


def names_definition(text: str) -> bool:
    """Whether it names an image definition itself, and no version or channel of it."""
    return "@" not in text and len(_split(text)[1]) == 1


def parse_version(text: str) -> VersionName:
    """`corp/web/1.0.0` or an ARM id."""
    gallery, rest = _split(text)
    _expect(rest, 2, text, "an image version: corp/web/1.0.0")
    return VersionName(DefinitionName(gallery, rest[0]), parse_number(rest[1]))


def parse_reference(text: str) -> Reference:
    """A version; or `corp/web/latest`, or `corp/web`, which means the same; or `corp/web@prod`,
    what the channel of that name means."""
    text, at, channel = text.partition("@")
    gallery, rest = _split(text)
    if at:
        _expect(rest, 1, text, "what has a channel: corp/web@prod")
        return Reference(DefinitionName(gallery, rest[0]), None, check_channel(channel))
    if len(rest) == 1:
        rest = [*rest, LATEST]
    _expect(rest, 2, text, "an image version: corp/web/1.0.0 or corp/web/latest")
    number = None if rest[1].lower() == LATEST else parse_number(rest[1])
    return Reference(DefinitionName(gallery, rest[0]), number)


def check_channel(name: str) -> str:
    """The name of a channel, in lower case."""
    if not _CHANNEL.fullmatch(name) or name.lower() == LATEST:
        raise InvalidParameter(
            f"The channel name {name!r} is invalid: 1 to 64 letters, digits, _ - and ., starting "
            f"with a letter, and not {LATEST!r}."
        )
    return name.lower()


def qualified(text: str, subscription: str, resource_group: str) -> str:
    """A short name as the ARM id that it stands for in a scope; an ARM id as it is."""
    if not text or text.startswith("/"):
        return text
    parts = text.split("/")
    nested = "/".join(f"{kind}/{part}" for kind, part in zip(_NESTED, parts, strict=False))
    rest = "".join(f"/{part}" for part in parts[3:])
    scope = f"/subscriptions/{subscription}/resourceGroups/{resource_group}"
    return f"{scope}/providers/Microsoft.Compute/{nested}{rest}"


def check_tenant(text: str) -> str:
    """A tenant's GUID, in lower case."""
    return _guid(text, "tenant")


def check_subscription(text: str) -> str:
    """A subscription's GUID, in lower case."""
    return _guid(text, "subscription")


def _guid(text: str, what: str) -> str:
    if not _SUBSCRIPTION.fullmatch(text):
        raise InvalidParameter(
            f"The provided {what} identifier {text!r} is malformed or invalid.",
            hint="a GUID, such as 11111111-2222-3333-4444-555555555555",
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


EDGE = "/"  # between a region and the name of an edge zone of it


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
    return f"{check_region(region)}{EDGE}{check_region(zone)}" if slash else check_region(name)


def check_identifier(part: str, value: str) -> None:
    """Check a publisher, offer or sku (`part` says which)."""
    longest = _IDENTIFIER_LENGTH[part]
    if len(value) > longest or not _IDENTIFIER.fullmatch(value):
        raise InvalidParameter(
            f"Asset name galleryImage.properties.identifier.{part} is not valid: {value!r}. It "
            "cannot be empty. Allowed characters are uppercase or lowercase letters, digits, "
            "hyphen(-), period (.), underscore (_). Names are not allowed to end with period(.). "
            f"The length of the name cannot exceed {longest}."
        )


def _check_gallery(name: str) -> None:
    if _GALLERY.fullmatch(name):
        return
    _refuse_trailing(name)
    raise InvalidParameter(
        f"Gallery name is invalid: {name!r}. Allowed characters are English alphanumeric "
        "characters, with underscores, and periods allowed in the middle, up to 80 characters "
        "total." + _first_bad(name, "_."),
        hint="Azure allows no dash in a gallery name" if "-" in name else "",
    )


def _check_definition(name: str) -> None:
    if _DEFINITION.fullmatch(name):
        return
    _refuse_trailing(name)
    raise InvalidParameter(
        f"The entity name {name!r} is invalid according to its validation rule: "
        r"^[^_\W][\w-._]{0,79}(?<![-.])$." + _first_bad(name, "_.-"),
        hint="1 to 80 letters, digits, _ - and ., starting and ending with a letter or digit",
    )


def _refuse_trailing(name: str) -> None:
    core = name.rstrip("._-")
    if core and core != name and name.isascii() and len(name) <= 80:
        raise InvalidParameter(
            f"The provided resource name {name!r} has these invalid trailing characters: "
            f"{name[len(core) :]}. The name can not end with characters: _ - ."
        )


def _first_bad(name: str, allowed: str) -> str:
    for position, character in enumerate(name, start=1):
        edge = position in (1, len(name))
        if not (character.isascii() and character.isalnum()) and (edge or character not in allowed):
            return f" The character {character!r} at position {position} is not allowed."
    return f" It has {len(name)} characters." if len(name) > 80 else ""


# The fixed segments of an ARM id, by position; they compare without regard to case.
_FIXED = {0: "subscriptions", 2: "resourcegroups", 4: "providers", 5: "microsoft.compute"}
_NESTED = ("galleries", "images", "versions")


def _split(text: str) -> tuple[GalleryName, list[str]]:
    """The gallery of an ARM id or short name, and the names below it."""
    if not text.startswith("/"):
        first, *rest = text.split("/")
        return GalleryName(first), rest
    segments = text[1:].split("/")
    expected = _FIXED | {6 + 2 * index: name for index, name in enumerate(_NESTED)}
    for position, segment in enumerate(segments):
        wanted = expected.get(position)
        if wanted is not None and segment.lower() != wanted:
            raise InvalidParameter(
                f"The resource id {text!r} is not valid: segment {position + 1} is {segment!r}, "
                f"expected {wanted!r}."
            )
    if len(segments) < 8 or len(segments) % 2:
        raise InvalidParameter(
            f"The resource id {text!r} is not valid: it ends after segment {len(segments)}.",
            hint="/subscriptions/ID/resourceGroups/RG/providers/Microsoft.Compute/galleries/NAME...",
        )
    gallery = GalleryName(segments[7], subscription=segments[1], resource_group=segments[3])
    return gallery, segments[9::2]


def _expect(rest: list[str], count: int, text: str, what: str) -> None:
    if len(rest) != count:
        raise InvalidParameter(
            f"{text!r} has {len(rest) + 1} parts where {count + 1} are expected.",
            hint=f"this is the form of {what}",
        )
