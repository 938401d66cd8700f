"""Who is calling: a request's bearer token, and the session that it gets."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from adapters.app import App, Session, local_account
from pipeline.errors import Unauthenticated
from pipeline.gallery.access.credentials import Logins
from pipeline.model.access import Identity

_BEARER = re.compile(r"Bearer +([!-~]{1,512}) *", re.IGNORECASE)


class Callers:
    """What tells callers apart, and gives each a session of its own."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._account = local_account()
        self.logins = Logins(app.catalog)

    @contextmanager
    def session(self, connection: HTTPConnection) -> Iterator[Session]:
        """The application as the caller has it, for one request. Raises Unauthenticated: nobody is
        let in without a token, and nobody acts as the local operator."""
        principal = self.logins.principal_of(bearer(connection.headers))
        address = connection.client.host if connection.client else ""
        request = str(connection.scope["state"]["request"])
        with self._app.again() as app:
            yield app.session(Identity(self._account, principal, request, address))


def bearer(headers: Headers) -> str:
    """The token of a request. Raises Unauthenticated when it has none."""
    match = _BEARER.fullmatch(headers.get("authorization", ""))
    if match is None:
        raise Unauthenticated(
            "Authentication failed. The 'Authorization' header is missing or is not a bearer "
            "token.",
            hint="log in, and send the token: Authorization: Bearer TOKEN",
            code="AuthenticationFailed",
        )
    return match[1]
