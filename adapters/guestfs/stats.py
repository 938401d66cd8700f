"""What lstat(2) said of guest paths, until something about them changes.

Each call is a round trip of about 2 ms under software emulation, and two of three asked for what
had been asked before: operations look at the same few files and at the directories above them.
"""

from pathlib import PurePosixPath

from adapters.guestfs.process import CallFailed, Helper
from adapters.guestfs.walk import Stat


class Stats:
    """Paths are real ones: no link is in their middle. Nothing but galleria changes the guest, so
    whoever changes something says so, and everything else holds."""

    def __init__(self, helper: Helper) -> None:
        self._helper = helper
        self._known: dict[str, Stat | None] = {}
        self._inside: dict[str, set[str]] = {}  # directory -> what of it, or below it, is known

    def get(self, real: str) -> Stat | None:
        """None: there is nothing of that name."""
        if real not in self._known:
            self._known[real] = self._ask(real)
            path, parent = real, str(PurePosixPath(real).parent)
            while path != parent and path not in self._inside.setdefault(parent, set()):
                self._inside[parent].add(path)
                path, parent = parent, str(PurePosixPath(parent).parent)
        return self._known[real]

    def changed(self, real: str) -> None:
        """Something was made, removed or written at `real`: that, the directory that it is in, and
        what is below it are not as they were."""
        self._known.pop(real, None)
        self._known.pop(str(PurePosixPath(real).parent), None)
        below = [real]
        while below:
            for path in self._inside.pop(below.pop(), ()):
                self._known.pop(path, None)
                below.append(path)

    def clear(self) -> None:
        self._known.clear()
        self._inside.clear()

    def _ask(self, real: str) -> Stat | None:
        try:
            found: Stat = self._helper.call("lstatns", real)
        except CallFailed as error:
            if error.absent:
                return None
            raise
        return found
