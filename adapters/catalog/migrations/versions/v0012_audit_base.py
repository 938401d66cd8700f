"""Where the audit record begins: entries up to there may be removed, and no others."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_SAYS = "the audit record is append-only"
_BASE = "COALESCE((SELECT MAX(seq) FROM audit_base), 0)"

_SQLITE = (
    "DROP TRIGGER audit_delete",
    f"CREATE TRIGGER audit_delete BEFORE DELETE ON audit WHEN OLD.seq > {_BASE} "
    f"BEGIN SELECT RAISE(ABORT, '{_SAYS}'); END",
)
_POSTGRESQL = (
    "DROP TRIGGER audit_change ON audit",
    "CREATE TRIGGER audit_change BEFORE UPDATE OR TRUNCATE ON audit "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()",
    "CREATE FUNCTION audit_is_cut_at_its_base() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN IF OLD.seq > {_BASE} THEN RAISE EXCEPTION '{_SAYS}'; END IF; RETURN OLD; END $$",
    "CREATE TRIGGER audit_cut BEFORE DELETE ON audit "
    "FOR EACH ROW EXECUTE FUNCTION audit_is_cut_at_its_base()",
)


def upgrade() -> None:
    op.create_table(
        "audit_base",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_base")),
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)
