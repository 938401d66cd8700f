"""The Guest port over libguestfs's calls: mounted file systems, edited offline."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from adapters.guestfs import btrfs, hive, initramfs, walk
from adapters.guestfs.changes import SYSROOT, Changes
from adapters.guestfs.paths import Paths, join, plain
from adapters.guestfs.process import CallFailed, Helper, printable
from adapters.guestfs.shell import quote, run_script
from pipeline.errors import Refused, StageFailed
from pipeline.ports import FileStat, Guest
from pipeline.ports.hives import Hive

PART = 1 << 20  # bytes of one message; libguestfs's limit is 4 MiB
SCRIPT_SECONDS = 1800.0
SELINUX = "security.selinux"
IMMUTABLE = "Operation not permitted"
NO_LABEL = ("No data available", "Operation not supported")


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
        self._paths = Paths(helper)

    def real(self, path: str) -> str:
        return self._paths.real(path)

    def stat(self, path: str) -> FileStat | None:
        return self._paths.stat(path)

    def names(self, path: str) -> list[str]:
        return self._paths.names(path)

    def find(self, path: str) -> list[tuple[str, FileStat]]:
        return self._paths.find(path)

    def glob(self, pattern: str) -> list[str]:
        return self._paths.glob(pattern)

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        real = self._paths.regular(path, "read")
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
        directory = self._paths.directory(path)
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
        return initramfs.names(self._helper, SYSROOT + self._paths.regular(path, "read"))

    def write(self, path: str, content: bytes, mode: int | None = None) -> None:
        real = self.real(path)
        found = self.stat(path)
        if found is not None:
            self._paths.regular(path, "written")
        # in place: the inode keeps its owner, mode, labels and extended attributes
        self._insist("write", real, content[:PART])
        for start in range(PART, len(content), PART):
            self._call("write_append", real, content[start : start + PART])
        if mode is not None or found is None:
            self._call("chmod", 0o644 if mode is None else mode, real)
        self._changed(real, made=found is None)

    def truncate(self, path: str) -> None:
        real = self._paths.regular(path, "truncated")
        self._changed(real)
        if plain(real):
            self._insist("truncate", real)
        else:
            self._script(f": > {quote(SYSROOT + real)}")

    def remove(self, path: str) -> None:
        found = self.stat(path)
        if found is None:
            return
        real = self.real(path)
        self._paths.forget(real, found.kind)
        self._changed(str(PurePosixPath(real).parent))
        raw = self._paths.stats.get(real) if plain(real) else None
        if raw is None:
            # rm never follows links, neither as its argument nor below it
            self._script(f"rm -rf -- {quote(SYSROOT + real)}")
        elif real in self._mount_points:  # it can only be emptied
            for name in self.names(real):
                self.remove(join(real, name))
        elif found.kind == "directory":
            self._remove_tree(real, raw)
        else:
            self.changes.note_links([raw])
            self._insist("rm", real)
        self._paths.stats.changed(real)

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

    def set_name(self, path: str, name: str) -> None:
        real = self.real(path)
        target = join(str(PurePosixPath(real).parent), name)
        if "/" in name or self.stat(target) is not None:
            raise Refused(f"{printable(real)} cannot be renamed to {printable(name)}")
        self._insist("rename", real, target)
        self._paths.clear()
        self._changed(target)
        self._changed(str(PurePosixPath(real).parent))

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        missing = []
        while path != "/" and self.stat(path) is None:
            missing.append(path)
            path = str(PurePosixPath(path).parent)
        for directory in reversed(missing):
            self._call("mkdir_mode", self.real(directory), mode)
            self._changed(self.real(directory), made=True)
            self._paths.made()

    def chown(self, path: str, uid: int, gid: int) -> None:
        real = self.real(path)
        self._call("lchown", uid, gid, real)
        self._changed(real)

    def symlink(self, target: str, path: str) -> None:
        real = self.real(path)
        self._call("ln_s", target, real)
        self._changed(real, made=True)
        self._paths.made()

    def hollow(self, path: str, keep: int) -> None:
        self.changes.hollow[self._paths.regular(path, "emptied")] = keep

    def snapshots(self) -> list[str]:
        found = btrfs.related(self._helper, writable=self.writable)
        return [item.path for items in found.values() for item in items]

    def remove_snapshots(self) -> None:
        btrfs.remove(self._helper, btrfs.related(self._helper, writable=True))
        self._paths.clear()

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
        self._paths.clear()
        return output

    @contextlib.contextmanager
    def hive(self, path: str, *, writable: bool = False) -> Iterator[Hive]:
        real = self._paths.regular(path, "opened")
        with hive.opened(self._helper, real, writable=writable) as found:
            yield found
        self._paths.stats.changed(real)

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
        self._paths.stats.changed(real)

    def _script(self, script: str) -> bytes:
        return run_script(self._helper, script)


if TYPE_CHECKING:
    _: type[Guest] = GuestfsGuest
