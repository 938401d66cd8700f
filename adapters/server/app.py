"""The application: what is served, and what holds for every request.

Other faces of the same process are ASGI applications of their own, mounted in `application`; who
is calling they ask of the same `Callers`.
"""

import json
import logging
import re
import time
import uuid

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.app import App
from adapters.server import azure, health, login
from adapters.server.boxes import boxes
from adapters.server.callers import Callers
from adapters.server.errors import failure
from adapters.server.health import Meter

_log = logging.getLogger("galleria.server")
_CLIENT_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_CODES = {404: "NotFound", 405: "MethodNotAllowed", 413: "RequestContentTooLarge"}


def application(app: App) -> ASGIApp:
    """Everything that is served, for an application that stays open."""
    callers, meter = Callers(app), Meter()
    routes: list[BaseRoute] = [
        *health.routes(app, callers, meter),
        Mount("/vagrant", boxes(app, callers)),
        *login.routes(callers),
        *azure.routes(callers),
    ]
    handlers = {HTTPException: _refused, Exception: _failed}
    return Requests(Starlette(routes=routes, exception_handlers=handlers), meter)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """What no operation is there for."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = _CODES.get(status, "BadRequest")
    what = f"There is no operation {request.method} {request.url.path!r}."
    response = failure(code, str(error) if status not in (404, 405) else what, status)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """What nobody has foreseen: the log says more, by the number of the request."""
    number = request.scope["state"]["request"]
    said = f"The server failed. Its log says why, at request {number}."
    return failure("InternalServerError", said, 500)


class Requests:
    """Around every request: a number that the log, the audit record and the answer tell, and a line
    in the log."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number, started, status = uuid.uuid4().hex, time.monotonic(), 0
        scope.setdefault("state", {})["request"] = number
        asked = _asked(scope)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_identifying(number, asked)]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception:  # it was answered by `_failed`
            _log.exception("request %s failed", number)
        finally:
            seconds = time.monotonic() - started
            self._meter.count(scope["method"], status, seconds)
            _log.info("%s", _line(scope, number, status, seconds))


def _asked(scope: Scope) -> bytes:
    """The number that the client gave the request, if it is one that may be repeated."""
    found = dict(scope["headers"]).get(b"x-ms-client-request-id", b"")
    return found if _CLIENT_ID.fullmatch(found.decode("latin-1")) else b""


def _identifying(number: str, asked: bytes) -> list[tuple[bytes, bytes]]:
    headers = [(b"x-ms-request-id", number.encode())]
    headers.append((b"x-ms-correlation-request-id", number.encode()))
    if asked:
        headers.append((b"x-ms-client-request-id", asked))
    headers.append((b"x-content-type-options", b"nosniff"))
    return headers


def _line(scope: Scope, number: str, status: int, seconds: float) -> str:
    """A line of the log: JSON in ASCII, so that no request can write another."""
    client = scope.get("client")
    return json.dumps(
        {
            "request": number,
            "address": client[0] if client else "",
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
    )
