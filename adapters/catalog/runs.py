"""The table of runs, its queries and changes."""

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from adapters.catalog.presence import presence_by_file, presence_by_server
from adapters.catalog.tables import metadata
from pipeline.gallery.documents import decode, encode
from pipeline.model.runs import Presence, Run
from pipeline.ports.run_catalog import RunReader, RunWriter

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("ended", Boolean, nullable=False, index=True),
    Column("document", JSON, nullable=False),
)


class RunQueries:
    _connection: Connection

    def now(self) -> datetime:
        if self._connection.dialect.name == "sqlite":  # its clock is this host's, as is its file
            return datetime.now(UTC)
        found: datetime | None = self._connection.scalar(select(func.clock_timestamp()))
        assert found is not None  # noqa: S101 - a function of no rows has one value
        return found.astimezone(UTC)

    def presence(self, id: str) -> Presence:
        if self._connection.dialect.name == "sqlite":
            return presence_by_file(Path(str(self._connection.engine.url.database)), id)
        return presence_by_server(self._connection, id)

    def run(self, id: str) -> Run | None:
        document = self._connection.scalar(select(runs.c.document).where(runs.c.id == id))
        return None if document is None else decode(Run, document)

    def runs(self, *, ended: bool = False) -> list[Run]:
        query = select(runs.c.document)
        if not ended:
            query = query.where(runs.c.ended == False)  # noqa: E712 - SQL's, not Python's
        found = [decode(Run, document) for document in self._connection.scalars(query)]
        return sorted(found, key=lambda run: run.started, reverse=True)


class RunChanges(RunQueries):
    def put_run(self, run: Run) -> None:
        values = {"ended": run.ended, "document": encode(run)}
        changed = self._connection.execute(update(runs).where(runs.c.id == run.id).values(**values))
        if changed.rowcount == 0:
            self._connection.execute(insert(runs).values(id=run.id, **values))

    def delete_run(self, id: str) -> None:
        self._connection.execute(delete(runs).where(runs.c.id == id))


_reader: type[RunReader] = RunQueries
_writer: type[RunWriter] = RunChanges
