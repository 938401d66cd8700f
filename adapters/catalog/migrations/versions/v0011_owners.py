"""Work is owned by runs: the processes that an earlier galleria named own nothing any more."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, keys in (
        ("versions", ("id",)),
        ("resources", ("id",)),
        ("scale_sets", ("name",)),
        ("deployments", ("name", "directory")),
    ):
        columns: list[sa.ColumnClause[Any]] = [sa.column(key) for key in keys]
        document: sa.ColumnClause[Any] = sa.column("document", sa.JSON())
        table = sa.table(name, *columns, document)
        for row in op.get_bind().execute(sa.select(*columns, document)).all():
            *values, found = row
            if (changed := disowned(found)) != found:
                here = sa.and_(*(c == value for c, value in zip(columns, values, strict=True)))
                op.execute(sa.update(table).where(here).values(document=changed))


def disowned(document: dict[str, Any]) -> dict[str, Any]:
    """Without the process that works on it; of a deployment it stands in `making`."""
    kept = {name: value for name, value in document.items() if name != "owner"}
    if isinstance(making := kept.get("making"), dict):
        kept["making"] = disowned(making)
    return kept
