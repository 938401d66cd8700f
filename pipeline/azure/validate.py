"""Validate: would Azure take this disk, and would it run there?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.azure.disk import disk_findings, file_findings, state_finding
from pipeline.azure.guest import guest_findings
from pipeline.errors import StageFailed
from pipeline.guest.findings import Finding, failed
from pipeline.guest.survey import Survey, survey
from pipeline.model import ImageDefinition
from pipeline.ports import GuestHost, ImageFacts, Images, Progress
from pipeline.sources.ingest import Disk
from pipeline.sources.partitions import PartitionTable, read_partitions


def validate(
    disk: Disk,
    host: GuestHost,
    images: Images,
    work: Path,
    progress: Progress,
    *,
    definition: ImageDefinition | None = None,
    file: ImageFacts | None = None,
    footer_problems: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """Every check of an OS disk. `definition`: what is declared of it, for a version; `file` and
    `footer_problems`: of a file as it would be uploaded. The disk is only read."""
    with images.open(disk.chain) as content:
        table = read_partitions(content)
    seen = survey(host, images, [disk], work, progress, listed=False, check=guest_findings)
    of_file = () if file is None else tuple(file_findings(file, footer_problems))
    return (*of_file, *findings(disk.virtual_size, table, seen, definition))


def findings(
    virtual_size: int, table: PartitionTable, seen: Survey, definition: ImageDefinition | None
) -> tuple[Finding, ...]:
    """Every check of an OS disk whose guest has been looked at, with `guest_findings`."""
    generation = None if definition is None else definition.hyper_v_generation
    declared = None if definition is None else definition.os_state
    return (
        *disk_findings(virtual_size, table, seen.facts, generation),
        state_finding(declared, seen.evidence),
        *seen.findings,
    )


def require_passed(
    found: Sequence[Finding], report: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    """The report with the findings in it. Raises StageFailed when a check failed; warns of what
    does not hold else, and of what could not be checked."""
    bad = failed(found)
    if bad:
        raise StageFailed(
            "Azure would not take the OS disk, or it would not run there: "
            + "; ".join(f"{item.check}: {item.found}" for item in bad),
            hint="; ".join(dict.fromkeys(item.fix for item in bad if item.fix))
            or "galleria validate FILE shows every check",
        )
    for item in found:
        if item.result in ("warn", "unknown"):
            fix = f" ({item.fix})" if item.fix else ""
            progress.warn(f"validate: {item.check}: {item.found}{fix}")
    return {
        **report,
        "validation": {"for": "azure", "findings": [item.document() for item in found]},
    }
