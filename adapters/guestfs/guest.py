"""The Guest port over libguestfs's calls: mounted file systems, edited offline.

libguestfs resolves links inside the guest (its daemon works chrooted). The shell that is used for
whole listings does not, so it only ever sees paths whose middle is free of links.
"""

import contextlib
import fnmatch
import re
import stat as modes
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from adapters.guestfs import btrfs, hive, initramfs, walk
from adapters.guestfs.changes import SYSROOT, Changes
from adapters.guestfs.process import CallFailed, Helper, printable
from adapters.guestfs.shell import quote, run_script
from adapters.guestfs.stats import Stats
from pipeline.errors import Refused, StageFailed
from pipeline.guest.hives import Hive
from pipeline.ports import FileStat, Guest

LINK_LIMIT = 40  # what Linux follows (path_resolution(7))
PART = 1 << 20  # bytes of one message; libguestfs's limit is 4 MiB
KINDS = {
    modes.S_IFREG: "file",
    modes.S_IFDIR: "directory",
    modes.S_IFLNK: "symlink",
}
SCRIPT_SECONDS = 1800.0
SELINUX = "security.selinux"
IMMUTABLE = "Operation not permitted"
NO_LABEL = ("No data available", "Operation not supported")
WILDCARD = re.compile(r"[*?\[]")
FIND_KINDS = {"f": "file", "d": "directory", "l": "symlink"}


class GuestfsGuest:
    """Paths are str; bytes that are no UTF-8 travel as surrogate escapes."""

    def __init__(
        self,
        helper: Helper,
        mount_points: Mapping[str, str] | None = None,
        *,
        writable: bool = False,
    ) -> None:
        self._call = helper.call
        self._helper = helper
        self._mount_points = dict(mount_points or {})
        self.writable = writable
        self.changes = Changes(helper, self._mount_points)
        self._stats = Stats(helper)
        self._directories: dict[str, str | None] = {}  # directory -> its real path, None: absent
        self._resolving: set[str] = set()  # links on the way to what is being resolved: no loops

    def real(self, path: str) -> str:
        parent, name = _split(path)
        directory = self._directory(parent)
        return path if directory is None else _join(directory, name)

    def stat(self, path: str) -> FileStat | None:
        parent, name = _split(path)
        directory = self._directory(parent)
        if directory is None:
            return None
        if not _plain(path):
            listed = dict(self._listing(_join(directory, name), depth=0))
            return listed.get(_join(directory, name))
        return self._lstat(_join(directory, name))

    def names(self, path: str) -> list[str]:
        found = self.stat(path)
        if found is None or found.kind != "directory":
            return []
        if _plain(path):
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

    def _matching(self, base: str, part: str) -> list[str]:
        if not WILDCARD.search(part):
            return [_join(base, part)]
        directory = self._directory(base)  # a link to a directory is entered, as a shell does
        names = [] if directory is None else self.names(directory)
        return [
            _join(base, name)
            for name in names
            if fnmatch.fnmatchcase(name, part) and name.startswith(".") <= part.startswith(".")
        ]

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        real = self._regular(path, "read")
        content = b""
        while len(content) < limit:
            part = self._call("pread", real, min(PART, limit - len(content)), len(content))
            if not part:
                break
            content += part
        return content

    def readlink(self, path: str) -> str:
        return str(self._call("readlink", self.real(path)))

    def digests(self, path: str) -> dict[str, str]:
        directory = self._directory(path)
        if directory is None:
            return {}
        listed = self._script(
            f"find {quote(SYSROOT + directory)} -xdev -type f -print0 | xargs -0 -r sha256sum -z"
        )
        found = {}
        for line in listed.split(b"\0")[:-1]:
            name = line[66:].decode("utf-8", "surrogateescape")
            found[name.removeprefix(SYSROOT)] = line[:64].decode()
        return dict(sorted(found.items()))

    def initramfs(self, path: str) -> list[str]:
        return initramfs.names(self._helper, SYSROOT + self._regular(path, "read"))

    def write(self, path: str, content: bytes, mode: int | None = None) -> None:
        real = self.real(path)
        found = self.stat(path)
        if found is not None:
            self._regular(path, "written")
        # in place: the inode keeps its owner, mode, labels and extended attributes
        self._insist("write", real, content[:PART])
        for start in range(PART, len(content), PART):
            self._call("write_append", real, content[start : start + PART])
        if mode is not None or found is None:
            self._call("chmod", 0o644 if mode is None else mode, real)
        self._changed(real, made=found is None)

    def truncate(self, path: str) -> None:
        real = self._regular(path, "truncated")
        self._changed(real)
        if _plain(real):
            self._insist("truncate", real)
        else:
            self._script(f": > {quote(SYSROOT + real)}")

    def remove(self, path: str) -> None:
        found = self.stat(path)
        if found is None:
            return
        real = self.real(path)
        self._forget(real, found.kind)
        self._changed(str(PurePosixPath(real).parent))
        raw = self._stats.get(real) if _plain(real) else None
        if raw is None:
            # rm never follows links, neither as its argument nor below it
            self._script(f"rm -rf -- {quote(SYSROOT + real)}")
        elif real in self._mount_points:  # it can only be emptied
            for name in self.names(real):
                self.remove(_join(real, name))
        elif found.kind == "directory":
            self._remove_tree(real, raw)
        else:
            self.changes.note_links([raw])
            self._insist("rm", real)
        self._stats.changed(real)

    def _remove_tree(self, real: str, raw: walk.Stat) -> None:
        below = walk.small(self._helper, real, raw)
        if below is None:
            self.changes.note_tree(real)
        else:
            self.changes.note_links(stat for _, stat in below)
            try:
                walk.remove(self._helper, real, below)
                return
            except CallFailed as error:
                if IMMUTABLE not in error.text:
                    raise
        self._insist("rm_rf", real)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        missing = []
        while path != "/" and self.stat(path) is None:
            missing.append(path)
            path = str(PurePosixPath(path).parent)
        for directory in reversed(missing):
            self._call("mkdir_mode", self.real(directory), mode)
            self._changed(self.real(directory), made=True)
            self._directories = {key: at for key, at in self._directories.items() if at is not None}

    def symlink(self, target: str, path: str) -> None:
        real = self.real(path)
        self._call("ln_s", target, real)
        self._changed(real, made=True)
        self._directories.clear()

    def hollow(self, path: str, keep: int) -> None:
        self.changes.hollow[self._regular(path, "emptied")] = keep

    def remove_snapshots(self) -> list[str]:
        removed = btrfs.remove_snapshots(self._helper)
        self._directories.clear()
        self._stats.clear()
        return removed

    def label(self, path: str) -> str:
        try:
            value = self._call("lgetxattr", self.real(path), SELINUX)
        except CallFailed as error:
            if error.absent or error.text.endswith(NO_LABEL):
                return ""
            raise
        return bytes(value).rstrip(b"\0").decode(errors="replace")

    def set_label(self, path: str, label: str) -> None:
        real = self.real(path)
        self._call("lsetxattr", SELINUX, label, len(label.encode()), real)
        self._changed(real)

    def run(self, script: str) -> str:
        try:
            output = str(self._call("sh", script, timeout=SCRIPT_SECONDS))
        except CallFailed as error:
            raise StageFailed(
                f"a script in the guest failed: {error.message}",
                hint="it runs with the guest's own programs: they must be of this host's "
                "architecture",
            ) from error
        self._directories.clear()
        self._stats.clear()
        return output

    @contextlib.contextmanager
    def hive(self, path: str, *, writable: bool = False) -> Iterator[Hive]:
        real = self._regular(path, "opened")
        with hive.opened(self._helper, real, writable=writable) as found:
            yield found
        self._stats.changed(real)

    def _insist(self, call: str, real: str, *args: Any) -> None:
        """Change something even where it is immutable or append-only (chattr(1)): logs and
        resolv.conf are made so. The attributes are not set again."""
        try:
            self._call(call, real, *args)
        except CallFailed as error:
            if IMMUTABLE not in error.text:
                raise
            self._script(f"chattr -R -f -ai -- {quote(SYSROOT + real)} || true")
            self._call(call, real, *args)

    def _changed(self, real: str, *, made: bool = False) -> None:
        self.changes.changed(real, made=made)
        self._stats.changed(real)

    def _forget(self, real: str, kind: str) -> None:
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

    def _directory(self, path: str) -> str | None:
        if path not in self._directories:
            self._directories[path] = self._resolve(path)
        return self._directories[path]

    def _resolve(self, path: str) -> str | None:
        """realpath(3) of a directory, a component at a time: libguestfs's own starts a process each
        time, and ten times slower."""
        if path == "/" or not _plain(path):  # not plain: it was listed, so it has no links
            return path
        parent, name = _split(path)
        directory = self._directory(parent)
        if directory is None or path in self._resolving or len(self._resolving) > LINK_LIMIT:
            return None
        real = _join(directory, name)
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
                found = self._directory(_join(found, part))
        return found

    def _lstat(self, real: str) -> FileStat | None:
        found = self._stats.get(real)
        return None if found is None else _file_stat(found)

    def _regular(self, path: str, verb: str) -> str:
        found = self.stat(path)
        if found is None or found.kind != "file":
            kind = "absent" if found is None else f"a {found.kind}"
            raise Refused(f"{printable(path)} in the guest is {kind} and cannot be {verb}")
        return self.real(path)

    def _below(self, path: str, depth: int | None) -> list[tuple[str, FileStat]]:
        found = self.stat(path)
        if found is None or found.kind != "directory":
            return []
        real = self.real(path)
        raw = self._stats.get(real) if depth is None and _plain(real) else None
        below = None if raw is None else walk.small(self._helper, real, raw)
        if below is not None:
            return [(name, _file_stat(stat)) for name, stat in below]
        return [(name, stat) for name, stat in self._listing(real, depth=depth) if name != real]

    def _listing(self, real: str, depth: int | None) -> list[tuple[str, FileStat]]:
        limit = "" if depth is None else f"-maxdepth {depth}"
        output = self._script(
            f"find {quote(SYSROOT + real)} {limit} -printf '%y %m %U %G %s %p\\0' || test $? = 1"
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

    def _script(self, script: str) -> bytes:
        return run_script(self._helper, script)


def _plain(path: str) -> bool:
    """Whether libguestfs's bindings can take it: they want UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in path)


def _split(path: str) -> tuple[str, str]:
    """A directory and a name in it. `..` would climb out of what was resolved: never used."""
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise Refused(f"{printable(path)} is no absolute path without '..'")
    if path.startswith("//"):  # which pathlib keeps
        pure = PurePosixPath("/", path.lstrip("/"))
    return str(pure.parent), pure.name


def _join(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def _file_stat(found: dict[str, Any]) -> FileStat:
    return FileStat(
        kind=KINDS.get(modes.S_IFMT(found["st_mode"]), "other"),
        mode=modes.S_IMODE(found["st_mode"]),
        uid=found["st_uid"],
        gid=found["st_gid"],
        length=found["st_size"],
    )


if TYPE_CHECKING:
    _: type[Guest] = GuestfsGuest
