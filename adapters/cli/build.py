"""`galleria build` and `plan`: batches of versions from build specs."""

import fnmatch
import os
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli.context import CHANGES, Settings
from adapters.cli.lazy import Command
from adapters.cli.operation import KEYS
from adapters.cli.publish import background_text, in_background, plan_text, published_text
from adapters.cli.spec import SPECS, VARIABLES, read, spec_request
from adapters.text import printable, seconds_text, table
from pipeline.errors import (
    Conflict,
    EnvironmentMissing,
    GalleriaError,
    InvalidParameter,
    NoSpace,
    NotBegun,
    NotFound,
    Refused,
    StageFailed,
)
from pipeline.gallery.documents import decode
from pipeline.jobs.batch import (
    BatchResult,
    Build,
    BuildResult,
    Order,
    Result,
    Wanted,
    already_there,
    beside,
    numbered,
    order_of,
    plan_batch,
)
from pipeline.jobs.context import JobContext
from pipeline.jobs.plan import Action, Preview
from pipeline.jobs.prepare import Wait
from pipeline.jobs.retry import transient
from pipeline.model import ImageVersion
from pipeline.model.spelling import did_you_mean
from pipeline.ports import Progress
from pipeline.publish import publish

if TYPE_CHECKING:
    from adapters.process.batch import Outcome, Tell, Watcher
    from adapters.process.runs import FileLog
    from adapters.spec import Broken, Declared

JOBS = 4  # the most at once unless told: an appliance may take a core and 1.3 GiB
DELAYS = (2.0, 8.0, 30.0)  # seconds before each new attempt of what may pass

ONLY = click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Only the builds of this name, or pattern (repeatable), and those they start from.",
)


# of a build that could not be begun in the background: the error of its status
_KINDS: Mapping[int, type[GalleriaError]] = {
    kind.exit_status: kind
    for kind in (InvalidParameter, EnvironmentMissing, NotFound, Conflict, Refused, NoSpace)
}


@dataclass(frozen=True, slots=True)
class _Made:
    """What a build returned."""

    version: ImageVersion
    published: bool

    @property
    def text(self) -> str:
        name = self.version.name
        return f"published {name}" if self.published else f"{name} is there already"


@click.command(cls=Command)
@SPECS
@VARIABLES
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help=f"Publish up to N images at once. Default: one per core, at most {JOBS}.",
)
@ONLY
@click.option(
    "--keep-going/--fail-fast",
    default=True,
    help="Whether the other builds go on when one fails. Default: they do.",
)
@KEYS
@click.pass_context
def build(
    context: click.Context,
    *,
    specs: tuple[Path, ...],
    variables: tuple[str, ...],
    files: tuple[Path, ...],
    jobs: int | None,
    only: tuple[str, ...],
    keep_going: bool,
) -> None:
    """Publish versions from build specs; versions that exist already are left alone."""
    settings = context.ensure_object(Settings)
    builds = chosen(builds_of(read(specs, variables, files)), only)
    batch = _Batch(settings, builds, jobs or min(os.cpu_count() or 1, JOBS), keep_going=keep_going)
    finish(context, batch.run())


def finish(context: click.Context, result: BatchResult, before: str = "") -> None:
    """Print what came of each build, and end with the status of the first that failed."""
    from adapters.cli import say_error

    settings = context.ensure_object(Settings)
    results = result.results
    for item in results:
        if item.error is not None and item.failed:
            label = f"{item.build.name}: " if len(results) > 1 else ""
            say_error(item.error, settings, label)
    document: dict[str, Any] = {"versions": [item.document() for item in results]}
    if result.error is not None:
        document["error"] = result.error.document()
    alone = len(results) == 1
    text = _alone_text(results[0]) if alone else result_table(results)
    settings.emit(document, "\n\n".join(part for part in (before, text) if part))
    if result.exit_status:
        context.exit(result.exit_status)


def _alone_text(item: BuildResult) -> str:
    if item.version is None:
        return ""
    if item.result is Result.PUBLISHED:
        return published_text(item.version, item.seconds)
    if item.result is Result.STARTED:
        return background_text(item.version, str(item.log))
    return f"{item.version.name} is there already"


_RESULTS = {
    Result.PUBLISHED: "published",
    Result.THERE: "there already",
    Result.STARTED: "in background",
    Result.FAILED: "FAILED",
    Result.SKIPPED: "not made",
}


def result_table(results: Sequence[BuildResult]) -> str:
    """The closing table: a row for each build, and what was made of how many."""
    rows = [
        (
            item.build.name,
            _RESULTS[item.result],
            "" if item.version is None else item.version.name,
            seconds_text(item.seconds) if item.seconds else "",
            item.attempts if item.attempts > 1 else "",
            item.error.reason if item.error is not None else "",
        )
        for item in results
    ]
    header = ("BUILD", "RESULT", "VERSION", "TIME", "TRIES", "ERROR")
    kept = [
        column
        for column in range(len(header))
        if column < 3 or any(str(row[column]) for row in rows)
    ]
    shown = table([header[i] for i in kept], [[row[i] for i in kept] for row in rows])
    counts = ", ".join(
        f"{count} {_RESULTS[kind].lower()}"
        for kind in Result
        if (count := sum(item.result is kind for item in results))
    )
    logs = [item for item in results if item.failed and item.log is not None]
    told = [f"log of {item.build.name}: {printable(str(item.log))}" for item in logs]
    return "\n".join([shown, "", f"{len(results)} builds: {counts}", *told])


# --- what is to be built -------------------------------------------------------------------------


def builds_of(found: "Iterable[Declared | Broken]") -> list[Build]:
    """The versions among the documents of specs. Raises InvalidParameter when there are none."""
    from adapters.spec import NEXT_PATCH, Broken, Spec

    builds = []
    for item in found:
        if isinstance(item, Broken):
            builds.append(Build(item.name, item.file, item.line, item.error))
        elif isinstance(item.document, Spec):
            spec = item.document
            wanted: Wanted | GalleriaError
            try:
                following = spec.image.version == NEXT_PATCH
                wanted = Wanted(spec_request(spec), next_patch=following, name=item.name)
            except GalleriaError as error:
                wanted = error
            builds.append(Build(item.name, item.file, item.line, wanted))
    if not builds:
        raise InvalidParameter(
            "no document of kind ImageVersion is there: nothing is to be built",
            hint="galleria apply makes galleries and image definitions",
        )
    return builds


def chosen(builds: Sequence[Build], only: Sequence[str]) -> list[Build]:
    """Those of these names, or patterns, with those that they start from. Raises NotFound for a
    name that no build has."""
    if not only:
        return list(builds)
    names = [build.name for build in builds]
    kept: set[int] = set()
    for pattern in only:
        found = {i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)}
        if not found:
            close = did_you_mean(pattern, names)
            raise NotFound(f"--only: there is no build {pattern!r}{close}")
        kept |= found
    sound = [i for i, build in enumerate(builds) if isinstance(build.wanted, Wanted)]
    order = order_of([_wanted(builds[i]) for i in sound])
    kept |= {sound[i] for i in order.needed(sound.index(i) for i in kept if i in sound)}
    return [build for i, build in enumerate(builds) if i in kept]


def _wanted(build: Build) -> Wanted:
    assert isinstance(build.wanted, Wanted)  # noqa: S101 - those that are broken are sorted out
    return build.wanted


# --- building ------------------------------------------------------------------------------------


class _Batch:
    """Builds, and what becomes of each."""

    def __init__(
        self, settings: Settings, builds: Sequence[Build], jobs: int, *, keep_going: bool
    ) -> None:
        self._settings = settings
        self._builds = builds
        self._jobs = jobs
        self._keep_going = keep_going
        self._sound = [build for build in builds if isinstance(build.wanted, Wanted)]
        self._batch = [_wanted(build) for build in self._sound]
        self._order = order_of(self._batch)
        self._results: dict[str, BuildResult] = {}
        self._logs: dict[str, Path] = {}

    def run(self) -> BatchResult:
        """Build all of them. What is wrong with a spec is said before the first byte."""
        for build in self._builds:
            if isinstance(build.wanted, GalleriaError):
                self._put(BuildResult(build, Result.FAILED, error=build.wanted))
        if self._results and not self._keep_going:
            for build in self._sound:
                error = NotBegun(f"not begun: {next(iter(self._results))} failed")
                self._put(BuildResult(build, Result.SKIPPED, error=error))
            return self._result()
        self._start_background()
        rest = [i for i in range(len(self._sound)) if self._sound[i].name not in self._results]
        if len(rest) == 1 == len(self._builds):
            self._alone(rest[0])
        elif rest:
            self._together(rest)
        return self._result()

    def _put(self, result: BuildResult) -> None:
        self._results[result.build.name] = result

    def _result(self) -> BatchResult:
        return BatchResult(tuple(self._results[build.name] for build in self._builds))

    def _start_background(self) -> None:
        """Begin those that nobody waits for: before a catalog is open, as other processes can't
        take that over."""
        for index, wanted in enumerate(self._batch):
            if wanted.request.wait is not Wait.NONE:
                continue
            needed = {i for i in range(len(self._batch)) if index in self._order.sources[i]}
            if others := sorted(self._order.sources[index] | needed):
                raise InvalidParameter(
                    f"{wanted.name} has wait: none, and {self._batch[others[0]].name} of the same "
                    "batch has to be made before or after it",
                    hint="let it be waited for, or build them one after the other",
                )
            self._put(self._start(index))

    def _start(self, index: int) -> BuildResult:
        build, started, parent = self._sound[index], time.monotonic(), os.getpid()
        try:
            with self._settings.session() as session:
                request = self._numbered(index, session.context)
                there = already_there(request, session.context)
        except GalleriaError as error:
            return BuildResult(build, Result.FAILED, error=error)
        if there is not None:
            return BuildResult(build, Result.THERE, there)
        try:
            told = in_background(self._settings, lambda context: publish(request, context))
        except click.exceptions.Exit as ended:
            if os.getpid() != parent:
                raise  # this is the build's own process, at its end
            kind = _KINDS.get(ended.exit_code, StageFailed)
            said = kind("it was not begun: what is wrong was said before")
            return BuildResult(build, Result.FAILED, error=said)
        version = decode(ImageVersion, told["version"])
        seconds = time.monotonic() - started
        return BuildResult(build, Result.STARTED, version, seconds=seconds, log=Path(told["log"]))

    def _numbered(self, index: int, context: JobContext) -> Any:
        return numbered(self._batch[index], context, beside(self._batch, index))

    def _made(self, index: int, context: JobContext) -> _Made:
        request = self._numbered(index, context)
        there = already_there(request, context)
        return _Made(there or publish(request, context), published=there is None)

    # --- one alone, in this process

    def _alone(self, index: int) -> None:
        from adapters.cli import explain
        from adapters.process.batch import Outcome

        log, started, attempts = self._log(index), time.monotonic(), 0
        progress = self._settings.open_progress()
        outcome: Outcome[_Made] | None = None
        while outcome is None:
            attempts += 1
            try:
                outcome = Outcome(self._logged(index, progress, log))
            except Exception as error:
                known = explain(error)
                known.__cause__ = error if known is not error else error.__cause__
                if attempts > len(DELAYS) or not transient(error):
                    outcome = Outcome(error=known)
                else:
                    seconds = DELAYS[attempts - 1]
                    progress.warn(f"{known.plain}; trying again in {seconds:.0f} s")
                    time.sleep(seconds)
        seconds = time.monotonic() - started
        self._ended(index, Outcome(outcome.value, outcome.error, seconds, attempts))

    # --- several, each in a process of its own

    def _together(self, indexes: Sequence[int]) -> None:
        """Each with appliances of its own: a hostile file system that took one over would reach no
        other guest's disk."""
        from adapters.cli import explain
        from adapters.process.batch import Rules, together
        from adapters.progress.builds import open_view

        names = [self._sound[index].name for index in indexes]
        own = _only(self._order, indexes)
        rules = Rules(
            sources=own.sources.__getitem__,
            before=own.before.__getitem__,
            delays=DELAYS,
            transient=transient,
            fail_fast=not self._keep_going,
            name=names.__getitem__,
        )
        view: Watcher[_Made] = open_view(
            self._settings.progress_mode, sys.stderr, names, lambda made: made.text
        )
        tasks = [partial(self._task, index, self._log(index)) for index in indexes]
        outcomes = together(self._jobs, tasks, explain, rules, view)
        for index, outcome in zip(indexes, outcomes, strict=True):
            self._ended(index, outcome)

    def _task(self, index: int, log: "FileLog", tell: "Tell") -> _Made:
        """What a build's own process does: all that it says goes to its log, and to this one."""
        from adapters.progress.builds import TellingProgress

        _print_to(log.path)
        return self._logged(index, TellingProgress(tell), log)

    def _logged(self, index: int, progress: Progress, log: "FileLog") -> _Made:
        from adapters.progress.builds import LoggedProgress

        build = self._sound[index]
        log.write(f"build {build.name}: {printable(str(build.file))}:{build.line}")
        try:
            with self._settings.session(LoggedProgress(progress, log)) as session:
                made = self._made(index, session.context)
        except BaseException as error:
            log.write(f"failed: {printable(str(error))}")
            log.write("".join(traceback.format_exception(error)))
            raise
        log.write(made.text)
        return made

    def _log(self, index: int) -> "FileLog":
        from adapters.process.runs import build_log

        name = self._sound[index].name
        log = build_log(self._settings.load().logs, name)
        self._logs[name] = log.path
        return log

    def _ended(self, index: int, outcome: "Outcome[_Made]") -> None:
        build, made = self._sound[index], outcome.value
        if made is None:
            result = Result.FAILED if outcome.begun else Result.SKIPPED
        else:
            result = Result.PUBLISHED if made.published else Result.THERE
        log = self._logs[build.name] if outcome.begun else None
        self._put(
            BuildResult(
                build,
                result,
                None if made is None else made.version,
                outcome.error,
                outcome.seconds,
                outcome.attempts,
                log,
            )
        )


def _only(order: Order, indexes: Sequence[int]) -> Order:
    """The order of some builds alone, by their places among these."""
    places = {index: place for place, index in enumerate(indexes)}

    def kept(waiting: Sequence[frozenset[int]]) -> tuple[frozenset[int], ...]:
        return tuple(
            frozenset(places[i] for i in waiting[index] if i in places) for index in indexes
        )

    return Order(kept(order.sources), kept(order.before))


def _print_to(log: Path) -> None:
    """Let what this process and its tools print go to a file: the terminal is the batch's."""
    sys.stdout.flush()
    sys.stderr.flush()
    with suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)


# --- planning ------------------------------------------------------------------------------------


@click.command(cls=Command)
@SPECS
@VARIABLES
@ONLY
@click.option(
    "--detailed-exitcode",
    is_flag=True,
    help=f"Exit with {CHANGES} when there is something to do, 0 when not; what else has that "
    "status, mistakes in usage and specs, is 1 then.",
)
@KEYS
@click.pass_context
def plan(
    context: click.Context,
    *,
    specs: tuple[Path, ...],
    variables: tuple[str, ...],
    files: tuple[Path, ...],
    only: tuple[str, ...],
    detailed_exitcode: bool,
) -> None:
    """Show what build would do, and what exists already; change nothing."""
    settings = context.ensure_object(Settings)
    builds = chosen(builds_of(read(specs, variables, files)), only)
    sound = [build for build in builds if isinstance(build.wanted, Wanted)]
    batch = [_wanted(build) for build in sound]
    order = order_of(batch)
    with settings.session() as session:
        found: dict[str, Preview | GalleriaError] = {
            build.name: item
            for build, item in zip(sound, plan_batch(batch, order, session.context), strict=True)
        }
    found |= {b.name: b.wanted for b in builds if isinstance(b.wanted, GalleriaError)}
    first = _say_plans(settings, builds, found)
    if first is not None:
        context.exit(settings.status(first))
    previews = (item for item in found.values() if isinstance(item, Preview))
    if detailed_exitcode and any(item.action is not Action.NOTHING for item in previews):
        context.exit(CHANGES)


def _say_plans(
    settings: Settings, builds: Sequence[Build], found: Mapping[str, Preview | GalleriaError]
) -> GalleriaError | None:
    """Print the plan of each build, or what is wrong with it; returns the first such error."""
    from adapters.cli import say_error

    plans, texts = [], []
    first: GalleriaError | None = None
    for build in builds:
        item = found[build.name]
        about = {"name": build.name, "spec": str(build.file), "line": build.line}
        if isinstance(item, Preview):
            plans.append({**about, **item.document()})
            texts.append(plan_text(item, build.name if len(builds) > 1 else ""))
            continue
        first = first or item
        say_error(item, settings, f"{build.name}: " if len(builds) > 1 else "")
        plans.append({**about, "error": {**item.document(), "exitStatus": item.exit_status}})
    document: dict[str, Any] = {"plans": plans}
    if first is not None:
        document["error"] = first.document()
    settings.emit(document, "\n\n".join(texts))
    return first
