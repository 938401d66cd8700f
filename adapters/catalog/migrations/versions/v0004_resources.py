"""Disks, snapshots and managed images."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "resources",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subscription_key", sa.String(length=36), nullable=False),
        sa.Column("resource_group_key", sa.String(length=90), nullable=False),
        sa.Column("name_key", sa.String(length=80), nullable=False),
        sa.Column("unique_id", sa.String(length=32), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_resources")),
        sa.UniqueConstraint("unique_id", name=op.f("uq_resources_unique_id")),
        sa.UniqueConstraint(
            "kind",
            "subscription_key",
            "resource_group_key",
            "name_key",
            name=op.f("uq_resources_kind_subscription_key_resource_group_key_name_key"),
        ),
    )
