"""What looks after a server asks: whether it lives, whether it can answer, what it does."""

from collections import Counter
from threading import Lock

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from adapters.app import App
from adapters.server.callers import Callers
from adapters.server.errors import refusal
from pipeline.errors import GalleriaError
from pipeline.gallery.metrics import Metric, text

METHODS = {"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"}
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Meter:
    """How many requests were answered, and how long that took."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[tuple[str, int]] = Counter()
        self._seconds = 0.0

    def count(self, method: str, status: int, seconds: float) -> None:
        known = method if method in METHODS else "other"  # whatever clients may invent
        with self._lock:
            self._counts[known, status] += 1
            self._seconds += seconds

    def metrics(self) -> list[Metric]:
        with self._lock:
            counts, seconds = dict(self._counts), self._seconds
        samples = tuple(
            ({"method": method, "status": str(status)}, float(count))
            for (method, status), count in sorted(counts.items())
        )
        return [
            Metric("galleria_http_requests_total", "Requests answered.", samples, "counter"),
            Metric(
                "galleria_http_request_seconds_total",
                "Seconds that answering requests took.",
                (({}, seconds),),
                "counter",
            ),
        ]


def routes(app: App, callers: Callers, meter: Meter) -> list[BaseRoute]:
    def ready() -> Response:
        try:
            with app.catalog.read() as catalog:
                catalog.now()
        except GalleriaError as error:
            return PlainTextResponse(f"the catalog can't be read: {error.code}\n", 503)
        return PlainTextResponse("ok\n")

    def measured(request: Request) -> Response:
        try:
            with callers.session(request) as session:
                found = session.metrics()
        except GalleriaError as error:
            return refusal(error, request)
        return PlainTextResponse(text([*found, *meter.metrics()]), media_type=PROMETHEUS)

    async def alive(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return await run_in_threadpool(ready)

    async def metrics(request: Request) -> Response:
        return await run_in_threadpool(measured, request)

    return [Route("/healthz", alive), Route("/readyz", readyz), Route("/metrics", metrics)]
