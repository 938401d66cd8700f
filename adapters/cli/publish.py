"""`galleria publish`: the main job, the options that describe a version, and what they would do."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.cli.operation import plan_of, plan_options
from adapters.cli.report import report_text
from adapters.cli.sources import source_options, sources_of
from adapters.cli.version import region_table, stats_text
from adapters.text import bytes_text, fields, printable, seconds_text, table
from pipeline.errors import InvalidParameter
from pipeline.gallery import rules
from pipeline.gallery.documents import decode, encode, without_inventory
from pipeline.jobs.context import JobContext
from pipeline.jobs.dry_run import try_publish
from pipeline.jobs.plan import Action, Preview
from pipeline.jobs.prepare import PublishRequest, Wait
from pipeline.model import (
    ImageVersion,
    ReplicationMode,
    SafetyProfile,
    SecurityProfile,
    SignatureTemplate,
    SourceProperties,
    StorageAccountStrategy,
    StorageAccountType,
    TargetRegion,
    UefiKeySignatures,
    UefiSettings,
    VersionRequest,
)
from pipeline.model.names import parse_version
from pipeline.model.spelling import region_key
from pipeline.publish import publish

_ACTIONS = {
    Action.PUBLISH: "publish a new version",
    Action.CONTINUE: "finish what an earlier run began",
    Action.NOTHING: "nothing: it is there already, from the same sources",
}


def plan_text(item: Preview, build: str = "") -> str:
    """What a publish would do; `build` is its name in a batch."""
    names = item.operations
    about = fields(
        [
            ("build", build),
            ("version", item.name),
            ("action", _ACTIONS[item.action]),
            ("source", f"{item.source}, which is made first" if item.source else ""),
            ("generalize", "no" if names is None else f"{len(names)} operations"),
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
    return "\n\n".join([about, *([disks] if item.disks else []), regions])


declared_options = arguments.options(
    arguments.repeated(
        "--target-region",
        "--target-regions",
        "regions",
        metavar="REGION[=REPLICAS][=SKU]...",
        help='Region to replicate to (repeatable, or "eu=2 us=1"). Default: the source region.',
    ),
    arguments.ADDITIONAL,
    arguments.EDGE_ZONES,
    arguments.repeated(
        "--target-region-encryption",
        "encryption",
        metavar="SET|null",
        help="For scripts that were written for az, one per region; only null is supported.",
    ),
    click.option("--target-region-cvm-encryption", "cvm_encryption", multiple=True, hidden=True),
    click.option(
        "--location", "-l", metavar="REGION", help="Source region. Default: the definition's."
    ),
    click.option(
        "--replica-count", type=int, metavar="N", help="Replicas in regions that give no number."
    ),
    click.option(
        "--replication-mode",
        type=arguments.enum_choice(ReplicationMode),
        default=ReplicationMode.FULL.value,
        show_default=True,
        help="Shallow copies nothing: the version depends on the files of its source.",
    ),
    click.option(
        "--storage-account-type",
        type=arguments.enum_choice(StorageAccountType),
        help="Storage of regions that name none: one zone, all zones (ZRS), or a premium zone. "
        "Default: Standard_LRS.",
    ),
    click.option(
        "--storage-account-strategy",
        type=arguments.enum_choice(StorageAccountStrategy),
        help="Choose the type of storage for regions that name none.",
    ),
    arguments.repeated(
        "--host-caching",
        "caching",
        metavar="[LUN=]None|ReadOnly|ReadWrite",
        help="Host caching of the OS disk, or of a data disk, in VMs (repeatable).",
    ),
    click.option("--exclude-from-latest", is_flag=True, help="Never use this version as latest."),
    arguments.repeated(
        "--exclude-from-latest-in",
        "excluded",
        metavar="REGION",
        help="Never use this version as latest in this region (repeatable).",
    ),
    click.option(
        "--end-of-life-date",
        callback=arguments.as_date,
        metavar="DATE",
        help="Date, such as 2030-01-31.",
    ),
    click.option(
        "--allow-replicated-location-deletion",
        "allow",
        type=bool,
        help="Whether the version may leave regions. Default: only those of --remove-region.",
    ),
    click.option(
        "--block-deletion-before-end-of-life",
        "--block-delete-before-eol",
        "block",
        type=bool,
        default=False,
        help="Whether deletion is blocked before the end of life.",
    ),
    click.option(
        "--source-disk-controller",
        "controller",
        type=click.Choice(["SCSI", "NVMe"], case_sensitive=False),
        help="Disk controller of the source machine. NVMe needs a definition with "
        "DiskControllerTypes=NVMe.",
    ),
    click.option(
        "--source-accelerated-network",
        "accelerated",
        type=bool,
        help="Whether the source machine supports accelerated networking.",
    ),
    click.option(
        "--source-plan",
        "plan",
        metavar="PUBLISHER/PRODUCT/NAME",
        help="Purchase plan of the marketplace image that the machine was made from.",
    ),
    click.option(
        "--uefi-signature-template",
        "templates",
        multiple=True,
        type=arguments.enum_choice(SignatureTemplate),
        help="UEFI keys of Trusted Launch VMs (repeatable).",
    ),
    click.option(
        "--uefi-additional-signatures",
        "signatures",
        metavar="FILE",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="More UEFI keys: JSON, as additionalSignatures {pk, kek, db, dbx} of Azure.",
    ),
    arguments.TAGS,
)


def _version(name: str, values: Mapping[str, Any], regions: Iterable[str]) -> VersionRequest:
    """What the options of `publish` say of the version; a build spec has a key for each."""
    kind, strategy = values["storage_account_type"], values["storage_account_strategy"]
    return VersionRequest(
        parse_version(name),
        fingerprint="",
        location=values["location"],
        target_regions=_target_regions(values, regions),
        replica_count=values["replica_count"],
        replication_mode=ReplicationMode(values["replication_mode"]),
        storage_account_type=kind and StorageAccountType(kind),
        storage_account_strategy=strategy and StorageAccountStrategy(strategy),
        generalize=values["generalize"],
        exclude_from_latest=values["exclude_from_latest"],
        end_of_life_date=values["end_of_life_date"],
        tags=arguments.pairs(values["tags"], "--tags"),
        safety_profile=SafetyProfile(
            values["allow"], block_deletion_before_end_of_life=values["block"]
        ),
        source=SourceProperties(
            values["controller"],
            values["accelerated"],
            arguments.plan(values["plan"], "--source-plan"),
        ),
        security_profile=SecurityProfile(
            UefiSettings(
                tuple(map(SignatureTemplate, values["templates"])),
                _signatures(values["signatures"]),
            )
        ),
        host_caching=arguments.caching(values["caching"], "--host-caching"),
    )


def _target_regions(values: Mapping[str, Any], regions: Iterable[str]) -> tuple[TargetRegion, ...]:
    """The target regions with all that the options say of each."""
    keys = {region_key(name) for name in values["excluded"]}
    targets = arguments.target_regions(values["regions"], regions)
    arguments.among(keys, targets, "--exclude-from-latest-in")
    names = [target.name for target in targets]
    for option, name in (
        ("targetRegion.encryption", "encryption"),
        ("targetRegion.encryption.osDiskImage.securityProfile", "cvm_encryption"),
    ):
        rules.region_encryption(arguments.words(values[name]), names, option)
    excluding = tuple(replace(item, exclude_from_latest=item.key in keys) for item in targets)
    edges = arguments.edge_zones(values["edges"], regions) or ()
    return arguments.with_additional((*excluding, *edges), values["additional"], regions)


def _signatures(file: Path | None) -> UefiKeySignatures:
    try:
        document = {} if file is None else json.loads(file.read_bytes())
    except ValueError as error:
        raise InvalidParameter(f"--uefi-additional-signatures: no JSON: {error}") from None
    return decode(UefiKeySignatures, document)


@click.command("publish", cls=Command)
@click.argument("name", metavar="GALLERY/DEFINITION/VERSION")
@source_options
@declared_options
@click.option(
    "--generalize/--no-generalize",
    default=None,
    help="Generalize. Default: by the OS state of the definition.",
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
    help="Publish only what this cloud would accept, by the checks of galleria validate.",
)
@click.option("--boot-check", is_flag=True, help="Boot a clone before the version becomes visible.")
@click.option(
    "--dry-run", is_flag=True, help="Do all but the copy, keep nothing, and show the result."
)
@click.option("--preflight/--no-preflight", default=True, help="Check the free space first.")
@click.pass_obj
def publish_command(settings: Settings, /, *, name: str, **values: Any) -> None:
    """Publish disks as an image version."""
    request = request_of(name, values, settings.load().regions)
    if values["dry_run"]:
        _try(settings, request)
    elif request.wait is Wait.NONE:
        told = in_background(settings, lambda context: publish(request, context))
        settings.emit(told, background_text(decode(ImageVersion, told["version"]), told["log"]))
    else:
        started = time.monotonic()
        with settings.session() as session:
            version = publish(request, session.context)
        seconds = time.monotonic() - started
        settings.emit(
            {"version": encode(version), "seconds": round(seconds, 3)},
            published_text(version, seconds),
        )


def request_of(name: str, values: Mapping[str, Any], regions: Iterable[str]) -> PublishRequest:
    """What the options ask for. `regions` are the configured ones."""
    return PublishRequest(
        _version(name, values, regions),
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
    with settings.session() as session:

        def begun(version: ImageVersion) -> None:
            log = Path(session.job_runs.log)
            told = {"version": encode(version), "log": str(log)}
            side.leave(json.dumps(told).encode(), log)

        version = job(replace(session.context, begun=begun))
    settings.emit({"version": encode(version)}, region_table(version))
    raise click.exceptions.Exit(0)


def background_text(version: ImageVersion, log: str) -> str:
    return (
        f"{version.name} is being published in the background\n"
        f"log     {printable(log)}\nfollow  galleria show {version.name} --watch"
    )


def published_text(version: ImageVersion, seconds: float) -> str:
    told = f"published {version.name} in {seconds_text(seconds)}\n{region_table(version)}"
    return "\n\n".join(part for part in (told, stats_text(version.stats)) if part)


def _try(settings: Settings, request: PublishRequest) -> None:
    with settings.session() as session:
        found, report = try_publish(request, session.context)
    text = f"{plan_text(found)}\n\n{report_text(report)}\n\nnothing of it was kept"
    document = {"dryRun": True, "report": without_inventory(report)}
    settings.emit({**document, "plan": found.document()}, text)
