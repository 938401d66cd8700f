"""A catalog that records every change of it, in the transaction that makes the change.

It stands between the gallery's operations and the catalog, so that no operation can forget to.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from pipeline.gallery.audit import append
from pipeline.model import Deployment, ImageVersion, ScaleSet
from pipeline.model.access import Action, Assignment, Principal
from pipeline.model.audit import Actor, Event
from pipeline.model.clock import utc_now
from pipeline.model.names import DEFAULT_SUBSCRIPTION
from pipeline.model.sharing import Sharing
from pipeline.ports.catalog import Catalog, CatalogHealth, CatalogReader, CatalogWriter


class AuditedCatalog:
    """Wraps a catalog for one actor."""

    def __init__(
        self, catalog: Catalog, actor: Actor, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._catalog = catalog
        self._actor = actor
        self._clock = clock

    def read(self) -> contextlib.AbstractContextManager[CatalogReader]:
        return self._catalog.read()

    @contextlib.contextmanager
    def write(self) -> Iterator[CatalogWriter]:
        with self._catalog.write() as writer:
            recorder = _Recorder(writer)
            yield cast(CatalogWriter, recorder)
            self._append(writer, recorder.events)

    def deny(self, event: Event) -> None:
        """Record a refusal, in a transaction of its own: there is no change to go with."""
        with self._catalog.write() as writer:
            self._append(writer, {(event.action, event.object): event})

    def check(self) -> CatalogHealth:
        return self._catalog.check()

    def close(self) -> None:
        self._catalog.close()

    def _append(self, writer: CatalogWriter, events: dict[tuple[str, str], Event]) -> None:
        if not events:
            return
        head = writer.audit_head()
        for event in events.values():
            entry = append(head, event, self._actor, self._clock())
            head = writer.append_audit(entry)


class _Recorder:
    """A writer that notes what is put and deleted through it. One event for each action on each
    object: a version and its report are one thing."""

    def __init__(self, writer: CatalogWriter) -> None:
        self._writer = writer
        self.events: dict[tuple[str, str], Event] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._writer, name)
        verb, _, kind = name.partition("_")
        if verb not in ("put", "delete"):
            return method

        def call(subject: Any, *arguments: Any, **options: Any) -> Any:
            changed = self._changes(subject)
            result = method(subject, *arguments, **options)
            if changed:
                event = _event("write" if verb == "put" else "delete", kind, subject)
                self.events.setdefault((event.action, event.object), event)
            return result

        return call

    def _changes(self, subject: object) -> bool:
        """Whether this is more than the progress of a copy: that would drown the rest."""
        if not isinstance(subject, ImageVersion):
            return True
        old = self._writer.version(subject.name)
        return old is None or _material(old) != _material(subject)


def _material(version: ImageVersion) -> ImageVersion:
    return replace(
        version, regions=tuple(replace(status, progress=0) for status in version.regions)
    )


@dataclass(frozen=True, slots=True)
class _Object:
    id: str
    action: str
    details: str = ""


def _event(verb: str, kind: str, subject: Any) -> Event:
    found = _describe(verb, kind, subject)
    return Event(found.action, found.id, details=found.details)


def _describe(verb: str, kind: str, subject: Any) -> _Object:
    match subject:
        case Sharing():
            return _Object(subject.gallery.arm_id, Action.GALLERY_SHARE.value, _shared(subject))
        case Assignment():
            action = f"Microsoft.Authorization/roleAssignments/{verb}"
            return _Object(subject.scope, action, f"{subject.role.value} for {subject.principal}")
        case Principal():
            return _Object(principal_id(subject.name), _principals(verb), subject.kind.value)
        case Deployment():
            action = f"Microsoft.Compute/disks/{verb}"
            return _Object(_deployment_id(subject), action, f"from {subject.version.arm_id}")
        case ScaleSet():
            action = f"Microsoft.Compute/virtualMachineScaleSets/{verb}"
            return _Object(_scale_set_id(subject), action, f"of {subject.image}")
        case ImageVersion():
            id = subject.name.arm_id
            return _Object(id, _action(id, verb, kind), subject.provisioning_state.value)
        case str() if kind == "principal":
            return _Object(principal_id(subject), _principals(verb))
    id = _id(subject)
    return _Object(id, _action(id, verb, kind))


def principal_id(name: str) -> str:
    """The object under which the record names a principal."""
    return f"/providers/Microsoft.Authorization/principals/{name}"


def _principals(verb: str) -> str:
    return f"Microsoft.Authorization/principals/{verb}"


def _deployment_id(deployment: Deployment) -> str:
    return f"/subscriptions/{DEFAULT_SUBSCRIPTION}/deployments/{deployment.name}"


def _scale_set_id(scale_set: ScaleSet) -> str:
    return f"/subscriptions/{DEFAULT_SUBSCRIPTION}/virtualMachineScaleSets/{scale_set.name}"


def _id(subject: Any) -> str:
    """The ARM id of a resource, or of the name of one; else whatever it calls itself."""
    for item in (subject, getattr(subject, "name", None)):
        id = getattr(item, "arm_id", None)
        if isinstance(id, str):
            return id
    for member in ("id", "name"):
        if isinstance(getattr(subject, member, None), str):
            return cast(str, getattr(subject, member))
    return str(subject)


def _action(id: str, verb: str, kind: str) -> str:
    """Azure's name of an action on a resource: its types, and the verb."""
    provider, separator, rest = id.partition("/providers/")[2].partition("/")
    if not separator and id.startswith(("/subscriptions/", "/tenants/")):
        provider, rest = "Microsoft.Resources", id[1:]
    elif not separator:
        return f"Galleria/{kind}/{verb}"
    return f"{provider}/{'/'.join(rest.split('/')[::2])}/{verb}"


def _shared(sharing: Sharing) -> str:
    names = [*sharing.subscriptions, *sharing.tenants, *filter(None, [sharing.public_name])]
    return f"{sharing.permissions.value}: {', '.join(names) or 'nobody'}"


_: type[Catalog] = AuditedCatalog
