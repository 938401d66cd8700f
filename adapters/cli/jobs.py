"""`galleria publish`, `build` and `plan`: the main job."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.declared import declared, declared_options, target_regions
from adapters.cli.guests import own_script, plan_of, plan_options
from adapters.cli.lazy import Command
from adapters.cli.proof import report_text, without_inventory
from adapters.cli.sources import source_options, sources_of, spec_sources
from adapters.cli.versions import region_table
from adapters.text import bytes_text, fields, printable, seconds_text, table
from pipeline.gallery.documents import encode, parse_date
from pipeline.gallery.model import (
    ImageVersion,
    ReplicationMode,
    StorageAccountType,
    TargetRegion,
    VersionRequest,
)
from pipeline.gallery.names import (
    DefinitionName,
    VersionName,
    parse_gallery,
    parse_number,
    parse_version,
)
from pipeline.guest.profiles import Plan, select
from pipeline.preview import Action, Preview, find_version, judge, next_patch, preview
from pipeline.proof import try_publish
from pipeline.publish import PublishRequest, Wait, described, publish

if TYPE_CHECKING:
    from adapters.app import App
    from adapters.spec import Generalize, Spec


@click.command("publish", cls=Command)
@click.argument("name", metavar="GALLERY/DEFINITION/VERSION")
@source_options
@click.option(
    "--target-region",
    "--target-regions",
    "regions",
    multiple=True,
    metavar="REGION[=REPLICAS][=SKU]...",
    help='Where it is to be (repeatable, or as "eu=2 us=1"). Default: the source region.',
)
@click.option(
    "--location", "-l", metavar="REGION", help="Source region. Default: the definition's."
)
@click.option("--replica-count", type=int, metavar="N", help="Where a region gives none.")
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
    "--replication-mode",
    type=arguments.enum_choice(ReplicationMode),
    default=ReplicationMode.FULL.value,
    show_default=True,
    help="Shallow makes no copy: the version leans on its source, which has to stay.",
)
@click.option(
    "--storage-account-type",
    type=arguments.enum_choice(StorageAccountType),
    default=StorageAccountType.STANDARD_LRS.value,
    show_default=True,
    help="Of regions that name none: one zone, all zones (ZRS), or a premium zone.",
)
@click.option("--exclude-from-latest", is_flag=True, help="latest never means this version.")
@click.option("--end-of-life-date", callback=arguments.as_date, metavar="DATE", help="ISO 8601.")
@declared_options
@arguments.TAGS
@click.option("--boot-check", is_flag=True, help="Boot a clone before anything is visible.")
@click.option("--dry-run", is_flag=True, help="Do it up to the copy; keep nothing, say what is.")
@click.option("--preflight/--no-preflight", default=True, help="Estimate the space first.")
@click.pass_obj
def publish_command(settings: Settings, /, *, name: str, **values: Any) -> None:
    """Publish disks as an image version."""
    request = PublishRequest(
        VersionRequest(
            parse_version(name),
            fingerprint="",
            location=values["location"],
            target_regions=target_regions(values),
            replica_count=values["replica_count"],
            replication_mode=ReplicationMode(values["replication_mode"]),
            storage_account_type=StorageAccountType(values["storage_account_type"]),
            generalize=values["generalize"],
            exclude_from_latest=values["exclude_from_latest"],
            end_of_life_date=values["end_of_life_date"],
            tags=arguments.pairs(values["tags"], "--tags"),
            **declared(values),
        ),
        sources=sources_of(values),
        plan=None if values["generalize"] is False else plan_of(values),
        wait=Wait(values["wait"]),
        preflight=values["preflight"],
        force=values["force"],
        boot_check=values["boot_check"],
    )
    if values["dry_run"]:
        _try(settings, request)
        return
    if request.wait is Wait.NONE:
        in_background(settings, request)
        return
    started = time.monotonic()
    with settings.app() as app:
        version = publish(request, app.ports)
    seconds = time.monotonic() - started
    settings.emit(
        {"version": encode(version), "seconds": round(seconds, 3)}, _published(version, seconds)
    )


def in_background(settings: Settings, request: PublishRequest) -> None:
    """Publish in a process of its own. The command returns when the rules have passed and the
    number is taken; what is refused is refused here."""
    from adapters.background import split

    side = split()
    if isinstance(side, int):
        raise click.exceptions.Exit(side)
    if isinstance(side, bytes):
        told = json.loads(side)
        name = request.version.name
        settings.emit(
            told,
            f"{name} is being published in the background\n"
            f"log     {printable(told['log'])}\nfollow  galleria show {name} --watch",
        )
        return
    settings.progress = "none" if settings.quiet else "plain"
    with settings.app() as app:

        def begun(version: ImageVersion) -> None:
            log = app.config.work.parent / "logs" / f"publish-{version.zone_key}.log"
            told = {"version": encode(version), "log": str(log)}
            side.leave(json.dumps(told).encode(), log)

        version = publish(request, replace(app.ports, begun=begun))
    settings.emit({"version": encode(version)}, region_table(version))


def _try(settings: Settings, request: PublishRequest) -> None:
    with settings.app() as app:
        found, report = try_publish(request, app.ports)
    text = f"{_plan_text(request, found)}\n\n{report_text(report)}\n\nnothing of it was kept"
    document = {"dryRun": True, "report": without_inventory(report)}
    settings.emit({**document, "plan": _plan_document(request, found)}, text)


@click.command(cls=Command)
@click.argument(
    "specs", nargs=-1, required=True, metavar="SPEC...", type=click.Path(path_type=Path)
)
@click.pass_obj
def build(settings: Settings, *, specs: tuple[Path, ...]) -> None:
    """Publish what build specs say; what is there already is left alone."""
    requests = [_from_spec(path) for path in specs]  # every mistake before the first byte
    results = []
    lines = []
    with settings.app() as app:
        for make in requests:
            started = time.monotonic()
            request = make(app)
            old = find_version(request.version.name, app.gallery)
            there = (
                judge(old, described(request, app.ports.sources).fingerprint, app.gallery)
                is Action.NOTHING
            )
            version = old if there and old is not None else publish(request, app.ports)
            seconds = time.monotonic() - started
            results.append(
                {"version": encode(version), "published": not there, "seconds": round(seconds, 3)}
            )
            lines.append(
                f"{version.name} is there already" if there else _published(version, seconds)
            )
    settings.emit({"versions": results}, "\n\n".join(lines))


@click.command(cls=Command)
@click.argument(
    "specs", nargs=-1, required=True, metavar="SPEC...", type=click.Path(path_type=Path)
)
@click.pass_obj
def plan(settings: Settings, *, specs: tuple[Path, ...]) -> None:
    """Say what build would do and what is there already; do nothing."""
    requests = [_from_spec(path) for path in specs]
    with settings.app() as app:
        previews = []
        for make in requests:
            request = make(app)
            previews.append((request, preview(request, app.ports)))
    settings.emit(
        {"plans": [_plan_document(request, item) for request, item in previews]},
        "\n\n".join(_plan_text(request, item) for request, item in previews),
    )


def _from_spec(path: Path) -> Callable[["App"], PublishRequest]:
    """A checked spec as a request, once the catalog can say what the next version is."""
    from adapters.spec import NEXT_PATCH, load_spec

    spec = load_spec(path)
    request = _spec_request(spec)

    def make(app: "App") -> PublishRequest:
        if spec.image.version != NEXT_PATCH:
            return request
        definition = request.version.name.definition
        versions = app.gallery.list_versions(definition)
        number = next_patch(definition, described(request, app.ports.sources).fingerprint, versions)
        return replace(request, version=replace(request.version, name=number))

    return make


def _spec_request(spec: "Spec") -> PublishRequest:
    from adapters.spec import NEXT_PATCH

    image = spec.image
    number = "0.0.0" if image.version == NEXT_PATCH else image.version
    definition = DefinitionName(parse_gallery(image.gallery), image.definition)
    return PublishRequest(
        VersionRequest(
            VersionName(definition, parse_number(number)),
            fingerprint="",
            target_regions=tuple(
                TargetRegion(
                    region.name, region.replicas, exclude_from_latest=region.exclude_from_latest
                )
                for region in spec.target_regions
            ),
            replica_count=spec.replica_count,
            generalize=None if spec.generalize is None else spec.generalize is not False,
            exclude_from_latest=image.exclude_from_latest,
            end_of_life_date=_date(image.end_of_life_date),
            tags=image.tags,
        ),
        sources=spec_sources(spec.source),
        plan=_spec_plan(spec.generalize),
        wait=Wait(spec.wait),
    )


def _spec_plan(wanted: "Generalize | bool | None") -> Plan | None:
    if wanted is False:
        return None
    if wanted is None or wanted is True:
        return select()
    return select(
        wanted.profile,
        wanted.enable,
        wanted.skip,
        only=wanted.operations,
        remove_users=wanted.remove_users,
        keep_users=wanted.keep_users,
        remove_paths=wanted.remove_paths,
        truncate_paths=wanted.truncate_paths,
        scripts=[own_script(Path(path)) for path in wanted.scripts],
    )


def _date(text: str | None) -> datetime | None:
    return None if text is None else parse_date(text, "endOfLifeDate")


def _published(version: ImageVersion, seconds: float) -> str:
    return f"published {version.name} in {seconds_text(seconds)}\n{region_table(version)}"


def _operations(request: PublishRequest, item: Preview) -> list[str]:
    if request.plan is None or not item.generalized:
        return []
    return [operation.name for operation in request.plan.operations]


def _plan_document(request: PublishRequest, item: Preview) -> dict[str, Any]:
    return {
        "version": item.name.arm_id,
        "action": item.action.value,
        "generalized": item.generalized,
        "operations": _operations(request, item),
        "disks": item.disks,
        "regions": item.regions,
    }


_ACTIONS = {
    Action.PUBLISH: "publish a new version",
    Action.CONTINUE: "finish what an earlier run began",
    Action.NOTHING: "nothing: it is there already, from the same sources",
}


def _plan_text(request: PublishRequest, item: Preview) -> str:
    names = _operations(request, item)
    about = fields(
        [
            ("version", item.name),
            ("action", _ACTIONS[item.action]),
            ("generalize", f"{len(names)} operations" if names else "no"),
        ]
    )
    disks = table(
        ("DISK", "FORMAT", "VIRTUAL SIZE", "DATA", "FILE"),
        [
            (
                disk.name,
                disk.format.value,
                bytes_text(disk.virtual_size),
                bytes_text(disk.data_bytes),
                disk.path,
            )
            for disk in item.disks
        ],
    )
    regions = table(
        ("REGION", "STATE", "REPLICAS", "MADE BY", "STARTS FROM", "FREE", "ZONE"),
        [
            (
                region.region,
                "there" if region.done else "to make",
                region.replicas,
                "reflink" if region.reflink else "overlay",
                "" if region.done else "older version" if region.starts_from else "nothing",
                bytes_text(region.free_bytes),
                ", ".join(map(str, region.zones)),
            )
            for region in item.regions
        ],
    )
    return "\n\n".join([about, disks, regions])
