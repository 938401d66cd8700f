"""Who asks, what it may do, and the way to the catalog, which begins with that question."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from pipeline.errors import AuthorizationFailed, Conflict, NotFound
from pipeline.gallery import rules
from pipeline.gallery.access.decide import (
    Decision,
    Subject,
    Target,
    covers,
    decide,
    operator,
    sees,
    subject_of,
    subscription_of,
)
from pipeline.gallery.audited import AuditedCatalog, Changes
from pipeline.model.access import ROOT, Action, Assignment, Identity, Principal, PrincipalKind
from pipeline.model.audit import Event
from pipeline.model.names import DEFAULT_TENANT, DefinitionName, GalleryName, VersionName
from pipeline.model.sharing import Sharing
from pipeline.ports.catalog import CatalogReader

T = TypeVar("T")

# What may be done with what was resolved by its shared name.
_VIEWED = frozenset({Action.DEFINITION_READ, Action.VERSION_READ})


@dataclass(frozen=True, slots=True)
class Made:
    """Something that its maker may handle as it likes, and others who may do that to what has the
    ARM id `id`. `name` is what it is called; `by` is empty for the local operator."""

    name: str
    by: str
    id: str


@dataclass(frozen=True, slots=True)
class OfTenant:
    """A tenant, which those who belong to it know."""

    tenant: str


# What an action is on: the name of something in a gallery, an ARM id, or what is somebody's own.
Object = GalleryName | DefinitionName | VersionName | Made | OfTenant | str


class Access:
    """What one identity may do. The catalog is reached through it alone, by saying what for: an
    operation that names no action on an object gets nothing to work with.

    Roles are read once, when they are first needed: an `Access` is for one run or one request. The
    local operator's need no reading.
    """

    def __init__(self, catalog: AuditedCatalog, identity: Identity) -> None:
        self._catalog = catalog
        self._identity = identity
        self._views: set[str] = set()

    # --- the way to the catalog ---------------------------------------------------------------

    @contextmanager
    def read(self, action: Action, *objects: Object) -> Iterator[CatalogReader]:
        """One consistent view of the catalog, for an action on these objects."""
        self.require(action, *objects)
        with self._catalog.read() as catalog:
            yield catalog

    @contextmanager
    def write(self, action: Action, *objects: Object) -> Iterator[tuple[CatalogReader, Changes]]:
        """A transaction, for an action on these objects: the catalog, and what changes it."""
        self.require(action, *objects)
        with self._catalog.write() as transaction:
            yield transaction

    def visible(
        self,
        action: Action,
        find: Callable[[CatalogReader], Iterable[T]],
        object_of: Callable[[T], Object],
        *,
        parts: bool = False,
    ) -> Iterator[T]:
        """Those of what `find` finds that the subject may do this to; with `parts` those as well
        of which it may know because it may see something in them."""
        _ = self.subject
        with self._catalog.read() as catalog:
            for item in find(catalog):
                target = object_of(item)
                if self.allows(action, target) or (parts and self.sees(_id(target))):
                    yield item

    def one(
        self,
        action: Action,
        find: Callable[[CatalogReader], T | None],
        object_of: Callable[[T], Object],
    ) -> T | None:
        """What `find` finds, if the subject may do this to it: None both when it is not there and
        when it is not for the subject, which is recorded."""
        with self._catalog.read() as catalog:
            found = find(catalog)
        if found is None or self.allows(action, object_of(found)):
            return found
        self.record(action, _id(object_of(found)), "not to be known of")
        return None

    # --- decisions ----------------------------------------------------------------------------

    @property
    def principal(self) -> str:
        """The principal that is acted for; empty for the local operator."""
        return "" if self._identity.principal is None else self.subject.name

    @property
    def subject(self) -> Subject:
        return self._known[0]

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        return self._known[1]

    def decide(
        self, action: Action, id: str, shares: Mapping[str, Sharing] | None = None
    ) -> Decision:
        return decide(self.subject, action, self._target(id), self.assignments, shares or {})

    def may(self, action: Action, id: str) -> bool:
        return self.decide(action, id).allowed

    def allows(self, action: Action, target: Object) -> bool:
        """Whether an action is allowed on an object."""
        return self._is_own(target) or self.may(action, _id(target))

    def sees(self, id: str) -> bool:
        return sees(self.subject, self._target(id), self.assignments)

    def require(self, action: Action, *objects: Object) -> None:
        """Return if it is allowed on each of the objects; else record the refusal and raise
        NotFound for what the subject can't see, AuthorizationFailed for what it can. Whether the
        thing exists is not looked at, so nothing tells one that does from one that does not."""
        for target in objects:
            id = _id(target)
            if self._is_own(target) or (action in _VIEWED and self._is_viewed(id)):
                continue
            decision = self.decide(action, id)
            if not decision.allowed:
                self._refuse(action, id, decision, _name(target))

    def view(self, definition: DefinitionName) -> None:
        """From now on, what was resolved by its shared name may be read by what resolved it."""
        self._views.add(definition.arm_id)

    @contextmanager
    def unnamed(self, around: str) -> Iterator[None]:
        """What stands in a conflict with something that the subject can't see, in a gallery or
        subscription, does not name it."""
        try:
            yield
        except Conflict as error:
            if self.may(Action.GALLERY_READ, around):
                raise
            raise Conflict(
                "The request conflicts with a resource that exists already.", code=error.reason
            ) from None

    def _is_own(self, target: Object) -> bool:
        """Whether it takes no role, as the subject has it by itself."""
        if isinstance(target, OfTenant):
            return target.tenant.lower() in self.subject.tenants
        return isinstance(target, Made) and bool(target.by) and target.by == self.principal

    def _is_viewed(self, id: str) -> bool:
        return any(covers(definition, id) for definition in self._views)

    def _refuse(self, action: Action, id: str, decision: Decision, name: object) -> None:
        """Record a refusal and raise it."""
        self.record(action, id, decision.reason)
        if decision.code == "LinkedAuthorizationFailed":
            raise AuthorizationFailed(
                f"The client {self.subject.name!r} has permission to perform action "
                f"'{action.value}' on scope '{id}', however the current tenant is not authorized "
                f"to access linked subscription '{subscription_of(id)}'.",
                plain=f"{self.subject.name} has the right to {action.value} at {name}, but "
                f"is not a member of the tenant of subscription {subscription_of(id)}",
                hint="make the principal a guest of that tenant: galleria principal create "
                "--guest-of",
                code=decision.code,
            )
        if not self.sees(id):
            rules.existing(None, name)
        raise AuthorizationFailed(
            f"The client {self.subject.name!r} does not have authorization to perform action "
            f"'{action.value}' over scope '{id}' or the scope is invalid.",
            plain=f"{self.subject.name} has no role that allows {action.value} at {name}",
            hint="galleria role list shows who may do what",
        )

    def record(self, action: Action, id: str, reason: str) -> None:
        """Record a refusal."""
        self._catalog.record(Event(action.value, id, allowed=False, details=reason))

    @cached_property
    def _known(self) -> tuple[Subject, tuple[Assignment, ...]]:
        wanted = self._identity.principal
        if wanted is None:
            return operator(self._identity.account)
        with self._catalog.read() as catalog:
            found = catalog.principal(wanted)
            if found is None or found.kind is PrincipalKind.GROUP:
                raise NotFound(
                    f"There is no user or service principal {wanted!r}.",
                    hint="galleria principal list shows who there is",
                    code="PrincipalNotFound",
                )
            everybody, assignments = catalog.principals(), tuple(catalog.assignments())
        groups = groups_of(found, everybody)
        subject = subject_of(found, groups, assignments)
        own = (item for item in assignments if item.principal.lower() in subject.identities)
        return subject, tuple(own)

    @cached_property
    def _tenants(self) -> Mapping[str, str]:
        with self._catalog.read() as catalog:
            return {item.id.lower(): item.tenant.lower() for item in catalog.subscriptions()}

    def _target(self, id: str) -> Target:
        if any(item.scope == ROOT for item in self.assignments):
            return Target(id)  # above all tenants: no need to look
        return Target(id, self._tenants.get(subscription_of(id), DEFAULT_TENANT))


def _id(target: Object) -> str:
    match target:
        case str():
            return target
        case OfTenant():
            return f"/tenants/{target.tenant}"
        case Made():
            return target.id
        case _:
            return target.arm_id


def _name(target: Object) -> object:
    """By which name who asks knows it."""
    match target:
        case OfTenant():
            return _id(target)
        case Made():
            return target.name
        case _:
            return target


def groups_of(principal: Principal, everybody: Iterable[Principal]) -> list[Principal]:
    """The groups that a principal is in, and those that these are in."""
    groups = {item.key: item for item in everybody if item.kind is PrincipalKind.GROUP}
    found: dict[str, Principal] = {}
    wanted = [principal.key]
    while wanted:
        member = wanted.pop()
        for key, group in groups.items():
            if key not in found and member in map(str.lower, group.members):
                found[key] = group
                wanted.append(key)
    return list(found.values())
