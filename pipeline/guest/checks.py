"""Does a guest look generalized? What `galleria inspect` says, with each piece of evidence.

Only reads. For Windows see windows/classify.py. For Linux the evidence is what the operations would
change, so they are run dry: "generalized" means that there is nothing of a machine or its people
left to remove, and that everything was looked into; "specialized" needs one thing that two machines
must not share; anything between is "unknown".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.data.text import printable
from pipeline.errors import GalleriaError
from pipeline.guest.accounts import humans
from pipeline.guest.elsewhere import treat_elsewhere
from pipeline.guest.homes import services
from pipeline.guest.operations import (
    Action,
    Change,
    Context,
    Editor,
    Operation,
    Policy,
    families_of,
)
from pipeline.guest.profiles import select
from pipeline.guest.report import redacted
from pipeline.guest.scoped import ScopedGuest
from pipeline.guest.windows.classify import Classification, classify, locked
from pipeline.ports import Guest, GuestFacts, GuestSession

NO_IDENTITY = ("", "uninitialized")
LINUX = GuestFacts("linux")
DEFAULTS = select().operations
NOTHING: Mapping[str, Sequence[Change]] = {}


# of these, what two machines must not have in common
IDENTITY = (
    *("machine-id", "boot-identity", "random-seed", "ssh-host-keys", "dhcp-leases"),
    *("network-state", "waagent", "domain", "subscriptions", "agents", "storage-names"),
)
# what these would remove says nothing of a machine or its people
ROOM = ("package-caches", "boot-flags", "rpm-locks")
SHOWN = 2  # paths of an operation


@dataclass(frozen=True, slots=True)
class Evidence:
    """`verdict` is "generalized", "specialized" or "unknown", of Windows also "half-way"; `reasons`
    says why, one fact each; `unread` is what could not be looked into."""

    verdict: str
    reasons: tuple[str, ...]
    unread: tuple[str, ...] = ()

    def with_unread(self, unread: Sequence[str]) -> "Evidence":
        """What was not looked into may hold anything: nobody can say that it is generalized."""
        if not unread:
            return self
        verdict, reasons = self.verdict, self.reasons
        if verdict == "generalized":
            verdict, reasons = "unknown", ()
        return Evidence(verdict, (*reasons, *unread), tuple(unread))


def evidence(session: GuestSession, facts: GuestFacts) -> Evidence | None:
    """What is known of the session's guest, whatever it is; None when no system was found.
    Mounts its file systems read-only."""
    if facts.os_type == "linux":
        guest = session.mount(writable=False)
        context = Context(facts, Policy())
        elsewhere = treat_elsewhere(session, (), DEFAULTS, context)
        if elsewhere is None:
            return looks_generalized(guest, facts)
        guest = session.mount(writable=False)
        found = looks_generalized(guest, facts, beside=elsewhere.left)
        return found.with_unread(elsewhere.unread)
    windows = windows_state(session, facts)
    return None if windows is None else Evidence(windows.verdict.value, windows.reasons)


def windows_state(session: GuestSession, facts: GuestFacts) -> Classification | None:
    """The classification of a Windows guest, or of a disk that BitLocker hides; else None.
    Leaves the file systems mounted read-only: mounted to be written, NTFS loses its journal."""
    if facts.os_type != "windows":
        return locked(facts)
    volumes = session.volumes()
    return classify(session.mount(writable=False), facts, volumes)


def looks_generalized(
    guest: Guest,
    facts: GuestFacts = LINUX,
    operations: Sequence[Operation] = DEFAULTS,
    *,
    beside: Mapping[str, Sequence[Change]] = NOTHING,
) -> Evidence:
    """`operations` are run dry; `beside` is what they would change that is not in this tree."""
    reader = Editor(guest, "check")  # used for its reading half
    marks = _machine_marks(reader)
    serving = services(reader)
    people = [
        f"the user {account.name!r} exists"
        for account in humans(reader)
        if account.name not in serving
    ]
    told = dict(marks)
    left = []
    for name, reason in _dry_run(guest, facts, operations, beside):
        if name in IDENTITY or name in told:
            told.setdefault(name, [reason])
        elif name != "user-accounts" or not people:
            left.append(reason)
    if told:
        reasons = [reason for found in told.values() for reason in found]
        return Evidence("specialized", (*reasons, *people, *left))
    if people or left:
        return Evidence("unknown", ("no machine identity was found", *people, *left))
    clean = (
        "no machine id",
        "no ssh host keys",
        "no DHCP leases",
        "no instance data",
        "no users",
    )
    return Evidence("generalized", clean)


def _dry_run(
    guest: Guest,
    facts: GuestFacts,
    operations: Sequence[Operation],
    beside: Mapping[str, Sequence[Change]],
) -> Iterator[tuple[str, str]]:
    """The names of operations that would take something out of the guest, and what."""
    scoped, context = ScopedGuest(guest), Context(facts, Policy())
    families = families_of(facts)
    for operation in operations:
        if operation.name in ROOM or not families & set(operation.families):
            continue
        edit = Editor(scoped, operation.name)
        try:
            operation.perform(edit, context)
        except GalleriaError as error:
            yield operation.name, f"{operation.name} could not be tried: {printable(error.message)}"
            continue
        # a file that is made anew is a guarantee for what goes, and no trace of a machine
        gone = [
            change
            for change in edit.changes
            if change.action not in (Action.WRITTEN, Action.LINKED)
            or guest.stat(change.path) is not None
        ]
        paths = [change.path for change in (*gone, *beside.get(operation.name, ()))]
        if paths:
            yield operation.name, _said(operation.name, list(dict.fromkeys(paths)))


def _said(name: str, paths: Sequence[str]) -> str:
    more = len(paths) - SHOWN
    shown = ", ".join(redacted(path) for path in paths[:SHOWN])
    return f"{name} would change {shown}" + (f" and {more} more" if more > 0 else "")


def _machine_marks(reader: Editor) -> dict[str, list[str]]:
    """What two machines must not have in common, by the operation that is for it."""
    marks: dict[str, list[str]] = {}
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        if reader.text(path).strip() not in NO_IDENTITY:
            marks.setdefault("machine-id", []).append(f"{path} holds an id")
    keys = reader.guest.glob("/etc/ssh/ssh_host_*_key")
    if keys:
        marks["ssh-host-keys"] = [f"{len(keys)} ssh host keys in /etc/ssh"]
    for name, directory, meaning in (
        ("dhcp-leases", "/var/lib/dhcp", "DHCP leases"),
        ("dhcp-leases", "/var/lib/dhclient", "DHCP leases"),
        ("cloud-init", "/var/lib/cloud/instances", "cloud-init's instance data"),
        ("waagent", "/var/lib/waagent", "the Azure agent's state"),
    ):
        if reader.guest.names(reader.follow(directory)):
            marks.setdefault(name, []).append(f"{meaning} in {directory}")
    if reader.guest.glob("/var/lib/NetworkManager/*.lease"):
        marks.setdefault("dhcp-leases", []).append("DHCP leases in /var/lib/NetworkManager")
    return marks
