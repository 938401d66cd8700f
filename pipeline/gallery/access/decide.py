"""Who may do what: the one function that decides, from roles and shares.

As in Azure's role-based access control, a role holds at a scope and below. Nothing is allowed
unless a role or a share allows it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.gallery.access.roles import permits
from pipeline.model import SharingPermissions
from pipeline.model.access import ROOT, Action, Assignment, Principal, Role
from pipeline.model.names import DEFAULT_SUBSCRIPTION, DEFAULT_TENANT
from pipeline.model.sharing import Sharing


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks: a principal with all its groups. Everything is in lower case but `name`."""

    name: str
    identities: frozenset[str]
    tenants: frozenset[str] = frozenset({DEFAULT_TENANT})
    subscriptions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Target:
    """What it is asked of: a resource's ARM id (or ROOT), and the tenant of its subscription."""

    id: str
    tenant: str = DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class Decision:
    """`code` is Azure's, of a refusal; the reason is for people and the audit record."""

    allowed: bool
    reason: str
    code: str = ""


_VIEWS = {
    Action.SHARED_GALLERY_READ: SharingPermissions.GROUPS,
    Action.SHARED_DEFINITION_READ: SharingPermissions.GROUPS,
    Action.SHARED_VERSION_READ: SharingPermissions.GROUPS,
    Action.COMMUNITY_GALLERY_READ: SharingPermissions.COMMUNITY,
    Action.COMMUNITY_DEFINITION_READ: SharingPermissions.COMMUNITY,
    Action.COMMUNITY_VERSION_READ: SharingPermissions.COMMUNITY,
}


def decide(
    subject: Subject,
    action: Action,
    target: Target,
    assignments: Iterable[Assignment],
    shares: Mapping[str, Sharing],
) -> Decision:
    """Whether `subject` may do `action` to `target`, and why.

    `assignments` may hold those of others; `shares` are the sharing profiles by gallery key. The
    views that sharing gives are decided by the profile alone, all else by roles alone. A role in a
    tenant that the subject does not belong to counts for nothing; ROOT is above the tenants.
    """
    if action in _VIEWS:
        return _by_share(subject, _VIEWS[action], shares.get(gallery_key(target.id)))
    held = [
        item
        for item in assignments
        if item.principal.lower() in subject.identities
        and covers(item.scope, target.id)
        and permits(item.role, action)
    ]
    if not held:
        return Decision(
            False,
            f"no role of {subject.name!r} allows {action.value} there",
            "AuthorizationFailed",
        )
    usable = [item for item in held if is_usable(item, target, subject)]
    if not usable:
        return Decision(
            False,
            f"{subject.name!r} does not belong to the tenant {target.tenant}",
            "LinkedAuthorizationFailed",
        )
    role = usable[0]
    return Decision(True, f"{role.role.value} of {role.principal!r} at {role.scope}")


def sees(subject: Subject, target: Target, assignments: Iterable[Assignment]) -> bool:
    """Whether a subject may know that something is there: it has a role for it, or for something
    in it. To whom this is denied, there is nothing."""
    return any(
        item.principal.lower() in subject.identities
        and (covers(item.scope, target.id) or covers(target.id, item.scope))
        and is_usable(item, target, subject)
        for item in assignments
    )


def is_usable(item: Assignment, target: Target, subject: Subject) -> bool:
    return item.scope == ROOT or target.tenant.lower() in subject.tenants


def _by_share(subject: Subject, wanted: SharingPermissions, profile: Sharing | None) -> Decision:
    if profile is None or profile.permissions is not wanted:
        return Decision(False, "the gallery is not shared in this way", "AuthorizationFailed")
    if wanted is SharingPermissions.COMMUNITY:
        if profile.is_public:
            return Decision(True, "a community gallery")
        return Decision(False, "the community gallery is not enabled", "AuthorizationFailed")
    for tenant in profile.tenants:
        if tenant in subject.tenants:
            return Decision(True, f"shared with the tenant {tenant}")
    for subscription in profile.subscriptions:
        if subscription in subject.subscriptions:
            return Decision(True, f"shared with the subscription {subscription}")
    return Decision(False, f"not shared with {subject.name!r}", "AuthorizationFailed")


def covers(scope: str, id: str) -> bool:
    """Whether a resource is at a scope or below it."""
    above, below = scope.lower(), id.lower()
    return above in (ROOT, below) or below.startswith(above + "/")


def gallery_key(id: str) -> str:
    """The key of the gallery that a resource is, or is in; empty when there is none."""
    segments = id.lower().split("/")
    return "/".join(segments[:9]) if len(segments) >= 9 and segments[7] == "galleries" else ""


def subscription_of(id: str) -> str:
    """The subscription that a resource is in, in lower case; empty for ROOT."""
    segments = id.lower().split("/")
    return segments[2] if len(segments) > 2 and segments[1] == "subscriptions" else ""


def subject_of(
    principal: Principal, groups: Iterable[Principal], assignments: Iterable[Assignment]
) -> Subject:
    """A principal as it acts: with its groups, their subscriptions, and those in which it or they
    have a role (having one makes one a user of a subscription)."""
    groups = tuple(groups)
    identities = frozenset({principal.key, *(group.key for group in groups)})
    held = {
        subscription_of(item.scope) for item in assignments if item.principal.lower() in identities
    }
    named = {name.lower() for item in (principal, *groups) for name in item.subscriptions}
    return Subject(
        principal.name,
        identities,
        frozenset(name.lower() for name in (principal.tenant, *principal.guest_of)),
        frozenset((named | held) - {""}),
    )


def operator(name: str) -> tuple[Subject, tuple[Assignment, ...]]:
    """The local operator: whoever runs galleria on a host without further ado. Who can write the
    catalog can do everything, so it is the owner of everything in it."""
    identity = f"operator:{name}"
    subject = Subject(
        name,
        frozenset({identity.lower()}),
        subscriptions=frozenset({DEFAULT_SUBSCRIPTION}),
    )
    return subject, (Assignment(identity, Role.OWNER, ROOT),)
