"""Errors as Azure's REST API tells them."""

from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from pipeline.errors import Busy, GalleriaError, Unauthenticated

RETRY_AFTER = 5  # seconds


def told(error: GalleriaError) -> dict[str, Any]:
    """The envelope: code and message are Azure's where it has them, and the hint says what to
    do."""
    document: dict[str, Any] = {"code": error.reason, "message": error.message}
    if error.hint:
        document["additionalInfo"] = [{"type": "Hint", "info": {"hint": error.hint}}]
    return {"error": document}


def failure(code: str, message: str, status: int) -> JSONResponse:
    """An error that is no GalleriaError."""
    return JSONResponse({"error": {"code": code, "message": message}}, status)


def refusal(error: GalleriaError, connection: HTTPConnection) -> JSONResponse:
    """The answer to a request that failed."""
    headers = {}
    if isinstance(error, Unauthenticated):
        authority = f"{str(connection.base_url).rstrip('/')}/adfs"
        headers["WWW-Authenticate"] = (
            f'Bearer authorization_uri="{authority}", error="invalid_token"'
        )
    if isinstance(error, Busy):
        headers["Retry-After"] = str(RETRY_AFTER)
    return JSONResponse(told(error), error.http_status, headers)
