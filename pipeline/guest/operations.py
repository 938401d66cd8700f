"""What an operation is, and the editor through which it changes a guest and leaves a trace."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath

from pipeline.data.text import printable
from pipeline.errors import Refused
from pipeline.guest.selinux import Labels
from pipeline.ports import Guest, GuestFacts

LOOK_LIMIT = 1 << 20  # bytes of a file that is only looked into
EDIT_LIMIT = 64 << 20  # bytes; lists of blocked hosts in /etc/hosts have several MiB
LINK_LIMIT = 40  # what Linux follows (path_resolution(7))
# what a link must not lead to from elsewhere when something is removed: it is the system itself
SYSTEM = (
    *("/bin", "/boot", "/dev", "/efi", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc"),
    *("/run", "/sbin", "/sys", "/usr"),
)
TREES = (
    *("/", "/home", "/media", "/mnt", "/opt", "/root", "/srv"),
    *("/var", "/var/cache", "/var/lib", "/var/log", "/var/spool"),
)
EMPTY_OFFLINE = ("/dev", "/proc", "/run", "/sys")


class Action(Enum):
    REMOVED = "removed"
    TRUNCATED = "truncated"
    WRITTEN = "written"
    EMPTIED = "emptied"  # its contents given up, the file and its length kept
    RAN = "ran"
    LINKED = "linked"
    LOCKED = "locked"
    RENAMED = "renamed"
    OWNED = "owned"  # given to its user


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that an operation did. `path` is where it really is in the guest, links resolved;
    for an account it is its file and its name, "/etc/shadow:root"."""

    operation: str
    action: Action
    path: str


# distributions by what they have in common, by inspection's names (GuestFacts.distribution)
FAMILIES = {
    "debian": ("debian", "ubuntu", "linuxmint", "kali", "devuan", "pop", "raspbian"),
    "redhat": (
        *("fedora", "rhel", "centos", "rocky", "almalinux", "oraclelinux", "scientificlinux"),
        *("redhat-based", "amzn", "circle", "openeuler"),
    ),
    "suse": ("opensuse", "sles", "suse-based", "opensuse-microos"),
    "arch": ("archlinux", "manjaro"),
    "alpine": ("alpinelinux", "postmarketos"),
}


def families_of(facts: GuestFacts) -> frozenset[str]:
    """The families that a guest is of. One of unknown type that has a root file system is a Linux
    without os-release."""
    if facts.os_type == "windows":
        return frozenset({"windows"})
    own = {name for name, members in FAMILIES.items() if facts.distribution in members}
    return frozenset({"linux", *own})


class Users(Enum):
    """Which human accounts the operation `user-accounts` removes."""

    NONE = "none"
    PROVISIONED = "provisioned"  # those that the cloud's agent or cloud-init made
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Script:
    """A shell script of the user's own, run with the guest's programs."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user decides beyond which operations run."""

    users: Users = Users.ALL
    remove_users: frozenset[str] = frozenset()  # besides those of `users`
    keep_users: frozenset[str] = frozenset()
    remove_paths: tuple[str, ...] = ()  # patterns
    truncate_paths: tuple[str, ...] = ()
    scripts: tuple["Script", ...] = ()
    agent_paths: tuple[str, ...] = ()  # of agents that the user's own file names
    force: bool = False  # take a Windows guest that Sysprep has not generalized, too
    keep_insecure_keys: bool = False  # those of Vagrant, that let everybody in


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that generalizing does. `heading` says what, `why` the reason to do it; `default`
    whether the profile `sysprep` has it."""

    name: str
    heading: str
    why: str
    perform: Callable[["Editor", "Context"], None]
    default: bool = True
    families: tuple[str, ...] = ("linux",)  # "linux" and "windows" are all of them: `families_of`
    paths: tuple[str, ...] = ()  # where it looks, for people
    every_volume: bool = False  # of Windows: on volumes besides the system's, too


@dataclass(frozen=True, slots=True)
class Context:
    """What operations may know."""

    facts: GuestFacts
    policy: Policy = field(default_factory=Policy)
    paging: tuple[str, ...] = ()  # of Windows: paths of paging files, on whatever volume


class Editor:
    """Changes a guest for one operation, and records each change. Nothing that is as it should be
    is touched, so a second run records nothing."""

    def __init__(self, guest: Guest, operation: str, labels: Labels | None = None) -> None:
        self.guest = guest
        self.operation = operation
        self._labels = labels or Labels(guest)
        self.changes: list[Change] = []

    def record(self, action: Action, path: str) -> None:
        self.changes.append(Change(self.operation, action, path))

    def exists(self, path: str) -> bool:
        return self.guest.stat(path) is not None

    def is_file(self, path: str) -> bool:
        found = self.guest.stat(path)
        return found is not None and found.kind == "file"

    def is_directory(self, path: str) -> bool:
        found = self.guest.stat(path)
        return found is not None and found.kind == "directory"

    def follow(self, path: str) -> str:
        """Where the path ends when links in its last component are followed too, inside the guest.
        A loop ends at one of its links."""
        for _ in range(LINK_LIMIT):
            found = self.guest.stat(path)
            if found is None or found.kind != "symlink":
                return self.guest.real(path)
            parent = str(PurePosixPath(self.guest.real(path)).parent)
            path = _normal(str(PurePosixPath(parent, self.guest.readlink(path))))
        return path

    def text(self, path: str, limit: int = LOOK_LIMIT) -> str:
        """A configuration file's text, the first `limit` bytes of it; empty when it is absent or
        not a file."""
        real = self.follow(path)
        if not self.is_file(real):
            return ""
        return self.guest.read(real, limit).decode(errors="surrogateescape")

    def whole_text(self, path: str) -> str:
        """All of a file that is going to be written again: bytes that are no UTF-8 survive a round
        trip through `write_text`. Raises Refused when it is larger than EDIT_LIMIT."""
        found = self.guest.stat(self.follow(path))
        if found is not None and found.length > EDIT_LIMIT:
            raise Refused(f"{printable(path)} has {found.length} bytes: too many to be edited")
        return self.text(path, EDIT_LIMIT)

    def write_text(self, path: str, text: str, mode: int | None = None) -> None:
        """Replace the content; through a link its target is written, and recorded."""
        real = self.follow(path)
        content = text.encode(errors="surrogateescape")
        if self.is_file(real) and self.guest.read(real, len(content) + 1) == content:
            return
        new = not self.exists(real)
        if new:
            self._make_directory(str(PurePosixPath(real).parent))
        self.guest.write(real, content, mode)
        if new:
            self._labels.give(real)
        self.record(Action.WRITTEN, real)

    def write_value(self, path: str, text: str, looks: re.Pattern[str]) -> None:
        """Replace a file that holds one value. A link is followed to what looks like the value;
        any other target stays as it is, and the link gives way to a file."""
        real = self.follow(path)
        if real != self.guest.real(path) and not looks.fullmatch(self.text(real)):
            self.remove(path)
        self.write_text(path, text)

    def remove(self, path: str) -> None:
        if self.exists(path):
            real = self.guest.real(path)
            self.guest.remove(path)
            self.record(Action.REMOVED, real)

    def remove_all(self, *patterns: str) -> None:
        """Remove what each path or pattern names."""
        for pattern in patterns:
            for path in self.guest.glob(pattern) if "*" in pattern else (pattern,):
                self.remove(path)

    def place(self, directory: str) -> str:
        """Where a directory really is whose contents are going to be removed or emptied. Raises
        Refused when links lead to a part of the system, or to a whole tree of the root."""
        real = self.follow(directory)
        strays = below(real, SYSTEM) and not below(directory, SYSTEM)
        strays |= real != directory and real in TREES
        if strays and not below(real, EMPTY_OFFLINE) and self.is_directory(real):
            raise Refused(
                f"{printable(directory)} leads to {printable(real)}: what is in it is not removed"
            )
        return real

    def remove_contents(self, *directories: str) -> None:
        """Remove what is in the directories, and keep them with their owners and modes."""
        for directory in directories:
            real = self.place(directory)
            for name in self.guest.names(real):
                self.remove(f"{real.rstrip('/')}/{name}")

    def remove_files(self, directory: str) -> None:
        """Remove all but directories below `directory`."""
        for path, found in self.guest.find(self.place(directory)):
            if found.kind != "directory":
                self.remove(path)

    def truncate(self, path: str) -> None:
        """Empty a file in place."""
        found = self.guest.stat(path)
        if found is not None and found.kind == "file" and found.length:
            self.guest.truncate(path)
            self.record(Action.TRUNCATED, self.guest.real(path))

    def symlink(self, target: str, path: str) -> None:
        if not self.exists(path):
            self._make_directory(str(PurePosixPath(path).parent))
            self.guest.symlink(target, path)
            self._labels.give(self.guest.real(path))
            self.record(Action.LINKED, self.guest.real(path))

    def own(self, path: str, uid: int, gid: int) -> None:
        """Give a file or directory to a user and a group."""
        found = self.guest.stat(path)
        if found is not None and (found.uid, found.gid) != (uid, gid):
            self.guest.chown(path, uid, gid)
            self.record(Action.OWNED, self.guest.real(path))

    def make_directory(self, path: str, uid: int, gid: int, mode: int) -> None:
        """Make a directory of a user; those that are missing above it are root's. One that is there
        keeps its mode."""
        if not self.exists(path):
            self._make_directory(str(PurePosixPath(path).parent))
            self.guest.mkdir(path, mode)
            self._labels.give(self.guest.real(path))
        self.own(path, uid, gid)

    def set_name(self, path: str, name: str) -> None:
        """Give it another name in its directory. What has that name already stays, and this too."""
        real = self.guest.real(path)
        if self.exists(path) and not self.exists(str(PurePosixPath(real).parent / name)):
            self.guest.set_name(path, name)
            self.record(Action.RENAMED, real)

    def hollow(self, path: str, keep: int) -> None:
        """Give up a file's contents behind its first `keep` bytes, and keep its length."""
        found = self.guest.stat(path)
        if found is not None and found.kind == "file" and found.length > keep:
            self.guest.hollow(path, keep)
            self.record(Action.EMPTIED, self.guest.real(path))

    def _make_directory(self, path: str) -> None:
        missing = []
        while path != "/" and not self.exists(path):
            missing.append(path)
            path = str(PurePosixPath(path).parent)
        for directory in reversed(missing):
            self.guest.mkdir(directory)
            self._labels.give(self.guest.real(directory))


def lines_of(text: str) -> list[str]:
    """The lines of a file as programs see them: Python's splitlines ends one at form feeds and at
    Unicode's separators, too."""
    return text.removesuffix("\n").split("\n") if text else []


def below(path: str, roots: Sequence[str]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)


def _normal(path: str) -> str:
    """Take out `..`: only right where no link comes before it, so the caller gives real parents.
    In a link's own target one could: such a path is not followed further than the text says."""
    parts: list[str] = []
    for part in PurePosixPath(path).parts[1:]:
        if part == "..":
            del parts[-1:]
        else:
            parts.append(part)
    return "/" + "/".join(parts)
