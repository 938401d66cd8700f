"""The work directory: a private scratch directory for each run, swept of what dead runs left."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.filesystem import durable
from adapters.filesystem.calls import free_bytes
from pipeline.ports import Work


class WorkDirectory:
    """Scratch below one directory, that only galleria uses. Safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def directory(self) -> Iterator[Path]:
        durable.sweep(self._root)
        with durable.Staging(self._root) as staging:
            yield staging.path

    def free_bytes(self) -> int:
        self._root.mkdir(parents=True, exist_ok=True)
        return free_bytes(self._root)


_: type[Work] = WorkDirectory
