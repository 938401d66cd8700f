"""What runs need of a catalog: a part of `pipeline.ports.catalog`."""

from datetime import datetime
from typing import Protocol

from pipeline.model.runs import Presence, Run


class RunReader(Protocol):
    """Lists are newest first."""

    def now(self) -> datetime:
        """The time by the catalog's own clock, which all hosts go by."""
        ...

    def presence(self, id: str) -> Presence:
        """What can be seen of the process that attends a run (`Catalog.attend`)."""
        ...

    def run(self, id: str) -> Run | None: ...
    def runs(self, *, ended: bool = False) -> list[Run]:
        """Those that wait or run, or (`ended`) all."""
        ...


class RunWriter(RunReader, Protocol):
    def put_run(self, run: Run) -> None: ...
    def delete_run(self, id: str) -> None: ...
