"""What each command prints with --json, as types. `galleria schema` prints the JSON schemas that
are made of them (scripts/docs), and the tests hold every output against its own.

Members that may be empty are left out of a resource; `schemaVersion` is in every document.
"""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Required, TypedDict

from adapters.doctor import Check
from pipeline.gallery.validations import ValidationsProfile
from pipeline.jobs.batch import Result
from pipeline.jobs.diff import Difference
from pipeline.jobs.plan import DiskPreview, RegionPreview
from pipeline.model import (
    Channel,
    Deployment,
    Gallery,
    HostCaching,
    ImageDefinition,
    ImageVersion,
    OsState,
    OsType,
    ProvisioningState,
    ResourceGroup,
    ScaleSet,
    StorageAccountType,
    Subscription,
    Tenant,
)
from pipeline.model.access import Assignment, Principal
from pipeline.model.garbage import Garbage
from pipeline.model.resources import Disk, DiskState, ManagedImage, Snapshot
from pipeline.model.runs import Run
from pipeline.model.scrubs import ScrubRecord
from pipeline.model.sources import ArchiveForm
from pipeline.model.versions import RegionResult
from pipeline.ports import GuestFacts, ImageFacts, ImageFormat
from pipeline.ports.boxes import Provider
from pipeline.sources.partitions import PartitionTable


class Also(NamedTuple):
    """Members that a document has beside those of the type that it annotates."""

    members: type


class MayLack(NamedTuple):
    """Required members of a type that a document may leave out."""

    names: tuple[str, ...]


# --- parts ----------------------------------------------------------------------------------------


class Settled(TypedDict):
    provisioningState: ProvisioningState


SettledGallery = Annotated[Gallery, Also(Settled)]
SettledDefinition = Annotated[ImageDefinition, Also(Settled)]
DeploymentDocument = Annotated[Deployment, MayLack(("version", "versionUid"))]


class ErrorDocument(TypedDict):
    """`message` is Azure's, where Azure has one; `plain` is what people are told."""

    code: str
    message: str
    plain: str
    hint: str


class ReplicaDiskDocument(TypedDict):
    lun: int | None
    path: Path
    format: ImageFormat
    method: str
    digest: str
    virtualSize: int


class ReplicaDocument(TypedDict):
    index: int
    zone: str
    disks: tuple[ReplicaDiskDocument, ...]


class StageDocument(TypedDict):
    name: str
    wallSeconds: float
    cpuSeconds: float
    bytesRead: int
    bytesWritten: int
    bytesCloned: int
    bytesSkipped: int


class Stats(TypedDict):
    wallSeconds: float
    cpuSeconds: float
    stages: tuple[StageDocument, ...]


class Change(TypedDict):
    action: str
    path: str


class OperationResult(TypedDict):
    name: str
    result: str
    changes: tuple[Change, ...]


class GuestDocument(TypedDict):
    osType: str
    distribution: str
    version: str
    productName: str
    architecture: str


class EvidenceDocument(TypedDict):
    verdict: str
    reasons: tuple[str, ...]
    unread: NotRequired[tuple[str, ...]]
    forced: NotRequired[bool]


class FindingDocument(TypedDict):
    result: Literal["ok", "info", "unknown", "warn", "fail"]
    check: str
    severity: str
    holds: bool | None
    found: str
    fix: str


Validation = TypedDict("Validation", {"for": str, "findings": tuple[FindingDocument, ...]})


class Boot(TypedDict):
    by: str
    seconds: int
    hostname: str
    firstBoot: bool
    hostKeys: tuple[str, ...]
    failed: tuple[str, ...]


class Report(TypedDict, total=False):
    """What was found and done in a guest; without its inventory, which has commands of its own."""

    version: int
    generalized: bool
    profile: str
    operations: tuple[OperationResult, ...]
    freeSpace: tuple[str, ...]
    notes: tuple[str, ...]
    windows: dict[str, Any]
    guest: GuestDocument
    check: EvidenceDocument
    validation: Validation
    boot: Boot
    copiedFrom: str


# What is data in the records, and has a form all the same.
MEMBERS = {
    (RegionResult, "replicas"): tuple[ReplicaDocument, ...],
    (ImageVersion, "stats"): Stats | dict[str, Any],
    (ManagedImage, "report"): Report,
}


class LineageStep(TypedDict):
    kind: str
    id: str
    lun: int | None
    digest: str | None
    present: bool | None
    next: tuple["LineageStep", ...]


class LineageDocument(TypedDict):
    lun: int | None
    sources: tuple[LineageStep, ...]
    copies: tuple[LineageStep, ...]


class ImageDiskProfile(TypedDict):
    diskSizeGB: int
    storageAccountType: StorageAccountType
    caching: NotRequired[HostCaching]


class ImageOsDisk(TypedDict, total=False):
    osState: OsState
    osType: OsType
    diskSizeGB: int
    storageAccountType: StorageAccountType
    caching: HostCaching


class ImageDataDisk(ImageDiskProfile):
    lun: int


class StorageProfile(TypedDict):
    osDisk: ImageOsDisk
    dataDisks: tuple[ImageDataDisk, ...]
    zoneResilient: bool


class ResourceMembers(TypedDict):
    name: str
    diskSizeBytes: int
    lineage: NotRequired[tuple[LineageDocument, ...]]


class DiskMembers(ResourceMembers):
    diskState: NotRequired[DiskState]


class ImageMembers(ResourceMembers):
    storageProfile: StorageProfile


DiskDocument = Annotated[Disk, Also(DiskMembers)]
SnapshotDocument = Annotated[Snapshot, Also(ResourceMembers)]
ImageDocument = Annotated[ManagedImage, Also(ImageMembers)]


class PlanDocument(TypedDict):
    version: str
    action: Literal["publish", "continue", "nothing"]
    generalized: bool
    operations: tuple[str, ...]
    disks: tuple[DiskPreview, ...]
    regions: tuple[RegionPreview, ...]


class Deleted(TypedDict):
    deleted: str


class CascadeDocument(TypedDict):
    gallery: str | None
    definitions: tuple[str, ...]
    versions: tuple[str, ...]
    channels: tuple[str, ...]


class DeletedOrCascade(TypedDict, total=False):
    deleted: str | CascadeDocument
    plan: CascadeDocument


class Written(TypedDict):
    file: Path
    format: ImageFormat
    fileSize: int


class OneGallery(TypedDict):
    gallery: SettledGallery


class OneDefinition(TypedDict):
    definition: SettledDefinition


class OneVersion(TypedDict):
    version: ImageVersion


class OneTenant(TypedDict):
    tenant: Tenant


class OneSubscription(TypedDict):
    subscription: Subscription


# --- the documents --------------------------------------------------------------------------------


class InitOutput(TypedDict):
    file: Path
    config: dict[str, Any]
    leftOut: dict[str, tuple[str, ...]]


class ConfigOutput(TypedDict):
    config: dict[str, Any]
    origins: dict[str, str]


class DoctorOutput(TypedDict):
    works: bool
    checks: tuple[Check, ...]


class GuideHead(TypedDict):
    topic: str
    title: str
    summary: str


class GuideOutput(TypedDict, total=False):
    guides: tuple[dict[str, str], ...]
    guide: dict[str, str]
    pages: tuple[Path, ...]


class GalleryIdentifier(TypedDict):
    uniqueName: str


class GalleryShown(OneGallery):
    identifier: GalleryIdentifier
    definitions: tuple[SettledDefinition, ...]


class Galleries(TypedDict):
    galleries: tuple[SettledGallery, ...]


class DefinitionShown(OneDefinition):
    channels: tuple[Channel, ...]
    versionCount: int


class Definitions(TypedDict):
    definitions: tuple[SettledDefinition, ...]


class MachineLayer(TypedDict):
    file: Path
    format: ImageFormat | None


class MachineDisk(TypedDict):
    lun: int | None
    layers: tuple[MachineLayer, ...]


class MachineDocument(TypedDict):
    name: str
    hyperVGeneration: str
    architecture: str | None
    diskControllerType: str
    osType: str | None
    nvram: Path | None
    running: bool
    disks: tuple[MachineDisk, ...]


MachineFound = TypedDict(
    "MachineFound", {"from": str, "vm": NotRequired[MachineDocument], "error": NotRequired[str]}
)


class Machines(TypedDict):
    vms: tuple[MachineFound, ...]


class OneMachine(TypedDict):
    vm: MachineDocument


class PublishOutput(TypedDict, total=False):
    """`log` of what goes on in the background; report and plan of a dry run."""

    version: ImageVersion
    seconds: float
    log: Path
    dryRun: bool
    report: Report | None
    plan: PlanDocument


class BuildError(ErrorDocument):
    exitStatus: int


class Built(TypedDict):
    """What came of one build."""

    name: str
    spec: str
    line: int
    result: Result
    published: bool
    seconds: float
    attempts: int
    version: NotRequired[ImageVersion]
    error: NotRequired[BuildError]
    log: NotRequired[Path]


class BuildOutput(TypedDict):
    """`error` is that of the first build that failed."""

    versions: tuple[Built, ...]
    error: NotRequired[ErrorDocument]


class BuildPlan(TypedDict, total=False):
    """A plan, or why there is none. `source`: a version that another build makes first."""

    name: Required[str]
    spec: Required[str]
    line: Required[int]
    version: str
    action: Literal["publish", "continue", "nothing"]
    generalized: bool
    operations: tuple[str, ...]
    disks: tuple[DiskPreview, ...]
    regions: tuple[RegionPreview, ...]
    source: str
    error: BuildError


class Plans(TypedDict):
    plans: tuple[BuildPlan, ...]
    error: NotRequired[ErrorDocument]


class Specs(TypedDict):
    specs: tuple[dict[str, Any], ...]


class SpecSchema(TypedDict):
    schema: dict[str, Any]


class Latest(TypedDict):
    isLatest: bool
    degradedRegions: NotRequired[tuple[str, ...]]


class SharedIdentity(TypedDict):
    uniqueId: str


class SharedDisk(TypedDict):
    lun: int | None
    diskSizeBytes: int
    hostCaching: HostCaching | None


class SharedVersion(TypedDict):
    name: str
    uniqueId: str
    publishedDate: date | None
    endOfLifeDate: date | None
    excludeFromLatest: bool
    regions: tuple[str, ...]
    disks: tuple[SharedDisk, ...]


SharedDefinition = Annotated[ImageDefinition, Also(SharedIdentity), MayLack(("created",))]


class ListOutput(TypedDict, total=False):
    """Of a shared gallery its definitions, of a shared definition its versions, as others may see
    them."""

    versions: tuple[Annotated[ImageVersion, Also(Latest)] | SharedVersion, ...]
    total: int
    definitions: tuple[SharedDefinition, ...]


class ExtendedLocation(TypedDict):
    name: str
    type: Literal["EdgeZone"]


class TargetExtendedLocation(TypedDict):
    name: str
    extendedLocation: ExtendedLocation
    extendedLocationReplicaCount: int
    storageAccountType: StorageAccountType | None


class ShowOutput(TypedDict):
    """Of a shared version nothing but what others may see."""

    version: ImageVersion | SharedVersion
    definition: NotRequired[SettledDefinition | SharedDefinition]
    aggregatedState: NotRequired[str]
    interrupted: NotRequired[bool]
    channels: NotRequired[tuple[str, ...]]
    cautions: NotRequired[tuple[str, ...]]
    degraded: NotRequired[tuple[ScrubRecord, ...]]
    allocatedBytes: NotRequired[dict[str, int]]
    deployments: NotRequired[tuple[Deployment, ...]]
    sourceChanges: NotRequired[dict[str, tuple[str, ...]]]
    targetExtendedLocations: NotRequired[tuple[TargetExtendedLocation, ...]]
    validationsProfile: NotRequired[ValidationsProfile]
    generalizeReport: NotRequired[Report | None]
    lineage: NotRequired[tuple[LineageDocument, ...]]


class VersionDeleted(Deleted):
    softDeleted: ImageVersion | None


class Removed(TypedDict):
    removed: tuple[str, ...]


class PromoteOutput(TypedDict, total=False):
    channel: Channel
    removed: str


class RetentionOutput(TypedDict):
    dryRun: bool
    deleted: tuple[str, ...]
    purged: tuple[str, ...]
    kept: dict[str, str]


DiffOutput = TypedDict("DiffOutput", {"from": str, "to": str, "difference": Difference})


class BootOutput(TypedDict):
    version: str
    boot: Boot
    console: Path


class DeployOutput(TypedDict):
    deployments: tuple[DeploymentDocument, ...]
    deployment: NotRequired[DeploymentDocument]


class Deployments(TypedDict):
    deployments: tuple[DeploymentDocument, ...]


class Released(TypedDict):
    released: tuple[DeploymentDocument, ...]


class Capacity(TypedDict):
    capacity: int


ScaleSetDocument = Annotated[ScaleSet, Also(Capacity)]


class ScaleSetOutput(TypedDict):
    scaleSet: ScaleSetDocument
    deployments: tuple[DeploymentDocument, ...]


class ScaleSets(TypedDict):
    scaleSets: tuple[ScaleSetDocument, ...]


class RegionCostDocument(TypedDict):
    region: str
    versions: int
    replicas: int
    storedLogicalBytes: int
    storedRealBytes: int
    savedBytes: int
    sentLogicalBytes: int
    sentRealBytes: int


class CostOutput(TypedDict):
    gallery: str
    regions: tuple[RegionCostDocument, ...]


class BadRange(TypedDict):
    start: int
    length: int


class VerdictDocument(TypedDict):
    sound: bool
    region: str
    subject: str
    path: Path
    digest: str
    bad: tuple[BadRange, ...]
    problem: str


class VerifyOutput(TypedDict):
    version: str
    sound: bool
    verdicts: tuple[VerdictDocument, ...]
    missingRegions: tuple[str, ...]


class VerifyResourceOutput(TypedDict):
    resource: str
    sound: bool
    verdicts: tuple[VerdictDocument, ...]
    missingRegions: tuple[str, ...]


class RangeDocument(TypedDict):
    start: int
    length: int


class FindingOfScrub(TypedDict):
    """`lost` are ranges that no copy has."""

    region: str
    zone: Path
    subject: str
    path: Path
    digest: str
    problem: str
    bad: tuple[RangeDocument, ...]
    versions: tuple[str, ...]
    machines: tuple[str, ...]
    repaired: bool
    notRepaired: str
    lost: tuple[RangeDocument, ...]


class UnusableZoneDocument(TypedDict):
    zone: str
    problem: str


class ScrubOutput(TypedDict):
    sound: bool
    basesRead: int
    basesSkipped: int
    bytesRead: int
    unusableZones: tuple[UnusableZoneDocument, ...]
    findings: tuple[FindingOfScrub, ...]


class CatalogsOutput(TypedDict):
    catalogs: tuple[Path, ...]


class ListenOutput(TypedDict):
    listen: str


class ExportOutput(TypedDict):
    file: Path
    format: ImageFormat | Literal["box"]
    fileSize: int
    version: str
    lun: int | None
    provider: Provider | None


class SharingGroup(TypedDict):
    type: Literal["Subscriptions", "AADTenants"]
    ids: tuple[str, ...]


class CommunityInfo(TypedDict):
    publisherUri: str
    publisherContact: str
    eula: str
    publicNamePrefix: str
    communityGalleryEnabled: bool
    publicNames: tuple[str, ...]


class SharingProfileShown(TypedDict):
    permissions: str
    groups: tuple[SharingGroup, ...]
    communityGalleryInfo: NotRequired[CommunityInfo]


class UniqueId(TypedDict, total=False):
    uniqueId: str


class SharingStatus(TypedDict):
    aggregatedState: str


class ShareOutput(TypedDict):
    gallery: str
    sharingProfile: SharingProfileShown
    identifier: UniqueId
    sharingStatus: NotRequired[SharingStatus]


class CommunityMetadata(TypedDict):
    publisherUri: str
    publisherContact: str
    eula: str
    publicNames: tuple[str, ...]


class SharedGallery(TypedDict):
    name: str
    location: str
    uniqueId: str
    communityMetadata: NotRequired[CommunityMetadata]


class SharedGalleries(TypedDict):
    galleries: tuple[SharedGallery, ...]


class CommunityGalleries(SharedGalleries):
    nextMarker: NotRequired[str | None]


class OnePrincipal(TypedDict):
    principal: Principal


class Principals(TypedDict):
    principals: tuple[Principal, ...]


class CredentialShown(TypedDict):
    keyId: str
    displayName: str
    startDateTime: datetime
    endDateTime: datetime


class NewCredential(TypedDict):
    appId: str
    password: str
    tenant: str
    credential: CredentialShown


class Credentials(TypedDict):
    credentials: tuple[CredentialShown, ...]


class Serving(TypedDict):
    url: str
    authority: NotRequired[Path | None]


class OneAssignment(TypedDict):
    roleAssignment: Assignment


class Assignments(TypedDict):
    roleAssignments: tuple[Assignment, ...]


class RemovedAssignment(TypedDict):
    removed: Assignment


class RoleDefinition(TypedDict):
    roleName: str
    actions: tuple[str, ...]
    notActions: tuple[str, ...]


class RoleDefinitions(TypedDict):
    roleDefinitions: tuple[RoleDefinition, ...]


class AuditEntry(TypedDict):
    seq: int
    time: str
    actor: str
    operator: str
    request: str
    action: str
    object: str
    allowed: bool
    details: str
    address: NotRequired[str]
    hash: str


class AuditOutput(TypedDict):
    entries: tuple[AuditEntry, ...]


class AuditHead(TypedDict):
    entries: int
    head: str


class CatalogBackup(TypedDict):
    file: Path
    fileSize: int


class FreedDocument(TypedDict):
    kind: Garbage
    name: str
    allocatedBytes: int


class KeptDocument(TypedDict):
    kind: Garbage
    name: str
    reason: str


class CollectedDocument(TypedDict):
    place: str
    region: str | None
    freedBytes: int
    freed: tuple[FreedDocument, ...]
    kept: tuple[KeptDocument, ...]


class LabelDocument(TypedDict):
    name: str
    value: str


class SampleDocument(TypedDict):
    labels: tuple[LabelDocument, ...]
    value: float


class MetricDocument(TypedDict):
    name: str
    help: str
    samples: tuple[SampleDocument, ...]


class MetricsOutput(TypedDict):
    metrics: tuple[MetricDocument, ...]
    file: Path | None


class GarbageOutput(TypedDict):
    dryRun: bool
    freedBytes: int
    places: tuple[CollectedDocument, ...]


class ZoneRead(TypedDict):
    region: str
    zone: Path


class RebuiltCount(TypedDict):
    kind: str
    count: int


class CatalogRebuilt(TypedDict):
    catalog: str
    zones: tuple[ZoneRead, ...]
    counts: tuple[RebuiltCount, ...]
    recovered: tuple[str, ...]
    problems: tuple[str, ...]
    auditHead: str | None


class CatalogChecked(TypedDict):
    catalog: str
    engine: str
    schema: str
    whole: bool
    problems: tuple[str, ...]


class UnknownVersion(TypedDict):
    region: str
    zone: str
    version: str


class CatalogRestored(TypedDict):
    catalog: str
    kept: Path | None
    unknown: tuple[UnknownVersion, ...]


class FileEvidence(TypedDict):
    verdict: str
    reasons: tuple[str, ...]
    unread: tuple[str, ...]


class DiskOfArchive(TypedDict):
    lun: int | None
    name: str
    facts: ImageFacts


class InspectOutput(TypedDict):
    """Of an image file its facts and what is on the disk; of an archive what it describes, and the
    facts of each disk in it."""

    file: Path
    safe: bool
    facts: NotRequired[ImageFacts]
    partitionTable: NotRequired[PartitionTable | None]
    guest: NotRequired[GuestFacts | None]
    evidence: NotRequired[FileEvidence | None]
    archive: NotRequired[ArchiveForm]
    hyperVGeneration: NotRequired[str | None]
    architecture: NotRequired[str | None]
    diskControllerType: NotRequired[str | None]
    osType: NotRequired[str | None]
    disks: NotRequired[tuple[DiskOfArchive, ...]]


class GeneralizeOutput(TypedDict, total=False):
    """What was written; with --check whether the guest is generalized; with --dry-run the report;
    with --arm-sysprep what has to be booted."""

    file: Path
    format: ImageFormat
    report: Report | None
    target: str
    generalized: bool
    guest: GuestDocument
    check: EvidenceDocument
    dryRun: bool
    armed: Any
    boot: str


class ChunkDocument(TypedDict):
    offset: int
    length: int
    xxh3: NotRequired[str]
    blake3: NotRequired[str]


class HashOutput(TypedDict):
    root: str
    virtualSize: int
    chunkSize: int
    chunks: NotRequired[tuple[ChunkDocument, ...]]


class Snapshots(TypedDict):
    snapshots: tuple[SnapshotDocument, ...]


class Disks(TypedDict):
    disks: tuple[DiskDocument, ...]


class Images(TypedDict):
    images: tuple[ImageDocument, ...]


class Tenants(TypedDict):
    tenants: tuple[Tenant, ...]


class TenantShown(OneTenant):
    subscriptions: tuple[Subscription, ...]


class Subscriptions(TypedDict):
    subscriptions: tuple[Subscription, ...]


class OneGroup(TypedDict):
    resourceGroup: ResourceGroup


class Groups(TypedDict):
    resourceGroups: tuple[ResourceGroup, ...]


ValidateOutput = TypedDict(
    "ValidateOutput",
    {"target": str, "for": str, "passed": bool, "findings": tuple[FindingDocument, ...]},
)


class OperationDocument(TypedDict):
    name: str
    heading: str
    why: str
    default: bool
    families: tuple[str, ...]
    paths: tuple[str, ...]
    profiles: NotRequired[tuple[str, ...]]


class ProfileDocument(TypedDict):
    name: str
    description: str
    operations: tuple[str, ...]
    users: str
    default: bool


class OperationsOutput(TypedDict, total=False):
    operation: OperationDocument
    operations: tuple[OperationDocument, ...]
    profiles: tuple[ProfileDocument, ...]


class Runs(TypedDict):
    runs: tuple[Run, ...]


class OneRun(TypedDict):
    run: Run


class RunLogOutput(TypedDict):
    run: Run
    lines: tuple[str, ...]


class ErrorOutput(TypedDict):
    error: ErrorDocument


OUTPUTS: dict[str, Any] = {
    "error": ErrorOutput,
    "init": InitOutput,
    "config show": ConfigOutput,
    "doctor": DoctorOutput,
    "guide": GuideOutput,
    "gallery create": OneGallery,
    "gallery delete": DeletedOrCascade,
    "gallery list": Galleries,
    "gallery show": GalleryShown,
    "gallery update": OneGallery,
    "definition create": OneDefinition,
    "definition delete": DeletedOrCascade,
    "definition list": Definitions,
    "definition show": DefinitionShown,
    "definition update": OneDefinition,
    "vm list": Machines,
    "vm show": OneMachine,
    "publish": PublishOutput,
    "build": BuildOutput,
    "plan": Plans,
    "spec check": Specs,
    "spec schema": SpecSchema,
    "list": ListOutput,
    "show": ShowOutput,
    "version delete": VersionDeleted,
    "version list": ListOutput,
    "version purge": Removed,
    "version show": ShowOutput,
    "version undelete": OneVersion,
    "version update": OneVersion,
    "promote": PromoteOutput,
    "retention apply": RetentionOutput,
    "diff": DiffOutput,
    "boot-check": BootOutput,
    "deploy": DeployOutput,
    "deployed list": Deployments,
    "deployed release": Released,
    "scale-set create": ScaleSetOutput,
    "scale-set delete": Deleted,
    "scale-set list": ScaleSets,
    "scale-set scale": ScaleSetOutput,
    "scale-set show": ScaleSetOutput,
    "scale-set update": ScaleSetOutput,
    "cost": CostOutput,
    "replicate": OneVersion,
    "verify": VerifyOutput,
    "scrub": ScrubOutput,
    "serve": Serving,
    "repair": ScrubOutput,
    "export": ExportOutput,
    "export catalog": CatalogsOutput,
    "serve vagrant": ListenOutput,
    "share add": ShareOutput,
    "share enable-community": ShareOutput,
    "share remove": ShareOutput,
    "share reset": ShareOutput,
    "share set-permissions": ShareOutput,
    "share show": ShareOutput,
    "list-shared": SharedGalleries,
    "list-community": CommunityGalleries,
    "principal create": OnePrincipal,
    "principal credential delete": Deleted,
    "principal credential list": Credentials,
    "principal credential reset": NewCredential,
    "principal delete": Deleted,
    "principal list": Principals,
    "role assign": OneAssignment,
    "role definitions": RoleDefinitions,
    "role list": Assignments,
    "role remove": RemovedAssignment,
    "audit list": AuditOutput,
    "audit verify": AuditHead,
    "catalog backup": CatalogBackup,
    "catalog check": CatalogChecked,
    "catalog rebuild": CatalogRebuilt,
    "gc": GarbageOutput,
    "metrics": MetricsOutput,
    "catalog restore": CatalogRestored,
    "runs list": Runs,
    "runs show": OneRun,
    "runs logs": RunLogOutput,
    "runs cancel": OneRun,
    "runs resume": OneRun,
    "inspect": InspectOutput,
    "generalize": GeneralizeOutput,
    "convert": Written,
    "hash": HashOutput,
    "snapshot create": Snapshots,
    "snapshot delete": Deleted,
    "snapshot export": Written,
    "snapshot list": Snapshots,
    "snapshot show": SnapshotDocument,
    "snapshot verify": VerifyResourceOutput,
    "disk verify": VerifyResourceOutput,
    "image verify": VerifyResourceOutput,
    "disk create": DiskDocument,
    "disk delete": Deleted,
    "disk list": Disks,
    "disk show": DiskDocument,
    "image create": ImageDocument,
    "image delete": Deleted,
    "image list": Images,
    "image show": ImageDocument,
    "tenant create": OneTenant,
    "tenant delete": Deleted,
    "tenant list": Tenants,
    "tenant show": TenantShown,
    "subscription create": OneSubscription,
    "subscription delete": Deleted,
    "subscription list": Subscriptions,
    "subscription show": OneSubscription,
    "group create": OneGroup,
    "group delete": Deleted,
    "group list": Groups,
    "validate": ValidateOutput,
    "operations": OperationsOutput,
}
# Documents of somebody else's schema, which say themselves which that is.
FOREIGN = {"sbom": "CycloneDX", "schema": "JSON Schema"}

__all__ = ["FOREIGN", "MEMBERS", "OUTPUTS", "Also", "MayLack"]
