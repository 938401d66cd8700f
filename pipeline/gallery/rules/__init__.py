"""What may be created, changed, deleted and used. Pure: each function returns, or refuses with
Azure's code and the core of its message (troubleshooting guide of Azure Compute Gallery)."""

from pipeline.gallery.rules.agreement import SourceFacts, agreement
from pipeline.gallery.rules.definitions import definition_put, recommended
from pipeline.gallery.rules.deletion import (
    blocked,
    deleted_already,
    in_the_bin,
    not_deleted,
    not_promoted,
    soft_deleted,
    soft_deletion,
    to_the_bin,
    version_deletable,
)
from pipeline.gallery.rules.encryption import region_encryption
from pipeline.gallery.rules.galleries import gallery_put, gallery_update, soft_delete_policy
from pipeline.gallery.rules.images import image_disk_limit, image_storage
from pipeline.gallery.rules.limits import Limits, quota
from pipeline.gallery.rules.regions import (
    MAX_REPLICAS,
    known_region,
    offered,
    replica_count,
    source_region_targeted,
    storage_type,
    targets,
)
from pipeline.gallery.rules.resources import deletable, end_of_life, existing, parent
from pipeline.gallery.rules.scopes import (
    known_resource_group,
    known_subscription,
    known_tenant,
    resource_group_put,
    subscription_put,
)
from pipeline.gallery.rules.signatures import secure_boot
from pipeline.gallery.rules.sources import (
    caching,
    distinct_luns,
    distinct_sources,
    one_kind_of_source,
    source_missing,
    source_throttled,
    wrong_source,
)
from pipeline.gallery.rules.updates import (
    VersionChange,
    changed_properties,
    changed_targets,
    kept,
)
from pipeline.gallery.rules.use import (
    cautions,
    no_channel,
    no_disk,
    no_latest,
    not_in_region,
    not_out_of_use,
    promotable,
)
from pipeline.gallery.rules.versions import (
    GIB,
    disk_limit,
    has_source,
    in_use,
    not_busy,
    number_free,
    replication_put,
    version_request,
)

__all__ = [
    "GIB",
    "MAX_REPLICAS",
    "Limits",
    "SourceFacts",
    "VersionChange",
    "agreement",
    "blocked",
    "caching",
    "cautions",
    "changed_properties",
    "changed_targets",
    "definition_put",
    "deletable",
    "deleted_already",
    "disk_limit",
    "distinct_luns",
    "distinct_sources",
    "end_of_life",
    "existing",
    "gallery_put",
    "gallery_update",
    "has_source",
    "image_disk_limit",
    "image_storage",
    "in_the_bin",
    "in_use",
    "kept",
    "known_region",
    "known_resource_group",
    "known_subscription",
    "known_tenant",
    "no_channel",
    "no_disk",
    "no_latest",
    "not_busy",
    "not_deleted",
    "not_in_region",
    "not_out_of_use",
    "not_promoted",
    "number_free",
    "offered",
    "one_kind_of_source",
    "parent",
    "promotable",
    "quota",
    "recommended",
    "region_encryption",
    "replica_count",
    "replication_put",
    "resource_group_put",
    "secure_boot",
    "soft_delete_policy",
    "soft_deleted",
    "soft_deletion",
    "source_missing",
    "source_region_targeted",
    "source_throttled",
    "storage_type",
    "subscription_put",
    "targets",
    "to_the_bin",
    "version_deletable",
    "version_request",
    "wrong_source",
]
