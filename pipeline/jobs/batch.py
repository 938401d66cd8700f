"""Batches: several publishes asked for at once, some of them for whatever number is next."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline.jobs.context import JobContext
from pipeline.jobs.plan import Action, find_version, judge, next_patch
from pipeline.jobs.prepare import PublishRequest, fingerprinted
from pipeline.model import ImageVersion
from pipeline.model.names import DefinitionName


@dataclass(frozen=True, slots=True)
class Wanted:
    """A publish as it is asked for. `next_patch`: it becomes the number after the highest of its
    definition, whatever its request says."""

    request: PublishRequest
    next_patch: bool = False

    @property
    def definition(self) -> DefinitionName:
        return self.request.version.name.definition


def numbered(wanted: Wanted, context: JobContext) -> PublishRequest:
    """The request under the number that it is to have."""
    request = wanted.request
    if not wanted.next_patch:
        return request
    versions = context.gallery.list_versions(wanted.definition, limit=1)
    fingerprint = fingerprinted(request, context.sources).fingerprint
    name = next_patch(wanted.definition, fingerprint, versions)
    return replace(request, version=replace(request.version, name=name))


def already_there(request: PublishRequest, context: JobContext) -> ImageVersion | None:
    """The version, if it was published from the same sources: then there is nothing to do. Raises
    Conflict when its number is taken by another."""
    old = find_version(request.version.name, context.gallery)
    fingerprint = fingerprinted(request, context.sources).fingerprint
    return old if judge(old, fingerprint, context.gallery) is Action.NOTHING else None


def series(batch: Sequence[Wanted], indexes: Iterable[int]) -> list[list[int]]:
    """Which of a batch can run beside each other. Those of one definition run one after the other,
    in their order: each may start from the one before."""
    found: dict[DefinitionName, list[int]] = {}
    for index in indexes:
        found.setdefault(batch[index].definition, []).append(index)
    return list(found.values())
