"""Lineage: what a version's or a resource's content came from, and what came from it, by digest.

Each disk remembers what it is a copy of: the kind, the name, the one life of that name, and the
digest that it had. What the caller may not see is shown as what the disk remembers, and no further.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.gallery.service import GalleryService
from pipeline.gallery.service.resources import ResourceService
from pipeline.model import Deployment, ImageVersion, Origin
from pipeline.model.resource_names import ResourceKind
from pipeline.model.resources import Resource

KINDS = {
    ResourceKind.DISK: "disk",
    ResourceKind.SNAPSHOT: "snapshot",
    ResourceKind.IMAGE: "managedImage",
}
DEPTH = 64  # no chain of copies is a loop; a damaged catalog might be


@dataclass(frozen=True, slots=True)
class Part:
    """One disk of a thing."""

    lun: int | None
    digest: str
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class Thing:
    """A version, a resource, or disks that were deployed."""

    kind: str
    id: str
    uid: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One disk of something up or down the line. `present`: it is (still) there under that name;
    files and URLs are not looked for. `next` goes on in the same direction."""

    kind: str
    id: str
    lun: int | None
    digest: str
    present: bool | None
    next: tuple["Step", ...] = ()


@dataclass(frozen=True, slots=True)
class Lineage:
    """`sources` and `copies` by the LUNs of the thing's own disks."""

    sources: Mapping[int | None, Step] = field(default_factory=dict)
    copies: Mapping[int | None, tuple[Step, ...]] = field(default_factory=dict)


class Family:
    """All that the caller can see, and how it hangs together."""

    def __init__(self, gallery: GalleryService, resources: ResourceService) -> None:
        things = [*_versions(gallery), *_resources(resources), *_deployments(gallery)]
        # by the one life of a name: a shared version is known by more than one
        self._things = {thing.uid: thing for thing in things if thing.uid}
        self._children: dict[str, list[tuple[Thing, Part]]] = {}
        for thing in things:
            for part in thing.parts:
                if part.origin is not None and part.origin.uid:
                    self._children.setdefault(part.origin.uid, []).append((thing, part))

    def of(self, thing: Thing) -> Lineage:
        return Lineage(
            {
                part.lun: self._up(part.origin, DEPTH)
                for part in thing.parts
                if part.origin is not None
            },
            {part.lun: self._down(thing, part, DEPTH) for part in thing.parts},
        )

    def _up(self, origin: Origin, depth: int) -> Step:
        """What a disk came from, and what that came from."""
        thing = self._things.get(origin.uid)
        part = _part(thing, origin.lun) if thing is not None else None
        further: tuple[Step, ...] = ()
        if part is not None and part.origin is not None and depth:
            further = (self._up(part.origin, depth - 1),)
        digest = origin.digest or (part.digest if part is not None else "")
        present = thing is not None if origin.uid else None
        return Step(origin.kind, origin.id, origin.lun, digest, present, further)

    def _down(self, thing: Thing, part: Part, depth: int) -> tuple[Step, ...]:
        """What is a copy of one disk of a thing, and what is a copy of that."""
        found = []
        for child, copy in self._children.get(thing.uid, ()):
            if copy.origin is None or copy.origin.lun != part.lun:
                continue
            further = self._down(child, copy, depth - 1) if depth else ()
            found.append(Step(child.kind, child.id, copy.lun, copy.digest, True, further))
        return tuple(found)


def of_version(version: ImageVersion) -> Thing:
    parts = (Part(disk.lun, disk.digest, disk.source.origin) for disk in version.disks)
    return Thing("version", version.name.arm_id, version.uid, tuple(parts))


def of_resource(resource: Resource) -> Thing:
    parts = (Part(item.lun, item.digest, item.origin) for item in resource.contents)
    return Thing(KINDS[resource.name.kind], resource.id, resource.unique_id, tuple(parts))


def of_deployment(deployment: Deployment) -> Thing:
    version = deployment.version.arm_id
    parts = tuple(
        Part(
            disk.lun,
            disk.digest,
            Origin("version", version, deployment.version_uid, disk.digest, disk.lun),
        )
        for disk in deployment.disks
    )
    return Thing("deployment", deployment.directory, "", parts)


def document(lineage: Lineage) -> list[dict[str, object]]:
    """As JSON: an entry for each disk."""
    luns = sorted(set(lineage.sources) | set(lineage.copies), key=lambda n: -1 if n is None else n)
    return [
        {
            "lun": lun,
            "sources": [_step(lineage.sources[lun])] if lun in lineage.sources else [],
            "copies": [_step(step) for step in lineage.copies.get(lun, ())],
        }
        for lun in luns
    ]


def _step(step: Step) -> dict[str, object]:
    return {
        "kind": step.kind,
        "id": step.id,
        "lun": step.lun,
        "digest": step.digest or None,
        "present": step.present,
        "next": [_step(item) for item in step.next],
    }


def _part(thing: Thing, lun: int | None) -> Part | None:
    return next((part for part in thing.parts if part.lun == lun), None)


def _versions(gallery: GalleryService) -> Iterator[Thing]:
    for found in gallery.list_galleries():
        for definition in gallery.list_definitions(found.name):
            yield from map(of_version, gallery.list_versions(definition.name))


def _resources(resources: ResourceService) -> Iterable[Thing]:
    return (of_resource(item) for kind in ResourceKind for item in resources.of_kind(kind))


def _deployments(gallery: GalleryService) -> Iterable[Thing]:
    return map(of_deployment, gallery.list_deployments())
