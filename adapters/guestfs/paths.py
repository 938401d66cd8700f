"""Where paths of a guest really are, and what is there: links are resolved inside of it.

libguestfs resolves links inside the guest (its daemon works chrooted). The shell that is used for
whole listings does not, so it only ever sees paths whose middle is free of links.
"""

import fnmatch
import re
import stat as modes
from pathlib import PurePosixPath
from typing import Any

from adapters.guestfs import walk
from adapters.guestfs.changes import SYSROOT
from adapters.guestfs.process import CallFailed, Helper, printable
from adapters.guestfs.shell import quote, run_script
from adapters.guestfs.stats import Stats
from pipeline.errors import Refused
from pipeline.ports import FileStat

LINK_LIMIT = 40  # what Linux follows (path_resolution(7))
KINDS = {
    modes.S_IFREG: "file",
    modes.S_IFDIR: "directory",
    modes.S_IFLNK: "symlink",
}
WILDCARD = re.compile(r"[*?\[]")
FIND_KINDS = {"f": "file", "d": "directory", "l": "symlink"}


class Paths:
    """What is looked up is kept until something says that it changed."""

    def __init__(self, helper: Helper) -> None:
        self._call = helper.call
        self._helper = helper
        self.stats = Stats(helper)
        self._directories: dict[str, str | None] = {}  # directory -> its real path, None: absent
        self._resolving: set[str] = set()  # links on the way to what is being resolved: no loops

    def real(self, path: str) -> str:
        parent, name = split(path)
        directory = self.directory(parent)
        return path if directory is None else join(directory, name)

    def stat(self, path: str) -> FileStat | None:
        parent, name = split(path)
        directory = self.directory(parent)
        if directory is None:
            return None
        if not plain(path):
            listed = dict(self._listing(join(directory, name), depth=0))
            return listed.get(join(directory, name))
        return self._lstat(join(directory, name))

    def names(self, path: str) -> list[str]:
        found = self.stat(path)
        if found is None or found.kind != "directory":
            return []
        if plain(path):
            try:
                return sorted(self._call("ls", self.real(path)))
            except CallFailed as error:
                if "codec can't decode" not in error.text:
                    raise
        # names that are no UTF-8 come through the shell, which is slower
        return sorted(PurePosixPath(name).name for name, _ in self._below(path, depth=1))

    def find(self, path: str) -> list[tuple[str, FileStat]]:
        return sorted(self._below(path, depth=None), key=lambda item: item[0])

    def glob(self, pattern: str) -> list[str]:
        """`*`, `?` and `[...]` in any component; like a shell's, they match no leading dot."""
        found = ["/"]
        for part in PurePosixPath(pattern).parts[1:]:
            found = [path for base in found for path in self._matching(base, part)]
        return sorted(path for path in found if self.stat(path) is not None)

    def regular(self, path: str, verb: str) -> str:
        found = self.stat(path)
        if found is None or found.kind != "file":
            kind = "absent" if found is None else f"a {found.kind}"
            raise Refused(f"{printable(path)} in the guest is {kind} and cannot be {verb}")
        return self.real(path)

    def forget(self, real: str, kind: str) -> None:
        """Drop what was resolved by way of something that is going to be removed. Each resolution
        costs some 10 ms under software emulation, so what can't be concerned is kept."""
        if kind == "symlink":
            self._directories.clear()
        elif kind == "directory":
            self._directories = {
                key: at
                for key, at in self._directories.items()
                if at is not None and not f"{at}/".startswith(f"{real}/")
            }

    def made(self) -> None:
        """Something is there now: what was absent is looked for again."""
        self._directories = {key: at for key, at in self._directories.items() if at is not None}

    def clear(self) -> None:
        """Anything may have changed."""
        self._directories.clear()
        self.stats.clear()

    def directory(self, path: str) -> str | None:
        """The real path of a directory; None when there is none."""
        # the upper ones first: a guest may nest more of them than Python has room for calls
        missing = []
        while path not in self._directories:
            missing.append(path)
            if path == "/" or not plain(path):
                break
            path = split(path)[0]
        for path in reversed(missing):
            self._directories[path] = self._resolve(path)
        return self._directories[path]

    def _resolve(self, path: str) -> str | None:
        """realpath(3) of a directory, a component at a time: libguestfs's own starts a process each
        time, and ten times slower."""
        if path == "/" or not plain(path):  # not plain: it was listed, so it has no links
            return path
        parent, name = split(path)
        directory = self.directory(parent)
        if directory is None or path in self._resolving or len(self._resolving) > LINK_LIMIT:
            return None
        real = join(directory, name)
        found = self._lstat(real)
        if found is None or found.kind != "symlink":
            return real if found is not None and found.kind == "directory" else None
        self._resolving.add(path)
        try:
            return self._target(directory, str(self._call("readlink", real)))
        finally:
            self._resolving.discard(path)

    def _target(self, directory: str, target: str) -> str | None:
        """Where a link in a (real) directory leads, `..` taken as the guest's kernel would."""
        found: str | None = "/" if target.startswith("/") else directory
        for part in PurePosixPath(target).parts:
            if found is None:
                return None
            if part == "..":
                found = str(PurePosixPath(found).parent)
            elif part not in ("/", "//"):
                found = self.directory(join(found, part))
        return found

    def _lstat(self, real: str) -> FileStat | None:
        found = self.stats.get(real)
        return None if found is None else _file_stat(found)

    def _matching(self, base: str, part: str) -> list[str]:
        if not WILDCARD.search(part):
            return [join(base, part)]
        directory = self.directory(base)  # a link to a directory is entered, as a shell does
        names = [] if directory is None else self.names(directory)
        return [
            join(base, name)
            for name in names
            if fnmatch.fnmatchcase(name, part) and name.startswith(".") <= part.startswith(".")
        ]

    def _below(self, path: str, depth: int | None) -> list[tuple[str, FileStat]]:
        found = self.stat(path)
        if found is None or found.kind != "directory":
            return []
        real = self.real(path)
        raw = self.stats.get(real) if depth is None and plain(real) else None
        below = None if raw is None else walk.small(self._helper, real, raw)
        if below is not None:
            return [(name, _file_stat(stat)) for name, stat in below]
        return [(name, stat) for name, stat in self._listing(real, depth=depth) if name != real]

    def _listing(self, real: str, depth: int | None) -> list[tuple[str, FileStat]]:
        limit = "" if depth is None else f"-maxdepth {depth}"
        output = run_script(
            self._helper,
            f"find {quote(SYSROOT + real)} {limit} -printf '%y %m %U %G %s %p\\0' || test $? = 1",
        )
        listing = []
        for line in output.split(b"\0")[:-1]:
            kind, mode, uid, gid, length, name = line.split(b" ", 5)
            path = name.decode("utf-8", "surrogateescape").removeprefix(SYSROOT)
            stat = FileStat(
                kind=FIND_KINDS.get(kind.decode(), "other"),
                mode=int(mode, 8),
                uid=int(uid),
                gid=int(gid),
                length=int(length),
            )
            listing.append((path, stat))
        return listing


def plain(path: str) -> bool:
    """Whether libguestfs's bindings can take it: they want UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in path)


def split(path: str) -> tuple[str, str]:
    """A directory and a name in it. `..` would climb out of what was resolved: never used."""
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise Refused(f"{printable(path)} is no absolute path without '..'")
    if path.startswith("//"):  # which pathlib keeps
        pure = PurePosixPath("/", path.lstrip("/"))
    return str(pure.parent), pure.name


def join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def _file_stat(found: dict[str, Any]) -> FileStat:
    return FileStat(
        kind=KINDS.get(modes.S_IFMT(found["st_mode"]), "other"),
        mode=modes.S_IMODE(found["st_mode"]),
        uid=found["st_uid"],
        gid=found["st_gid"],
        length=found["st_size"],
    )
