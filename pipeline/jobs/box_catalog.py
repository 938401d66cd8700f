"""Catalogs of Vagrant boxes: which versions of a definition, or of a channel, Vagrant may choose.

Vagrant takes the highest version that it is told of. So one that is excluded from latest, or whose
life has ended, is not told.
"""

from dataclasses import dataclass
from datetime import datetime

from pipeline.errors import NotFound
from pipeline.gallery.latest import candidates
from pipeline.gallery.service import GalleryService
from pipeline.model import Architecture, ImageDefinition, ImageVersion
from pipeline.model.names import parse_definition


@dataclass(frozen=True, slots=True)
class BoxCatalog:
    """What Vagrant is told of a definition or, with `@CHANNEL` in its name, of one of its channels;
    the newest version first."""

    name: str
    description: str
    architecture: Architecture
    versions: tuple[ImageVersion, ...]


def box_catalogs(gallery: GalleryService, now: datetime) -> list[BoxCatalog]:
    """Those of all definitions that the caller may read, and of their channels."""
    found = []
    for item in gallery.list_galleries(None):
        for definition in gallery.list_definitions(item.name):
            channels = gallery.list_channels(definition.name)
            for channel in ("", *(each.name for each in channels)):
                found.append(_catalog(definition, channel, gallery, now))
    return found


def box_catalog(name: str, gallery: GalleryService, now: datetime) -> BoxCatalog:
    """That of `GALLERY/DEFINITION[@CHANNEL]`. Raises NotFound."""
    text, _, channel = name.partition("@")
    definition = gallery.get_definition(parse_definition(text))
    return _catalog(definition, channel, gallery, now)


def offered(catalog: BoxCatalog, number: str) -> ImageVersion:
    """The version of a catalog that has this number. Raises NotFound."""
    for version in catalog.versions:
        if str(version.number) == number:
            return version
    raise NotFound(f"{catalog.name} offers no version {number}")


def _catalog(
    definition: ImageDefinition, channel: str, gallery: GalleryService, now: datetime
) -> BoxCatalog:
    name = f"{definition.name}@{channel}" if channel else str(definition.name)
    if channel:
        versions = [gallery.resolve(name)]
    else:
        versions = list(candidates(gallery.list_versions(definition.name)))
    ended = definition.end_of_life_date is not None and definition.end_of_life_date <= now
    return BoxCatalog(
        name,
        definition.description,
        definition.architecture,
        tuple(version for version in versions if not (ended or _has_ended(version, now))),
    )


def _has_ended(version: ImageVersion, now: datetime) -> bool:
    return version.end_of_life_date is not None and version.end_of_life_date <= now
