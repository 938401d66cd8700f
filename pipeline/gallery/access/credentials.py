"""Who somebody is, by the secret or the token that they show."""

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime, timedelta

from blake3 import blake3

from pipeline.errors import Unauthenticated
from pipeline.model.access import Principal
from pipeline.model.clock import utc_now
from pipeline.model.credentials import AccessToken, Credential
from pipeline.model.names import DEFAULT_TENANT
from pipeline.ports.catalog import Catalog, CatalogReader

SECRET = "galleria-secret-"  # noqa: S105 - what scanners for leaked secrets may look for
TOKEN = "galleria-token-"  # noqa: S105
LASTING = timedelta(hours=1)  # a token

_KEY = "galleria 2026 credentials"
_COMMON = frozenset({"adfs", "common", "organizations"})  # what clients say who know no tenant


def new_secret(kind: str) -> str:
    """256 random bits as text."""
    return kind + urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def digest_of(secret: str) -> str:
    """What is kept of a secret or a token."""
    return blake3(secret.encode(), derive_key_context=_KEY).hexdigest()


class Logins:
    """The way in, for callers who are not known yet: it takes no right, and tells nothing but who
    has a secret."""

    def __init__(self, catalog: Catalog, clock: Callable[[], datetime] = utc_now) -> None:
        self._catalog = catalog
        self._clock = clock

    def log_in(self, name: str, secret: str, tenant: str) -> tuple[str, AccessToken]:
        """Exchange a principal's secret for a token. The tenant, unless it is a common name, has to
        be one of the principal's. Raises Unauthenticated."""
        now = self._clock()
        with self._catalog.read() as catalog:
            credential = _credential(catalog, secret, now)
            principal = catalog.principal(credential.principal)
        if principal is None or principal.key != name.lower() or not _in_tenant(principal, tenant):
            raise _unknown()
        token = new_secret(TOKEN)
        lasting = min(now + LASTING, credential.expires)
        given = AccessToken(digest_of(token), credential.id, principal.name, lasting)
        with self._catalog.write() as writer:
            writer.forget_tokens(now)
            if writer.credential(credential.digest) is None:  # it was deleted meanwhile
                raise _unknown()
            writer.put_token(given)
        return token, given

    def principal_of(self, bearer: str) -> str:
        """The principal whose token this is, or whose secret. Raises Unauthenticated."""
        now = self._clock()
        with self._catalog.read() as catalog:
            if bearer.startswith(SECRET):
                return _credential(catalog, bearer, now).principal
            token = catalog.token(digest_of(bearer))
        if token is None:
            raise Unauthenticated("The access token is invalid.", hint="log in again")
        if token.expires <= now:
            raise Unauthenticated(
                "The access token expiry UTC time is earlier than the current UTC time.",
                hint="log in again",
                code="ExpiredAuthenticationToken",
            )
        return token.principal


def _credential(catalog: CatalogReader, secret: str, now: datetime) -> Credential:
    found = catalog.credential(digest_of(secret))
    if found is None:
        raise _unknown()
    if found.expires <= now:
        raise Unauthenticated(
            f"The secret {found.id} of '{found.principal}' has expired.",
            hint=f"galleria principal credential reset {found.principal}",
            code="ExpiredSecret",
        )
    return found


def _in_tenant(principal: Principal, tenant: str) -> bool:
    known = {principal.tenant.lower(), *(item.lower() for item in principal.guest_of)}
    return tenant.lower() in known | _COMMON


def _unknown() -> Unauthenticated:
    return Unauthenticated(
        "There is no such principal with this secret in this tenant.",
        hint="galleria principal credential reset makes a new secret; the default tenant is "
        + DEFAULT_TENANT,
        code="InvalidSecret",
    )
