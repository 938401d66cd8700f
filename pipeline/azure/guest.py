"""The checks of what a guest's file systems hold, whichever guest it is."""

from pipeline.azure.linux import linux_findings
from pipeline.azure.windows import windows_findings
from pipeline.guest.findings import Finding
from pipeline.ports import Guest, GuestFacts


def guest_findings(guest: Guest, facts: GuestFacts) -> tuple[Finding, ...]:
    if facts.os_type == "windows":
        return tuple(windows_findings(guest, facts))
    return tuple(linux_findings(guest, facts))
