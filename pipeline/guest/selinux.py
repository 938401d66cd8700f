"""SELinux labels for what galleria makes: a file without one may not be read by confined services.

The guest's own file_contexts(5) says which label a path gets. Of the lines that match, an exact
path wins, then the one that comes last, as in selabel_lookup(3). Where nothing matches, or the list
can't be had, a new file is labelled as the directory that it is in: what the kernel would do.
"""

import re
import time
from pathlib import PurePosixPath

from pipeline.errors import StageFailed
from pipeline.ports import FileStat, Guest

CONFIG = "/etc/selinux/config"
LIMIT = 16 << 20  # bytes; a targeted policy's list has half a megabyte
LISTS = ("file_contexts", "file_contexts.homedirs", "file_contexts.local")
KINDS = {"--": "file", "-d": "directory", "-l": "symlink"}
# What a pattern may have, as it is the guest's, and Python's matcher tries one way after the other:
# so many repetitions, and of groups only that of suffixes (libx.so.1.2)
REPETITIONS, SUFFIXES = 4, r"(\.[^/]*)*"
REPEATED_GROUP = re.compile(r"\)[*+{]")
SECONDS = 30.0  # a targeted policy takes milliseconds
SPECIAL = re.compile(r"[.^$?*+|\[({\\]")


class Labels:
    """Gives labels, in a guest that has any; reads its list when the first one is needed."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._lines: list[tuple[str, str, str]] | None = None  # pattern, kind, label

    def give(self, path: str) -> None:
        """Label a new file, directory or link. `path` is real."""
        beside = self._guest.label(str(PurePosixPath(path).parent))
        found = self._guest.stat(path)
        if not beside or found is None:
            return  # not a guest with SELinux
        label = self._look_up(path, found) or beside
        if label != "<<none>>":
            self._guest.set_label(path, label)

    def _look_up(self, path: str, found: FileStat) -> str:
        if self._lines is None:
            self._lines = self._read()
        chosen, started = "", time.monotonic()
        for pattern, kind, label in self._lines:
            if time.monotonic() - started > SECONDS:
                raise StageFailed(
                    "the guest's list of SELinux labels takes too long to look through"
                )
            if kind in ("", found.kind) and _matches(pattern, path):
                if not SPECIAL.search(pattern):
                    return label
                chosen = label
        return chosen

    def _read(self) -> list[tuple[str, str, str]]:
        policy = "targeted"
        for line in self._text(CONFIG).splitlines():
            key, mark, value = line.partition("=")
            if mark and key.strip() == "SELINUXTYPE":
                policy = value.strip()
        lines = []
        for name in LISTS:
            for line in self._text(f"/etc/selinux/{policy}/contexts/files/{name}").splitlines():
                words = line.split()
                if len(words) in (2, 3) and words[0].startswith("/"):
                    kind = KINDS.get(words[1], "other") if len(words) == 3 else ""
                    lines.append((words[0], kind, words[-1]))
        return lines

    def _text(self, path: str) -> str:
        if "/../" in path:
            return ""
        found = self._guest.stat(path)
        if found is None or found.kind != "file":
            return ""
        return self._guest.read(path, LIMIT).decode(errors="replace")


def _matches(pattern: str, path: str) -> bool:
    """file_contexts has PCRE; what Python does not know of it matches nothing. The text before the
    first special character decides nearly always, and costs nothing."""
    special = SPECIAL.search(pattern)
    stem = pattern[: special.start()] if special else pattern
    if special and pattern[special.start()] in "?*{":
        stem = stem[:-1]
    if not special:
        return path == pattern
    if "|" in pattern and "(" not in pattern:
        stem = ""
    if not path.startswith(stem) or _endless(pattern):
        return False
    try:
        return re.fullmatch(pattern, path) is not None
    except (re.error, OverflowError, RecursionError):
        return False


def _endless(pattern: str) -> bool:
    """Whether it could keep the matcher busy for ever."""
    plain = pattern.replace(SUFFIXES, "")
    count = sum(plain.count(mark) for mark in "*+{")
    return count > REPETITIONS or REPEATED_GROUP.search(plain) is not None
