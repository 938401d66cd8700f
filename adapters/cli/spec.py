"""`galleria spec`, and what build specs ask for."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.cli.operation import own_agents, own_script
from adapters.cli.sources import spec_sources
from adapters.text import printable
from pipeline.gallery.documents import decode, parse_date
from pipeline.guest.profiles import Plan, select
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

if TYPE_CHECKING:
    from adapters.spec import Broken, Declared, Generalize, Spec, SpecRegion


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
    "specs",
    nargs=-1,
    required=True,
    metavar="SPEC...",
    type=click.Path(path_type=Path, allow_dash=True),
)
VARIABLES = arguments.options(
    click.option(
        "--var",
        "variables",
        multiple=True,
        metavar="NAME=VALUE",
        help="Give a variable of the specs a value (repeatable); lists and maps in JSON.",
    ),
    click.option(
        "--var-file",
        "files",
        multiple=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Values of variables, in YAML or JSON (repeatable; the last one wins, and --var).",
    ),
)


def read(
    specs: Iterable[Path], variables: Iterable[str], files: Iterable[Path]
) -> "list[Declared | Broken]":
    """Every document of these specs, with the variables that the options give."""
    from adapters.spec import Given, given_texts, read_specs, read_variables

    return read_specs(specs, Given(given_texts(variables), read_variables(files)))


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
@SPECS
@VARIABLES
@click.pass_obj
def check(
    settings: Settings,
    *,
    specs: tuple[Path, ...],
    variables: tuple[str, ...],
    files: tuple[Path, ...],
) -> None:
    """Check build specs; nothing else is read or written."""
    from adapters.spec import Broken, SpecInvalid

    found = read(specs, variables, files)
    wrong = [item.error for item in found if isinstance(item, Broken)]
    if wrong:
        raise SpecInvalid("\n".join(error.message for error in wrong), hint=wrong[0].hint)
    documents, lines = [], []
    for item in found:
        assert not isinstance(item, Broken)  # noqa: S101 - then this is not reached
        told = item.document.model_dump(by_alias=True, exclude={"variables", "matrix"})
        documents.append({**told, "file": item.file, "line": item.line, "build": item.name})
        lines.append(f"{printable(str(item.file))}:{item.line}: {item.name}: valid")
    settings.emit({"specs": documents}, "\n".join(lines))
