"""What of a Linux guest's disks is not in its tree: file systems that it does not mount, and what
lies below its mount points.

Homes, keys, histories and logs are there as well: from before a directory got a partition of its
own, or on one that the guest mounts in a way that can't be followed. Each is mounted where its
content belongs (`place_of`), and the operations are performed in it. What can't be looked into is
named.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.errors import GalleriaError
from pipeline.guest.homes import is_home
from pipeline.guest.operations import Change, Context, Editor, Operation, below, families_of
from pipeline.guest.scoped import ScopedGuest
from pipeline.ports import Guest, GuestSession, Unmounted

LOGS = {"btmp", "dmesg", "journal", "messages", "syslog", "wtmp"}
BOOT = {"EFI", "efi", "loader", "grub", "grub2"}
DATA, OTHER_SYSTEM = "/srv", "/"


@dataclass(slots=True)
class Elsewhere:
    """`changes` by the operation's name: paths are behind their device's name; `left` are those of
    operations that were only run dry. `notes` say what was looked into, `unread` what was not and
    why."""

    changes: dict[str, list[Change]] = field(default_factory=dict)
    left: dict[str, list[Change]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Operations that are performed, and others that are only run dry."""

    performed: Sequence[Operation]
    left: Sequence[Operation]
    context: Context

    @property
    def writable(self) -> bool:
        return bool(self.performed)


def treat_elsewhere(
    session: GuestSession,
    performed: Sequence[Operation],
    left: Sequence[Operation],
    context: Context,
) -> Elsewhere | None:
    """To be asked when the guest is mounted; None: there is nothing, and it still is. Operations of
    `left` are run dry."""
    covered, others = session.covered(), session.unmounted()
    if not covered and not others:
        return None
    families = families_of(context.facts)
    wanted = Wanted(
        [item for item in performed if families & set(item.families)],
        [item for item in left if families & set(item.families)],
        context,
    )
    done = Elsewhere()
    if covered:
        guest = session.mount(without=covered, writable=wanted.writable)
        for point in covered:
            done.notes.append(f"what lies below the mount point {point} was looked into")
        _perform(guest, "", covered, wanted, done)
    for item in others:
        _treat(session, item, wanted, done)
    return done


def place_of(guest: Guest) -> str:
    """Where in a Linux tree the content of a file system belongs."""
    names = set(guest.names("/"))
    if "etc" in names and names & {"bin", "usr"}:
        return OTHER_SYSTEM
    if "log" in names and names & {"cache", "lib", "spool"}:
        return "/var"
    if names & LOGS:
        return "/var/log"
    if names & BOOT or any(name.startswith("vmlinuz") for name in names):
        return "/boot"
    if {"bin", "lib", "share"} <= names:
        return "/usr"
    reader = Editor(guest, "place")
    if is_home(reader, "/"):
        return "/home/user"
    return "/home" if any(is_home(reader, f"/{name}") for name in sorted(names)) else DATA


def _treat(session: GuestSession, item: Unmounted, wanted: Wanted, done: Elsewhere) -> None:
    what = f"{item.device} ({item.kind}) is mounted nowhere"
    problem = item.problem
    if not problem:
        try:
            place = place_of(session.mount_volume(item.device, writable=False))
            if place == OTHER_SYSTEM:
                problem = "it holds another operating system"
            else:
                guest = session.mount_volume(item.device, place, writable=wanted.writable)
                _perform(guest, f"{item.device}:", (place,), wanted, done)
                done.notes.append(f"{what}: looked into as {place}")
        except GalleriaError as error:
            problem = error.message
    if problem:
        done.unread.append(f"{what}, and not looked into: {problem}")


def _perform(
    guest: Guest, prefix: str, places: Sequence[str], wanted: Wanted, done: Elsewhere
) -> None:
    for operations, scope, changes in (
        (wanted.performed, places, done.changes),
        (wanted.left, (), done.left),
    ):
        scoped = ScopedGuest(guest, scope)
        for operation in operations:
            edit = Editor(scoped, operation.name)
            operation.perform(edit, wanted.context)
            changes.setdefault(operation.name, []).extend(
                Change(change.operation, change.action, prefix + change.path)
                for change in edit.changes
                if below(change.path, places)
            )
