"""Validate: would Azure take this disk, and would it run there?"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.azure.disk import disk_findings, file_findings, state_finding
from pipeline.azure.findings import Finding, Severity
from pipeline.azure.linux import linux_findings
from pipeline.azure.windows import windows_findings
from pipeline.errors import GalleriaError
from pipeline.gallery.model import ImageDefinition
from pipeline.guest.checks import Evidence, evidence
from pipeline.guest.partitions import read_partitions
from pipeline.ports import Guest, GuestFacts, GuestHost, ImageFacts, Images, Progress
from pipeline.stages.ingest import Disk


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
    overlay = images.create_overlay(disk.chain, work / f"{disk.name}-validate.qcow2")
    found: list[Finding] = [] if file is None else list(file_findings(file, footer_problems))
    with progress.stage("validate"), host.session([overlay], writable=False) as session:
        facts = session.inspect()
        generation = None if definition is None else definition.hyper_v_generation
        found += disk_findings(disk.virtual_size, table, facts, generation)
        try:
            seen = evidence(session, facts)
            guest = None if seen is None else session.mount(writable=False)
        except GalleriaError as error:
            seen, guest = Evidence("unknown", (error.message,)), None
        declared = None if definition is None else definition.os_state
        no_system = Evidence("unknown", ("no operating system was found",))
        found.append(state_finding(declared, seen or no_system))
        found += in_guest(guest, facts)
    return tuple(found)


def in_guest(guest: Guest | None, facts: GuestFacts) -> tuple[Finding, ...]:
    """The checks of what the file systems hold."""
    if guest is None:
        said = "the guest could not be looked into"
        return (Finding("guest", Severity.FAIL, None, said),)
    if facts.os_type == "windows":
        return tuple(windows_findings(guest, facts))
    return tuple(linux_findings(guest, facts))
