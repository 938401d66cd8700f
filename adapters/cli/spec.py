"""`galleria build`, `plan` and `spec`: versions from build specs."""

import json
import os
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command, Group
from adapters.cli.operation import KEYS, own_agents, own_script
from adapters.cli.publish import (
    background_text,
    in_background,
    plan_text,
    published_text,
)
from adapters.cli.sources import spec_sources
from adapters.text import printable
from pipeline.errors import GalleriaError
from pipeline.gallery.documents import decode, encode, parse_date
from pipeline.guest.profiles import Plan, select
from pipeline.jobs.batch import Wanted, already_there, numbered, series
from pipeline.jobs.context import JobContext
from pipeline.jobs.plan import preview
from pipeline.jobs.prepare import PublishRequest, Wait
from pipeline.model import (
    AdditionalReplicaSet,
    PurchasePlan,
    SafetyProfile,
    SecurityProfile,
    SourceProperties,
    TargetRegion,
    UefiKeySignatures,
    UefiSettings,
    VersionRequest,
)
from pipeline.model.names import DefinitionName, VersionName, parse_gallery, parse_number
from pipeline.model.spelling import EDGE
from pipeline.publish import publish

if TYPE_CHECKING:
    from adapters.spec import Generalize, Spec, SpecRegion


def spec_request(spec: "Spec") -> PublishRequest:
    """What a spec asks for; of one for the next number, that is 0.0.0."""
    return PublishRequest(
        _version(spec),
        sources=spec_sources(spec.source),
        plan=_plan(spec.generalize, force=spec.force),
        wait=Wait(spec.wait),
        preflight=spec.preflight,
        force=spec.force,
        boot_check=spec.boot_check,
        validate=spec.validate_for is not None,
    )


def _version(spec: "Spec") -> VersionRequest:
    from adapters.spec import NEXT_PATCH

    image, end, machine = spec.image, spec.image.end_of_life_date, spec.source.machine
    number = "0.0.0" if image.version == NEXT_PATCH else image.version
    definition = DefinitionName(parse_gallery(image.gallery), image.definition)
    edges = (
        TargetRegion(f"{item.region}{EDGE}{item.zone}", item.replicas, item.storage_account_type)
        for item in spec.target_edge_zones
    )
    plan, safety = machine.purchase_plan, image.safety_profile
    settings = image.security_profile.uefi_settings
    return VersionRequest(
        VersionName(definition, parse_number(number)),
        fingerprint="",
        location=image.location,
        target_regions=(*map(_region, spec.target_regions), *edges),
        replica_count=spec.replica_count,
        replication_mode=spec.replication_mode,
        storage_account_type=spec.storage_account_type,
        storage_account_strategy=spec.storage_account_strategy,
        generalize=None if spec.generalize is None else spec.generalize is not False,
        exclude_from_latest=image.exclude_from_latest,
        end_of_life_date=None if end is None else parse_date(end, "endOfLifeDate"),
        tags=image.tags,
        safety_profile=SafetyProfile(
            safety.allow_deletion_of_replicated_locations,
            block_deletion_before_end_of_life=safety.block_deletion_before_end_of_life,
        ),
        source=SourceProperties(
            machine.disk_controller_type,
            machine.accelerated_network,
            None if plan is None else PurchasePlan(plan.name, plan.publisher, plan.product),
        ),
        security_profile=SecurityProfile(
            UefiSettings(
                settings.signature_template_names,
                decode(UefiKeySignatures, settings.additional_signatures),
            )
        ),
        host_caching={
            None if disk == "os" else int(disk): caching
            for disk, caching in spec.host_caching.items()
        },
    )


def _region(region: "SpecRegion") -> TargetRegion:
    return TargetRegion(
        region.name,
        region.replicas,
        region.storage_account_type,
        exclude_from_latest=region.exclude_from_latest,
        additional_replica_sets=tuple(
            AdditionalReplicaSet(item.storage_account_type, item.regional_replica_count)
            for item in region.additional_replica_sets
        ),
    )


def _plan(wanted: "Generalize | bool | None", *, force: bool) -> Plan | None:
    if wanted is False:
        return None
    if wanted is None or wanted is True:
        return select(force=force)
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
        agents=own_agents(map(Path, wanted.agents)),
        force=force,
    )


SPECS = click.argument(
    "specs", nargs=-1, required=True, metavar="SPEC...", type=click.Path(path_type=Path)
)
JOBS = 4  # the most at once unless told: an appliance may take a core and 1.3 GiB
Built = tuple[dict[str, Any], str]  # for machines, and for people


@click.command(cls=Command)
@SPECS
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help=f"Publish up to N images at once. Default: one per core, at most {JOBS}.",
)
@KEYS
@click.pass_obj
def build(settings: Settings, *, specs: tuple[Path, ...], jobs: int | None) -> None:
    """Publish versions from build specs; versions that exist already are left alone."""
    batch = [_wanted(path) for path in specs]  # every mistake before the first byte
    # before a catalog is open: other processes can't take that over
    results: dict[int, Built] = {
        index: _start(settings, wanted)
        for index, wanted in enumerate(batch)
        if wanted.request.wait is Wait.NONE
    }
    rest = [index for index in range(len(batch)) if index not in results]
    groups = series(batch, rest)
    limit = jobs or min(os.cpu_count() or 1, JOBS)
    if min(limit, len(groups)) > 1:
        results |= _at_once(settings, specs, batch, groups, limit)
    else:
        results |= _in_turn(settings, batch, rest)
    settings.emit(
        {"versions": [results[index][0] for index in range(len(batch))]},
        "\n\n".join(results[index][1] for index in range(len(batch))),
    )


def _in_turn(
    settings: Settings, batch: Sequence[Wanted], indexes: Iterable[int]
) -> dict[int, Built]:
    with settings.session() as session:
        return {index: _build(batch[index], session.context) for index in indexes}


def _at_once(
    settings: Settings,
    specs: Sequence[Path],
    batch: Sequence[Wanted],
    groups: Sequence[list[int]],
    jobs: int,
) -> dict[int, Built]:
    """Each group in a process of its own, with appliances of its own: a hostile file system that
    took one over would reach no other guest's disk. Raises the first error when all have ended."""
    from adapters.cli import explain
    from adapters.process.batch import together

    def task(indexes: Sequence[int]) -> dict[int, Built]:
        names = ", ".join(str(specs[index]) for index in indexes)
        return _in_turn(settings.labelled(names), batch, indexes)

    found = together(jobs, [partial(task, indexes) for indexes in groups], explain)
    errors = [item for item in found if isinstance(item, GalleriaError)]
    if errors:
        raise errors[0]
    return {
        index: item for group in found if isinstance(group, dict) for index, item in group.items()
    }


def _build(wanted: Wanted, context: JobContext) -> Built:
    started = time.monotonic()
    request = numbered(wanted, context)
    there = already_there(request, context)
    version = there or publish(request, context)
    seconds = time.monotonic() - started
    document = {
        "version": encode(version),
        "published": there is None,
        "seconds": round(seconds, 3),
    }
    if there is not None:
        return document, f"{version.name} is there already"
    return document, published_text(version, seconds)


def _start(settings: Settings, wanted: Wanted) -> Built:
    """Build one in the background, unless it is there already."""
    with settings.session() as session:
        request = numbered(wanted, session.context)
        if already_there(request, session.context) is not None:
            return _build(wanted, session.context)
    told = in_background(settings, lambda context: publish(request, context))
    return {**told, "published": True}, background_text(told)


@click.command(cls=Command)
@SPECS
@KEYS
@click.pass_obj
def plan(settings: Settings, *, specs: tuple[Path, ...]) -> None:
    """Show what build would do, and what exists already; change nothing."""
    batch = [_wanted(path) for path in specs]
    with settings.session() as session:
        requests = [numbered(wanted, session.context) for wanted in batch]
        previews = [preview(request, session.context) for request in requests]
    settings.emit(
        {"plans": [item.document() for item in previews]},
        "\n\n".join(plan_text(item) for item in previews),
    )


def _wanted(path: Path) -> Wanted:
    from adapters.spec import NEXT_PATCH, load_spec

    spec = load_spec(path)
    return Wanted(spec_request(spec), next_patch=spec.image.version == NEXT_PATCH)


@click.group(cls=Group)
def spec() -> None:
    """Check build specs, and print their JSON schema."""


@spec.command("schema")
@click.pass_obj
def show_schema(settings: Settings) -> None:
    """Print the JSON schema of a build spec, for editors and CI."""
    from adapters.spec import schema

    settings.emit({"schema": schema()}, json.dumps(schema(), indent=2))


@spec.command("check")
@click.argument(
    "specs", nargs=-1, required=True, metavar="SPEC...", type=click.Path(path_type=Path)
)
@click.pass_obj
def check(settings: Settings, *, specs: tuple[Path, ...]) -> None:
    """Check build specs; nothing else is read or written."""
    from adapters.spec import load_spec

    found = [(path, load_spec(path)) for path in specs]
    settings.emit(
        {"specs": [{"file": path, **item.model_dump(by_alias=True)} for path, item in found]},
        "\n".join(f"{printable(str(path))}: valid" for path, _ in found),
    )
