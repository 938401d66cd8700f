"""One request: who asks what, handled in a thread, and the answer."""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from adapters.app import Session
from adapters.server.callers import Callers
from adapters.server.errors import refusal
from pipeline.errors import GalleriaError, InvalidParameter, NotFound
from pipeline.model.names import DefinitionName, GalleryName, VersionName, parse_number

T = TypeVar("T")

MAX_BODY = 4 << 20  # bytes; Azure's limit

_API_VERSION = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9](-preview)?")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation answers; without a document the body is empty."""

    document: Mapping[str, Any] | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        if self.document is None:
            return Response(status_code=self.status, headers=dict(self.headers))
        return JSONResponse(self.document, self.status, dict(self.headers))


class Call:
    """A request of a caller who is known. What its path names is parsed when it is asked for."""

    def __init__(self, request: Request, session: Session, content: bytes) -> None:
        self.request = request
        self.session = session
        self._content = content
        self.path: Mapping[str, str] = request.path_params
        self.query = request.query_params

    @cached_property
    def api_version(self) -> str:
        """The version of the interface that the caller speaks. Raises InvalidParameter."""
        given = self.query.get("api-version", "")
        if not given:
            raise InvalidParameter(
                "The api-version query parameter (?api-version=) is required for all requests.",
                code="MissingApiVersionParameter",
            )
        if not _API_VERSION.fullmatch(given):
            raise InvalidParameter(
                f"The api-version {given!r} is invalid. The valid format is yyyy-MM-dd or "
                "yyyy-MM-dd-preview.",
                code="InvalidApiVersionParameter",
            )
        return given

    @property
    def base(self) -> str:
        """The scheme and host that the caller uses: URLs in answers begin so."""
        return str(self.request.base_url).rstrip("/")

    @cached_property
    def body(self) -> Any:
        """The JSON of the request. Raises InvalidParameter."""
        try:
            found = json.loads(self._content, parse_constant=_no_constant)
            # what no catalog can keep: half of a pair of surrogates, and NUL
            if "\\u0000" in json.dumps(found, ensure_ascii=False).encode().decode():
                raise ValueError("it has a NUL character")
            return found
        except (ValueError, RecursionError) as error:
            raise InvalidParameter(
                f"The request content was invalid and could not be deserialized: {error}.",
                code="InvalidRequestContent",
            ) from None

    @property
    def gallery(self) -> GalleryName:
        return GalleryName(self.path["gallery"], self.path["subscription"], self.path["group"])

    @property
    def definition(self) -> DefinitionName:
        return DefinitionName(self.gallery, self.path["definition"])

    @property
    def version(self) -> VersionName:
        return VersionName(self.definition, parse_number(self.path["version"]))


PAGE = 100  # of a list, in one answer


def page(
    call: Call,
    items: Iterable[T],
    key: Callable[[T], str],
    document: Callable[[T], Mapping[str, Any]],
    size: int = PAGE,
) -> Answer:
    """A part of a list that is ordered by `key`: what comes after the caller's `$skiptoken`, and
    where the rest is."""
    after = call.query.get("$skiptoken", "")
    rest = [item for item in items if key(item) > after]
    return paged(call, [document(item) for item in rest[:size]], following(rest, size, key))


def following(rest: Sequence[T], size: int, key: Callable[[T], str]) -> str | None:
    return key(rest[size - 1]) if len(rest) > size else None


def paged(call: Call, documents: Sequence[Mapping[str, Any]], token: str | None) -> Answer:
    """A part of a list; `token` says where the next one begins."""
    answer: dict[str, Any] = {"value": documents}
    if token is not None:
        query = urlencode({**call.query, "$skiptoken": token})
        answer["nextLink"] = f"{call.base}{quote(call.request.url.path)}?{query}"
    return Answer(answer)


def deleted(delete: Callable[[], Answer | None]) -> Answer:
    """Delete something: 204 when it is not there, as Azure answers."""
    try:
        return delete() or Answer()
    except NotFound as error:
        if error.reason != "ResourceNotFound":
            raise
        return Answer(status=204)


Operation = Callable[[Call], Answer]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class AzureRoute(Route):
    """A path of Azure's: it compares without regard to case, and clients send empty segments and a
    slash at the end."""

    def __init__(self, method: str, path: str, operation: Operation, callers: Callers) -> None:
        endpoint = _endpoint(operation, callers)
        super().__init__(path, endpoint, methods=[method], max_body_size=MAX_BODY)
        self.path_regex = re.compile(self.path_regex.pattern, re.IGNORECASE)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        plain = "/" + "/".join(part for part in scope["path"].split("/") if part)
        return super().matches({**scope, "path": plain})


def _endpoint(operation: Operation, callers: Callers) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        content = await request.body()
        return await run_in_threadpool(_handled, operation, request, callers, content)

    return handle


def _handled(operation: Operation, request: Request, callers: Callers, content: bytes) -> Response:
    try:
        with callers.session(request) as session:
            call = Call(request, session, content)
            _ = call.api_version
            return operation(call).response()
    except GalleriaError as error:
        if error.http_status >= 500:
            logging.getLogger("galleria.server").error("%s: %r", type(error).__name__, str(error))
        return refusal(error, request)
