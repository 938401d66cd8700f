"""Batches: several publishes asked for at once. Some are for whatever number is next, some start
from what others of them make; each has a result of its own."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from pipeline.errors import Conflict, GalleriaError, InvalidParameter, NotBegun
from pipeline.gallery.access.shared_ids import is_shared_reference
from pipeline.gallery.documents import encode
from pipeline.jobs.context import JobContext
from pipeline.jobs.plan import (
    Action,
    Preview,
    find_version,
    judge,
    next_patch,
    preview_after,
    preview_of,
    trial,
)
from pipeline.jobs.prepare import PublishRequest, fingerprinted
from pipeline.model import ImageVersion, ProvisioningState, VersionRequest
from pipeline.model.names import DefinitionName, Reference, parse_reference
from pipeline.model.sources import VersionSource

# --- what is asked for ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """A publish as it is asked for. `next_patch`: it becomes the number after the highest of its
    definition, whatever its request says. `name` tells it from the others of its batch."""

    request: PublishRequest
    next_patch: bool = False
    name: str = ""

    @property
    def definition(self) -> DefinitionName:
        return self.request.version.name.definition

    @property
    def starts_from(self) -> Reference | None:
        """The version that is its source, if it is one of a gallery's own."""
        for source in self.request.sources:
            if isinstance(source, VersionSource) and not is_shared_reference(source.reference):
                return parse_reference(source.reference)
        return None

    def may_be(self, reference: Reference) -> bool:
        """Whether what it makes can be the version that a reference means."""
        if reference.definition != self.definition or reference.channel is not None:
            return False
        number = reference.number
        return number is None or self.next_patch or number == self.request.version.name.number


def numbered(
    wanted: Wanted, context: JobContext, beside: Iterable[PublishRequest] = ()
) -> PublishRequest:
    """The request under the number that it is to have. `beside` are the others of the batch for the
    next number of the definition: what they made is not newer than what this one made."""
    request = wanted.request
    if not wanted.next_patch:
        return request
    fingerprint = fingerprinted(request, context.sources).fingerprint
    others = frozenset(_fingerprints(beside, context))
    versions = context.gallery.list_versions(wanted.definition, limit=1 + len(others))
    name = next_patch(wanted.definition, fingerprint, versions, others)
    return replace(request, version=replace(request.version, name=name))


def _fingerprints(requests: Iterable[PublishRequest], context: JobContext) -> Iterator[str]:
    for request in requests:
        try:
            yield fingerprinted(request, context.sources).fingerprint
        except (GalleriaError, OSError):
            continue  # its own build says so


def already_there(request: PublishRequest, context: JobContext) -> ImageVersion | None:
    """The version, if it was published from the same sources: then there is nothing to do. Raises
    Conflict when its number is taken by another."""
    old = find_version(request.version.name, context.gallery)
    fingerprint = fingerprinted(request, context.sources).fingerprint
    return old if judge(old, fingerprint, context.gallery) is Action.NOTHING else None


def beside(batch: Sequence[Wanted], index: int) -> list[PublishRequest]:
    """The other builds of a batch for the next number of the same definition."""
    own = batch[index]
    return [
        other.request
        for other in batch
        if other is not own and other.next_patch and other.definition == own.definition
    ]


# --- in which order ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """What has to be over before each build begins: `sources`, without which it can't be made, and
    `before`, the earlier ones of its definition, which it may start from or not."""

    sources: tuple[frozenset[int], ...]
    before: tuple[frozenset[int], ...]

    def waits_for(self, index: int) -> frozenset[int]:
        return self.sources[index] | self.before[index]

    def needed(self, chosen: Iterable[int]) -> set[int]:
        """The chosen builds, and those that they start from."""
        found: set[int] = set()
        left = list(chosen)
        while left:
            index = left.pop()
            if index not in found:
                found.add(index)
                left += self.sources[index]
        return found

    def ordered(self) -> list[int]:
        """All builds, each behind what it waits for."""
        done: list[int] = []
        while len(done) < len(self.sources):
            over = set(done)
            done += [
                index
                for index in range(len(self.sources))
                if index not in over and self.waits_for(index) <= over
            ]
        return done


def order_of(batch: Sequence[Wanted]) -> Order:
    """Builds that start from what another one makes wait for it; versions of one definition are
    made in their order. Raises InvalidParameter, naming them, for builds that wait for each other.
    """
    sources, before = [], []
    for index, wanted in enumerate(batch):
        reference = wanted.starts_from
        makers = set()
        if reference is not None:
            makers = {i for i, other in enumerate(batch) if i != index and other.may_be(reference)}
        earlier = {i for i in range(index) if batch[i].definition == wanted.definition}
        if reference is not None and reference.definition == wanted.definition:
            # the next version of an image from its latest: from those before it, not after it
            makers = {i for i in makers if i < index or reference.number is not None}
        sources.append(frozenset(makers))
        before.append(earlier - makers)
    order = Order(
        tuple(sources),
        tuple(
            frozenset(i for i in earlier if index not in sources[i])
            for index, earlier in enumerate(before)
        ),
    )
    circle = _circle(order)
    if circle:
        names = " -> ".join(batch[index].name for index in circle)
        raise InvalidParameter(
            f"builds wait for each other: {names}",
            hint="each starts from the version that the next one makes, or is a later version of "
            "its definition: take one of them out",
        )
    return order


def _circle(order: Order) -> list[int]:
    """Builds of which each waits for the next, the last for the first again; none: there are no
    such."""
    over: set[int] = set()
    for start in range(len(order.sources)):
        path: list[int] = []
        waiting: list[Iterator[int]] = []
        at: int | None = start
        while at is not None:
            if at in path:
                return [*path[path.index(at) :], at]
            if at not in over:
                path.append(at)
                waiting.append(iter(sorted(order.waits_for(at))))
            at = None
            while waiting and at is None:
                at = next(waiting[-1], None)
                if at is None:
                    waiting.pop()
                    over.add(path.pop())
    return []


# --- what would come of it -----------------------------------------------------------------------


def plan_batch(
    batch: Sequence[Wanted], order: Order, context: JobContext
) -> list[Preview | GalleriaError]:
    """What each build would do, in their order, or why it can't be made. What others of the batch
    make is taken for made: numbers, and versions to start from."""
    ahead = _Ahead(batch, order, context)
    for index in order.ordered():
        ahead.plan(index)
    return [ahead.found[index] for index in range(len(batch))]


class _Ahead:
    """A batch, as far as it is planned."""

    def __init__(self, batch: Sequence[Wanted], order: Order, context: JobContext) -> None:
        self._batch = batch
        self._order = order
        self._context = context
        self._made: dict[int, ImageVersion] = {}  # what builds make that make something
        self.found: dict[int, Preview | GalleriaError] = {}

    def plan(self, index: int) -> None:
        try:
            self.found[index] = self._preview(index)
        except GalleriaError as error:
            self.found[index] = error

    def _preview(self, index: int) -> Preview:
        sources = sorted(self._order.sources[index])
        failed = [i for i in sources if isinstance(self.found[i], GalleriaError)]
        if failed:
            names = ", ".join(self._batch[i].name for i in failed)
            raise NotBegun(f"not begun: what it starts from failed: {names}")
        wanted, context = self._batch[index], self._context
        source = self._source(index)
        if source is None:
            request = self._numbered(index, fingerprinted(wanted.request, context.sources))
            if (same := self._same(request)) is not None:
                return same
            version, action = trial(request, context)
            made = preview_of(version, action, request, context)
        else:
            mark = f"from {source.name}, which is not there yet"
            request = self._numbered(index, replace(wanted.request.version, fingerprint=mark))
            if (same := self._same(request)) is not None:
                return same
            made = preview_after(source, request, context)
            version = replace(context.gallery.try_version(request.version), fingerprint=mark)
        if made.action is not Action.NOTHING:
            done = replace(version, provisioning_state=ProvisioningState.SUCCEEDED)
            self._made[index] = done
        return made

    def _source(self, index: int) -> Preview | None:
        """The build that makes the version that this one starts from; None when that is there."""
        reference = self._batch[index].starts_from
        makers = [i for i in self._order.sources[index] if i in self._made]
        if reference is None or not makers:
            return None
        number = reference.number
        if number is None:
            makers = [i for i in makers if not self._made[i].exclude_from_latest]
            there = self._context.gallery.latest_version(reference.definition)
            newest = max(makers, key=lambda i: self._made[i].number, default=None)
            if newest is None or (there is not None and there.number > self._made[newest].number):
                return None
        else:
            newest = next((i for i in makers if self._made[i].number == number), None)
        found = None if newest is None else self.found[newest]
        return found if isinstance(found, Preview) else None

    def _numbered(self, index: int, version: VersionRequest) -> PublishRequest:
        wanted, context = self._batch[index], self._context
        if wanted.next_patch:
            others = frozenset(_fingerprints(beside(self._batch, index), context))
            made = [v for v in self._made.values() if v.name.definition == wanted.definition]
            there = context.gallery.list_versions(wanted.definition, limit=1 + len(others))
            versions = sorted((*made, *there), key=lambda item: item.number, reverse=True)
            mine = {item.fingerprint for item in made}
            name = next_patch(wanted.definition, version.fingerprint, versions, others | mine)
            version = replace(version, name=name)
        return replace(wanted.request, version=version)

    def _same(self, request: PublishRequest) -> Preview | None:
        """What is left to do when another build of the batch takes the number: nothing, when it is
        of the same sources. Raises Conflict when it is of others."""
        wanted = request.version
        for index, version in self._made.items():
            if version.name == wanted.name:
                found = self.found[index]
                if version.fingerprint == wanted.fingerprint and isinstance(found, Preview):
                    return replace(found, action=Action.NOTHING)
                raise Conflict(
                    f"{version.name} is made by {self._batch[index].name} of the same batch",
                    hint="give one of them another number, or version: next-patch",
                )
        return None


# --- what came of it -----------------------------------------------------------------------------


class Result(Enum):
    """What came of a build: a new version; it was there already; it goes on in the background; it
    failed; it was not begun, as what it starts from was not made, or another one failed."""

    PUBLISHED = "published"
    THERE = "there"
    STARTED = "started"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Build:
    """One build of a batch: its name, where its spec stands, and what it asks for, or why it can't
    be asked for."""

    name: str
    file: Path
    line: int
    wanted: Wanted | GalleriaError


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A build's own result. `log` has all that was said of it."""

    build: Build
    result: Result
    version: ImageVersion | None = None
    error: GalleriaError | None = None
    seconds: float = 0.0
    attempts: int = 1
    log: Path | None = None

    @property
    def failed(self) -> bool:
        return self.result in (Result.FAILED, Result.SKIPPED)

    def document(self) -> dict[str, Any]:
        """As JSON data."""
        build, error = self.build, self.error
        found: dict[str, Any] = {
            "name": build.name,
            "spec": str(build.file),
            "line": build.line,
            "result": self.result.value,
            "published": self.result in (Result.PUBLISHED, Result.STARTED),
            "seconds": round(self.seconds, 3),
            "attempts": self.attempts,
        }
        if self.version is not None:
            found["version"] = encode(self.version)
        if error is not None:
            found["error"] = {**error.document(), "exitStatus": error.exit_status}
        if self.log is not None:
            found["log"] = str(self.log)
        return found


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The results of all builds of a batch, in their order."""

    results: tuple[BuildResult, ...]

    @property
    def error(self) -> GalleriaError | None:
        """That of the first build that failed."""
        own = (item.error for item in self.results if item.result is Result.FAILED)
        return next(own, next((item.error for item in self.results if item.failed), None))

    @property
    def exit_status(self) -> int:
        error = self.error
        return 0 if error is None else error.exit_status
