"""Who may read what galleria makes: its user; of a directory that is a group's, that group too.

The process makes everything for its user alone (`private`), and so do the programs that it starts.
A directory with the set-group-ID bit that its group may read is that group's: what is made in it is
given to the group before it gets its name there (`give`). What is handed out, as converted files,
is never wider than the caller's umask and what it was made of (`outgoing`).
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

DIRECTORY = 0o700
GROUPS_DIRECTORY = 0o2750
OTHERS = 0o007
_READ = 0o4

_callers: list[int] = []  # the umask that this process was started with, while it has its own


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Make files for this user alone, as long as the `with`."""
    _callers.append(os.umask(0o077))
    try:
        yield
    finally:
        os.umask(_callers.pop())


@contextlib.contextmanager
def callers() -> Iterator[None]:
    """Make files as the caller's umask says: those that hold nothing of an image."""
    own = os.umask(_umask())
    try:
        yield
    finally:
        os.umask(own)


def _umask() -> int:
    if _callers:
        return _callers[0]
    found = os.umask(0o077)
    os.umask(found)
    return found


def plain() -> int:
    """The mode of a file that holds nothing of an image: as the caller's umask says."""
    return outgoing(os.getegid(), ())


def outgoing(group: int, sources: Iterable[os.stat_result]) -> int:
    """The mode of a file of this group that is made of `sources`: whoever may read it may read each
    of those, and the umask lets them."""
    mode = 0o044 & ~_umask()
    for facts in sources:
        to_group = facts.st_mode >> 3 & _READ
        to_others = to_group & facts.st_mode
        mode &= (to_group if facts.st_gid == group else to_others) << 3 | to_others
    return mode | 0o600


def group_of(directory: Path) -> int | None:
    """The group that a directory is for; None: for none."""
    facts = directory.stat()
    wanted = stat.S_ISGID | stat.S_IRGRP | stat.S_IXGRP
    return facts.st_gid if facts.st_mode & wanted == wanted else None


def give(path: Path, group: int | None) -> None:
    """Let a group do with a file, or with the files of a whole directory, what their user may; in
    the directories it may make nothing. No link is followed. `group` None: nothing to do."""
    if group is None:
        return
    for directory, names, files in os.walk(path):
        for entry in (Path(directory, name) for name in (*names, *files)):
            _give(entry, group)
    _give(path, group)


def _give(path: Path, group: int) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        os.chown(path, -1, group, follow_symlinks=False)
        path.chmod(GROUPS_DIRECTORY)
    elif stat.S_ISREG(mode):
        os.chown(path, -1, group, follow_symlinks=False)
        path.chmod(mode & 0o700 | (mode & 0o700) >> 3)


def make_directories(path: Path, group: int | None) -> None:
    """Make a directory where there is none, and those that it is in, for a group too."""
    missing = [item for item in (path, *path.parents) if not item.exists()]
    path.mkdir(mode=DIRECTORY, parents=True, exist_ok=True)
    if group is not None:
        for item in missing:
            _give(item, group)


def make_root(path: Path, group: int | None) -> None:
    """Let a directory be for this user alone, or for a group. One of another user stays as it is:
    what is made in it is private all the same."""
    group = group_of(path) if group is None else group
    with contextlib.suppress(PermissionError):
        if group is None:
            path.chmod(DIRECTORY)
        else:
            os.chown(path, -1, group)
            path.chmod(GROUPS_DIRECTORY)
