"""What access control and the audit record need of a catalog: a part of `catalog.Catalog`.

`tests/contract/test_access_catalog.py` is the contract in full.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from pipeline.model.access import Assignment, Principal
from pipeline.model.audit import AuditEntry, AuditHead
from pipeline.model.credentials import AccessToken, Credential
from pipeline.model.names import GalleryName
from pipeline.model.sharing import Sharing


class AccessReader(Protocol):
    """Names are found without regard to case; lists are in the order of names."""

    def principal(self, name: str) -> Principal | None: ...
    def principals(self) -> list[Principal]: ...
    def assignments(self) -> list[Assignment]: ...
    def credentials(self, principal: str) -> list[Credential]:
        """Those of one principal, oldest first."""
        ...

    def credential(self, digest: str) -> Credential | None: ...
    def token(self, digest: str) -> AccessToken | None: ...
    def sharing(self, gallery: GalleryName) -> Sharing | None:
        """The profile of a gallery, None when there is no such gallery."""
        ...

    def sharings(self) -> list[Sharing]:
        """The profiles of the galleries that have ever been shared."""
        ...

    def sharing_by_public_name(self, name: str) -> Sharing | None: ...
    def audit_head(self) -> AuditHead: ...
    def audit_base(self) -> AuditHead:
        """Where the record begins: what was before it is not kept."""
        ...

    def audit(self, *, newest_first: bool = False, after: int = 0) -> Iterator[AuditEntry]:
        """The entries after number `after`. Read piece by piece. Valid inside the `with`."""
        ...


class AccessWriter(AccessReader, Protocol):
    """Deleting a gallery or a definition takes its sharing profile and the roles at it or below
    with it: another one of that name is another one."""

    def put_principal(self, principal: Principal) -> None: ...
    def delete_principal(self, name: str) -> None:
        """With its roles, memberships and credentials."""
        ...

    def put_credential(self, credential: Credential) -> None: ...
    def delete_credential(self, credential: Credential) -> None:
        """With the tokens that were given for it."""
        ...

    def put_token(self, token: AccessToken) -> None: ...
    def forget_tokens(self, before: datetime) -> None:
        """Remove those that had expired then."""
        ...

    def put_assignment(self, assignment: Assignment) -> None: ...
    def delete_assignment(self, assignment: Assignment) -> None: ...
    def put_sharing(self, sharing: Sharing) -> None:
        """The permissions are the gallery's own, and stored with it."""
        ...

    def append_audit(self, entry: AuditEntry) -> AuditHead:
        """Add an entry that fits the head; there is no way to change one. Returns the new head."""
        ...

    def begin_audit(self, base: AuditHead) -> None:
        """Let the record begin after `base`, and remove what is before. An empty one goes on from
        there."""
        ...
