"""galleria's own files: what is in its zones and other directories is no source by its path.

Rights are on versions, disks and snapshots: who names the file of one would pass by them. What
lies below a disk is read, too: of bases only those that VMs of the caller depend on.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Refused


@dataclass(frozen=True, slots=True)
class OwnPlaces:
    """`places` are directories and files; `in_use` says what may lie below a disk all the same."""

    places: Collection[Path] = ()
    in_use: Callable[[], Collection[Path]] = tuple

    def check(self, path: Path, below: Iterable[Path] = ()) -> None:
        """Raise Refused for a file of galleria's, and for a disk that depends on one that the
        caller's VMs do not."""
        self._refuse(path)
        if owned := [item for item in below if self._within(item)]:
            known = {item.resolve() for item in self.in_use()}
            for item in owned:
                if item.resolve() not in known:
                    self._refuse(item)

    def _refuse(self, path: Path) -> None:
        if self._within(path):
            raise Refused(
                f"the file {str(path)!r} is galleria's own: it is no source",
                hint="name the version, disk, snapshot or VM that it is of; galleria export writes"
                " a version as a file",
            )

    def _within(self, path: Path) -> bool:
        """Whether a path leads to one of the places, by links and mounts too."""
        resolved = path.resolve()
        names = {place.resolve() for place in self.places}
        known = set(_numbers(names))
        return any(
            item in names or not known.isdisjoint(_numbers([item]))
            for item in (resolved, *resolved.parents)
        )


def _numbers(paths: Iterable[Path]) -> Iterator[tuple[int, int]]:
    for path in paths:
        try:
            facts = path.stat()
        except OSError:  # it is not there, or not to be seen
            continue
        yield facts.st_dev, facts.st_ino
