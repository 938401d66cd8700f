"""The operations on principals, roles and shares, and the reading of the audit record. As in
`service`, each reads, checks and writes in one transaction; who may do it is decided first."""

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from pipeline.errors import Conflict, InvalidParameter, NotFound
from pipeline.gallery import rules
from pipeline.gallery.access import sharing
from pipeline.gallery.access.credentials import SECRET, digest_of, new_secret
from pipeline.gallery.access.decide import covers
from pipeline.gallery.access.subjects import Access
from pipeline.gallery.audit import verify
from pipeline.gallery.audited import principal_id
from pipeline.model import Gallery, SharingPermissions, SharingProfile
from pipeline.model.access import ROOT, Action, Assignment, Principal, PrincipalKind, Role
from pipeline.model.audit import AuditEntry, AuditFilter, AuditHead
from pipeline.model.clock import utc_now
from pipeline.model.credentials import Credential
from pipeline.model.names import (
    DEFAULT_RESOURCE_GROUP,
    DEFAULT_SUBSCRIPTION,
    DefinitionName,
    GalleryName,
    parse_definition,
    parse_gallery,
    qualified,
)
from pipeline.model.sharing import Community, Sharing
from pipeline.model.spelling import check_subscription, check_tenant, is_guid
from pipeline.ports.catalog import CatalogReader

_NAME = re.compile(r"[^\s/\\'\"<>]{1,256}")


class Grants:
    """Who there is, who may do what, what is shared, and what was done; for one subject."""

    def __init__(self, access: Access, clock: Callable[[], datetime] = utc_now) -> None:
        self._access = access
        self._clock = clock

    # --- principals --------------------------------------------------------------------------

    def put_principal(self, principal: Principal) -> Principal:
        """Make a principal, or replace the one of that name."""
        with self._access.write(Action.PRINCIPAL_WRITE, ROOT) as (catalog, changes):
            _check_principal(principal)
            old = catalog.principal(principal.name)
            if old is not None and old.kind is not principal.kind:
                raise Conflict(
                    f"The principal '{old.name}' is a {old.kind.value}: it can't become a "
                    f"{principal.kind.value}."
                )
            for member in principal.members:
                if catalog.principal(member) is None:
                    raise _no_principal(member)
            changes.put_principal(principal)
        return principal

    def delete_principal(self, name: str) -> None:
        """With its roles, memberships and credentials."""
        with self._access.write(Action.PRINCIPAL_DELETE, ROOT) as (catalog, changes):
            rules.existing(catalog.principal(name), principal_id(name))
            changes.delete_principal(name)

    def principals(self) -> list[Principal]:
        with self._access.read(Action.PRINCIPAL_READ, ROOT) as catalog:
            return catalog.principals()

    def reset_credential(
        self, name: str, expires: datetime, *, display_name: str = "", append: bool = False
    ) -> tuple[str, Credential]:
        """Make a secret by which a principal logs in, which is told here and never again. Its
        other secrets, and the tokens given for them, end unless `append`."""
        with self._access.write(Action.PRINCIPAL_WRITE, ROOT) as (catalog, changes):
            found = catalog.principal(name)
            if found is None:
                raise _no_principal(name)
            if found.kind is PrincipalKind.GROUP:
                raise InvalidParameter(f"A group does not log in: {found.name!r} is one.")
            now = self._clock()
            if expires <= now:
                raise InvalidParameter("The secret would have expired already.")
            for old in [] if append else catalog.credentials(name):
                changes.delete_credential(old)
            secret = new_secret(SECRET)
            made = Credential(
                str(uuid.uuid4()), found.name, digest_of(secret), now, expires, display_name
            )
            changes.put_credential(made)
        return secret, made

    def credentials(self, name: str) -> list[Credential]:
        """Those of a principal, oldest first; expired ones too."""
        with self._access.read(Action.PRINCIPAL_READ, ROOT) as catalog:
            if catalog.principal(name) is None:
                raise _no_principal(name)
            return catalog.credentials(name)

    def delete_credential(self, name: str, id: str) -> None:
        """With the tokens that were given for it."""
        with self._access.write(Action.PRINCIPAL_WRITE, ROOT) as (catalog, changes):
            found = [item for item in catalog.credentials(name) if item.id == id.lower()]
            if not found:
                raise NotFound(
                    f"{name!r} has no credential {id!r}.",
                    hint=f"galleria principal credential list {name}",
                    code="CredentialNotFound",
                )
            changes.delete_credential(found[0])

    # --- roles -------------------------------------------------------------------------------

    def assign(self, principal: str, role: Role, scope: str) -> Assignment:
        """Give a role, at a scope that `parse_scope` reads."""
        id = parse_scope(scope)
        with self._access.write(Action.ASSIGNMENT_WRITE, id) as (catalog, changes):
            found = catalog.principal(principal)
            if found is None:
                raise _no_principal(principal)
            _check_scope(catalog, id)
            assignment = Assignment(found.name, role, id)
            changes.put_assignment(assignment)
        return assignment

    def unassign(self, principal: str, role: Role, scope: str) -> Assignment:
        """Take a role away; returns what is gone. One that is not there is an error."""
        id = parse_scope(scope)
        wanted = Assignment(principal, role, id)
        with self._access.write(Action.ASSIGNMENT_DELETE, id) as (catalog, changes):
            found = {item.key for item in catalog.assignments()}
            if wanted.key not in found:
                raise NotFound(
                    f"{principal!r} does not have the role {role.value} at {id}.",
                    hint="galleria role list shows who has which role",
                    code="RoleAssignmentNotFound",
                )
            changes.delete_assignment(wanted)
        return wanted

    def assignments(
        self, scope: str | None = None, principal: str | None = None
    ) -> list[Assignment]:
        """The roles that the subject may know of; with a scope, those that hold there; with a
        principal, those that it has."""
        id = None if scope is None else parse_scope(scope)
        visible = self._access.visible(
            Action.ASSIGNMENT_READ, lambda catalog: catalog.assignments(), lambda item: item.scope
        )
        return [
            item
            for item in visible
            if (id is None or covers(item.scope, id))
            and (principal is None or item.principal.lower() == principal.lower())
        ]

    # --- shares ------------------------------------------------------------------------------

    def sharing(self, name: GalleryName) -> Sharing:
        with self._access.read(Action.GALLERY_READ, name) as catalog:
            return rules.existing(catalog.sharing(name), name)

    def share_with(
        self, name: GalleryName, subscriptions: Sequence[str], tenants: Sequence[str]
    ) -> Sharing:
        """Share a Groups gallery with more subscriptions and tenants."""
        return self._share(name, lambda old: sharing.add(old, subscriptions, tenants))

    def unshare_with(
        self, name: GalleryName, subscriptions: Sequence[str], tenants: Sequence[str]
    ) -> Sharing:
        return self._share(name, lambda old: sharing.remove(old, subscriptions, tenants))

    def reset(self, name: GalleryName) -> Sharing:
        """Take back all that was shared, the community gallery too."""
        return self._share(name, sharing.reset)

    def enable_community(self, name: GalleryName, community: Community | None = None) -> Sharing:
        """Make a Community gallery public; `community` says how it presents itself, if that was
        not said before."""

        def change(old: Sharing) -> Sharing:
            described = old if community is None else sharing.describe(old, community)
            return sharing.enable_community(described, uuid.uuid4())

        return self._share(name, change)

    def describe_community(self, name: GalleryName, community: Community) -> Sharing:
        """Say how a Community gallery presents itself; it is public when that is enabled."""
        return self._share(name, lambda old: sharing.describe(old, community))

    def set_permissions(self, name: GalleryName, permissions: SharingPermissions) -> Sharing:
        """Make a gallery Private, Groups or Community. What it holds must be allowed there."""
        with self._access.write(Action.GALLERY_WRITE, name) as (catalog, changes):
            old = rules.existing(catalog.sharing(name), name)
            new = sharing.change_permissions(old, permissions)
            gallery = rules.existing(catalog.gallery(name), name)
            _may_share(catalog, gallery, permissions)
            profile = SharingProfile(permissions)
            changes.put_gallery(replace(gallery, sharing_profile=profile))
        return new

    def _share(self, name: GalleryName, change: Callable[[Sharing], Sharing]) -> Sharing:
        with self._access.write(Action.GALLERY_SHARE, name) as (catalog, changes):
            new = change(rules.existing(catalog.sharing(name), name))
            if new.is_shared:
                gallery = rules.existing(catalog.gallery(name), name)
                _may_share(catalog, gallery, new.permissions)
            changes.put_sharing(new)
        return new

    # --- the catalog as a whole --------------------------------------------------------------

    def check_backup(self) -> None:
        """Refuse unless the subject may have a copy of the whole catalog."""
        self._access.require(Action.CATALOG_BACKUP, ROOT)

    def check_health(self) -> None:
        """Refuse unless the subject may know what is wrong with the catalog."""
        self._access.require(Action.CATALOG_CHECK, ROOT)

    def check_metrics(self) -> None:
        """Refuse unless the subject may know how much there is of everything."""
        self._access.require(Action.METRICS_READ, ROOT)

    def check_collect(self) -> None:
        """Refuse unless the subject may remove what nobody needs, whoever made it."""
        self._access.require(Action.GARBAGE_COLLECT, ROOT)

    def check_restore(self) -> None:
        """Refuse unless the subject may put another catalog in the place of this one."""
        self._access.require(Action.CATALOG_RESTORE, ROOT)

    def check_adoption(self) -> None:
        """Refuse unless the subject may make zones of other catalogs this one's."""
        self._access.require(Action.ZONE_ADOPT, ROOT)

    # --- the zones ---------------------------------------------------------------------------

    def check_scrub(self, scope: str) -> None:
        """Refuse unless the subject may read again what zones hold of a scope."""
        self._access.require(Action.ZONE_SCRUB, scope)

    def check_repair(self, scope: str) -> None:
        """Refuse unless the subject may have what zones hold of a scope made again."""
        self._access.require(Action.ZONE_REPAIR, scope)

    # --- the audit record --------------------------------------------------------------------

    def audit(
        self,
        wanted: AuditFilter = AuditFilter(),  # noqa: B008 - frozen
    ) -> Iterator[AuditEntry]:
        """Newest first, those on objects whose record the subject may read."""
        found = self._access.visible(
            Action.AUDIT_READ, lambda catalog: catalog.audit(newest_first=True), _recorded
        )
        return (entry for entry in found if wanted.takes(entry.content))

    def verify_audit(self, expected: AuditHead | None = None) -> AuditHead:
        """Walk the whole chain. Raises VerificationFailed."""
        with self._access.read(Action.AUDIT_READ, ROOT) as catalog:
            base = catalog.audit_base()
            return verify(catalog.audit(), catalog.audit_head(), expected, base)


def _recorded(entry: AuditEntry) -> str:
    """What an entry of the record is about."""
    id = str(entry.content["object"])
    return id if id.startswith("/") else ROOT


def parse_scope(
    text: str,
    subscription: str = DEFAULT_SUBSCRIPTION,
    resource_group: str = DEFAULT_RESOURCE_GROUP,
) -> str:
    """The ARM id that a scope means: `/`, a subscription's GUID or id, a resource group's id, a
    gallery, or a definition; short names are in the given group. Raises InvalidParameter for
    anything else, versions too."""
    if text == ROOT:
        return ROOT
    if is_guid(text):
        return f"/subscriptions/{text.lower()}"
    segments = text.split("/")
    if not text.startswith("/"):
        if len(segments) > 2:
            raise _no_scope(text)
        full = qualified(text, subscription, resource_group)
        return (parse_gallery if len(segments) == 1 else parse_definition)(full).arm_id
    fixed = [segment.lower() for segment in segments[1:5:2]]
    if len(segments) in (3, 5) and fixed == ["subscriptions", "resourcegroups"][: len(fixed)]:
        group = segments[4] if len(segments) == 5 else DEFAULT_RESOURCE_GROUP
        GalleryName("x", subscription=segments[2], resource_group=group)  # refuses a malformed one
        return text
    if len(segments) == 9:
        return parse_gallery(text).arm_id
    if len(segments) == 11:
        return parse_definition(text).arm_id
    raise _no_scope(text)


def _no_scope(text: str) -> InvalidParameter:
    return InvalidParameter(
        f"The scope {text!r} is not valid.",
        hint="a subscription, a resource group, a gallery (corp) or a definition (corp/web); "
        "give a role at the definition to have it for its versions",
    )


def _no_principal(name: str) -> NotFound:
    return NotFound(
        f"There is no principal {name!r}.",
        hint="galleria principal create makes one",
        code="PrincipalNotFound",
    )


def _check_principal(principal: Principal) -> None:
    name = principal.name
    if not _NAME.fullmatch(name) or not name.isprintable() or name.lower().startswith("operator:"):
        raise InvalidParameter(
            f"The principal name {name!r} is not valid: 1 to 256 printable characters without "
            "blanks, slashes and quotes."
        )
    for tenant in (principal.tenant, *principal.guest_of):
        check_tenant(tenant)
    for subscription in principal.subscriptions:
        check_subscription(subscription)
    if principal.members and principal.kind is not PrincipalKind.GROUP:
        raise InvalidParameter(f"Only a group has members: {name!r} is a {principal.kind.value}.")


def _check_scope(catalog: CatalogReader, id: str) -> None:
    """A gallery or definition must be there: a role at a name that somebody makes later would
    surprise everyone."""
    segments = id.split("/")
    if len(segments) == 9:
        name = parse_gallery(id)
        rules.existing(catalog.gallery(name), name)
    elif len(segments) == 11:
        definition: DefinitionName = parse_definition(id)
        rules.existing(catalog.definition(definition), definition)


def _may_share(catalog: CatalogReader, gallery: Gallery, permissions: SharingPermissions) -> None:
    """Refuse what a gallery of that kind may not hold."""
    if permissions is SharingPermissions.PRIVATE:
        return
    for definition in catalog.definitions(gallery.name):
        sharing.may_hold_definition(permissions, gallery, definition)
        for version in catalog.versions(definition.name):
            sharing.may_hold_version(permissions, gallery, version.name, version.location)
