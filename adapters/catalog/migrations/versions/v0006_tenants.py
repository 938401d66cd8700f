"""Tenants: those that subscriptions are in are there already, without a name."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_DEFAULT = "00000000-0000-0000-0000-000000000000"


def upgrade() -> None:
    tenants = op.create_table(
        "tenants",
        sa.Column("tenant_key", sa.String(length=36), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_key", name=op.f("pk_tenants")),
    )
    subscriptions = sa.table("subscriptions", sa.column("document", sa.JSON()))
    documents = op.get_bind().scalars(sa.select(subscriptions.c.document)).all()
    created: dict[str, str] = {}
    for document in sorted(documents, key=lambda item: str(item["created"])):
        created.setdefault(document.get("tenant", _DEFAULT), document["created"])
    created.pop(_DEFAULT, None)
    op.bulk_insert(
        tenants,
        [
            {
                "tenant_key": tenant,
                "document": {"id": tenant, "displayName": tenant, "created": when},
            }
            for tenant, when in created.items()
        ],
    )
