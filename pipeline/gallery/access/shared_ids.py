"""The names under which others see a shared gallery and what is in it."""

import re
from dataclasses import dataclass

from pipeline.errors import InvalidParameter
from pipeline.model import SharingPermissions
from pipeline.model.names import DefinitionName, GalleryName, VersionNumber, parse_number
from pipeline.model.spelling import LATEST, is_guid

_PUBLIC_NAME = re.compile(r"[A-Za-z0-9]{1,40}-[0-9A-Fa-f-]{36}")


@dataclass(frozen=True, slots=True)
class SharedReference:
    """`/SharedGalleries/{uniqueName}[/Images/{i}[/Versions/{v}]]`, or the same of
    `/CommunityGalleries/{publicName}`. Without a version, or with `latest`, `number` is None."""

    kind: SharingPermissions  # GROUPS or COMMUNITY
    name: str
    definition: str | None = None
    number: VersionNumber | None = None

    @property
    def id(self) -> str:
        """The gallery, under its shared name."""
        place = "Shared" if self.kind is SharingPermissions.GROUPS else "Community"
        return f"/{place}Galleries/{self.name}"

    def version_id(self, number: VersionNumber) -> str:
        """A version of its definition, under its shared name."""
        return f"{self.id}/Images/{self.definition}/Versions/{number}"


def shared_name(text: str, number: VersionNumber) -> str:
    """The shared name of the version that a reference turned out to mean; empty if it is none."""
    return parse_shared(text).version_id(number) if is_shared_reference(text) else ""


def unique_name(gallery: GalleryName) -> str:
    """Azure's unique name of a gallery: `{subscription}-{NAME}`."""
    return f"{gallery.subscription.lower()}-{gallery.name.upper()}"


def by_unique_name(name: str) -> GalleryName:
    """The subscription and name of a gallery; its resource group is not in the name."""
    subscription, dash, gallery = name[:36], name[36:37], name[37:]
    if not is_guid(subscription) or dash != "-":
        raise InvalidParameter(
            f"The gallery unique name {name!r} is not valid: expected SUBSCRIPTION-GALLERY."
        )
    return GalleryName(gallery, subscription=subscription.lower())


_KINDS = {
    "sharedgalleries": SharingPermissions.GROUPS,
    "communitygalleries": SharingPermissions.COMMUNITY,
}


def is_shared_reference(text: str) -> bool:
    return text.split("/")[1:2] != [] and text.split("/")[1].lower() in _KINDS


def parse_shared(text: str) -> SharedReference:
    """Read a shared id; segments compare without regard to case."""
    segments = text.split("/")[1:]
    fixed = [segment.lower() for segment in segments[2::2]]
    if (
        len(segments) not in (2, 4, 6)
        or segments[0].lower() not in _KINDS
        or fixed != ["images", "versions"][: len(fixed)]
    ):
        raise InvalidParameter(
            f"The shared id {text!r} is not valid.",
            hint="/SharedGalleries/UNIQUE-NAME/Images/DEFINITION/Versions/VERSION-or-latest, or "
            "/CommunityGalleries/PUBLIC-NAME/Images/...",
        )
    kind, name = _KINDS[segments[0].lower()], segments[1]
    if kind is SharingPermissions.GROUPS:
        gallery = by_unique_name(name)
    else:
        gallery = GalleryName("community")
        if not _PUBLIC_NAME.fullmatch(name):
            raise InvalidParameter(f"The public gallery name {name!r} is not valid: PREFIX-GUID.")
    definition = segments[3] if len(segments) > 3 else None
    if definition is not None:
        DefinitionName(gallery, definition)  # refuses what no definition can be called
    version = segments[5] if len(segments) > 5 else LATEST
    number = None if version.lower() == LATEST else parse_number(version)
    return SharedReference(kind, name, definition, number)
