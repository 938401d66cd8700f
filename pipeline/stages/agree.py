"""Agree: what a source's own description says has to be what the definition promises."""

from dataclasses import replace

from pipeline.gallery.model import (
    Architecture,
    HyperVGeneration,
    ImageVersion,
    OsType,
    SourceProperties,
)
from pipeline.gallery.rules import features
from pipeline.gallery.rules.agreement import SourceFacts
from pipeline.gallery.service import GalleryService
from pipeline.sources import Description


def agree(
    version: ImageVersion,
    description: Description,
    declared: SourceProperties,
    gallery: GalleryService,
) -> None:
    """Raise InvalidParameter for a property that the description of the machine contradicts.
    `declared` is what the publisher said of it; what the description says comes first."""
    source = declared
    if description.controller is not None:
        source = replace(declared, disk_controller_type=description.controller)
    features.capture(gallery.get_definition(version.name.definition), source, version.name)
    gallery.check_source(version, facts_of(description), source)


def facts_of(description: Description) -> SourceFacts:
    """The description in the gallery's terms."""
    generation, architecture = description.generation, description.architecture
    return SourceFacts(
        os_type=None if description.os_type is None else OsType(description.os_type),
        generations=frozenset(() if generation is None else (HyperVGeneration(generation),)),
        architecture=None if architecture is None else Architecture(architecture),
    )
