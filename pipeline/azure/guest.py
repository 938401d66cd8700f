"""The checks of what a guest's file systems hold, whichever guest it is."""

from pipeline.azure.findings import Finding, Severity
from pipeline.azure.linux import linux_findings
from pipeline.azure.windows import windows_findings
from pipeline.ports import Guest, GuestFacts


def guest_findings(guest: Guest, facts: GuestFacts) -> tuple[Finding, ...]:
    if facts.os_type == "windows":
        return tuple(windows_findings(guest, facts))
    return tuple(linux_findings(guest, facts))


def no_findings() -> tuple[Finding, ...]:
    """Of a guest that can't be looked into."""
    said = "the guest could not be looked into"
    return (Finding("guest", Severity.FAIL, None, said),)
