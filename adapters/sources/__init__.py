"""Every kind of source, opened (the `Sources` port): one module a kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InvalidParameter
from pipeline.sources import (
    AnySource,
    DiskSource,
    Sources,
    Supply,
    disk_identity,
)


class HostSources:
    """Sources that this host can reach."""

    def identity(self, source: AnySource) -> tuple[object, ...]:
        return disk_identity(_disk(source))

    @contextmanager
    def open(self, source: AnySource, work: Path) -> Iterator[Supply]:
        yield Supply((_disk(source),))


def _disk(source: AnySource) -> DiskSource:
    if isinstance(source, DiskSource):
        return source
    raise InvalidParameter(f"this installation opens no {type(source).__name__}")


_: type[Sources] = HostSources
