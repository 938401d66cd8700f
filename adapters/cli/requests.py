"""A build spec as a request to publish."""

from pathlib import Path
from typing import TYPE_CHECKING

from adapters.cli.guests import own_script
from adapters.cli.sources import spec_sources
from pipeline.gallery.documents import decode, parse_date
from pipeline.guest.profiles import Plan, select
from pipeline.jobs.request import PublishRequest, Wait
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
    from adapters.spec import Generalize, SourceMachine, Spec, SpecRegion


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

    image, end = spec.image, spec.image.end_of_life_date
    number = "0.0.0" if image.version == NEXT_PATCH else image.version
    definition = DefinitionName(parse_gallery(image.gallery), image.definition)
    safety = image.safety_profile
    return VersionRequest(
        VersionName(definition, parse_number(number)),
        fingerprint="",
        location=image.location,
        target_regions=(
            *map(_region, spec.target_regions),
            *(
                TargetRegion(
                    f"{item.region}{EDGE}{item.zone}", item.replicas, item.storage_account_type
                )
                for item in spec.target_edge_zones
            ),
        ),
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
        source=_machine(spec.source.machine),
        security_profile=SecurityProfile(
            UefiSettings(
                image.security_profile.uefi_settings.signature_template_names,
                decode(
                    UefiKeySignatures, image.security_profile.uefi_settings.additional_signatures
                ),
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


def _machine(machine: "SourceMachine") -> SourceProperties:
    plan = machine.purchase_plan
    return SourceProperties(
        machine.disk_controller_type,
        machine.accelerated_network,
        None if plan is None else PurchasePlan(plan.name, plan.publisher, plan.product),
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
        force=force,
    )
