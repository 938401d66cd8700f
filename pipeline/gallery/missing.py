"""What is not there: the names that are like it, and how it is made."""

from contextlib import suppress

from pipeline.errors import GalleriaError, NotFound
from pipeline.gallery.service import GalleryService
from pipeline.model.names import DefinitionName, GalleryName, VersionName
from pipeline.model.spelling import did_you_mean

NEWEST = 5  # versions that are named


def explain_missing(error: NotFound, gallery: GalleryService) -> None:
    """Let the error of a missing gallery, definition or version say, to people, what is wrong with
    the name: of all that whoever asks may see. Only its words change."""
    with suppress(GalleriaError):
        error.plain, error.hint = _words(error.named, gallery)


def _words(name: object, service: GalleryService) -> tuple[str, str]:
    """From the outside in: what may not be seen is not asked for, as a refusal is recorded."""
    if not isinstance(name, GalleryName | DefinitionName | VersionName):
        raise NotFound(f"nothing is known of {name}")
    definition = name.definition if isinstance(name, VersionName) else name
    gallery = definition.gallery if isinstance(definition, DefinitionName) else definition
    galleries = [item.name for item in service.list_galleries(gallery.subscription)]
    if isinstance(definition, GalleryName) or gallery not in galleries:
        return _gallery(gallery, name, galleries)
    definitions = [item.name for item in service.list_definitions(gallery)]
    if isinstance(name, VersionName) and definition in definitions:
        return _version(name, service)
    return _definition(definition, definitions)


def _gallery(name: GalleryName, asked: object, known: list[GalleryName]) -> tuple[str, str]:
    """Of a gallery that is missing, or that what was asked for would be in."""
    close = did_you_mean(str(name), map(str, known))
    inside = f", so no {asked}" if asked != name else ""
    return (
        f"there is no gallery {name}{inside}{close}",
        f"galleria gallery list shows them; galleria gallery create {name} makes it",
    )


def _definition(name: DefinitionName, known: list[DefinitionName]) -> tuple[str, str]:
    close = did_you_mean(name.name, (item.name for item in known))
    if close:  # the whole of the name, to be copied
        close = close.replace("mean ", f"mean {name.gallery}/")
    return (
        f"there is no image definition {name}{close}",
        f"galleria definition list {name.gallery} shows them; "
        f"galleria definition create {name} ... makes it",
    )


def _version(name: VersionName, service: GalleryService) -> tuple[str, str]:
    newest = service.list_versions(name.definition, limit=NEWEST)
    text = f"there is no image version {name}"
    if not newest:
        return text, f"{name.definition} has no versions yet; galleria publish {name} ... makes one"
    numbers = ", ".join(str(item.number) for item in newest)
    return text, f"the newest versions are {numbers}; galleria list {name.definition} shows all"
