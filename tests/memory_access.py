"""The in-memory double of access control and the audit record."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from pipeline.errors import Conflict
from pipeline.gallery import rules
from pipeline.gallery.access.decide import covers
from pipeline.model import Gallery
from pipeline.model.access import Assignment, Principal
from pipeline.model.audit import AuditEntry, AuditHead
from pipeline.model.credentials import AccessToken, Credential
from pipeline.model.names import GalleryName
from pipeline.model.sharing import Sharing


@dataclass
class AccessState:
    galleries: dict[GalleryName, Gallery] = field(default_factory=dict)
    principals: dict[str, Principal] = field(default_factory=dict)
    roles: dict[tuple[str, str, str], Assignment] = field(default_factory=dict)
    credentials: dict[str, Credential] = field(default_factory=dict)
    tokens: dict[str, AccessToken] = field(default_factory=dict)
    shares: dict[GalleryName, Sharing] = field(default_factory=dict)
    entries: list[AuditEntry] = field(default_factory=list)
    base: AuditHead = field(default_factory=AuditHead)


class AccessView:
    _access: AccessState

    def principal(self, name: str) -> Principal | None:
        return self._access.principals.get(name.lower())

    def principals(self) -> list[Principal]:
        return [item for _, item in sorted(self._access.principals.items())]

    def assignments(self) -> list[Assignment]:
        return [item for _, item in sorted(self._access.roles.items())]

    def credentials(self, principal: str) -> list[Credential]:
        every = self._access.credentials.values()
        found = [item for item in every if item.principal.lower() == principal.lower()]
        return sorted(found, key=lambda item: item.created)

    def credential(self, digest: str) -> Credential | None:
        every = self._access.credentials.values()
        return next((item for item in every if item.digest == digest), None)

    def token(self, digest: str) -> AccessToken | None:
        return self._access.tokens.get(digest)

    def sharing(self, gallery: GalleryName) -> Sharing | None:
        found = self._access.galleries.get(gallery)
        if found is None:
            return None
        profile = self._access.shares.get(gallery, Sharing(gallery))
        permissions = found.sharing_profile.permissions
        return replace(profile, gallery=found.name, permissions=permissions)

    def sharings(self) -> list[Sharing]:
        found = [self.sharing(name) for name in self._access.shares]
        return sorted((item for item in found if item), key=lambda item: item.gallery.key)

    def sharing_by_public_name(self, name: str) -> Sharing | None:
        for item in self.sharings():
            if item.community and item.community.public_name.lower() == name.lower():
                return item if name else None
        return None

    def audit_head(self) -> AuditHead:
        entries = self._access.entries
        return AuditHead(entries[-1].seq, entries[-1].hash) if entries else self._access.base

    def audit_base(self) -> AuditHead:
        return self._access.base

    def audit(self, *, newest_first: bool = False, after: int = 0) -> Iterator[AuditEntry]:
        found = [entry for entry in self._access.entries if entry.seq > after]
        return iter(found[:: -1 if newest_first else 1])

    def put_principal(self, principal: Principal) -> None:
        self._access.principals[principal.key] = principal

    def delete_principal(self, name: str) -> None:
        for credential in self.credentials(name):
            self.delete_credential(credential)
        self._access.principals.pop(name.lower(), None)
        self._drop_roles(lambda item: item.principal.lower() == name.lower())
        for group in self.principals():
            rest = tuple(item for item in group.members if item.lower() != name.lower())
            self.put_principal(replace(group, members=rest))

    def put_credential(self, credential: Credential) -> None:
        self._access.credentials[credential.id] = credential

    def delete_credential(self, credential: Credential) -> None:
        self._access.credentials.pop(credential.id, None)
        for token in [t for t in self._access.tokens.values() if t.credential == credential.id]:
            del self._access.tokens[token.digest]

    def put_token(self, token: AccessToken) -> None:
        self._access.tokens[token.digest] = token

    def forget_tokens(self, before: datetime) -> None:
        for token in [t for t in self._access.tokens.values() if t.expires < before]:
            del self._access.tokens[token.digest]

    def put_assignment(self, assignment: Assignment) -> None:
        self._access.roles[assignment.key] = assignment

    def delete_assignment(self, assignment: Assignment) -> None:
        self._access.roles.pop(assignment.key, None)

    def forget_access(self, scope: str) -> None:
        self._drop_roles(lambda item: covers(scope, item.scope))
        for name in [item for item in self._access.shares if item.key == scope.lower()]:
            del self._access.shares[name]

    def put_sharing(self, sharing: Sharing) -> None:
        rules.parent(self._access.galleries.get(sharing.gallery), sharing.gallery)
        self._access.shares[sharing.gallery] = sharing

    def append_audit(self, entry: AuditEntry) -> AuditHead:
        if entry.seq != self.audit_head().seq + 1:
            raise Conflict(f"entry {entry.seq} does not fit")
        self._access.entries.append(entry)
        return self.audit_head()

    def begin_audit(self, base: AuditHead) -> None:
        self._access.base = base
        self._access.entries = [item for item in self._access.entries if item.seq > base.seq]

    def _drop_roles(self, gone: object) -> None:
        assert callable(gone)
        for key, item in list(self._access.roles.items()):
            if gone(item):
                del self._access.roles[key]
