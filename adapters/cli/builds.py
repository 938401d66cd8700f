"""`galleria build` and `plan`: versions from build specs."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli.context import Settings
from adapters.cli.guests import KEYS
from adapters.cli.lazy import Command
from adapters.cli.plans import plan_document, plan_text
from adapters.cli.publishing import background_text, in_background, published_text
from adapters.cli.requests import spec_request
from pipeline.gallery.documents import encode
from pipeline.gallery.model import ImageVersion
from pipeline.outside import Ports
from pipeline.preview import Action, find_version, judge, next_patch, preview
from pipeline.publish import PublishRequest, Wait, described, publish

if TYPE_CHECKING:
    from adapters.app import App

SPECS = click.argument(
    "specs", nargs=-1, required=True, metavar="SPEC...", type=click.Path(path_type=Path)
)
Maker = Callable[[Ports], PublishRequest]


@click.command(cls=Command)
@SPECS
@KEYS
@click.pass_obj
def build(settings: Settings, *, specs: tuple[Path, ...]) -> None:
    """Publish what build specs say; what is there already is left alone."""
    makers = [_from_spec(path) for path in specs]  # every mistake before the first byte
    # those first, as their processes can't take over an open catalog
    behind = {
        index: _start(settings, make) for index, (make, wait) in enumerate(makers) if not wait
    }
    results = []
    with settings.app() as app:
        for index, (make, _) in enumerate(makers):
            results.append(behind.get(index) or _build(make, app))
    settings.emit(
        {"versions": [document for document, _ in results]},
        "\n\n".join(text for _, text in results),
    )


def _build(make: Maker, app: "App") -> tuple[dict[str, Any], str]:
    started = time.monotonic()
    request = make(app.ports)
    there = _there(request, app.ports)
    version = there or publish(request, app.ports)
    seconds = time.monotonic() - started
    document = {
        "version": encode(version),
        "published": there is None,
        "seconds": round(seconds, 3),
    }
    if there is not None:
        return document, f"{version.name} is there already"
    return document, published_text(version, seconds)


def _start(settings: Settings, make: Maker) -> tuple[dict[str, Any], str]:
    """Build one in the background, unless it is there already."""
    with settings.app() as app:
        request = make(app.ports)
        if _there(request, app.ports) is not None:
            return _build(make, app)
    told = in_background(settings, lambda ports: publish(request, ports))
    return {**told, "published": True}, background_text(told)


def _there(request: PublishRequest, ports: Ports) -> ImageVersion | None:
    """The version, if it is there already, from the same sources."""
    old = find_version(request.version.name, ports.gallery)
    fingerprint = described(request, ports.sources).fingerprint
    return old if judge(old, fingerprint, ports.gallery) is Action.NOTHING else None


@click.command(cls=Command)
@SPECS
@KEYS
@click.pass_obj
def plan(settings: Settings, *, specs: tuple[Path, ...]) -> None:
    """Say what build would do and what is there already; do nothing."""
    makers = [_from_spec(path) for path in specs]
    with settings.app() as app:
        requests = [make(app.ports) for make, _ in makers]
        previews = [(request, preview(request, app.ports)) for request in requests]
    settings.emit(
        {"plans": [plan_document(request, item) for request, item in previews]},
        "\n\n".join(plan_text(request, item) for request, item in previews),
    )


def _from_spec(path: Path) -> tuple[Maker, bool]:
    """A checked spec as a request, once the catalog can say what the next version is; and whether
    its end is waited for."""
    from adapters.spec import NEXT_PATCH, load_spec

    spec = load_spec(path)
    request = spec_request(spec)

    def make(ports: Ports) -> PublishRequest:
        if spec.image.version != NEXT_PATCH:
            return request
        definition = request.version.name.definition
        versions = ports.gallery.list_versions(definition)
        number = next_patch(definition, described(request, ports.sources).fingerprint, versions)
        return replace(request, version=replace(request.version, name=number))

    return make, request.wait is not Wait.NONE
