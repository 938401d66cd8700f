"""What may be created, changed, deleted and used. Pure: each function returns, or refuses with
Azure's code and the core of its message (troubleshooting guide of Azure Compute Gallery)."""

from pipeline.gallery.rules.agreement import SourceFacts, agreement
from pipeline.gallery.rules.definitions import definition_put, recommended
from pipeline.gallery.rules.deletion import (
    blocked,
    in_the_bin,
    not_promoted,
    policy_on,
    soft_deletion,
    to_the_bin,
    version_deletable,
)
from pipeline.gallery.rules.galleries import gallery_put, soft_delete_policy
from pipeline.gallery.rules.limits import Limits, quota
from pipeline.gallery.rules.regions import MAX_REPLICAS, known_region, replica_count, targets
from pipeline.gallery.rules.resources import deletable, end_of_life, existing, parent
from pipeline.gallery.rules.updates import VersionChange, changed_properties, changed_targets
from pipeline.gallery.rules.use import cautions, disk_of, no_channel, no_latest, not_in_region
from pipeline.gallery.rules.versions import (
    GIB,
    disk_limit,
    has_source,
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
    "cautions",
    "changed_properties",
    "changed_targets",
    "definition_put",
    "deletable",
    "disk_limit",
    "disk_of",
    "end_of_life",
    "existing",
    "gallery_put",
    "has_source",
    "in_the_bin",
    "known_region",
    "no_channel",
    "no_latest",
    "not_busy",
    "not_in_region",
    "not_promoted",
    "number_free",
    "parent",
    "policy_on",
    "quota",
    "recommended",
    "replica_count",
    "replication_put",
    "soft_delete_policy",
    "soft_deletion",
    "targets",
    "to_the_bin",
    "version_deletable",
    "version_request",
]
