"""The table of disks, snapshots and managed images."""

from sqlalchemy import JSON, Column, Integer, String, Table, UniqueConstraint

from adapters.catalog.tables import metadata

resources = Table(
    "resources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("subscription_key", String(36), nullable=False),
    Column("resource_group_key", String(90), nullable=False),
    Column("name_key", String(80), nullable=False),
    Column("unique_id", String(32), nullable=False, unique=True),
    Column("document", JSON, nullable=False),
    UniqueConstraint("kind", "subscription_key", "resource_group_key", "name_key"),
)
