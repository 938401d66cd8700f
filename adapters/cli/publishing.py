"""`galleria publish`: the main job."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import click

from adapters.cli.context import Settings
from adapters.cli.declared import declared_options, version_request
from adapters.cli.guests import plan_of, plan_options
from adapters.cli.lazy import Command
from adapters.cli.plans import plan_document, plan_text
from adapters.cli.proof import report_text, without_inventory
from adapters.cli.sources import source_options, sources_of
from adapters.cli.timing import stats_text
from adapters.cli.versions import region_table
from adapters.text import printable, seconds_text
from pipeline.gallery.documents import encode
from pipeline.jobs.context import JobContext
from pipeline.jobs.dry_run import try_publish
from pipeline.jobs.request import PublishRequest, Wait
from pipeline.model import ImageVersion
from pipeline.model.names import parse_version
from pipeline.publish import publish


@click.command("publish", cls=Command)
@click.argument("name", metavar="GALLERY/DEFINITION/VERSION")
@source_options
@declared_options
@click.option(
    "--generalize/--no-generalize", default=None, help="Default: as the definition's OS state."
)
@plan_options
@click.option(
    "--wait",
    type=click.Choice([item.value for item in Wait]),
    default=Wait.ALL.value,
    show_default=True,
    help="Return when the first region is usable, when all are, or at once: the rest goes on in"
    " the background.",
)
@click.option(
    "--validate",
    type=click.Choice(["azure"]),
    help="Publish only what this cloud would take: galleria validate's checks, before the copy.",
)
@click.option("--boot-check", is_flag=True, help="Boot a clone before anything is visible.")
@click.option("--dry-run", is_flag=True, help="Do it up to the copy; keep nothing, say what is.")
@click.option("--preflight/--no-preflight", default=True, help="Estimate the space first.")
@click.pass_obj
def publish_command(settings: Settings, /, *, name: str, **values: Any) -> None:
    """Publish disks as an image version."""
    request = request_of(name, values, settings.load().regions)
    if values["dry_run"]:
        _try(settings, request)
    elif request.wait is Wait.NONE:
        told = in_background(settings, lambda context: publish(request, context))
        settings.emit(told, background_text(told))
    else:
        started = time.monotonic()
        with settings.app() as app:
            version = publish(request, app.context)
        seconds = time.monotonic() - started
        settings.emit(
            {"version": encode(version), "seconds": round(seconds, 3)},
            published_text(version, seconds),
        )


def request_of(name: str, values: Mapping[str, Any], regions: Iterable[str]) -> PublishRequest:
    """What the options ask for. `regions` are the configured ones."""
    return PublishRequest(
        version_request(name, values, regions),
        sources=sources_of(values),
        plan=None if values["generalize"] is False else plan_of(values),
        wait=Wait(values["wait"]),
        preflight=values["preflight"],
        force=values["force"],
        boot_check=values["boot_check"],
        validate=values["validate"] is not None,
    )


def in_background(settings: Settings, job: Callable[[JobContext], ImageVersion]) -> dict[str, Any]:
    """Publish in a process of its own. Returns, with what it says of itself, when the rules have
    passed and the number is taken; what is refused is refused here. The child never returns."""
    from adapters.process.background import split

    side = split()
    if isinstance(side, int):
        raise click.exceptions.Exit(side)
    if isinstance(side, bytes):
        told: dict[str, Any] = json.loads(side)
        return told
    settings.progress = "none" if settings.quiet else "plain"
    with settings.app() as app:

        def begun(version: ImageVersion) -> None:
            log = app.config.logs / f"publish-{version.zone_key}.log"
            told = {"version": encode(version), "log": str(log)}
            side.leave(json.dumps(told).encode(), log)

        version = job(replace(app.context, begun=begun))
    settings.emit({"version": encode(version)}, region_table(version))
    raise click.exceptions.Exit(0)


def background_text(told: dict[str, Any]) -> str:
    name = parse_version(told["version"]["name"])
    return (
        f"{name} is being published in the background\n"
        f"log     {printable(told['log'])}\nfollow  galleria show {name} --watch"
    )


def published_text(version: ImageVersion, seconds: float) -> str:
    told = f"published {version.name} in {seconds_text(seconds)}\n{region_table(version)}"
    return "\n\n".join(part for part in (told, stats_text(version.stats)) if part)


def _try(settings: Settings, request: PublishRequest) -> None:
    with settings.app() as app:
        found, report = try_publish(request, app.context)
    text = f"{plan_text(request, found)}\n\n{report_text(report)}\n\nnothing of it was kept"
    document = {"dryRun": True, "report": without_inventory(report)}
    settings.emit({**document, "plan": plan_document(request, found)}, text)
