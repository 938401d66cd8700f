"""What reading the zones again has shown, and the file system that each zone was on."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scrubs",
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("zone", "subject", name=op.f("pk_scrubs")),
    )
    op.add_column("zones", sa.Column("file_system", sa.Text(), nullable=False, server_default=""))
