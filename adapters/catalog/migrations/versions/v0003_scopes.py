"""Subscriptions and resource groups, channels; regions and soft deletion as columns."""

import sqlalchemy as sa
from alembic import op

from pipeline.model.spelling import region_key

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Columns are added, not tables copied: in SQLite dropping a table would cascade to its children.
LOCATED = ("galleries", "definitions", "versions")


def upgrade() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("subscription_key", sa.String(length=36), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_key", name=op.f("pk_subscriptions")),
    )
    op.create_table(
        "resource_groups",
        sa.Column("subscription_key", sa.String(length=36), nullable=False),
        sa.Column("name_key", sa.String(length=90), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_key", "name_key", name=op.f("pk_resource_groups")),
    )
    op.create_table(
        "channels",
        sa.Column("definition_id", sa.Integer(), nullable=False),
        sa.Column("name_key", sa.String(length=64), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["definition_id"],
            ["definitions.id"],
            name=op.f("fk_channels_definition_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("definition_id", "name_key", name=op.f("pk_channels")),
    )
    for table in LOCATED:
        region = sa.Column("region_key", sa.String(64), nullable=False, server_default="")
        op.add_column(table, region)
    op.add_column(
        "versions",
        sa.Column("soft_deleted", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    for table in LOCATED:
        _fill(table)


def _fill(name: str) -> None:
    table = sa.table(
        name, sa.column("id"), sa.column("region_key"), sa.column("document", sa.JSON())
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(table.c.id, table.c.document)).all():
        key = region_key(row.document["location"])
        change = sa.update(table).where(table.c.id == row.id).values(region_key=key)
        connection.execute(change)
