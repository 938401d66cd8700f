"""The properties of a version: the options of `publish` that give them, and the request that they
make."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from adapters.cli import arguments
from pipeline.errors import InvalidParameter
from pipeline.gallery import rules
from pipeline.gallery.documents import decode
from pipeline.model import (
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

declared_options = arguments.options(
    arguments.repeated(
        "--target-region",
        "--target-regions",
        "regions",
        metavar="REGION[=REPLICAS][=SKU]...",
        help='Where it is to be (repeatable, or as "eu=2 us=1"). Default: the source region.',
    ),
    arguments.ADDITIONAL,
    arguments.EDGE_ZONES,
    arguments.repeated(
        "--target-region-encryption",
        "encryption",
        metavar="SET|null",
        help="As scripts for az have it, one for each region; no zone has any set but null.",
    ),
    click.option("--target-region-cvm-encryption", "cvm_encryption", multiple=True, hidden=True),
    click.option(
        "--location", "-l", metavar="REGION", help="Source region. Default: the definition's."
    ),
    click.option("--replica-count", type=int, metavar="N", help="Where a region gives none."),
    click.option(
        "--replication-mode",
        type=arguments.enum_choice(ReplicationMode),
        default=ReplicationMode.FULL.value,
        show_default=True,
        help="Shallow makes no copy: the version leans on its source, which has to stay.",
    ),
    click.option(
        "--storage-account-type",
        type=arguments.enum_choice(StorageAccountType),
        help="Of regions that name none: one zone, all zones (ZRS), or a premium zone. Default: "
        "Standard_LRS.",
    ),
    click.option(
        "--storage-account-strategy",
        type=arguments.enum_choice(StorageAccountStrategy),
        help="Instead of a type: the best of those regions that name none.",
    ),
    arguments.repeated(
        "--host-caching",
        "caching",
        metavar="[LUN=]None|ReadOnly|ReadWrite",
        help="Of the OS disk, or of a data disk, in VMs made from it (repeatable).",
    ),
    click.option("--exclude-from-latest", is_flag=True, help="latest never means this version."),
    arguments.repeated(
        "--exclude-from-latest-in",
        "excluded",
        metavar="REGION",
        help="latest never means this version there (repeatable).",
    ),
    click.option(
        "--end-of-life-date", callback=arguments.as_date, metavar="DATE", help="ISO 8601."
    ),
    click.option(
        "--allow-replicated-location-deletion",
        "allow",
        type=bool,
        help="Whether it may leave regions. Default: only those that are named.",
    ),
    click.option(
        "--block-deletion-before-end-of-life",
        "--block-delete-before-eol",
        "block",
        type=bool,
        default=False,
        help="Whether it can't be deleted before its end of life.",
    ),
    click.option(
        "--source-disk-controller",
        "controller",
        type=click.Choice(["SCSI", "NVMe"], case_sensitive=False),
        help="What the machine had. NVMe needs a definition that says DiskControllerTypes=NVMe.",
    ),
    click.option(
        "--source-accelerated-network",
        "accelerated",
        type=bool,
        help="Whether the machine could do it.",
    ),
    click.option(
        "--source-plan",
        "plan",
        metavar="PUBLISHER/PRODUCT/NAME",
        help="The purchase plan of the marketplace image that the machine was made from.",
    ),
    click.option(
        "--uefi-signature-template",
        "templates",
        multiple=True,
        type=arguments.enum_choice(SignatureTemplate),
        help="What a Trusted Launch VM starts with (repeatable).",
    ),
    click.option(
        "--uefi-additional-signatures",
        "signatures",
        metavar="FILE",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Keys that it trusts besides: JSON as of additionalSignatures {pk, kek, db, dbx}.",
    ),
    arguments.TAGS,
)


def version_request(name: str, values: Mapping[str, Any], regions: Iterable[str]) -> VersionRequest:
    """What the options ask for. `regions` are the configured ones."""
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
    if file is None:
        return UefiKeySignatures()
    try:
        document = json.loads(file.read_bytes())
    except ValueError as error:
        raise InvalidParameter(f"--uefi-additional-signatures: no JSON: {error}") from None
    return decode(UefiKeySignatures, document)
