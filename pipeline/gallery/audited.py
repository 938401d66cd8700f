"""A catalog that records every change of it, in the transaction that makes the change.

It stands between the gallery's operations and the catalog, so that no operation can forget to.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pipeline.gallery.audit import append, removal
from pipeline.model import (
    Channel,
    Deployment,
    Gallery,
    ImageDefinition,
    ImageVersion,
    ResourceGroup,
    ScaleSet,
    Subscription,
    Tenant,
)
from pipeline.model.access import ROOT, Action, Assignment, Principal
from pipeline.model.audit import Actor, AuditEntry, AuditHead, Event
from pipeline.model.clock import utc_now
from pipeline.model.credentials import Credential
from pipeline.model.names import (
    DEFAULT_SUBSCRIPTION,
    DefinitionName,
    GalleryName,
    VersionName,
)
from pipeline.model.resource_names import ResourceKind, ResourceName
from pipeline.model.resources import Resource
from pipeline.model.runs import Run
from pipeline.model.scrubs import ScrubRecord
from pipeline.model.sharing import Sharing
from pipeline.ports.catalog import Catalog, CatalogReader, CatalogWriter

# Changes that have no action of their own: another one lets them be made.
CHANNEL_WRITE = "Microsoft.Compute/galleries/images/channels/write"
CHANNEL_DELETE = "Microsoft.Compute/galleries/images/channels/delete"
CREDENTIAL_WRITE = "Microsoft.Authorization/principals/credentials/write"
CREDENTIAL_DELETE = "Microsoft.Authorization/principals/credentials/delete"
TENANT_DELETE = "Microsoft.Resources/tenants/delete"
SUBSCRIPTION_DELETE = "Microsoft.Resources/subscriptions/delete"

RESOURCE_WRITE = {
    ResourceKind.DISK: Action.DISK_WRITE,
    ResourceKind.SNAPSHOT: Action.SNAPSHOT_WRITE,
    ResourceKind.IMAGE: Action.MANAGED_IMAGE_WRITE,
}
RESOURCE_DELETE = {
    ResourceKind.DISK: Action.DISK_DELETE,
    ResourceKind.SNAPSHOT: Action.SNAPSHOT_DELETE,
    ResourceKind.IMAGE: Action.MANAGED_IMAGE_DELETE,
}


class AuditedCatalog:
    """A catalog for one actor: it is read as any other, and changed through `Changes` alone."""

    def __init__(
        self,
        catalog: Catalog,
        actor: Actor,
        clock: Callable[[], datetime] = utc_now,
        noted: Callable[[Collection[Event]], None] = lambda _: None,
    ) -> None:
        """`noted` is told of what was changed, when that is durable."""
        self._catalog = catalog
        self._actor = actor
        self._clock = clock
        self._noted = noted
        # asked in each transaction, before anything is changed: raises when the run that it is for
        # is another process's by now
        self.guard: Callable[[CatalogReader], None] | None = None

    def read(self) -> contextlib.AbstractContextManager[CatalogReader]:
        return self._catalog.read()

    @contextlib.contextmanager
    def write(self) -> Iterator[tuple[CatalogReader, "Changes"]]:
        """A transaction: the catalog as it is in it, and what changes it. One of a run that was
        taken over changes nothing: see `pipeline.gallery.service.running`."""
        with self.unguarded() as (catalog, changes):
            if self.guard is not None:
                self.guard(catalog)
            yield catalog, changes

    @contextlib.contextmanager
    def unguarded(self) -> Iterator[tuple[CatalogReader, "Changes"]]:
        """For the records of runs themselves."""
        with self._catalog.write() as writer:
            changes = Changes(writer)
            yield writer, changes
            self._append(writer, changes.events)
        if changes.events:
            self._noted(changes.events.values())

    def attend(self, run: str) -> contextlib.AbstractContextManager[Callable[[], None]]:
        return self._catalog.attend(run)

    def record(self, event: Event) -> None:
        """Record what goes with no change in the catalog (a refusal, say), in a transaction of its
        own."""
        with self._catalog.write() as writer:
            self._append(writer, {(event.action, event.object): event})

    def cut(self, until: datetime) -> int:
        """Remove the entries of the record that are older; returns how many. That they were removed
        is an entry, so that the rest of the chain is verified as before."""
        with self._catalog.write() as writer:
            last: AuditEntry | None = None
            limit = until.astimezone(UTC).isoformat(timespec="microseconds")
            for entry in writer.audit():
                if str(entry.content["time"]) >= limit:
                    break
                last = entry
            if last is None:
                return 0
            base = AuditHead(last.seq, last.hash)
            count = last.seq - writer.audit_base().seq
            action, details = Action.AUDIT_CUT.value, removal(base, f"{count} entries removed")
            event = Event(action, ROOT, details=details)
            self._append(writer, {(event.action, event.object): event})
            writer.begin_audit(base)
        return count

    def _append(self, writer: CatalogWriter, events: Mapping[tuple[str, str], Event]) -> None:
        if not events:
            return
        head = writer.audit_head()
        for event in events.values():
            entry = append(head, event, self._actor, self._clock())
            head = writer.append_audit(entry)


class Changes:
    """What one transaction changes. Each change is noted: one event for each action on each object,
    as a version and its report are one thing."""

    def __init__(self, writer: CatalogWriter) -> None:
        self._writer = writer
        self.events: dict[tuple[str, str], Event] = {}

    def put_gallery(self, gallery: Gallery) -> None:
        self._writer.put_gallery(gallery)
        self._note(Action.GALLERY_WRITE, gallery.name.arm_id)

    def delete_gallery(self, name: GalleryName) -> None:
        self._writer.delete_gallery(name)
        self._note(Action.GALLERY_DELETE, name.arm_id)

    def put_sharing(self, sharing: Sharing) -> None:
        self._writer.put_sharing(sharing)
        self._note(Action.GALLERY_SHARE, sharing.gallery.arm_id, _shared(sharing))

    def put_definition(self, definition: ImageDefinition) -> None:
        self._writer.put_definition(definition)
        self._note(Action.DEFINITION_WRITE, definition.name.arm_id)

    def delete_definition(self, name: DefinitionName) -> None:
        """With its channels."""
        self._writer.delete_definition(name)
        self._note(Action.DEFINITION_DELETE, name.arm_id)

    def put_version(self, version: ImageVersion) -> None:
        """The mere progress of a copy is not noted: that would drown the rest."""
        old = self._writer.version(version.name)
        self._writer.put_version(version)
        if old is None or _material(old) != _material(version):
            state = version.provisioning_state.value
            self._note(Action.VERSION_WRITE, version.name.arm_id, state)

    def put_report(self, name: VersionName, report: Mapping[str, Any] | None) -> None:
        """None removes it."""
        self._writer.put_report(name, report)
        self._note(Action.VERSION_WRITE, name.arm_id)

    def delete_version(self, name: VersionName) -> None:
        """With its report."""
        self._writer.delete_version(name)
        self._note(Action.VERSION_DELETE, name.arm_id)

    def put_channel(self, channel: Channel) -> None:
        self._writer.put_channel(channel)
        self._note(CHANNEL_WRITE, channel.arm_id)

    def delete_channel(self, channel: Channel) -> None:
        self._writer.delete_channel(channel)
        self._note(CHANNEL_DELETE, channel.arm_id)

    def put_tenant(self, tenant: Tenant) -> None:
        self._writer.put_tenant(tenant)
        self._note(Action.TENANT_WRITE, tenant.arm_id)

    def delete_tenant(self, tenant: Tenant) -> None:
        self._writer.delete_tenant(tenant)
        self._note(TENANT_DELETE, tenant.arm_id)

    def put_subscription(self, subscription: Subscription) -> None:
        self._writer.put_subscription(subscription)
        self._note(Action.SUBSCRIPTION_WRITE, subscription.arm_id)

    def delete_subscription(self, subscription: Subscription) -> None:
        self._writer.delete_subscription(subscription)
        self._note(SUBSCRIPTION_DELETE, subscription.arm_id)

    def put_resource_group(self, group: ResourceGroup) -> None:
        self._writer.put_resource_group(group)
        self._note(Action.GROUP_WRITE, group.arm_id)

    def delete_resource_group(self, group: ResourceGroup) -> None:
        self._writer.delete_resource_group(group)
        self._note(Action.GROUP_DELETE, group.arm_id)

    def put_deployment(self, deployment: Deployment) -> None:
        self._writer.put_deployment(deployment)
        self._note(Action.DISK_WRITE, _deployment_id(deployment), _from(deployment))

    def own_deployment(self, deployment: Deployment) -> None:
        """Who makes it is another one; nothing else of it changes, so that is not noted."""
        self._writer.put_deployment(deployment)

    def delete_deployment(self, deployment: Deployment) -> None:
        self._writer.delete_deployment(deployment)
        self._note(Action.DISK_DELETE, _deployment_id(deployment), _from(deployment))

    def put_scale_set(self, scale_set: ScaleSet) -> None:
        self._writer.put_scale_set(scale_set)
        self._note(Action.SCALE_SET_WRITE, _scale_set_id(scale_set), f"of {scale_set.image}")

    def own_scale_set(self, scale_set: ScaleSet) -> None:
        """Who scales it is another one; nothing else of it changes, so that is not noted."""
        self._writer.put_scale_set(scale_set)

    def delete_scale_set(self, scale_set: ScaleSet) -> None:
        self._writer.delete_scale_set(scale_set)
        self._note(Action.SCALE_SET_DELETE, _scale_set_id(scale_set), f"of {scale_set.image}")

    def put_resource(self, resource: Resource) -> None:
        self._writer.put_resource(resource)
        self._note(RESOURCE_WRITE[resource.name.kind], resource.name.arm_id)

    def delete_resource(self, name: ResourceName) -> None:
        self._writer.delete_resource(name)
        self._note(RESOURCE_DELETE[name.kind], name.arm_id)

    def put_run(self, run: Run) -> None:
        """Not noted: a run changes all the time, and what it does is noted by itself."""
        self._writer.put_run(run)

    def delete_run(self, id: str) -> None:
        self._writer.delete_run(id)

    def put_principal(self, principal: Principal) -> None:
        self._writer.put_principal(principal)
        self._note(Action.PRINCIPAL_WRITE, principal_id(principal.name), principal.kind.value)

    def delete_principal(self, name: str) -> None:
        """With its roles, memberships and credentials."""
        self._writer.delete_principal(name)
        self._note(Action.PRINCIPAL_DELETE, principal_id(name))

    def put_credential(self, credential: Credential) -> None:
        self._writer.put_credential(credential)
        self._note(CREDENTIAL_WRITE, principal_id(credential.principal), credential.id)

    def delete_credential(self, credential: Credential) -> None:
        """With its tokens."""
        self._writer.delete_credential(credential)
        self._note(CREDENTIAL_DELETE, principal_id(credential.principal), credential.id)

    def put_assignment(self, assignment: Assignment) -> None:
        self._writer.put_assignment(assignment)
        self._note(Action.ASSIGNMENT_WRITE, assignment.scope, _given(assignment))

    def delete_assignment(self, assignment: Assignment) -> None:
        self._writer.delete_assignment(assignment)
        self._note(Action.ASSIGNMENT_DELETE, assignment.scope, _given(assignment))

    def put_scrub(self, record: ScrubRecord) -> None:
        """Not noted: it changes nothing."""
        self._writer.put_scrub(record)

    def delete_scrub(self, zone: str, subject: str) -> None:
        self._writer.delete_scrub(zone, subject)

    def _note(self, action: Action | str, id: str, details: str = "") -> None:
        name = action.value if isinstance(action, Action) else action
        self.events.setdefault((name, id), Event(name, id, details=details))


def principal_id(name: str) -> str:
    """The object under which the record names a principal."""
    return f"/providers/Microsoft.Authorization/principals/{name}"


def _material(version: ImageVersion) -> ImageVersion:
    return replace(
        version, regions=tuple(replace(status, progress=0) for status in version.regions)
    )


def _deployment_id(deployment: Deployment) -> str:
    return f"/subscriptions/{DEFAULT_SUBSCRIPTION}/deployments/{deployment.name}"


def _from(deployment: Deployment) -> str:
    return f"from {deployment.version.arm_id}"


def _scale_set_id(scale_set: ScaleSet) -> str:
    return f"/subscriptions/{DEFAULT_SUBSCRIPTION}/virtualMachineScaleSets/{scale_set.name}"


def _given(assignment: Assignment) -> str:
    return f"{assignment.role.value} for {assignment.principal}"


def _shared(sharing: Sharing) -> str:
    names = [*sharing.subscriptions, *sharing.tenants, *filter(None, [sharing.public_name])]
    return f"{sharing.permissions.value}: {', '.join(names) or 'nobody'}"
