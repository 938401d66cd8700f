"""Downloads against servers on 127.0.0.1 that lie, stall, redirect and break off.

Names are resolved by the tests: what is "public" is on 127.0.0.1, which alone is allowed, and every
connection that is made is recorded.
"""

import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3.util.connection

from adapters.progress import Mode, open_progress
from adapters.sources import http
from adapters.sources.addresses import AddressRefused, check, networks
from adapters.sources.download import Bounds, Downloads, parse_checksum
from adapters.sources.http import Answer, DownloadFailed, Reach, split
from pipeline.errors import (
    Conflict,
    GalleriaError,
    InvalidParameter,
    NotFound,
    Refused,
    TooManyRequests,
    UnsafeImage,
)
from pipeline.model.sources import UrlSource

CONTENT = bytes(range(256)) * 1024  # 256 KiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HERE = networks("127.0.0.1/32")
PUBLIC = "files.example"


class Handler(BaseHTTPRequestHandler):
    """Answers by the path's first part; what was asked is kept in `server.asked`."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        name = self.path.split("/")[1].split("?")[0]
        ANSWERS[name](self)

    def whole(self, content: bytes = CONTENT, **headers: str) -> None:
        self.send_response(200)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def redirect(self, target: str, status: int = 302) -> None:
        self.send_response(status)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


class Server(ThreadingHTTPServer):
    daemon_threads = False  # its end waits for them: no test inherits the threads of another

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ended = threading.Event()
        self.asked: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what is tested."""


def _resume(handler: Handler) -> None:
    """Breaks off after 100,000 bytes, but gives the rest to who asks for it."""
    begin = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if begin and handler.headers.get("If-Range") == '"v1"':
        start = int(begin[1])
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        handler.send_header("ETag", '"v1"')
        handler.send_header("Content-Length", str(len(CONTENT) - start))
        handler.end_headers()
        handler.wfile.write(CONTENT[start:])
        return
    handler.whole(CONTENT[:100_000], Content_Length=str(len(CONTENT)), ETag='"v1"')


def _partial(content_range: str, etag: str = '"v1"') -> Callable[[Handler], None]:
    """Breaks off, and then answers another range than was asked for."""

    def answer(handler: Handler) -> None:
        if "Range" not in handler.headers:
            handler.whole(CONTENT[:1000], Content_Length=str(len(CONTENT)), ETag='"v1"')
            return
        handler.send_response(206)
        handler.send_header("Content-Range", content_range)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(bytes(1000))

    return answer


def _drip(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    for _ in range(2000):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


def _drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(2000):
        handler.wfile.write(b"X-%d: y\r\n" % number)
        time.sleep(0.02)


def _stall(handler: Handler) -> None:
    handler.server.ended.wait()


def _raw(content: bytes) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.wfile.write(content)

    return answer


def _endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(bytes(64 << 10))


def _to(template: str, status: int = 302) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.redirect(template.replace("PORT", str(handler.server.server_address[1])), status)

    return answer


ANSWERS: Mapping[str, Callable[[Handler], None]] = {
    "good": Handler.whole,
    "tagged": lambda handler: handler.whole(ETag='"v1"'),
    "resume": _resume,
    "never": lambda handler: handler.whole(CONTENT[:1000], Content_Length="262144"),
    "weak": lambda handler: handler.whole(CONTENT[:1000], Content_Length="262144", ETag='W/"v"'),
    "range-start": _partial("bytes 5-1004/262144"),
    "range-none": _partial("bytes */262144"),
    "range-absurd": _partial("bytes 1000-1999/99999999999999999999"),
    "range-etag": _partial("bytes 1000-1999/262144", '"v2"'),
    "range-huge": _partial("bytes 1000-1999/9999999999999"),
    "unasked": lambda handler: handler.send_response(206) or handler.end_headers(),  # type: ignore[func-returns-value]
    "other": lambda handler: handler.whole(b"x" + CONTENT[1:]),
    "other-tagged": lambda handler: handler.whole(b"x" + CONTENT[1:], ETag='"v1"'),
    "short": lambda handler: handler.whole(CONTENT[:-1]),
    "long": lambda handler: handler.whole(CONTENT + b"x"),
    "empty": lambda handler: handler.whole(b""),
    "huge": lambda handler: handler.whole(b"", Content_Length="9999999999999"),
    "absurd": lambda handler: handler.whole(b"", Content_Length="9" * 30),
    "negative": lambda handler: handler.whole(CONTENT, Content_Length="-5"),
    "endless": _endless,
    "gzip": lambda handler: handler.whole(Content_Encoding="gzip"),
    "drip": _drip,
    "drip-headers": _drip_headers,
    "stall": _stall,
    "noise": _raw(b"\x00\xff" * 1000),
    "status": _raw(b"HTTP/1.1 9999 What\r\n\r\n"),
    "header": _raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
    "headers": _raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n"),
    "chunked": _raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n"),
    "chunk-huge": _raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\nx"),
    "missing": lambda handler: handler.send_error(404),
    "throttled": lambda handler: handler.send_error(429),
    "gone": lambda handler: handler.send_error(410),
    "forbidden": lambda handler: handler.send_error(403),
    "broken": lambda handler: handler.send_error(500),
    "nothing": lambda handler: handler.whole(b"") if False else handler.send_error(304),
    "ok-redirect": _to("/good"),
    "moved": _to("http://files.example:PORT/good", 308),
    "loop": _to("/loop"),
    "far": _to("/far?x", 307),
    "to-private": _to("http://private.example:PORT/good"),
    "to-metadata": _to("http://169.254.169.254/latest/meta-data/"),
    "to-loopback6": _to("http://[::1]:PORT/good"),
    "to-decimal": _to("http://2852039166/latest/"),
    "to-file": _to("file:///etc/passwd"),
    "to-ftp": _to("ftp://files.example/good"),
    "to-gopher": _to("gopher://files.example:25/x"),
    "to-user": _to("http://user:secret@files.example:PORT/good"),
    "to-nowhere": _to(""),
    "to-mapped": _to("//[::ffff:10.0.0.1]:PORT/good", 301),
    "to-control": _to("http://files.example:PORT/a\tb"),
    "to-redirect": _to("/to-private", 303),
}


@dataclass
class World:
    server: Server
    directory: Path
    names: dict[str, list[str]] = field(default_factory=dict)
    resolved: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    stall_seconds: float = 10.0  # a busy host is none that stalls

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def resolve(self, host: str, port: int) -> list[str]:
        self.resolved.append(host)
        if host in self.names:
            # one after the other: a name that is rebound answers differently the next time
            answers = self.names[host]
            return (answers.pop(0) if len(answers) > 1 else answers[0]).split()
        if host.endswith(".invalid"):  # no network is asked
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port)]

    def downloads(self, **bounds: Any) -> Downloads:
        limits = Bounds(**{"length": 1 << 20, "seconds": 30.0, **bounds})
        reach = Reach(HERE, self.resolve, connect_seconds=10.0, stall_seconds=self.stall_seconds)
        return Downloads(self.directory, open_progress(Mode.NONE), reach, limits)

    def fetch(self, url: str, digest: str = DIGEST, **bounds: Any) -> bytes:
        source = UrlSource(None, url.replace("PORT", str(self.port)), digest)
        with self.downloads(**bounds).open(source) as path:
            return path.read_bytes()

    def left(self) -> list[str]:
        """What lies in the cache; a lock file is empty and stays for a week."""
        files = self.directory.iterdir() if self.directory.exists() else ()
        return sorted(path.name for path in files if path.suffix != ".lock")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    made = World(server, tmp_path / "downloads")
    made.names = {
        PUBLIC: ["127.0.0.1"],
        "private.example": ["10.1.2.3"],
        "mixed.example": ["127.0.0.1 192.168.7.7"],
        "rebound.example": ["127.0.0.1", "169.254.169.254"],
        "mapped.example": ["::ffff:127.0.0.2"],
        "nat64.example": ["64:ff9b::a00:1"],
        "linklocal.example": ["fe80::1%eth0"],
        "nameless.example": [""],
    }
    connect = urllib3.util.connection.create_connection

    def record(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        made.connected.append(address[0])
        return connect(address, *args, **kwargs)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", record)
    yield made
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


HOSTILE: tuple[tuple[str, type[GalleriaError], str], ...] = (
    # what is no URL to be followed
    ("file:///etc/passwd", InvalidParameter, "not http"),
    ("ftp://files.example/good", InvalidParameter, "not http"),
    ("gopher://files.example/good", InvalidParameter, "not http"),
    ("nbd://files.example/good", InvalidParameter, "not http"),
    ("data:text/plain,good", InvalidParameter, "not http"),
    ('json:{"driver":"nbd"}', InvalidParameter, "characters"),
    ("//files.example/good", InvalidParameter, "not http"),
    ("http://", InvalidParameter, "no host"),
    ("http://files.example:0/good", InvalidParameter, "no host"),
    ("http://files.example:99999/good", InvalidParameter, "not a URL"),
    ("http://[::1/good", InvalidParameter, "not a URL"),
    ("http://user:secret@files.example/good", InvalidParameter, "password"),
    ("http://user@files.example/good", InvalidParameter, "password"),
    ("http://files.example/a b", InvalidParameter, "characters"),
    ("http://files.example/\r\nHost: x", InvalidParameter, "characters"),
    ("http://files.example\\@10.0.0.1/", InvalidParameter, "characters"),
    ("http://fíles.example/good", InvalidParameter, "characters"),
    ("http://files.example/" + "a" * 5000, InvalidParameter, "too many"),
    # where it leads, however that is written
    ("http://127.0.0.2:PORT/good", AddressRefused, "127.0.0.2"),
    ("http://0.0.0.0:PORT/good", AddressRefused, "not a public"),
    ("http://0:PORT/good", AddressRefused, "not a public"),
    ("http://127.2:PORT/good", AddressRefused, "127.0.0.2"),
    ("http://0x7f000002:PORT/good", AddressRefused, "127.0.0.2"),
    ("http://0177.0.0.2:PORT/good", AddressRefused, "127.0.0.2"),
    ("http://2130706434:PORT/good", AddressRefused, "127.0.0.2"),
    ("http://10.0.0.1/good", AddressRefused, "10.0.0.1"),
    ("http://172.16.0.1/good", AddressRefused, "172.16.0.1"),
    ("http://192.168.1.1/good", AddressRefused, "192.168.1.1"),
    ("http://100.100.100.200/latest/", AddressRefused, "100.100.100.200"),
    ("http://169.254.169.254/latest/meta-data/", AddressRefused, "169.254.169.254"),
    ("http://168.63.129.16/machine", AddressRefused, "168.63.129.16"),
    ("http://[::1]:PORT/good", AddressRefused, "::1"),
    ("http://[::]:PORT/good", AddressRefused, "::"),
    ("http://[::ffff:127.0.0.1]:PORT/good", AddressRefused, "ffff"),
    ("http://[fd00:ec2::254]/latest/", AddressRefused, "fd00:ec2::254"),
    ("http://[fe80::1]/good", AddressRefused, "fe80::1"),
    ("http://[64:ff9b::169.254.169.254]/", AddressRefused, "64:ff9b"),
    ("http://224.0.0.1/good", AddressRefused, "224.0.0.1"),
    ("http://255.255.255.255/good", AddressRefused, "255.255.255.255"),
    ("http://private.example:PORT/good", AddressRefused, "10.1.2.3"),
    ("http://mixed.example:PORT/good", AddressRefused, "192.168.7.7"),
    ("http://mapped.example:PORT/good", AddressRefused, "ffff"),
    ("http://nat64.example:PORT/good", AddressRefused, "64:ff9b"),
    ("http://linklocal.example:PORT/good", AddressRefused, "fe80::1"),
    ("http://nameless.example:PORT/good", DownloadFailed, "no address"),
    # where it is redirected to
    ("http://files.example:PORT/to-private", AddressRefused, "10.1.2.3"),
    ("http://files.example:PORT/to-metadata", AddressRefused, "169.254.169.254"),
    ("http://files.example:PORT/to-loopback6", AddressRefused, "::1"),
    ("http://files.example:PORT/to-decimal", AddressRefused, "169.254.169.254"),
    ("http://files.example:PORT/to-mapped", AddressRefused, "ffff"),
    ("http://files.example:PORT/to-redirect", AddressRefused, "10.1.2.3"),
    ("http://files.example:PORT/to-file", InvalidParameter, "not http"),
    ("http://files.example:PORT/to-ftp", InvalidParameter, "not http"),
    ("http://files.example:PORT/to-gopher", InvalidParameter, "not http"),
    ("http://files.example:PORT/to-user", InvalidParameter, "password"),
    ("http://files.example:PORT/to-control", InvalidParameter, "characters"),
    ("http://files.example:PORT/to-nowhere", Refused, "redirects"),
    ("http://files.example:PORT/loop", Refused, "redirects"),
    ("http://files.example:PORT/far", Refused, "redirects"),
    # what is answered
    ("http://files.example:PORT/other", UnsafeImage, "SHA-256"),
    ("http://files.example:PORT/other-tagged", UnsafeImage, "SHA-256"),
    ("http://files.example:PORT/short", UnsafeImage, "SHA-256"),
    ("http://files.example:PORT/long", UnsafeImage, "SHA-256"),
    ("http://files.example:PORT/empty", UnsafeImage, "SHA-256"),
    ("http://files.example:PORT/huge", UnsafeImage, "allowed"),
    ("http://files.example:PORT/absurd", Refused, "length"),
    ("http://files.example:PORT/negative", Refused, "length"),
    ("http://files.example:PORT/endless", UnsafeImage, "allowed"),
    ("http://files.example:PORT/gzip", Refused, "encoding"),
    ("http://files.example:PORT/never", DownloadFailed, "IncompleteRead"),
    ("http://files.example:PORT/weak", DownloadFailed, "IncompleteRead"),
    ("http://files.example:PORT/range-start", Refused, "another range"),
    ("http://files.example:PORT/range-none", Refused, "another range"),
    ("http://files.example:PORT/range-absurd", Refused, "another range"),
    ("http://files.example:PORT/range-etag", Refused, "another content"),
    ("http://files.example:PORT/range-huge", UnsafeImage, "allowed"),
    ("http://files.example:PORT/unasked", Refused, "another range"),
    ("http://files.example:PORT/stall", DownloadFailed, "timed out"),
    ("http://files.example:PORT/noise", DownloadFailed, "failed"),
    ("http://files.example:PORT/status", DownloadFailed, "failed"),
    ("http://files.example:PORT/header", DownloadFailed, "failed"),
    ("http://files.example:PORT/headers", DownloadFailed, "failed"),
    ("http://files.example:PORT/chunked", DownloadFailed, "failed"),
    ("http://files.example:PORT/chunk-huge", DownloadFailed, "failed"),
    ("http://files.example:PORT/missing", NotFound, "404"),
    ("http://files.example:PORT/throttled", TooManyRequests, "Too many requests on source 'http"),
    ("http://files.example:PORT/gone", NotFound, "410"),
    ("http://files.example:PORT/forbidden", DownloadFailed, "403"),
    ("http://files.example:PORT/broken", DownloadFailed, "500"),
    ("http://files.example:PORT/nothing", DownloadFailed, "304"),
    ("http://nothing.invalid/good", DownloadFailed, "resolved"),
    ("http://files.example:1/good", DownloadFailed, "no connection"),
)


@pytest.mark.parametrize(
    ("url", "error", "text"), HOSTILE, ids=[f"{n}-{case[0][:40]}" for n, case in enumerate(HOSTILE)]
)
def test_hostile_urls_are_refused(
    url: str, error: type[GalleriaError], text: str, world: World
) -> None:
    if url.endswith("/stall"):
        world.stall_seconds = 0.3
    with pytest.raises(error, match=re.escape(text)):
        world.fetch(url)
    assert world.left() == []
    assert set(world.connected) <= {"127.0.0.1"}


def test_there_are_enough_hostile_urls() -> None:
    assert len(HOSTILE) >= 60


@pytest.mark.parametrize("name", ["drip", "drip-headers"])
def test_time_is_limited(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the thread that cuts the connection is not heard of for a while after it."""
    cut = http._cut

    def stalled(*args: Any) -> None:
        cut(*args)
        time.sleep(0.2)

    monkeypatch.setattr(http, "_cut", stalled)
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match="too long"):
        world.fetch(f"http://files.example:PORT/{name}", seconds=0.4)
    assert time.monotonic() - started < 20  # of the 40 that it would take
    assert world.left() == []


def test_a_rate_is_asked_for(world: World) -> None:
    with pytest.raises(DownloadFailed, match="slowly"):
        world.fetch("http://files.example:PORT/drip", patience=0.2)


def test_a_rebound_name_is_not_asked_twice(world: World) -> None:
    """The name has an allowed address when it is checked, and the metadata service's after."""
    assert world.fetch("http://rebound.example:PORT/good") == CONTENT
    assert world.resolved == ["rebound.example"]
    assert world.connected == ["127.0.0.1"]


def test_each_hop_is_resolved_and_checked(world: World) -> None:
    world.names["again.example"] = ["127.0.0.1", "127.0.0.1", "10.0.0.1"]
    with pytest.raises(AddressRefused, match=re.escape("10.1.2.3")):
        world.fetch("http://again.example:PORT/to-private")
    assert world.resolved == ["again.example", "private.example"]


@pytest.mark.parametrize("name", ["good", "ok-redirect", "moved", "tagged", "good?a=b#c"])
def test_a_good_file_is_downloaded_once(name: str, world: World) -> None:
    assert world.fetch(f"http://files.example:PORT/{name}") == CONTENT
    asked = len(world.server.asked)
    assert world.fetch(f"http://files.example:PORT/{name}") == CONTENT
    assert len(world.server.asked) == asked
    assert [Path(name).suffix for name in world.left()] == [".image"]
    _, headers = world.server.asked[0]
    assert {key.lower() for key in headers} == {"host", "user-agent", "accept-encoding"}


def test_a_damaged_file_in_the_cache_is_downloaded_again(world: World) -> None:
    world.fetch("http://files.example:PORT/good")
    (image,) = world.directory.glob("*.image")
    image.chmod(0o600)
    image.write_bytes(b"x" + CONTENT[1:])
    assert world.fetch("http://files.example:PORT/good") == CONTENT


def test_a_download_that_is_cut_goes_on_where_it_was(world: World) -> None:
    assert world.fetch("http://files.example:PORT/resume") == CONTENT
    ranges = [headers.get("Range") for _, headers in world.server.asked]
    assert ranges == [None, "bytes=100000-"]


def test_another_run_goes_on_where_the_last_was_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.sources.download.ATTEMPTS", 1)
    with pytest.raises(DownloadFailed, match="IncompleteRead"):
        world.fetch("http://files.example:PORT/resume")
    assert [Path(name).suffix for name in world.left()] == [".json", ".partial"]
    assert world.fetch("http://files.example:PORT/resume") == CONTENT
    ranges = [headers.get("Range") for _, headers in world.server.asked]
    assert ranges == [None, "bytes=100000-"]
    assert [Path(name).suffix for name in world.left()] == [".image"]


def test_a_run_that_is_ended_leaves_what_it_has(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal is no exception of Python's own: SIGTERM is one of the command line's."""

    class Ended(BaseException):
        pass

    def ended(_: Downloads, answer: Answer, fd: int, *_rest: object) -> int:
        os.write(fd, next(answer.pieces())[:1000])
        raise Ended

    with monkeypatch.context() as patch:
        patch.setattr(Downloads, "_receive", ended)
        with pytest.raises(Ended):
            world.fetch(f"http://{PUBLIC}:PORT/tagged")
    assert [Path(name).suffix for name in world.left()] == [".json", ".partial"]
    assert world.fetch(f"http://{PUBLIC}:PORT/tagged") == CONTENT


def test_a_part_of_a_content_that_changed_is_begun_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.sources.download.ATTEMPTS", 1)
    with pytest.raises(DownloadFailed):
        world.fetch("http://files.example:PORT/resume")
    monkeypatch.setitem(
        ANSWERS,
        "resume",
        lambda handler: handler.whole(ETag='"v2"'),
    )
    assert world.fetch("http://files.example:PORT/resume") == CONTENT
    _, headers = world.server.asked[-1]
    assert headers["If-Range"] == '"v1"'


def test_two_do_not_download_the_same(world: World) -> None:
    source = UrlSource(None, f"http://files.example:{world.port}/good", DIGEST)
    with world.downloads().open(source), pytest.raises(Conflict, match="another process"):
        world.fetch("http://files.example:PORT/good")


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "sha256:" + "a" * 63, "md5:" + "a" * 32, "a" * 64, "sha256:" + "g" * 64],
)
def test_a_checksum_is_a_sha256(text: str) -> None:
    with pytest.raises(InvalidParameter, match="checksum"):
        parse_checksum(text)


def test_addresses_that_embed_others() -> None:
    for text in ("2002:7f00:1::", "2001:0:7f00:1::", "::10.0.0.1", "2001:db8::5efe:a00:1"):
        with pytest.raises(AddressRefused):
            check(text, "x", ())
    assert str(check("93.184.215.14", "x", ())) == "93.184.215.14"
    assert str(check("2606:4700::1111", "x", ())) == "2606:4700::1111"
    assert str(check("10.1.2.3", "x", networks("10.1.0.0/16"))) == "10.1.2.3"


def test_a_signature_in_a_url_is_not_shown(world: World) -> None:
    with pytest.raises(UnsafeImage) as caught:
        world.fetch("http://files.example:PORT/other?sig=secret#part")
    assert "secret" not in str(caught.value)
    assert world.server.asked[0][0] == "/other?sig=secret"


def test_a_url_keeps_its_query() -> None:
    assert split("https://h.example/a?sig=b%2Bc").query == "sig=b%2Bc"
