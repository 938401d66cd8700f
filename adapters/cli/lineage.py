"""How lineage is shown: a tree for each disk, in both directions."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from adapters.text import printable
from pipeline.resources.lineage import Family, Lineage, Step, Thing, document
from pipeline.sources.ingest import disk_name

if TYPE_CHECKING:
    from adapters.app import App

WORDS = {
    "virtualMachine": "VM",
    "vhd": "file",
    "managedImage": "managed image",
    "deployment": "deployed disk",
}
DIGEST = 16  # how many digits of a digest tell it apart, for people


def lineage_of(thing: Thing, app: "App") -> tuple[list[dict[str, Any]], str]:
    """As JSON data, and for people."""
    found = Family(app.gallery, app.context.resources).of(thing)
    return document(found), "\n".join(_lines(thing, found))


def _lines(thing: Thing, lineage: Lineage) -> Iterator[str]:
    for part in thing.parts:
        yield f"lineage of {disk_name(part.lun)}, {part.digest[:DIGEST]}"
        source = lineage.sources.get(part.lun)
        yield from _tree("from", (source,) if source is not None else ())
        yield from _tree("into", lineage.copies.get(part.lun, ()))


def _tree(word: str, steps: tuple[Step, ...], depth: int = 1) -> Iterator[str]:
    for step in steps:
        lun = "" if step.lun is None else f", {disk_name(step.lun)}"
        digest = f", {step.digest[:DIGEST]}" if step.digest else ""
        gone = " (gone)" if step.present is False else ""
        kind = WORDS.get(step.kind, step.kind)
        yield printable(f"{'  ' * depth}{word} {kind} {step.id}{lun}{digest}{gone}")
        yield from _tree(word, step.next, depth + 1)
