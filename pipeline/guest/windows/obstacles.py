"""Why a Windows guest should not be written, or not become an image, and what to do about it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import GalleriaError, Refused
from pipeline.guest.windows import registry
from pipeline.guest.windows.tree import Tree, is_file, shown
from pipeline.guest.windows.unattend import WINLOGON
from pipeline.ports import GuestFacts, VolumeState
from pipeline.ports.hives import Hive

# headers of hiberfil.sys while a session is in it (ntfs-3g tells them apart so); "wake" is one that
# was resumed, zeros one that was never used
HIBERNATED = (b"hibr", b"HIBR")
RESTART = (
    "start the guest and choose Restart, then shut it down with `shutdown /s /t 0` (a plain shut "
    "down is a hibernation where fast startup is on)"
)
CHECK = f"start the guest, let it check its disks, and shut it down: {RESTART}"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """`unsafe`: the guest can't be written without losing what it has; else it may be forced."""

    name: str
    where: str
    what: str
    hint: str
    unsafe: bool = True


def of_disks(tree: Tree, facts: GuestFacts, volumes: Sequence[VolumeState]) -> Iterator[Obstacle]:
    """What the volumes, the hives' files and the hibernation file say."""
    yield from encrypted(facts)
    yield from hibernated(tree)
    for volume in volumes:
        if volume.dirty or volume.journal:
            what = "is marked dirty: Windows wants to check it"
            if volume.journal:
                what = "has changes in its log ($LogFile), which writing to it would drop"
            yield Obstacle("dirty-volume", volume.device, f"{volume.device} {what}", CHECK)
    for path, reason in registry.dirty_hives(tree):
        yield Obstacle("dirty-hive", path, f"the registry hive {shown(path)}: {reason}", CHECK)
    pending = tree.at("/Windows/WinSxS/pending.xml")
    if pending:
        yield _pending(pending, f"{shown(pending)} exists")


def encrypted(facts: GuestFacts) -> Iterator[Obstacle]:
    for device, kind in facts.filesystems:
        if kind == "BitLocker":
            yield Obstacle(
                "bitlocker",
                device,
                f"{device} is encrypted with BitLocker",
                "decrypt it in the guest: `manage-bde -off C:`, and wait until `manage-bde "
                "-status` says Fully Decrypted",
            )


def hibernated(tree: Tree) -> Iterator[Obstacle]:
    for path in tree.matching("/hiberfil.sys"):
        if is_file(tree.guest, path) and tree.guest.read(path, 4) in HIBERNATED:
            yield Obstacle(
                "hibernated",
                path,
                "Windows is hibernated (or was shut down with fast startup): its memory holds "
                "changes of the disk that the disk does not have",
                RESTART,
            )


def of_registry(name: str, hive: Hive) -> Iterator[Obstacle]:
    """What SOFTWARE and SYSTEM say of pending operations and of a domain."""
    if name == "SOFTWARE":
        base = "Microsoft\\Windows\\CurrentVersion"
        for key in (
            f"{base}\\Component Based Servicing\\RebootPending",
            f"{base}\\WindowsUpdate\\Auto Update\\RebootRequired",
        ):
            if hive.has(key):
                yield _pending(f"SOFTWARE\\{key}", f"SOFTWARE\\{key} exists")
        domain = registry.text(hive, WINLOGON, "CachePrimaryDomain")
        if domain:
            yield _member(f"SOFTWARE\\{WINLOGON}", f"of {shown(domain)}")
        return
    manager = f"{registry.control_set(hive)}\\Control\\Session Manager"
    renames = registry.texts(hive, manager, "PendingFileRenameOperations")
    if renames:
        what = f"{len(renames)} file renames wait for the next start"
        yield _pending(f"SYSTEM\\{manager}\\PendingFileRenameOperations", what)


def of_security(tree: Tree) -> Iterator[Obstacle]:
    """The password of a machine account is kept by members of a domain only."""
    path = registry.hive_path(tree, "SECURITY")
    if path is None:
        return
    secret = "Policy\\Secrets\\$MACHINE.ACC"  # noqa: S105 - a key's name
    try:
        with tree.guest.hive(path) as hive:
            if hive.has(secret):
                yield _member(f"SECURITY\\{secret}", "(it has a machine account)")
    except Refused as error:
        yield unreadable(path, error)


def unreadable(path: str, error: GalleriaError) -> Obstacle:
    return Obstacle("unreadable-hive", path, error.message, CHECK)


def merged(found: Iterable[Obstacle]) -> tuple[Obstacle, ...]:
    """One obstacle of each name: several marks of one matter say the same."""
    by_name: dict[str, list[Obstacle]] = {}
    for obstacle in found:
        by_name.setdefault(obstacle.name, []).append(obstacle)
    return tuple(
        Obstacle(
            same[0].name,
            "; ".join(item.where for item in same),
            "; ".join(item.what for item in same),
            same[0].hint,
            same[0].unsafe,
        )
        for same in by_name.values()
    )


def _pending(where: str, what: str) -> Obstacle:
    return Obstacle(
        "pending-operations",
        where,
        f"an update or installation is not finished: {what}",
        f"{RESTART}; Sysprep refuses a guest that waits for a restart",
        unsafe=False,
    )


def _member(where: str, what: str) -> Obstacle:
    return Obstacle(
        "domain-member",
        where,
        f"the guest is a member of a domain {what}",
        "take it out of the domain first: `Remove-Computer -Restart`; clones of one member share "
        "its account and password",
        unsafe=False,
    )
