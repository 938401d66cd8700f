"""What was made from versions."""

from dataclasses import dataclass
from datetime import datetime

from pipeline.gallery.names import VersionName


@dataclass(frozen=True, slots=True)
class DeployedDisk:
    """`digest` names the base that the disk leans on (or was cloned from)."""

    lun: int | None
    path: str
    format: str
    digest: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """Disks that were made for a VM from a version; they outlive the version."""

    name: str
    directory: str
    version: VersionName
    version_uid: str
    region: str
    created: datetime
    disks: tuple[DeployedDisk, ...] = ()
