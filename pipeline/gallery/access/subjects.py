"""Who asks, and what it may do: the principal of a run with its groups, roles and tenants."""

from collections.abc import Iterable, Mapping
from functools import cached_property

from pipeline.errors import AuthorizationFailed, NotFound
from pipeline.gallery import rules
from pipeline.gallery.access.decide import (
    Decision,
    Subject,
    Target,
    decide,
    operator,
    sees,
    subject_of,
    subscription_of,
)
from pipeline.gallery.audited import AuditedCatalog
from pipeline.model.access import ROOT, Action, Assignment, Principal, PrincipalKind
from pipeline.model.audit import Event
from pipeline.model.names import DEFAULT_TENANT
from pipeline.model.sharing import Sharing


class Access:
    """What one subject may do. Roles are read once, when they are first needed: an `Access` is for
    one run or one request. The local operator's need no reading."""

    def __init__(self, catalog: AuditedCatalog, account: str, principal: str | None = None) -> None:
        """`account` runs galleria; it acts as `principal`, or (None) as the operator."""
        self._catalog = catalog
        self._account = account
        self._principal = principal

    @property
    def principal(self) -> str:
        """The principal that is acted for; empty for the local operator."""
        return "" if self._principal is None else self.subject.name

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

    def sees(self, id: str) -> bool:
        return sees(self.subject, self._target(id), self.assignments)

    def require(self, action: Action, id: str, name: object = None) -> None:
        """Return if it is allowed; else record the refusal and raise NotFound for what the subject
        can't see, AuthorizationFailed for what it can. Whether the thing exists is not looked at,
        so nothing tells one that does from one that does not."""
        decision = self.decide(action, id)
        if not decision.allowed:
            self.refuse(action, id, decision, name)

    def refuse(self, action: Action, id: str, decision: Decision, name: object = None) -> None:
        """Record a refusal and raise it."""
        self.record(action, id, decision.reason)
        if decision.code == "LinkedAuthorizationFailed":
            raise AuthorizationFailed(
                f"The client {self.subject.name!r} has permission to perform action "
                f"'{action.value}' on scope '{id}', however the current tenant is not authorized "
                f"to access linked subscription '{subscription_of(id)}'.",
                plain=f"{self.subject.name} has the right to {action.value} at {name or id}, but "
                f"is not a member of the tenant of subscription {subscription_of(id)}",
                hint="make the principal a guest of that tenant: galleria principal create "
                "--guest-of",
                code=decision.code,
            )
        if not self.sees(id):
            rules.existing(None, name or id)
        raise AuthorizationFailed(
            f"The client {self.subject.name!r} does not have authorization to perform action "
            f"'{action.value}' over scope '{id}' or the scope is invalid.",
            plain=f"{self.subject.name} has no role that allows {action.value} at {name or id}",
            hint="galleria role list shows who may do what",
        )

    def record(self, action: Action, id: str, reason: str) -> None:
        """Record a refusal."""
        self._catalog.deny(Event(action.value, id, allowed=False, details=reason))

    @cached_property
    def _known(self) -> tuple[Subject, tuple[Assignment, ...]]:
        if self._principal is None:
            return operator(self._account)
        with self._catalog.read() as catalog:
            found = catalog.principal(self._principal)
            if found is None or found.kind is PrincipalKind.GROUP:
                raise NotFound(
                    f"There is no user or service principal {self._principal!r}.",
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
