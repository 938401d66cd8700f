"""What was made from versions."""

from dataclasses import dataclass
from datetime import datetime

from pipeline.model.kinds import HyperVGeneration, OsState, OsType
from pipeline.model.names import VersionName

USER_NETWORK, NO_NETWORK, BRIDGE = "user", "none", "bridge:"  # and the bridge's name


@dataclass(frozen=True, slots=True)
class DeployedDisk:
    """`digest` names the base that the disk depends on (or was cloned from); one of a shallow
    version has none, and depends on the version's sources."""

    lun: int | None
    path: str
    format: str
    digest: str


@dataclass(frozen=True, slots=True)
class Making:
    """VMs that are not all in place yet: `request` is the digest of what was asked for, which goes
    on when it is asked again; `owner` is the run that works on it, None when that one gave up."""

    request: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """Disks that were made for a VM from a version; they outlive the version.

    `zone` and `replica` say which of the region's replicas they were made from; `scale_set` names
    the set that the VM belongs to; `deployed_by` the principal that made it, empty for the local
    operator. `image` is the shared name that the version had for it, and is all that it is told.
    `making` is there until all VMs that were asked for with it have their directories.
    """

    name: str
    directory: str
    version: VersionName
    version_uid: str
    region: str
    created: datetime
    disks: tuple[DeployedDisk, ...] = ()
    zone: str = ""
    replica: int = 0
    uuid: str = ""
    mac_address: str = ""
    scale_set: str = ""
    deployed_by: str = ""
    image: str = ""
    making: Making | None = None


@dataclass(frozen=True, slots=True)
class OsProfile:
    """What a generalized image needs to become a machine. `custom_data` is given to cloud-init as
    it is."""

    computer_name: str
    admin_username: str = ""
    ssh_keys: tuple[str, ...] = ()
    custom_data: str = ""


@dataclass(frozen=True, slots=True)
class Forward:
    """A TCP port of this host's loopback address that leads to a port of a VM."""

    host: int
    guest: int


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a VM gets. None is what its image recommends; `network` is USER_NETWORK, NO_NETWORK,
    a bridge of the host, or a network of libvirt's, which is also what an empty one means."""

    memory_mib: int | None = None
    vcpus: int | None = None
    network: str = ""
    forwards: tuple[Forward, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageShape:
    """What images must have in common to take each other's place in a scale set."""

    os_type: OsType
    hyper_v_generation: HyperVGeneration
    os_state: OsState
    luns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ScaleSet:
    """A named group of like VMs. `image` is what new ones are made from, a version or `latest` or a
    channel; `version` is what it last meant. Of the OS profile the computer name is a prefix.
    `created_by` is the principal that made it, empty for the local operator; `owner` is the run
    that scales it just now."""

    name: str
    image: str
    region: str
    directory: str
    created: datetime
    version: VersionName
    shape: ImageShape
    profile: OsProfile | None = None
    created_by: str = ""
    owner: str | None = None
