"""The queries of access control and of the audit record."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update
from sqlalchemy.sql import ColumnElement

from adapters.catalog import access_tables as a
from adapters.catalog import tables as t
from adapters.catalog.conditions import IS_GALLERY, gallery_keys
from pipeline.errors import Conflict
from pipeline.gallery import rules
from pipeline.gallery.documents import decode, encode
from pipeline.model import Gallery
from pipeline.model.access import Assignment, Principal
from pipeline.model.audit import AuditEntry, AuditHead
from pipeline.model.credentials import AccessToken, Credential
from pipeline.model.names import GalleryName
from pipeline.model.sharing import Sharing
from pipeline.ports.access_catalog import AccessReader, AccessWriter

PAGE = 500  # entries of the audit record that are fetched at a time

_HEAD = select(a.audit_head.c.seq, a.audit_head.c.hash)
_ADVANCE = update(a.audit_head).where(a.audit_head.c.seq == bindparam("after"))


class AccessQueries:
    _connection: Connection

    def principal(self, name: str) -> Principal | None:
        query = select(a.principals.c.document).where(a.principals.c.name_key == name.lower())
        document = self._connection.scalar(query)
        return None if document is None else decode(Principal, document)

    def principals(self) -> list[Principal]:
        found = self._connection.scalars(select(a.principals.c.document))
        return sorted((decode(Principal, item) for item in found), key=lambda item: item.key)

    def assignments(self) -> list[Assignment]:
        found = self._connection.scalars(select(a.role_assignments.c.document))
        return sorted((decode(Assignment, item) for item in found), key=lambda item: item.key)

    def credentials(self, principal: str) -> list[Credential]:
        mine = a.credentials.c.principal_key == principal.lower()
        found = self._connection.scalars(select(a.credentials.c.document).where(mine))
        return sorted((decode(Credential, item) for item in found), key=lambda item: item.created)

    def credential(self, digest: str) -> Credential | None:
        query = select(a.credentials.c.document).where(a.credentials.c.digest == digest)
        document = self._connection.scalar(query)
        return None if document is None else decode(Credential, document)

    def token(self, digest: str) -> AccessToken | None:
        query = select(a.tokens.c.document).where(a.tokens.c.digest == digest)
        document = self._connection.scalar(query)
        return None if document is None else decode(AccessToken, document)

    def sharing(self, gallery: GalleryName) -> Sharing | None:
        found = self._sharings(IS_GALLERY, gallery_keys(gallery), outer=True)
        return next(iter(found), None)

    def sharings(self) -> list[Sharing]:
        return self._sharings()

    def sharing_by_public_name(self, name: str) -> Sharing | None:
        public = a.gallery_shares.c.public_name_key == bindparam("public")
        found = self._sharings(public, {"public": name.lower()})
        return next(iter(found), None)

    def audit_head(self) -> AuditHead:
        row = self._connection.execute(_HEAD).first()
        return AuditHead() if row is None else AuditHead(row.seq, row.hash)

    def audit_base(self) -> AuditHead:
        row = self._connection.execute(select(a.audit_base.c.seq, a.audit_base.c.hash)).first()
        return AuditHead() if row is None else AuditHead(row.seq, row.hash)

    def audit(self, *, newest_first: bool = False, after: int = 0) -> Iterator[AuditEntry]:
        seq = a.audit.c.seq
        query = select(a.audit).order_by(seq.desc() if newest_first else seq).limit(PAGE)
        query = query.where(seq > after)
        rows = self._connection.execute(query).all()
        while rows:
            for row in rows:
                yield AuditEntry(row.seq, row.entry, row.hash)
            beyond = seq < rows[-1].seq if newest_first else seq > rows[-1].seq
            rows = self._connection.execute(query.where(beyond)).all()

    def _sharings(
        self,
        condition: ColumnElement[bool] | None = None,
        keys: Mapping[str, str] | None = None,
        *,
        outer: bool = False,
    ) -> list[Sharing]:
        shares, galleries = a.gallery_shares, t.galleries
        joined = galleries.join(shares, shares.c.gallery_id == galleries.c.id, isouter=outer)
        query = select(galleries.c.document, shares.c.document.label("share")).select_from(joined)
        if condition is not None:
            query = query.where(condition)
        rows = self._connection.execute(query, keys)
        found = [_sharing(row.document, row.share) for row in rows]
        return sorted(found, key=lambda item: item.gallery.key)


class AccessChanges(AccessQueries):
    def put_principal(self, principal: Principal) -> None:
        key, document = principal.key, encode(principal)
        table = a.principals
        changed = self._connection.execute(
            update(table).where(table.c.name_key == key).values(document=document)
        )
        if changed.rowcount == 0:
            self._connection.execute(insert(table).values(name_key=key, document=document))

    def delete_principal(self, name: str) -> None:
        key, roles = name.lower(), a.role_assignments
        self._connection.execute(delete(a.principals).where(a.principals.c.name_key == key))
        self._connection.execute(delete(roles).where(roles.c.principal_key == key))
        for group in self.principals():
            rest = tuple(member for member in group.members if member.lower() != key)
            if rest != group.members:
                self.put_principal(replace(group, members=rest))

    def put_credential(self, credential: Credential) -> None:
        self._connection.execute(
            insert(a.credentials).values(
                id=credential.id,
                principal_key=credential.principal.lower(),
                digest=credential.digest,
                document=encode(credential),
            )
        )

    def delete_credential(self, credential: Credential) -> None:
        mine = a.credentials.c.id == credential.id
        self._connection.execute(delete(a.credentials).where(mine))

    def put_token(self, token: AccessToken) -> None:
        self._connection.execute(
            insert(a.tokens).values(
                digest=token.digest,
                credential=token.credential,
                expires=int(token.expires.timestamp()),
                document=encode(token),
            )
        )

    def forget_tokens(self, before: datetime) -> None:
        expired = a.tokens.c.expires < int(before.timestamp())
        self._connection.execute(delete(a.tokens).where(expired))

    def put_assignment(self, assignment: Assignment) -> None:
        self.delete_assignment(assignment)
        principal, role, scope = assignment.key
        self._connection.execute(
            insert(a.role_assignments).values(
                principal_key=principal, role=role, scope_key=scope, document=encode(assignment)
            )
        )

    def delete_assignment(self, assignment: Assignment) -> None:
        c = a.role_assignments.c
        principal, role, scope = assignment.key
        self._connection.execute(
            delete(a.role_assignments).where(
                c.principal_key == principal, c.role == role, c.scope_key == scope
            )
        )

    def forget_roles(self, scope: str) -> None:
        """The roles at a resource that is deleted, and below it."""
        key = a.role_assignments.c.scope_key
        at, below = key == scope.lower(), key.startswith(scope.lower() + "/", autoescape=True)
        self._connection.execute(delete(a.role_assignments).where(or_(at, below)))

    def put_sharing(self, sharing: Sharing) -> None:
        query = select(t.galleries.c.id).where(IS_GALLERY)
        gallery_id = self._connection.scalar(query, gallery_keys(sharing.gallery))
        rules.parent(gallery_id, sharing.gallery)
        public = sharing.community.public_name.lower() if sharing.community else ""
        table = a.gallery_shares
        self._connection.execute(delete(table).where(table.c.gallery_id == gallery_id))
        self._connection.execute(
            insert(table).values(
                gallery_id=gallery_id, public_name_key=public or None, document=encode(sharing)
            )
        )

    def append_audit(self, entry: AuditEntry) -> AuditHead:
        values: dict[str, Any] = {"seq": entry.seq, "hash": entry.hash}
        after = {"after": entry.seq - 1}
        if self._connection.execute(_ADVANCE, {**values, **after}).rowcount == 0:
            head = self.audit_head()
            if head != AuditHead() or entry.seq != 1:
                raise Conflict(
                    f"The audit record is at {head.seq}: entry {entry.seq} does not fit."
                )
            self._connection.execute(insert(a.audit_head), {"id": 1, **values})
        self._connection.execute(insert(a.audit), {"entry": entry.text, **values})
        return AuditHead(entry.seq, entry.hash)

    def begin_audit(self, base: AuditHead) -> None:
        values = {"id": 1, "seq": base.seq, "hash": base.hash}
        self._connection.execute(delete(a.audit_base))
        self._connection.execute(insert(a.audit_base), values)
        self._connection.execute(delete(a.audit).where(a.audit.c.seq <= base.seq))
        if self.audit_head() == AuditHead():
            self._connection.execute(insert(a.audit_head), values)


def _sharing(gallery: object, share: object) -> Sharing:
    """A profile with the permissions of its gallery, whatever they were when it was stored."""
    found = decode(Gallery, gallery)
    profile = Sharing(found.name) if share is None else decode(Sharing, share)
    return replace(profile, gallery=found.name, permissions=found.sharing_profile.permissions)


_reader: type[AccessReader] = AccessQueries
_writer: type[AccessWriter] = AccessChanges
