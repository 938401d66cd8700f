"""One HTTP exchange with a checked address, and redirects as new requests that are checked again.

The name is resolved once per hop, every address that it has is checked, and the connection is made
to a checked address and not to the name: a resolver that answers differently the second time is
not asked. Proxies, cookies and credentials are not used.
"""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from adapters.sources.addresses import Network, check
from pipeline.errors import GalleriaError, InvalidParameter, Refused
from pipeline.model.sources import public_url

REDIRECTS = {301, 302, 303, 307, 308}
HOPS = 5
URL_LIMIT = 4096
PORTS = {"http": 80, "https": 443}

PIECE = 1 << 20
# what it would say of a strange server is in the errors
logging.getLogger("urllib3").setLevel(logging.CRITICAL)

Resolver = Callable[[str, int], Sequence[str]]  # host and port -> addresses


class DownloadFailed(GalleriaError):
    """A download broke off, or its server does not answer as one should; may be tried again."""

    code = "DownloadFailed"


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the system has them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Reach:
    """Where connections may go, and how long they may take. `tls` None verifies by the system's
    authorities."""

    allowed: tuple[Network, ...] = ()
    resolver: Resolver = resolve
    connect_seconds: float = 30.0
    stall_seconds: float = 60.0
    tls: ssl.SSLContext | None = None


def split(url: str) -> SplitResult:
    """An http(s) URL that means the same to every reader. Raises InvalidParameter."""
    shown = ascii(public_url(url))
    _check_characters(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidParameter(f"{shown} is not a URL") from None
    if parts.scheme not in PORTS:
        raise InvalidParameter(f"the URL {shown} is not http or https")
    if parts.username is not None or parts.password is not None:
        raise InvalidParameter(
            "a URL with a user or password in it is not taken: it would be kept and shown",
            hint="use a URL that is signed and expires",
        )
    if not host or port == 0:
        raise InvalidParameter(f"the URL {shown} names no host, or no port")
    return parts


def _check_characters(text: str) -> None:
    """Before anything parses it: Python's own parser drops tabs and line breaks without a word."""
    if len(text) > URL_LIMIT or not text.isascii() or not text.isprintable():
        raise InvalidParameter(
            f"the URL {public_url(text)!a} has characters that no URL has, or too many"
        )
    if set(' \\"<>^`{|}') & set(text):
        raise InvalidParameter(f"the URL {public_url(text)!a} has characters that no URL has")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is not read yet. `expired` says whether its time is over."""

    host: str
    response: urllib3.BaseHTTPResponse
    expired: Callable[[], bool]

    @property
    def status(self) -> int:
        return self.response.status

    def header(self, name: str) -> str:
        return str(self.response.headers.get(name, ""))

    def pieces(self) -> Iterator[bytes]:
        """The body, as it comes in. Raises DownloadFailed when it breaks off."""
        while True:
            with _network(self.host, self.expired):
                piece = self.response.read1(PIECE)
            if self.expired():  # a connection that was cut looks like an end
                raise DownloadFailed(f"{self.host!a} took too long")
            if not piece:
                return
            yield piece


@contextlib.contextmanager
def get(url: str, headers: Mapping[str, str], reach: Reach, deadline: float) -> Iterator[Answer]:
    """The answer to a GET, after redirects. Raises AddressRefused, Refused, or DownloadFailed."""
    for _ in range(HOPS + 1):
        parts = split(url)
        with _exchange(parts, headers, reach, deadline) as answer:
            if answer.status not in REDIRECTS:
                yield answer
                return
            _check_characters(answer.header("Location"))
            target = urljoin(url, answer.header("Location"))
            if parts.scheme == "https" and split(target).scheme != "https":
                raise Refused(f"{parts.hostname!a} redirects from https to http")
            url = target
    raise Refused(f"{public_url(url)!a} comes after more than {HOPS} redirects")


@contextlib.contextmanager
def _exchange(
    parts: SplitResult, headers: Mapping[str, str], reach: Reach, deadline: float
) -> Iterator[Answer]:
    host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
    connection = _connect(parts.scheme, host, port, reach)
    # a server may send a byte a minute, in its headers too: the clock ends it
    left = max(0.0, deadline - time.monotonic())
    over = threading.Event()
    watch = threading.Timer(left, _cut, [connection.sock, over])
    watch.daemon = True
    watch.start()
    expired = over.is_set
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    name = f"[{host}]" if ":" in host else host
    own = {
        "Host": name if parts.port is None else f"{name}:{port}",
        "User-Agent": "galleria",
        "Accept-Encoding": "identity",
    }
    try:
        with _network(host, expired):
            connection.request(
                "GET",
                target,
                headers={**own, **headers},
                preload_content=False,
                decode_content=False,
            )
            response = connection.getresponse()
        yield Answer(host, response, expired)
    finally:
        watch.cancel()
        watch.join()
        connection.close()


@contextlib.contextmanager
def _network(host: str, expired: Callable[[], bool]) -> Iterator[None]:
    """Whatever fails in here is the network's or the server's fault."""
    try:
        yield
    except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
        if expired():
            raise DownloadFailed(f"{host!a} took too long") from error
        reason = f"{type(error).__name__}: {str(error)[:200]!a}"
        raise DownloadFailed(
            f"the connection with {host!a} failed: {reason}",
            hint="the same command continues where the server can",
        ) from error


def _cut(connected: socket.socket, over: threading.Event) -> None:
    over.set()  # before the reader sees an end that is none of the server's
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _connect(scheme: str, host: str, port: int, reach: Reach) -> HTTPConnection:
    """A connection to one of the host's addresses, all of which have been checked."""
    try:
        found = list(reach.resolver(host, port))
    except (OSError, UnicodeError) as error:
        raise DownloadFailed(f"the host {host!a} can't be resolved: {str(error)[:100]!a}") from None
    addresses = [check(text, host, reach.allowed) for text in found]
    failure: Exception = OSError("it has no address")
    for address in addresses:
        connection = _connection(scheme, host, str(address), port, reach)
        try:
            connection.connect()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            connection.close()
            failure = error
        else:
            connection.timeout = reach.stall_seconds
            return connection
    reason = f"{type(failure).__name__}: {str(failure)[:200]!a}"
    raise DownloadFailed(f"there is no connection with {host!a}: {reason}")


def _connection(scheme: str, host: str, address: str, port: int, reach: Reach) -> HTTPConnection:
    if scheme == "http":
        return HTTPConnection(address, port, timeout=reach.connect_seconds)
    return HTTPSConnection(
        address,
        port,
        timeout=reach.connect_seconds,
        server_hostname=host,  # OpenSSL compares the certificate with this, not the address
        ssl_context=reach.tls or ssl.create_default_context(),
    )
