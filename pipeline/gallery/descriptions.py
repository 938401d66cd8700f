"""What zones keep of the catalog, so that it can be rebuilt from them: a record for each thing.

A thing's name says what it is of; its content is what the catalog has of it. What changed is told
by the audit record, as every change is in it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from pipeline.data.digest import digest
from pipeline.errors import GalleriaError, InvalidParameter
from pipeline.gallery import transitions
from pipeline.gallery.documents import decode, encode
from pipeline.model import (
    Channel,
    Deployment,
    Gallery,
    ImageDefinition,
    ImageVersion,
    RegionResult,
    RegionStatus,
    ReplicationState,
    ResourceGroup,
    ScaleSet,
    Subscription,
    Tenant,
)
from pipeline.model.access import Assignment, Principal
from pipeline.model.audit import AuditEntry, AuditHead
from pipeline.model.names import (
    DEFAULT_SUBSCRIPTION,
    parse_definition,
    parse_gallery,
    parse_version,
)
from pipeline.model.resource_names import ResourceKind, resource_of
from pipeline.model.resources import KINDS, Disk, DiskFile, Resource
from pipeline.model.sharing import Sharing
from pipeline.ports.catalog import CatalogReader, CatalogWriter

ACCESS = "access"  # tenants, subscriptions, resource groups, principals and roles
MANY = 2000  # changes after which all is written anew

Content = Mapping[str, Any]


def named_in(entry: AuditEntry) -> set[str]:
    """The names of what an entry of the audit record says was changed."""
    content = entry.content
    if not content["allowed"]:
        return set()
    id, action = str(content["object"]), str(content["action"])
    segments = id.lower().split("/")
    if len(segments) == 5 and segments[3] == "deployments":
        return {f"deployments:{segments[4]}"}
    if len(segments) == 5 and segments[3] == "virtualmachinescalesets":
        return {f"scaleset:{segments[4]}"}
    if resource_of(id) is not None:
        return {f"resource:{id.lower()}"}
    kind = {9: "gallery", 11: "definition", 13: "version"}.get(len(segments))
    if kind is None or segments[7] != "galleries":
        return {ACCESS}
    if segments[-2] == "channels":
        return {f"definition:{'/'.join(segments[:11])}"}
    roles = {ACCESS} if "roleAssignments" in action or action.endswith("/delete") else set()
    return {f"{kind}:{id.lower()}"} | roles


def changed_since(reader: CatalogReader, head: AuditHead) -> set[str] | None:
    """What was changed since the record had that head. None: that is not known."""
    if head == reader.audit_base():
        entries = reader.audit(after=head.seq)
    else:
        entries = reader.audit(after=head.seq - 1)
        first = next(entries, None)
        if first is None or AuditHead(first.seq, first.hash) != head:
            return None
    found: set[str] = set()
    for count, entry in enumerate(entries):
        if count == MANY:
            return None
        found |= named_in(entry)
    return found


def everything(reader: CatalogReader) -> Iterator[str]:
    """The names of all that there is."""
    yield ACCESS
    for gallery in reader.galleries():
        yield f"gallery:{gallery.name.arm_id.lower()}"
        for definition in reader.definitions(gallery.name):
            yield f"definition:{definition.name.arm_id.lower()}"
            for version in reader.versions(definition.name, deleted=None):
                yield f"version:{version.name.arm_id.lower()}"
    for kind in ResourceKind:
        for resource in reader.resources(kind):
            yield f"resource:{resource.id.lower()}"
    yield from sorted({f"deployments:{item.name.lower()}" for item in reader.deployments()})
    for scale_set in reader.scale_sets():
        yield f"scaleset:{scale_set.name.lower()}"


def described(reader: CatalogReader, name: str) -> Content | None:
    """What the catalog has of a thing, but for who works on it; None when it is not there."""
    kind, _, id = name.partition(":")
    return _DESCRIBED[kind](reader, id)


def _access(reader: CatalogReader, _: str) -> Content:
    subscriptions = reader.subscriptions()
    ids = sorted({DEFAULT_SUBSCRIPTION, *(item.id for item in subscriptions)})
    groups = [group for id in ids for group in reader.resource_groups(id)]
    return {
        "tenants": encode(reader.tenants()),
        "subscriptions": encode(subscriptions),
        "resourceGroups": encode(groups),
        "principals": encode(reader.principals()),
        "assignments": encode(reader.assignments()),
    }


def _gallery(reader: CatalogReader, id: str) -> Content | None:
    found = reader.gallery(parse_gallery(id))
    if found is None:
        return None
    sharing = next((i for i in reader.sharings() if i.gallery == found.name), None)
    return {"gallery": encode(found), "sharing": None if sharing is None else encode(sharing)}


def _definition(reader: CatalogReader, id: str) -> Content | None:
    found = reader.definition(parse_definition(id))
    if found is None:
        return None
    return {"definition": encode(found), "channels": encode(reader.channels(found.name))}


def _version(reader: CatalogReader, id: str) -> Content | None:
    found = reader.version(parse_version(id))
    if found is None:
        return None
    return {"version": encode(replace(found, owner=None, owned_since=None))}


def _resource(reader: CatalogReader, id: str) -> Content | None:
    name = resource_of(id)
    found = None if name is None else reader.resource(name)
    return None if found is None else {"resource": encode(replace(found, owner=None))}


def _deployments(reader: CatalogReader, name: str) -> Content | None:
    found = [item for item in reader.deployments() if item.name.lower() == name]
    return {"deployments": [encode(_unowned(item)) for item in found]} if found else None


def _scale_set(reader: CatalogReader, name: str) -> Content | None:
    found = [item for item in reader.scale_sets() if item.name.lower() == name]
    return {"scaleSets": [encode(replace(item, owner=None)) for item in found]} if found else None


def _unowned(item: Deployment) -> Deployment:
    making = item.making
    return item if making is None else replace(item, making=replace(making, owner=None))


_DESCRIBED: Mapping[str, Callable[[CatalogReader, str], Content | None]] = {
    ACCESS: _access,
    "gallery": _gallery,
    "definition": _definition,
    "version": _version,
    "resource": _resource,
    "deployments": _deployments,
    "scaleset": _scale_set,
}


# --- the way back ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holding:
    """What a zone has under one key: the document that was written with it, where that zone is, and
    (of a version) its replicas there. `file` is that of a disk that lies in the zone."""

    region: str
    document: Content
    replicas: tuple[Mapping[str, Any], ...] = ()
    file: DiskFile | None = None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """`counts` by kind; `recovered` are names of what no record knew, and its own document told of;
    `problems` what could not be recovered, or is not as it is recorded."""

    counts: Mapping[str, int]
    recovered: tuple[str, ...]
    problems: tuple[str, ...]


class Rebuilding:
    """A catalog that is filled from what zones say. One thing that can't be put costs itself and
    what is in it."""

    def __init__(self, writer: CatalogWriter, now: datetime) -> None:
        self._writer = writer
        self._now = now
        self._counts: dict[str, int] = {}
        self._recovered: list[str] = []
        self._problems: list[str] = []

    def fill(self, records: Mapping[str, Content], holdings: Sequence[Holding]) -> Rebuilt:
        by_kind: dict[str, dict[str, Content]] = {}
        for name in sorted(records):
            by_kind.setdefault(name.partition(":")[0], {})[name] = records[name]
        versions = [item for item in holdings if "version" in item.document]
        for kind in (ACCESS, "gallery"):
            self._each(by_kind.get(kind, {}))
        for item in versions:
            self._try("a gallery", partial(self._parent, item, "gallery"))
        self._each(by_kind.get("definition", {}))
        for item in versions:
            self._try("a definition", partial(self._parent, item, "definition"))
        self._each(by_kind.get("version", {}))
        self._versions(versions)
        self._each(by_kind.get("resource", {}))
        for item in holdings:
            if "resource" in item.document:
                self._try("a resource", partial(self._lost_resource, item))
        for kind in ("deployments", "scaleset"):
            self._each(by_kind.get(kind, {}))
        return Rebuilt(dict(self._counts), tuple(self._recovered), tuple(self._problems))

    def _each(self, records: Mapping[str, Content]) -> None:
        for name, content in records.items():
            put = _PUT[name.partition(":")[0]]
            self._try(name, partial(put, self, content))

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except (GalleriaError, KeyError, TypeError, ValueError) as error:
            self._problems.append(f"{name}: {error}")

    def _count(self, kind: str, number: int = 1) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + number

    # --- by records -------------------------------------------------------------------------------

    def _put_access(self, content: Content) -> None:
        for tenant in decode_all(Tenant, content["tenants"]):
            self._writer.put_tenant(tenant)
        for subscription in decode_all(Subscription, content["subscriptions"]):
            self._writer.put_subscription(subscription)
        for group in decode_all(ResourceGroup, content["resourceGroups"]):
            self._writer.put_resource_group(group)
        principals = decode_all(Principal, content["principals"])
        for principal in principals:
            self._writer.put_principal(principal)
        assignments = decode_all(Assignment, content["assignments"])
        for assignment in assignments:
            self._writer.put_assignment(assignment)
        self._count("principals", len(principals))
        self._count("roles", len(assignments))

    def _put_gallery(self, content: Content) -> None:
        gallery = decode(Gallery, content["gallery"])
        self._writer.put_gallery(gallery)
        self._count("galleries")
        if content["sharing"] is not None:
            self._writer.put_sharing(decode(Sharing, content["sharing"]))

    def _put_definition(self, content: Content) -> None:
        definition = decode(ImageDefinition, content["definition"])
        self._new_definition(definition)
        for channel in decode_all(Channel, content["channels"]):
            self._writer.put_channel(channel)
            self._count("channels")

    def _new_definition(self, definition: ImageDefinition) -> None:
        twin = self._writer.definition_identified(definition.name.gallery, definition.identifier)
        if twin is not None and twin.name != definition.name:
            raise InvalidParameter(f"{twin.name} has the same publisher, offer and SKU")
        self._writer.put_definition(definition)
        self._count("definitions")

    def _put_version(self, content: Content) -> None:
        self._new_version(_kept_version(content["version"]))

    def _new_version(self, version: ImageVersion) -> None:
        if self._writer.definition(version.name.definition) is None:
            raise InvalidParameter("its definition is not known")
        self._writer.put_version(version)
        self._count("versions")

    def _put_resource(self, content: Content) -> None:
        self._new_resource(content["resource"])

    def _new_resource(self, document: Content) -> Resource:
        name = resource_of(str(document["id"]))
        if name is None:
            raise InvalidParameter(f"{document['id']!r} is no resource's id")
        resource = decode(KINDS[name.kind], document)
        self._writer.put_resource(resource)
        self._count(f"{name.kind.noun}s")
        return resource

    def _put_deployments(self, content: Content) -> None:
        for deployment in decode_all(Deployment, content["deployments"]):
            self._writer.put_deployment(deployment)
            self._count("deployments")

    def _put_scale_sets(self, content: Content) -> None:
        for scale_set in decode_all(ScaleSet, content["scaleSets"]):
            self._writer.put_scale_set(scale_set)
            self._count("scale sets")

    # --- by what lies in the zones ----------------------------------------------------------------

    def _parent(self, item: Holding, kind: str) -> None:
        """The gallery, or the definition, of a version, if no record tells of it."""
        if kind == "gallery":
            gallery = decode(Gallery, item.document["gallery"])
            if self._writer.gallery(gallery.name) is None:
                self._writer.put_gallery(gallery)
                self._count("galleries")
                self._recovered.append(str(gallery.name))
            return
        definition = decode(ImageDefinition, item.document["definition"])
        if self._writer.definition(definition.name) is None:
            self._new_definition(definition)
            self._recovered.append(str(definition.name))

    def _versions(self, holdings: Sequence[Holding]) -> None:
        """What the zones have of versions: their reports, and those that no record knew."""
        found: dict[str, list[tuple[ImageVersion, Holding]]] = {}
        for item in holdings:
            try:
                version = _kept_version(item.document["version"])
            except (GalleriaError, KeyError, TypeError, ValueError) as error:
                self._problems.append(f"a version in {item.region}: {error}")
                continue
            found.setdefault(version.uid, []).append((version, item))
        for same in found.values():
            name = str(same[0][0].name)
            self._try(name, partial(self._held, same))

    def _held(self, same: Sequence[tuple[ImageVersion, Holding]]) -> None:
        version = same[0][0]
        known = self._writer.version(version.name)
        if known is None:
            version = _recovered(version, [item for _, item in same], self._now)
            self._new_version(version)
            self._recovered.append(str(version.name))
            known = version
        elif known.uid != version.uid:
            raise InvalidParameter(
                f"zones hold another one, {version.uid}, that was deleted or never finished"
            )
        regions = {item.region for _, item in same}
        for region in sorted(set(known.completed_regions) - regions):
            self._problems.append(f"{known.name}: no zone of {region} that is there holds it")
        for _, item in same:
            report = item.document.get("report")
            if report is not None and digest(report) == known.report_digest:
                self._writer.put_report(known.name, report)
                return
        if known.report_digest:
            self._problems.append(f"{known.name}: its report is lost")

    def _lost_resource(self, item: Holding) -> None:
        """A disk, snapshot or image that no record tells of."""
        document = item.document["resource"]
        name = resource_of(str(document["id"]))
        if name is None or self._writer.resource(name) is not None:
            return
        resource = self._new_resource({**document, "provisioningState": "Succeeded"})
        if isinstance(resource, Disk) and resource.file is None:
            if item.file is None:
                self._problems.append(f"{name}: its file is not known")
            else:
                self._writer.put_resource(replace(resource, file=item.file))
        self._recovered.append(str(name))


def _kept_version(document: Content) -> ImageVersion:
    """A version as a zone keeps it. Who worked on it when that was written, a run or (in records of
    an older galleria) a process, does so no more."""
    gone = ("owner", "ownedSince")
    return decode(ImageVersion, {key: item for key, item in document.items() if key not in gone})


def _recovered(version: ImageVersion, holdings: Iterable[Holding], now: datetime) -> ImageVersion:
    """A version as it was when it was written to zones, and as far as it is there."""
    replicas: dict[str, list[Mapping[str, Any]]] = {}
    for item in holdings:  # a region may have several zones: its replicas are numbered through them
        here = replicas.setdefault(item.region, [])
        here += ({"index": len(here) + n, **found} for n, found in enumerate(item.replicas))
    for status in version.regions:
        if status.region in replicas:
            result = RegionResult(replicas=tuple(replicas[status.region]))
            done = RegionStatus(status.region, ReplicationState.COMPLETED, 100, result=result)
            version = transitions.region_changed(version, done, now)
    return transitions.finished(version, "not found when the catalog was rebuilt")


def decode_all(kind: type[Any], documents: Iterable[object]) -> list[Any]:
    return [decode(kind, document) for document in documents]


_PUT: Mapping[str, Callable[[Rebuilding, Content], None]] = {
    ACCESS: Rebuilding._put_access,
    "gallery": Rebuilding._put_gallery,
    "definition": Rebuilding._put_definition,
    "version": Rebuilding._put_version,
    "resource": Rebuilding._put_resource,
    "deployments": Rebuilding._put_deployments,
    "scaleset": Rebuilding._put_scale_sets,
}
