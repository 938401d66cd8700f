"""The catalog's tables. What is looked up, sorted or counted is a column; the rest of a resource is
its document (`pipeline.gallery.documents`), so that a new property needs no migration.

`*_key` columns are the names without case. `migrations/` makes these tables; a test compares.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

SCHEMA = "0013"  # the newest migration

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

tenants = Table(
    "tenants",
    metadata,
    Column("tenant_key", String(36), primary_key=True),
    Column("document", JSON, nullable=False),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("subscription_key", String(36), primary_key=True),
    Column("document", JSON, nullable=False),
)

resource_groups = Table(
    "resource_groups",
    metadata,
    Column("subscription_key", String(36), primary_key=True),
    Column("name_key", String(90), primary_key=True),
    Column("document", JSON, nullable=False),
)

galleries = Table(
    "galleries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("subscription_key", String(36), nullable=False),
    Column("resource_group_key", String(90), nullable=False),
    Column("name_key", String(80), nullable=False),
    Column("document", JSON, nullable=False),
    Column("region_key", String(64), nullable=False, server_default=""),
    UniqueConstraint("subscription_key", "name_key"),
)

definitions = Table(
    "definitions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("gallery_id", ForeignKey("galleries.id"), nullable=False),
    Column("name_key", String(80), nullable=False),
    Column("publisher_key", String(128), nullable=False),
    Column("offer_key", String(64), nullable=False),
    Column("sku_key", String(64), nullable=False),
    Column("document", JSON, nullable=False),
    Column("region_key", String(64), nullable=False, server_default=""),
    UniqueConstraint("gallery_id", "name_key"),
    UniqueConstraint("gallery_id", "publisher_key", "offer_key", "sku_key"),
)

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("definition_id", ForeignKey("definitions.id"), nullable=False),
    Column("major", Integer, nullable=False),
    Column("minor", Integer, nullable=False),
    Column("patch", Integer, nullable=False),
    Column("uid", String(32), nullable=False, unique=True),
    Column("attempt", Integer, nullable=False),
    Column("provisioning_state", String(16), nullable=False),
    Column("document", JSON, nullable=False),  # without target regions, status and disks
    Column("region_key", String(64), nullable=False, server_default=""),
    Column("soft_deleted", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("definition_id", "major", "minor", "patch"),
)

channels = Table(
    "channels",
    metadata,
    Column("definition_id", ForeignKey("definitions.id", ondelete="CASCADE"), primary_key=True),
    Column("name_key", String(64), primary_key=True),
    Column("document", JSON, nullable=False),
)

version_regions = Table(
    "version_regions",
    metadata,
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Column("region_key", String(64), primary_key=True),
    Column("position", Integer, nullable=False),  # as the user gave them
    Column("state", String(16), nullable=False),
    Column("target", JSON, nullable=False),
    Column("status", JSON, nullable=False),
)

version_disks = Table(
    "version_disks",
    metadata,
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("digest", String(128), nullable=False),
    Column("virtual_size", BigInteger, nullable=False),
    Column("document", JSON, nullable=False),
    Index(None, "digest"),  # who uses a base
)

version_reports = Table(
    "version_reports",
    metadata,
    Column("version_id", ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    Column("document", JSON, nullable=False),
)

# no foreign key: deployed disks outlive their version
deployments = Table(
    "deployments",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("directory", Text, primary_key=True),
    Column("version_uid", String(32), nullable=False, index=True),
    Column("document", JSON, nullable=False),
)

# one row, made with the table: what zones name as their owner
identity = Table(
    "identity",
    metadata,
    Column("id", String(32), primary_key=True),
)

zones = Table(
    "zones",
    metadata,
    Column("directory", Text, primary_key=True),
    Column("zone_id", String(32), nullable=False),
    Column("file_system", Text, nullable=False, server_default=""),
)

scrubs = Table(
    "scrubs",
    metadata,
    Column("zone", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("document", JSON, nullable=False),
)

scale_sets = Table(
    "scale_sets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("document", JSON, nullable=False),
)
