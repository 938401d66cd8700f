"""`galleria build` and `plan`: versions from build specs."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli.context import Settings
from adapters.cli.guests import KEYS
from adapters.cli.lazy import Command
from adapters.cli.plans import plan_document, plan_text
from adapters.cli.publishing import background_text, in_background, published_text
from adapters.cli.requests import spec_request
from pipeline.errors import GalleriaError
from pipeline.gallery.documents import encode
from pipeline.jobs.context import JobContext
from pipeline.jobs.plan import Action, find_version, judge, next_patch, preview
from pipeline.jobs.request import PublishRequest, Wait, described
from pipeline.model import ImageVersion
from pipeline.model.names import DefinitionName
from pipeline.publish import publish

if TYPE_CHECKING:
    from adapters.app import App

SPECS = click.argument(
    "specs", nargs=-1, required=True, metavar="SPEC...", type=click.Path(path_type=Path)
)
Maker = Callable[[JobContext], PublishRequest]
JOBS = 4  # the most at once unless told: an appliance may take a core and 1.3 GiB
Built = tuple[dict[str, Any], str]  # for machines, and for people


@click.command(cls=Command)
@SPECS
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help=f"Publish up to N images at once. Default: one a core, {JOBS} at most.",
)
@KEYS
@click.pass_obj
def build(settings: Settings, *, specs: tuple[Path, ...], jobs: int | None) -> None:
    """Publish what build specs say; what is there already is left alone."""
    plans = [_from_spec(path) for path in specs]  # every mistake before the first byte
    # before a catalog is open: other processes can't take that over
    results: dict[int, Built] = {
        index: _start(settings, plan.make) for index, plan in enumerate(plans) if not plan.waited
    }
    rest = [index for index in range(len(plans)) if index not in results]
    groups: dict[DefinitionName, list[int]] = {}
    for index in rest:  # versions of one image in their order: each may start from the one before
        groups.setdefault(plans[index].definition, []).append(index)
    limit = jobs or min(os.cpu_count() or 1, JOBS)
    if min(limit, len(groups)) > 1:
        results |= _at_once(settings, plans, list(groups.values()), limit)
    else:
        results |= _in_turn(settings, plans, rest)
    settings.emit(
        {"versions": [results[index][0] for index in range(len(plans))]},
        "\n\n".join(results[index][1] for index in range(len(plans))),
    )


def _in_turn(
    settings: Settings, plans: Sequence["_Plan"], indexes: Iterable[int]
) -> dict[int, Built]:
    with settings.app() as app:
        return {index: _build(plans[index].make, app) for index in indexes}


def _at_once(
    settings: Settings, plans: Sequence["_Plan"], groups: Sequence[list[int]], jobs: int
) -> dict[int, Built]:
    """Each group in a process of its own, with appliances of its own: a hostile file system that
    took one over would reach no other guest's disk. Raises the first error when all have ended."""
    from adapters.cli import explain
    from adapters.process.batch import together

    def task(indexes: Sequence[int]) -> dict[int, Built]:
        names = ", ".join(str(plans[index].path) for index in indexes)
        return _in_turn(settings.labelled(names), plans, indexes)

    found = together(jobs, [partial(task, indexes) for indexes in groups], explain)
    errors = [item for item in found if isinstance(item, GalleriaError)]
    if errors:
        raise errors[0]
    return {
        index: item for group in found if isinstance(group, dict) for index, item in group.items()
    }


def _build(make: Maker, app: "App") -> Built:
    started = time.monotonic()
    request = make(app.context)
    there = _there(request, app.context)
    version = there or publish(request, app.context)
    seconds = time.monotonic() - started
    document = {
        "version": encode(version),
        "published": there is None,
        "seconds": round(seconds, 3),
    }
    if there is not None:
        return document, f"{version.name} is there already"
    return document, published_text(version, seconds)


def _start(settings: Settings, make: Maker) -> Built:
    """Build one in the background, unless it is there already."""
    with settings.app() as app:
        request = make(app.context)
        if _there(request, app.context) is not None:
            return _build(make, app)
    told = in_background(settings, lambda context: publish(request, context))
    return {**told, "published": True}, background_text(told)


def _there(request: PublishRequest, context: JobContext) -> ImageVersion | None:
    """The version, if it is there already, from the same sources."""
    old = find_version(request.version.name, context.gallery)
    fingerprint = described(request, context.sources).fingerprint
    return old if judge(old, fingerprint, context.gallery) is Action.NOTHING else None


@click.command(cls=Command)
@SPECS
@KEYS
@click.pass_obj
def plan(settings: Settings, *, specs: tuple[Path, ...]) -> None:
    """Say what build would do and what is there already; do nothing."""
    plans = [_from_spec(path) for path in specs]
    with settings.app() as app:
        requests = [plan.make(app.context) for plan in plans]
        previews = [(request, preview(request, app.context)) for request in requests]
    settings.emit(
        {"plans": [plan_document(request, item) for request, item in previews]},
        "\n\n".join(plan_text(request, item) for request, item in previews),
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """A checked spec. `make` gives the request, once the catalog can say what the next version is;
    `waited`: its end is."""

    path: Path
    definition: DefinitionName
    make: Maker
    waited: bool


def _from_spec(path: Path) -> _Plan:
    from adapters.spec import NEXT_PATCH, load_spec

    spec = load_spec(path)
    request = spec_request(spec)

    def make(context: JobContext) -> PublishRequest:
        if spec.image.version != NEXT_PATCH:
            return request
        definition = request.version.name.definition
        versions = context.gallery.list_versions(definition)
        number = next_patch(definition, described(request, context.sources).fingerprint, versions)
        return replace(request, version=replace(request.version, name=number))

    definition = request.version.name.definition
    return _Plan(path, definition, make, request.wait is not Wait.NONE)
