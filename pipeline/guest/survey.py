"""Survey a guest as it is: is it generalized, and what does it consist of? Nothing is changed.

`survey_guest` does it, in whatever appliance is running: generalize has it done before its own
ends, so that a guest costs one appliance; `survey` starts one for disks that are left as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import GalleriaError, Refused
from pipeline.guest.checks import Evidence, evidence
from pipeline.guest.findings import Finding, no_findings
from pipeline.guest.inventory import inventory
from pipeline.guest.windows.inventory import windows_inventory
from pipeline.model import OsState
from pipeline.ports import Guest, GuestFacts, GuestHost, GuestSession, Images, Progress
from pipeline.sources.ingest import Disk
from pipeline.sources.partitions import read_partitions

NO_FACTS = GuestFacts("unknown")
GuestCheck = Callable[[Guest, GuestFacts], tuple[Finding, ...]]  # of a mounted guest, read only
# verdicts that a Generalized definition does not take
CONTRADICTIONS = ("specialized", "half-way")


@dataclass(frozen=True, slots=True)
class Survey:
    """`inventory` is JSON, empty for a guest in which nothing can be listed; `findings` are those
    of the check that was asked for, if any was."""

    facts: GuestFacts
    evidence: Evidence
    inventory: dict[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def document(self) -> dict[str, Any]:
        """Its part of a version's report."""
        return {
            "guest": guest_document(self.facts),
            "check": check_document(self.evidence),
            "inventory": self.inventory,
        }


def check_document(found: Evidence) -> dict[str, Any]:
    unread = {"unread": list(found.unread)} if found.unread else {}
    return {"verdict": found.verdict, "reasons": list(found.reasons), **unread}


def guest_document(facts: GuestFacts) -> dict[str, Any]:
    """What a report says of the operating system."""
    return {
        "os_type": facts.os_type,
        "distribution": facts.distribution,
        "version": facts.version,
        "product_name": facts.product_name,
        "architecture": facts.architecture,
    }


def survey(
    host: GuestHost,
    images: Images,
    disks: Sequence[Disk],
    work: Path,
    progress: Progress,
    *,
    listed: bool = True,
    check: GuestCheck | None = None,
) -> Survey:
    """Start an appliance on the disks (OS disk first), which are only read. A disk without an
    operating system, or with one that can't be opened, is "unknown", and why. `listed` and `check`
    as for `survey_guest`."""
    # the appliance sees the disks through overlays: one explicit node tree for every format
    overlays = [
        images.create_overlay(disk.chain, work / f"{disk.name}-survey.qcow2") for disk in disks
    ]
    with progress.stage("survey the guest"), host.session(overlays, writable=False) as session:
        facts = session.inspect()
        try:
            found = evidence(session, facts)
            if found is None:
                unread = _unknown("no operating system was found", facts)
                return replace(unread, evidence=unread.evidence.with_unread(facts.notes))
            if facts.os_type == "unknown":  # BitLocker hides it: only Windows has that
                locked = replace(facts, os_type="windows")
                return Survey(locked, found, findings=no_findings())
            guest = session.mount(writable=False)
            return survey_guest(guest, session, facts, found, listed=listed, check=check)
        except GalleriaError as error:
            return _unknown(error.message, facts)


def survey_guest(
    guest: Guest,
    session: GuestSession,
    facts: GuestFacts,
    found: Evidence,
    *,
    listed: bool = True,
    check: GuestCheck | None = None,
) -> Survey:
    """What is in a mounted guest; with `listed` its inventory, with `check` what that finds.
    May leave nothing mounted."""
    findings = () if check is None else check(guest, facts)
    known: dict[str, Any] = {}
    if listed and facts.os_type == "windows":
        known = windows_inventory(guest, facts)
    elif listed:
        known = inventory(guest, session, facts)
    return Survey(facts, found, known, findings)


def survey_if_any(
    disks: Sequence[Disk],
    work: Path,
    host: GuestHost,
    images: Images,
    progress: Progress,
    *,
    check: GuestCheck | None = None,
) -> Survey:
    """Survey disks that are published as they are. A disk without partitions costs no
    appliance; where none can be had, or it can't open the guest, nothing is known, and why."""
    with images.open(disks[0].chain) as content:
        partitions = read_partitions(content).partitions
    if not partitions:
        return _unknown("the OS disk has no partitions")
    try:
        return survey(host, images, disks, work, progress, check=check)
    except GalleriaError as error:
        return _unknown(error.message)


def _unknown(reason: str, facts: GuestFacts = NO_FACTS) -> Survey:
    return Survey(facts, Evidence("unknown", (reason,)), findings=no_findings())


def check_os_state(
    report: Mapping[str, Any], declared: OsState, progress: Progress, *, force: bool
) -> dict[str, Any]:
    """The report, if what it shows of the guest is what the definition declares. Raises Refused for
    a specialized guest that is declared Generalized, for a Windows that is not known to be, and for
    a guest of which a part could not be looked into; with `force` that is recorded instead. That
    nothing shows either is else not refused: disks may hold no system at all. A generalized guest
    that is declared Specialized is warned of."""
    check = report["check"]
    if declared is not OsState.GENERALIZED:
        if check["verdict"] == "generalized":
            progress.warn(
                "the definition says Specialized, but the guest is generalized: each machine made "
                "of it sets itself up anew"
            )
        return dict(report)
    windows = report.get("guest", {}).get("os_type") == "windows"
    doubtful = check["verdict"] == "unknown" and (windows or check.get("unread"))
    if check["verdict"] not in CONTRADICTIONS and not doubtful:
        return dict(report)
    if not force:
        raise Refused(
            f"the definition says Generalized, but the guest is {check['verdict']}: "
            f"{'; '.join(check['reasons'])}",
            hint="let galleria generalize it (all of the profile's operations), or publish into a "
            "Specialized definition; --force takes it as it is, and the version records that",
        )
    return {**report, "check": {**check, "forced": True}}
