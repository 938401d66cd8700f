"""Does a guest look generalized? What `galleria inspect` says, with each piece of evidence.

Only reads. For Windows see windows/classify.py. For Linux "generalized" wants every mark of a
machine gone; "specialized" needs one mark that two machines must not share; anything between is
"unknown".
"""

from dataclasses import dataclass

from pipeline.guest.accounts import humans
from pipeline.guest.operations import Editor
from pipeline.guest.windows.classify import Classification, classify, locked
from pipeline.ports import Guest, GuestFacts, GuestSession

NO_IDENTITY = ("", "uninitialized")


@dataclass(frozen=True, slots=True)
class Evidence:
    """`verdict` is "generalized", "specialized" or "unknown", of Windows also "half-way"; `reasons`
    says why, one fact each."""

    verdict: str
    reasons: tuple[str, ...]


def evidence(session: GuestSession, facts: GuestFacts) -> Evidence | None:
    """What is known of the session's guest, whatever it is; None when no system was found.
    Mounts its file systems read-only."""
    if facts.os_type == "linux":
        return looks_generalized(session.mount(writable=False))
    found = windows_state(session, facts)
    return None if found is None else Evidence(found.verdict.value, found.reasons)


def windows_state(session: GuestSession, facts: GuestFacts) -> Classification | None:
    """The classification of a Windows guest, or of a disk that BitLocker hides; else None.
    Leaves the file systems mounted read-only: mounted to be written, NTFS loses its journal."""
    if facts.os_type != "windows":
        return locked(facts)
    volumes = session.volumes()
    return classify(session.mount(writable=False), facts, volumes)


def looks_generalized(guest: Guest) -> Evidence:
    look = Editor(guest, "check")  # used for its reading half
    marks = _machine_marks(look)
    people = [f"the user {account.name!r} exists" for account in humans(look)]
    if marks:
        return Evidence("specialized", tuple(marks + people))
    if people:
        return Evidence("unknown", ("no machine identity was found", *people))
    reasons = (
        "no machine id",
        "no ssh host keys",
        "no DHCP leases",
        "no instance data",
        "no users",
    )
    return Evidence("generalized", reasons)


def _machine_marks(look: Editor) -> list[str]:
    """What two machines must not have in common."""
    marks = []
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        if look.text(path).strip() not in NO_IDENTITY:
            marks.append(f"{path} holds an id")
    keys = look.guest.glob("/etc/ssh/ssh_host_*_key")
    if keys:
        marks.append(f"{len(keys)} ssh host keys in /etc/ssh")
    for directory, meaning in (
        ("/var/lib/dhcp", "DHCP leases"),
        ("/var/lib/dhclient", "DHCP leases"),
        ("/var/lib/cloud/instances", "cloud-init's instance data"),
        ("/var/lib/waagent", "the Azure agent's state"),
    ):
        if look.guest.names(look.follow(directory)):
            marks.append(f"{meaning} in {directory}")
    if look.guest.glob("/var/lib/NetworkManager/*.lease"):
        marks.append("DHCP leases in /var/lib/NetworkManager")
    return marks
