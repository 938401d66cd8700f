"""The identity of the catalog, and the zones that it has seen in directories."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    identity = op.create_table(
        "identity",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity")),
    )
    op.bulk_insert(identity, [{"id": uuid4().hex}])
    op.create_table(
        "zones",
        sa.Column("directory", sa.Text(), nullable=False),
        sa.Column("zone_id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("directory", name=op.f("pk_zones")),
    )
