"""Serve the application: the socket, TLS, the log, and how it ends."""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from adapters.app import App
from adapters.server.app import application
from adapters.server.keeper import Keeper
from pipeline.errors import EnvironmentMissing

HEADERS = 64 << 10  # bytes of a request's line and headers
CONNECTIONS = 1000  # open at once; what comes beyond is answered 503
KEEP_ALIVE = 75  # seconds that an idle connection stays open
GRACE = 10  # seconds in which requests may end when the server is told to stop


@dataclass(frozen=True, slots=True)
class Certificate:
    """The files of a certificate with its chain, and of its key."""

    chain: Path
    key: Path


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any that is free. Raises EnvironmentMissing."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except OSError as error:
        raise EnvironmentMissing(
            f"can't listen on {host}, port {port}: {error.strerror or error}",
            hint="another program may have the port: --listen HOST:PORT",
        ) from None


def serve(
    app: App, listener: socket.socket, certificate: Certificate | None, ready: Callable[[], None]
) -> None:
    """Answer requests until SIGINT or SIGTERM. `ready` is called when the first is answered."""
    _log_to(sys.stderr)
    config = uvicorn.Config(
        application(app),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        http=H11Protocol,
        h11_max_incomplete_event_size=HEADERS,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        ssl_certfile=None if certificate is None else certificate.chain,
        ssl_keyfile=None if certificate is None else certificate.key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise EnvironmentMissing(
            f"the certificate can't be used: {error}",
            hint="--tls-cert is a file with the certificate and its chain, --tls-key one with its "
            "key, both in PEM",
        ) from None
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    with _ended_by_signals(), Keeper(app, app.config.lease / 2).watching():
        asyncio.run(_serve(_Server(config, ready), listener))


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    await server.serve(sockets=[listener])


def _log_to(stream: TextIO) -> None:
    """The server's own log; what its libraries say goes where that of all commands does."""
    log = logging.getLogger("galleria.server")
    log.handlers = [logging.StreamHandler(stream)]
    log.setLevel(logging.INFO)
    log.propagate = False


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """uvicorn ends in good order at a signal, and then repeats it: that is no failure."""
    before = {number: signal.signal(number, _pass) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass(_number: int, _frame: FrameType | None) -> None:
    return


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Connections on which nothing is asked are cut: to part by TLS's rules waits for clients
        that may have gone."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, H11Protocol) and (
                connection.cycle is None or connection.cycle.response_complete
            ):
                connection.transport.abort()
        await super().shutdown(sockets)
