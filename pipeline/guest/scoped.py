"""A guest in which only some places are changed: what is done elsewhere is noted and not done.

Without any place it is a dry run: operations see what they would have done, the guest stays as it
is.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipeline.guest.operations import below
from pipeline.ports import FileStat, Guest
from pipeline.ports.hives import Hive


class ScopedGuest:
    """`places`: directories below which changes are made. Everywhere else they are kept in mind:
    `_gone` are the real paths that were removed, `_files` what was written, `_others` what was made
    besides."""

    def __init__(self, guest: Guest, places: Sequence[str] = ()) -> None:
        self._guest = guest
        self._places = tuple(places)
        self._gone: set[str] = set()
        self._files: dict[str, bytes] = {}
        self._others: dict[str, FileStat] = {}
        self._links: dict[str, str] = {}
        self._snapshots_gone = False

    def changes(self, real: str) -> bool:
        """Whether what is done at a real path is done."""
        return below(real, self._places)

    def real(self, path: str) -> str:
        return self._guest.real(path)

    def stat(self, path: str) -> FileStat | None:
        real = self.real(path)
        if real in self._others:
            return self._others[real]
        there = None if self._is_gone(real) else self._guest.stat(path)
        if (content := self._files.get(real)) is None:
            return there
        owner = there or FileStat("file", 0o644, 0, 0, 0)
        return FileStat("file", owner.mode, owner.uid, owner.gid, len(content))

    def names(self, path: str) -> list[str]:
        directory = self.real(path).rstrip("/")
        found = {
            name for name in self._guest.names(path) if not self._is_gone(f"{directory}/{name}")
        }
        made = (*self._files, *self._others)
        found |= {PurePosixPath(p).name for p in made if str(PurePosixPath(p).parent) == directory}
        return sorted(found)

    def glob(self, pattern: str) -> list[str]:
        return [path for path in self._guest.glob(pattern) if self.stat(path) is not None]

    def find(self, path: str) -> list[tuple[str, FileStat]]:
        """Of files that are only in mind, those that were there before."""
        listed = ((name, found, self.real(name)) for name, found in self._guest.find(path))
        return [
            (name, (self.stat(name) or found) if real in self._files else found)
            for name, found, real in listed
            if not self._is_gone(real) or real in self._files
        ]

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        content = self._files.get(self.real(path))
        return self._guest.read(path, limit) if content is None else content[:limit]

    def readlink(self, path: str) -> str:
        target = self._links.get(self.real(path))
        return self._guest.readlink(path) if target is None else target

    def digests(self, path: str) -> dict[str, str]:
        return self._guest.digests(path)

    def initramfs(self, path: str) -> list[str]:
        return self._guest.initramfs(path)

    def write(self, path: str, content: bytes, mode: int | None = None) -> None:
        real = self.real(path)
        if self.changes(real):
            self._guest.write(path, content, mode)
        else:
            self._files[real] = content

    def truncate(self, path: str) -> None:
        real = self.real(path)
        if self.changes(real):
            self._guest.truncate(path)
        else:
            self._files[real] = b""

    def remove(self, path: str) -> None:
        real = self.real(path)
        if self.changes(real):
            self._guest.remove(path)
            return
        self._gone.add(real)
        for made in (self._files, self._others, self._links):
            for name in [name for name in made if below(name, [real])]:
                del made[name]

    def set_name(self, path: str, name: str) -> None:
        """Only in mind, what is below a directory is as it was removed."""
        real = self.real(path)
        if self.changes(real):
            self._guest.set_name(path, name)
            return
        target, found = str(PurePosixPath(real).parent / name), self.stat(path)
        if found is not None and found.kind == "file":
            content = self.read(path, found.length)
            self.remove(path)
            self._files[target] = content
        elif found is not None:
            self.remove(path)
            self._others[target] = found

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        real = self.real(path)
        if self.changes(real):
            self._guest.mkdir(path, mode)
        elif self.stat(path) is None:
            self._others[real] = FileStat("directory", mode, 0, 0, 0)

    def chown(self, path: str, uid: int, gid: int) -> None:
        real = self.real(path)
        found = self.stat(path)
        if self.changes(real):
            self._guest.chown(path, uid, gid)
        elif found is not None and real in self._others:
            self._others[real] = replace(found, uid=uid, gid=gid)

    def symlink(self, target: str, path: str) -> None:
        real = self.real(path)
        if self.changes(real):
            self._guest.symlink(target, path)
        else:
            self._links[real] = target
            self._others[real] = FileStat("symlink", 0o777, 0, 0, len(target))

    def hollow(self, path: str, keep: int) -> None:
        real = self.real(path)
        if self.changes(real):
            self._guest.hollow(path, keep)

    def snapshots(self) -> list[str]:
        return [] if self._snapshots_gone else self._guest.snapshots()

    def remove_snapshots(self) -> None:
        self._snapshots_gone = True  # of whole file systems: of no place alone

    def label(self, path: str) -> str:
        return self._guest.label(path)

    def set_label(self, path: str, label: str) -> None:
        if self.changes(self.real(path)):
            self._guest.set_label(path, label)

    def run(self, script: str) -> str:
        """A script can't be kept to a place: it is not run."""
        return ""

    def hive(self, path: str, *, writable: bool = False) -> AbstractContextManager[Hive]:
        return self._guest.hive(path)

    def _is_gone(self, real: str) -> bool:
        return bool(self._gone) and any(
            path in self._gone for path in (real, *map(str, PurePosixPath(real).parents))
        )


if TYPE_CHECKING:
    _: type[Guest] = ScopedGuest
