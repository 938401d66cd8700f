"""Paths of a Windows guest: its file systems keep the case of names and do not tell it apart."""

import fnmatch

from pipeline.data.text import printable
from pipeline.ports import Guest

CONFIG = "/Windows/System32/config"


class Tree:
    """Finds files by names in any case. Links and junctions on the way are not followed: they lead
    to what has another path already."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._names: dict[str, list[str]] = {}

    def at(self, path: str) -> str | None:
        """Where a file or directory is; None when it is absent."""
        found = self.matching(path)
        # a file system that tells case apart (as Linux sees NTFS) may have several
        return path if path in found else next(iter(found), None)

    def matching(self, pattern: str) -> list[str]:
        """What the path names; `*` and `?` in any component."""
        found = [""]
        for part in pattern.strip("/").split("/"):
            wanted = part.lower()
            found = [
                f"{base}/{name}"
                for base in found
                for name in self._listed(base)
                if fnmatch.fnmatchcase(name.lower(), wanted)
            ]
        return found

    def text(self, path: str, limit: int = 1 << 20) -> str:
        """A text file in whatever encoding Windows wrote it; empty when it is absent."""
        found = self.at(path)
        if found is None or not is_file(self.guest, found):
            return ""
        return decoded(self.guest.read(found, limit))

    def _listed(self, directory: str) -> list[str]:
        if directory not in self._names:
            self._names[directory] = self.guest.names(directory or "/")
        return self._names[directory]


def decoded(content: bytes) -> str:
    """Text by its byte order mark, else UTF-8; bytes that are none are replaced."""
    for mark, encoding in (
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xef\xbb\xbf", "utf-8"),
    ):
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    return content.decode("utf-8", "replace")


def is_file(guest: Guest, path: str) -> bool:
    found = guest.stat(path)
    return found is not None and found.kind == "file"


def shown(text: str, limit: int = 120) -> str:
    """A guest's string, safe to print: escaped and bounded."""
    escaped = printable(text)
    return escaped if len(escaped) <= limit else escaped[:limit] + "..."
