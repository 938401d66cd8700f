"""Small directory trees, by libguestfs's own calls.

Under software emulation a find(1) or rm(1) in the appliance takes 200 ms before it has done
anything, a call less than 2 ms: a tree of few directories is walked and removed call by call. Most
of what generalizing looks into is one.
"""

from typing import Any

from adapters.guestfs.process import CallFailed, Helper

DIRECTORIES = 32  # two calls each; for more a script is as fast
ENTRIES = 256  # each is a call when it is removed

Stat = dict[str, Any]  # libguestfs's lstatns


def small(helper: Helper, real: str, stat: Stat) -> list[tuple[str, Stat]] | None:
    """Everything below a directory, whose path has no links and whose lstat is `stat`: a directory
    comes before what is in it. None: the tree is too large for this, goes on in another file
    system, or has names that libguestfs's bindings do not take."""
    found: list[tuple[str, Stat]] = []
    directories = [real]
    for directory in directories:
        try:
            names = helper.call("ls", directory)
        except CallFailed as error:
            if "codec can't decode" not in error.text:
                raise
            return None
        if len(found) + len(names) > ENTRIES:
            return None
        listed = helper.call("lstatnslist", directory, names) if names else []
        for name, entry in zip(names, listed, strict=True):
            if entry["st_dev"] != stat["st_dev"]:
                return None
            path = f"{directory.rstrip('/')}/{name}"
            found.append((path, entry))
            if is_directory(entry):
                directories.append(path)
        if len(directories) > DIRECTORIES:
            return None
    return found


def is_directory(stat: Stat) -> bool:
    return int(stat["st_mode"]) & 0o170000 == 0o040000


def remove(helper: Helper, real: str, below: list[tuple[str, Stat]]) -> None:
    """Remove a directory and what `small` found below it. Raises CallFailed where something can't
    be: the rest is still there."""
    for path, stat in reversed(below):
        helper.call("rmdir" if is_directory(stat) else "rm", path)
    helper.call("rmdir", real)
