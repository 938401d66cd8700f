"""Options of `publish` that declare things: the safety profile, what the source's machine was."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from adapters.cli import arguments
from pipeline.gallery.model import (
    PurchasePlan,
    SafetyProfile,
    SecurityProfile,
    SourceProperties,
    TargetRegion,
    UefiSettings,
)
from pipeline.gallery.names import region_key

SIGNATURE_TEMPLATES = (
    "NoSignatureTemplate",
    "MicrosoftUefiCertificateAuthorityTemplate",
    "MicrosoftWindowsTemplate",
)

_OPTIONS = (
    click.option(
        "--exclude-from-latest-in",
        "excluded",
        multiple=True,
        metavar="REGION",
        help="latest never means this version there (repeatable).",
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
        type=click.Choice(SIGNATURE_TEMPLATES, case_sensitive=False),
        help="What a Trusted Launch VM starts with (repeatable).",
    ),
)


def declared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def declared(values: dict[str, Any]) -> dict[str, Any]:
    """The properties of a VersionRequest that these options give."""
    return {
        "safety_profile": SafetyProfile(
            values["allow"], block_deletion_before_end_of_life=values["block"]
        ),
        "source": SourceProperties(values["controller"], values["accelerated"], _plan(values)),
        "security_profile": SecurityProfile(UefiSettings(values["templates"])),
    }


def target_regions(values: dict[str, Any]) -> tuple[TargetRegion, ...]:
    """The target regions, some of them excluded from latest."""
    targets = arguments.target_regions(values["regions"])
    keys = {region_key(name) for name in values["excluded"]}
    strange = keys - {target.key for target in targets}
    if strange:
        raise click.UsageError(
            f"--exclude-from-latest-in: {min(strange)!r} is not among the --target-regions"
        )
    return tuple(replace(item, exclude_from_latest=item.key in keys) for item in targets)


def _plan(values: dict[str, Any]) -> PurchasePlan | None:
    if values["plan"] is None:
        return None
    parts = values["plan"].split("/")
    if len(parts) != 3 or not all(parts):
        raise click.UsageError(f"--source-plan: {values['plan']!r} is not PUBLISHER/PRODUCT/NAME")
    publisher, product, name = parts
    return PurchasePlan(name, publisher, product)
