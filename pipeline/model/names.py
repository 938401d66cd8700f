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
from pipeline.model.spelling import (
    LATEST,
    check_channel,
    check_definition,
    check_gallery,
    check_resource_group,
    check_subscription,
)

DEFAULT_TENANT = "00000000-0000-0000-0000-000000000000"
DEFAULT_SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
DEFAULT_RESOURCE_GROUP = "galleria"
MAX_NUMBER = 2**31 - 1  # each part of a version is a 32-bit signed integer

_NUMBER = re.compile(r"(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})")


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
        check_gallery(self.name)
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
        check_definition(self.name)

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

    @property
    def version(self) -> VersionName | None:
        """The version, where its number is known."""
        return None if self.number is None else VersionName(self.definition, self.number)


def parse_number(text: str) -> VersionNumber:
    """Exactly three integers of 0 to 2147483647, without leading zeros, signs or suffixes."""
    match = _NUMBER.fullmatch(text) if text.isascii() else None
    parts = [int(part) for part in match.groups()] if match else []
    if not match or max(parts) > MAX_NUMBER:
        raise InvalidParameter(
            f"The image version name is invalid: {text!r}. The image version name should follow "
            "Major(int).Minor(int).Patch(int) format, for e.g: 1.0.0, 2018.12.1.",
            plain=f"{text!r} is not a version number such as 1.0.0",
            hint=f"three integers of 0 to {MAX_NUMBER}, no leading zeros, no 'v', no suffix",
        )
    return VersionNumber(*parts)


def parse_gallery(text: str) -> GalleryName:
    """`corp` or an ARM id."""
    gallery, rest = _split(text)
    _expect(rest, 0, text, "a gallery looks like corp")
    return gallery


def parse_definition(text: str) -> DefinitionName:
    """`corp/web` or an ARM id."""
    gallery, rest = _split(text)
    _expect(rest, 1, text, "an image definition looks like corp/web")
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
    _expect(rest, 2, text, "a version looks like corp/web/1.0.0")
    return VersionName(DefinitionName(gallery, rest[0]), parse_number(rest[1]))


def parse_reference(text: str) -> Reference:
    """A version; or `corp/web/latest`, or `corp/web`, which means the same; or `corp/web@prod`,
    what the channel of that name means."""
    text, at, channel = text.partition("@")
    gallery, rest = _split(text)
    if at:
        _expect(rest, 1, text, "a channel looks like corp/web@prod")
        return Reference(DefinitionName(gallery, rest[0]), None, check_channel(channel))
    if len(rest) == 1:
        rest = [*rest, LATEST]
    _expect(rest, 2, text, "a version looks like corp/web/1.0.0 or corp/web/latest")
    number = None if rest[1].lower() == LATEST else parse_number(rest[1])
    return Reference(DefinitionName(gallery, rest[0]), number)


def qualified(text: str, subscription: str, resource_group: str) -> str:
    """A short name as the ARM id that it stands for in a scope; an ARM id as it is."""
    if not text or text.startswith("/"):
        return text
    parts = text.split("/")
    nested = "/".join(f"{kind}/{part}" for kind, part in zip(_NESTED, parts, strict=False))
    rest = "".join(f"/{part}" for part in parts[3:])
    scope = f"/subscriptions/{subscription}/resourceGroups/{resource_group}"
    return f"{scope}/providers/Microsoft.Compute/{nested}{rest}"


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
        kinds = ("is a gallery", "is an image definition", "is an image version")
        given = kinds[len(rest)] if len(rest) < len(kinds) else f"has {len(rest) + 1} parts"
        raise InvalidParameter(f"{text!r} {given}; {what}")
