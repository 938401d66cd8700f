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
    if isinstance(name, VersionName):
        return _version(name, service)
    if isinstance(name, DefinitionName):
        return _definition(name, service)
    if isinstance(name, GalleryName):
        return _gallery(name, name, service)
    raise NotFound(f"nothing is known of {name}")


def _gallery(name: GalleryName, asked: object, service: GalleryService) -> tuple[str, str]:
    """Of a gallery that is missing, or that what was asked for would be in."""
    known = [item.name for item in service.list_galleries(name.subscription)]
    close = did_you_mean(str(name), map(str, known))
    inside = f", so no {asked}" if asked != name else ""
    return (
        f"there is no gallery {name}{inside}{close}",
        f"galleria gallery list shows them; galleria gallery create {name} makes it",
    )


def _definition(name: DefinitionName, service: GalleryService) -> tuple[str, str]:
    try:
        known = [item.name.name for item in service.list_definitions(name.gallery)]
    except NotFound:
        return _gallery(name.gallery, name, service)
    close = did_you_mean(name.name, known)
    if close:  # the whole of the name, to be copied
        close = close.replace("mean ", f"mean {name.gallery}/")
    return (
        f"there is no image definition {name}{close}",
        f"galleria definition list {name.gallery} shows them; "
        f"galleria definition create {name} ... makes it",
    )


def _version(name: VersionName, service: GalleryService) -> tuple[str, str]:
    try:
        newest = service.list_versions(name.definition, limit=NEWEST)
    except NotFound:
        return _definition(name.definition, service)
    text = f"there is no image version {name}"
    if not newest:
        return text, f"{name.definition} has no versions yet; galleria publish {name} ... makes one"
    numbers = ", ".join(str(item.number) for item in newest)
    return text, f"the newest versions are {numbers}; galleria list {name.definition} shows all"
