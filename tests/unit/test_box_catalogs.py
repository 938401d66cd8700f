"""What Vagrant is told of: catalogs of definitions and channels, over HTTP and as files."""

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from adapters.filesystem import durable
from adapters.vagrant.catalog import write_catalogs
from adapters.vagrant.server import application
from adapters.vagrant.shelf import Shelf, collect_boxes
from pipeline.errors import NotFound, Refused, StageFailed
from pipeline.gallery.service import GalleryService
from pipeline.gallery.services import Services
from pipeline.jobs.box_catalog import box_catalog, box_catalogs
from pipeline.model import ImageVersion
from pipeline.model.clock import utc_now
from pipeline.model.garbage import DAY, HOUR, Keep
from pipeline.model.names import parse_version
from pipeline.ports.boxes import Provider
from tests.samples import NOW, FakeClock
from tests.unit.test_gallery_changes import made, publish

LATER = NOW + timedelta(days=400)


class Maker:
    """Makes a box of a version's name; says how often."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails = False
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self, version: ImageVersion, provider: Provider, path: Path) -> None:
        self.calls.append(f"{version.number} {provider.value}")
        time.sleep(0.05)
        self.goes_on.wait()
        if self.fails:
            raise StageFailed("the appliance did not start")
        path.write_bytes(f"{version.number} {provider.value}".encode() * 1000)


@pytest.fixture
def ask() -> Services:
    found = made(FakeClock())
    publish(found, "1.0.0")
    publish(found, "1.1.0")
    publish(found, "1.2.0", exclude_from_latest=True)
    found.gallery.promote(parse_version("corp/web/1.0.0"), "prod")
    return found


@pytest.fixture
def maker() -> Maker:
    return Maker()


class Client:
    """Asks a server at a port of the loopback address."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request(method, f"{self.base}{path}", headers=headers, retries=False)

    def json(self, path: str) -> Any:
        return self.ask("GET", path).json()


@pytest.fixture
def client(ask: Services, maker: Maker, tmp_path: Path) -> Iterator[Client]:
    @contextmanager
    def gallery(request: Request) -> Iterator[GalleryService]:
        if request.headers.get("x-nobody"):
            raise Refused("who are you?")
        yield ask.gallery

    shelf = Shelf(tmp_path / "boxes", 1 << 30, maker)
    alone = application(gallery, shelf)
    both = Starlette(routes=[Mount("/boxes", alone), Mount("/", alone)])
    server = uvicorn.Server(uvicorn.Config(both, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Client(listening.getsockname()[1])
        server.should_exit = True
        thread.join()


def numbers(document: dict[str, list[dict[str, str]]]) -> list[str]:
    return [item["version"] for item in document["versions"]]


def test_what_is_excluded_or_has_ended_is_not_offered(ask: Services) -> None:
    found = box_catalog("corp/web", ask.gallery, NOW)
    assert [str(version.number) for version in found.versions] == ["1.1.0", "1.0.0"]
    publish(ask, "2.0.0", end_of_life_date=LATER)
    newest = box_catalog("corp/web", ask.gallery, NOW).versions[0]
    assert str(newest.number) == "2.0.0"
    after = box_catalog("corp/web", ask.gallery, LATER).versions[0]
    assert str(after.number) == "1.1.0"


def test_channels_are_catalogs(ask: Services) -> None:
    found = {item.name: item for item in box_catalogs(ask.gallery, NOW)}
    assert set(found) == {"corp/web", "corp/web@prod"}
    assert [str(version.number) for version in found["corp/web@prod"].versions] == ["1.0.0"]
    with pytest.raises(NotFound):
        box_catalog("corp/web@beta", ask.gallery, NOW)


def test_a_catalog_over_http(client: Client) -> None:
    assert client.json("/") == {
        "corp/web": f"{client.base}/corp/web",
        "corp/web@prod": f"{client.base}/corp/web@prod",
    }
    found = client.json("/corp/web")
    assert found == client.json("/corp/web.json")
    assert found == client.json("/api/v2/vagrant/corp/web")
    assert found["name"] == "corp/web"
    assert numbers(found) == ["1.1.0", "1.0.0"]
    offer = next(item for item in found["versions"][0]["providers"] if item["name"] == "virtualbox")
    assert offer == {
        "name": "virtualbox",
        "url": f"{client.base}/corp/web/1.1.0/virtualbox.box",
        "architecture": "amd64",
        "default_architecture": True,
    }
    assert numbers(client.json("/corp/web@prod")) == ["1.0.0"]
    head = client.ask("HEAD", "/corp/web")
    assert (head.status, head.data) == (200, b"")


def test_mounted_in_another_server_it_names_its_own_addresses(client: Client) -> None:
    (first, *_) = client.json("/boxes/corp/web")["versions"][0]["providers"]
    assert first["url"] == f"{client.base}/boxes/corp/web/1.1.0/libvirt.box"
    assert client.ask("GET", "/boxes/corp/web/1.1.0/libvirt.box").status == 200


def test_each_request_has_its_own_caller(client: Client, maker: Maker) -> None:
    for path in ("/", "/corp/web", "/corp/web/1.1.0/libvirt.box"):
        assert client.ask("GET", path, **{"X-Nobody": "1"}).status == 403
    assert maker.calls == []


def test_a_box_is_made_once_and_served_in_ranges(client: Client, maker: Maker) -> None:
    url = "/corp/web/1.1.0/libvirt.box"
    whole = client.ask("GET", url).data
    assert whole == b"1.1.0 libvirt" * 1000
    part = client.ask("GET", url, Range="bytes=13-25")
    assert (part.status, part.data) == (206, b"1.1.0 libvirt")
    head = client.ask("HEAD", url)
    assert (head.headers["content-length"], head.data) == ("13000", b"")
    assert maker.calls == ["1.1.0 libvirt"]
    offer = client.json("/corp/web")["versions"][0]["providers"][0]
    assert (offer["name"], offer["checksum_type"]) == ("libvirt", "sha256")
    assert offer["checksum"] == hashlib.sha256(whole).hexdigest()


def test_many_who_ask_at_once_wait_for_one_box(client: Client, maker: Maker) -> None:
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(client.ask("GET", "/corp/web/1.0.0/virtualbox.box").status)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, maker.calls) == ([200] * 8, ["1.0.0 virtualbox"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/corp/none", 404),
        ("/none/web", 404),
        ("/corp/web@beta", 404),
        ("/corp/web/1.2.0/libvirt.box", 404),  # excluded
        ("/corp/web/9.9.9/libvirt.box", 404),
        ("/corp/web/1.1.0/docker.box", 404),
        ("/corp/web/..%2f..%2fetc/libvirt.box", 404),
        ("/co rp/web", 400),
        ("/corp/we$b", 400),
    ],
)
def test_what_is_not_offered(client: Client, maker: Maker, path: str, status: int) -> None:
    assert client.ask("GET", path).status == status
    assert maker.calls == []


def test_a_box_that_can_t_be_made_is_told_and_tried_again(client: Client, maker: Maker) -> None:
    maker.fails = True
    answer = client.ask("GET", "/corp/web/1.0.0/libvirt.box")
    assert (answer.status, answer.json()["error"]) == (500, "the appliance did not start")
    maker.fails = False
    assert client.ask("GET", "/corp/web/1.0.0/libvirt.box").status == 200


def test_a_download_goes_on_with_the_same_box_alone(client: Client) -> None:
    url = "/corp/web/1.1.0/libvirt.box"
    first = client.ask("GET", url)
    tag = first.headers["etag"]
    assert tag == f'"{hashlib.sha256(first.data).hexdigest()}"'
    time.sleep(0.01)
    rest = client.ask("GET", url, **{"Range": "bytes=13-", "If-Range": tag})
    assert (rest.status, rest.data) == (206, first.data[13:])
    other = client.ask("GET", url, **{"Range": "bytes=13-", "If-Range": f'"{"0" * 64}"'})
    assert (other.status, other.data) == (200, first.data)


def test_who_asks_for_what_is_there_waits_for_nobody(
    ask: Services, maker: Maker, tmp_path: Path
) -> None:
    shelf = Shelf(tmp_path, 1 << 30, maker)
    old, new = (ask.gallery.get_version(parse_version(f"corp/web/1.{n}.0")) for n in (0, 1))
    shelf.box(old, Provider.LIBVIRT)
    maker.goes_on.clear()
    making = threading.Thread(target=shelf.box, args=(new, Provider.LIBVIRT))
    making.start()
    while len(maker.calls) < 2:
        time.sleep(0.01)
    try:
        assert shelf.box(old, Provider.LIBVIRT)[0].is_file()
        assert making.is_alive()
    finally:
        maker.goes_on.set()
        making.join()


def age(path: Path, seconds: int) -> None:
    """Nobody has asked for a box for so long."""
    when = time.time() - seconds
    os.utime(path.parent / "sha256", (when, when))


def test_the_oldest_boxes_go(ask: Services, maker: Maker, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 27_000, maker)
    old, new = (ask.gallery.get_version(parse_version(f"corp/web/1.{n}.0")) for n in (0, 1))
    first, _ = shelf.box(old, Provider.LIBVIRT)
    second, _ = shelf.box(old, Provider.VIRTUALBOX)
    mine = tmp_path / "mine"  # what is not the shelf's stays
    mine.mkdir()
    shelf.box(new, Provider.LIBVIRT)
    assert first.exists()  # somebody may be about to get it
    age(first, 3 * HOUR)
    age(second, 2 * HOUR)
    shelf.box(new, Provider.VIRTUALBOX)
    assert [path.exists() for path in (first, second)] == [False, False]
    assert shelf.checksum(new, Provider.LIBVIRT) is not None
    assert shelf.checksum(old, Provider.LIBVIRT) is None
    assert mine.is_dir()
    shelf.box(old, Provider.LIBVIRT)
    assert maker.calls.count("1.0.0 libvirt") == 2


def test_gc_removes_what_nobody_asks_for(ask: Services, maker: Maker, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 1 << 30, maker)
    old, new = (ask.gallery.get_version(parse_version(f"corp/web/1.{n}.0")) for n in (0, 1))
    first, _ = shelf.box(old, Provider.LIBVIRT)
    second, _ = shelf.box(new, Provider.LIBVIRT)
    age(first, 8 * DAY)
    held = durable.lock(first.parent / "lock")
    assert held is not None
    busy = collect_boxes(tmp_path, Keep(), age=7 * DAY)
    assert [item.why for item in busy.kept] == ["it is being made", "not old enough"]
    os.close(held)
    assert collect_boxes(tmp_path, Keep(dry_run=True), age=7 * DAY).freed
    assert first.exists()
    (gone,) = collect_boxes(tmp_path, Keep(), age=7 * DAY).freed
    assert gone.name == first.parent.name
    assert (first.exists(), second.exists()) == (False, True)


def test_what_a_killed_server_left_is_made_again(
    ask: Services, maker: Maker, tmp_path: Path
) -> None:
    shelf = Shelf(tmp_path, 1 << 30, maker)
    version = ask.gallery.get_version(parse_version("corp/web/1.0.0"))
    path, digest = shelf.box(version, Provider.LIBVIRT)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    (path.parent / "sha256").unlink()
    (path.parent / ".galleria-x").mkdir()
    assert shelf.box(version, Provider.LIBVIRT) == (path, digest)
    assert maker.calls == ["1.0.0 libvirt"] * 2
    assert sorted(item.name for item in path.parent.iterdir()) == ["box", "lock", "sha256"]


def test_catalogs_as_files(ask: Services, maker: Maker, tmp_path: Path) -> None:
    for _ in range(2):  # the second time nothing is made
        written = write_catalogs(
            box_catalogs(ask.gallery, utc_now()),
            [Provider.LIBVIRT],
            tmp_path,
            "https://boxes.example/x/",
            maker,
        )
    assert maker.calls == ["1.1.0 libvirt", "1.0.0 libvirt"]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in written) == [
        "corp/web.json",
        "corp/web@prod.json",
    ]
    document = json.loads((tmp_path / "corp/web.json").read_text())
    for item in document["versions"]:
        (offer,) = item["providers"]
        place = offer["url"].removeprefix("https://boxes.example/x/")
        content = (tmp_path / place).read_bytes()
        assert content == f"{item['version']} libvirt".encode() * 1000
        assert offer["checksum"] == hashlib.sha256(content).hexdigest()
