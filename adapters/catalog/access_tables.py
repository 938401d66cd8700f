"""The tables of access control and of the audit record."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from adapters.catalog.tables import metadata

principals = Table(
    "principals",
    metadata,
    Column("name_key", String(256), primary_key=True),
    Column("document", JSON, nullable=False),
)

# No foreign key: the local operator and principals of elsewhere may be named, and scopes are ids.
role_assignments = Table(
    "role_assignments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("principal_key", String(256), nullable=False),
    Column("role", String(64), nullable=False),
    Column("scope_key", String(512), nullable=False),
    Column("document", JSON, nullable=False),
    UniqueConstraint("principal_key", "role", "scope_key"),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("principal_key", ForeignKey("principals.name_key", ondelete="CASCADE"), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("document", JSON, nullable=False),
)

# What was given for a credential; it goes with it.
tokens = Table(
    "tokens",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("credential", ForeignKey("credentials.id", ondelete="CASCADE"), nullable=False),
    Column("expires", Integer, nullable=False),  # seconds since 1970
    Column("document", JSON, nullable=False),
)

gallery_shares = Table(
    "gallery_shares",
    metadata,
    Column("gallery_id", ForeignKey("galleries.id", ondelete="CASCADE"), primary_key=True),
    Column("public_name_key", String(96), nullable=True, unique=True),
    Column("document", JSON, nullable=False),
)

# Triggers refuse to change its rows, and to remove those after `audit_base` (migration 0012).
audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("entry", Text, nullable=False),  # the canonical JSON text, as it was hashed
    Column("hash", String(64), nullable=False),
)

# One row: where the chain ends. That the last entries are gone shows here.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

# One row, if there is any: where the chain begins, as entries up to there were removed.
audit_base = Table(
    "audit_base",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)
