"""What was checked of a version before it was published: Azure's validations profile, read-only,
made from the report that is stored with it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from pipeline.model import ImageDefinition, ImageVersion


class ValidationStatus(Enum):
    UNKNOWN = "Unknown"
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"


@dataclass(frozen=True, slots=True)
class ExecutedValidation:
    """`version` is that of the report's form; what fails without --force is not published."""

    type: str
    status: ValidationStatus
    version: str = ""
    execution_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class PlatformAttribute:
    """Where in a marketplace it comes from."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ValidationsProfile:
    """`validation_etag` changes with what the report says."""

    validation_etag: str = ""
    executed_validations: tuple[ExecutedValidation, ...] = ()
    platform_attributes: tuple[PlatformAttribute, ...] = ()


def validations(
    version: ImageVersion, definition: ImageDefinition, report: Mapping[str, Any] | None
) -> ValidationsProfile:
    """The profile of a version; without a report nothing was checked."""
    form = str((report or {}).get("version", ""))
    executed = tuple(
        ExecutedValidation(kind, status, form, version.published_date)
        for kind, status in _executed(version, report or {})
    )
    return ValidationsProfile(version.report_digest, executed, tuple(_attributes(definition)))


def _executed(
    version: ImageVersion, report: Mapping[str, Any]
) -> Iterator[tuple[str, ValidationStatus]]:
    check = report.get("check")
    if check is not None and version.generalized:
        clean = check.get("verdict") == "generalized" and not check.get("forced")
        yield "Generalized", ValidationStatus.SUCCEEDED if clean else ValidationStatus.UNKNOWN
    if version.disks:
        known = ValidationStatus.UNKNOWN if version.unverified else ValidationStatus.SUCCEEDED
        yield "DeclaredProperties", known
    validation = report.get("validation")
    if validation is not None:
        yield f"{validation['for'].capitalize()}Compatibility", _of(validation["findings"])
    if "boot" in report:
        yield "Boot", ValidationStatus.SUCCEEDED  # one that does not boot is not published


def _of(findings: Iterable[Mapping[str, Any]]) -> ValidationStatus:
    """What the checks come to that a disk must pass: one that could not be made has not failed."""
    results = {item["result"] for item in findings if item["severity"] == "fail"}
    if "fail" in results:
        return ValidationStatus.FAILED
    return ValidationStatus.SUCCEEDED if results <= {"ok"} else ValidationStatus.UNKNOWN


def _attributes(definition: ImageDefinition) -> Iterator[PlatformAttribute]:
    plan = definition.purchase_plan
    if plan is not None:
        yield PlatformAttribute("source_image_publisher", plan.publisher)
        yield PlatformAttribute("source_image_offer", plan.product)
        yield PlatformAttribute("source_image_sku", plan.name)
