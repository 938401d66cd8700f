"""Boxes behind http(s): what a catalog offers, and what of it is downloaded."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.pins import FilePins
from adapters.process.sandbox import Sandbox
from adapters.progress import Mode, open_progress
from adapters.sources import HostSources
from adapters.sources.addresses import AddressRefused
from adapters.sources.box_catalogs import choose
from adapters.sources.download import DOCUMENT_LIMIT, Downloads
from adapters.sources.http import Reach
from pipeline.errors import DescriptionInvalid, InvalidParameter, NotFound, UnsafeImage
from pipeline.model.sources import ArchiveForm, ArchiveSource, CatalogBox, UrlSource
from tests.unit.test_downloads import ANSWERS, Handler, World, world

__all__ = ["world"]  # a fixture

URL = "https://boxes.example/corp/web"
HERE = CatalogBox(URL)
SUM = "b" * 64


def offer(name: str = "libvirt", **more: object) -> dict[str, Any]:
    url = f"https://files.example/{name}.box"
    return {"name": name, "url": url, "checksum_type": "sha256", "checksum": SUM, **more}


def catalog(**versions: list[dict[str, Any]]) -> bytes:
    listed = [
        {"version": number.replace("_", "."), "providers": offers}
        for number, offers in versions.items()
    ]
    return json.dumps({"name": "corp/web", "versions": listed}).encode()


VERSIONS = catalog(
    **{
        "1_9_0": [offer(checksum="9" * 64)],
        "1_10_0": [offer(), offer("virtualbox", checksum="c" * 64)],
        "2_0_0": [offer("virtualbox")],
        "0_1_0": [
            offer(architecture="arm64", default_architecture=False),
            offer(architecture="amd64", default_architecture=True, checksum="d" * 64),
        ],
    }
)


@pytest.mark.parametrize(
    ("version", "provider", "name", "checksum"),
    [
        ("", "", "virtualbox", SUM),
        ("", "libvirt", "libvirt", SUM),  # the newest that there is for it
        ("1.9.0", "", "libvirt", "9" * 64),
        ("1.10.0", "virtualbox", "virtualbox", "c" * 64),
        ("0.1.0", "libvirt", "libvirt", "d" * 64),  # the catalog's default architecture
    ],
)
def test_the_box_that_is_meant(version: str, provider: str, name: str, checksum: str) -> None:
    found = choose(VERSIONS, CatalogBox(URL, version, provider))
    assert found == UrlSource(None, f"https://files.example/{name}.box", checksum)


def test_an_address_may_be_relative_to_the_catalog() -> None:
    content = catalog(**{"1_0_0": [offer(url="web/1.0.0.box", checksum=SUM.upper())]})
    found = choose(content, CatalogBox(URL))
    assert found == UrlSource(None, "https://boxes.example/corp/web/1.0.0.box", SUM)


@pytest.mark.parametrize(
    ("content", "wanted", "kind", "text"),
    [
        (b"<html>", HERE, DescriptionInvalid, "no catalog"),
        (b"[" * 100_000, HERE, DescriptionInvalid, "no catalog"),
        (b'{"versions": [{"version": 1, "providers": ["x"]}]}', HERE, DescriptionInvalid, "no cat"),
        (b'{"versions": 5}', HERE, DescriptionInvalid, "no catalog"),
        (VERSIONS, CatalogBox(URL, "3.0.0"), NotFound, "no version 3.0.0"),
        (VERSIONS, CatalogBox(URL, "", "qemu"), NotFound, "no box for qemu"),
        (VERSIONS, CatalogBox(URL, "1.10.0"), InvalidParameter, "2 boxes of version 1.10.0"),
        (catalog(a=[offer(checksum=None)]), HERE, DescriptionInvalid, "no SHA-256"),
        (catalog(a=[offer(checksum_type="md5")]), HERE, DescriptionInvalid, "no SHA-256"),
        (catalog(a=[offer(checksum="x")]), HERE, InvalidParameter, "not a checksum"),
        (catalog(a=[offer(url="file:///etc/shadow")]), HERE, InvalidParameter, "not http"),
        (catalog(a=[offer(url="http://u:p@x/")]), HERE, InvalidParameter, "password"),
    ],
)  # fmt: skip
def test_what_is_not_taken(
    content: bytes, wanted: CatalogBox, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        choose(content, wanted)


def test_who_offers_several_is_asked_which() -> None:
    with pytest.raises(InvalidParameter) as caught:
        choose(VERSIONS, CatalogBox(URL, "1.10.0"))
    assert "URL#1.10.0:libvirt, URL#1.10.0:virtualbox" in caught.value.hint


def packed(content: bytes) -> bytes:
    metadata = json.dumps({"provider": "libvirt", "format": "raw", "virtual_size": 1}).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (("metadata.json", metadata), ("box.img", content)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def boxes(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """A server of one catalog and its box; its address."""
    box = packed(b"a disk")
    base = f"http://127.0.0.1:{world.port}"
    digest = hashlib.sha256(box).hexdigest()
    text = catalog(**{"1_0_0": [offer(url="/box", checksum=digest)]})
    for name, content in (("catalog", text), ("box", box), ("endless", bytes(DOCUMENT_LIMIT + 1))):
        monkeypatch.setitem(ANSWERS, name, partial(Handler.whole, content=content))
    return base


def sources(downloads: Callable[[], Downloads]) -> HostSources:
    return HostSources(
        FilePins(), downloads, "test:///default", Sandbox(enabled=False), open_progress(Mode.NONE)
    )


def box_at(remote: UrlSource | CatalogBox) -> ArchiveSource:
    return ArchiveSource(Path("web"), ArchiveForm.BOX, remote=remote)


def test_a_box_of_a_catalog_is_downloaded_and_read(
    boxes: str, world: World, tmp_path: Path
) -> None:
    here = sources(world.downloads)
    source = box_at(CatalogBox(f"{boxes}/catalog"))
    before = here.identity(source)
    with here.open(source, tmp_path) as supply:
        (disk,) = supply.disks
        assert disk.path.read_bytes() == b"a disk"
        assert not supply.lasting
    assert here.identity(source) == before
    assert [path for path, _ in world.server.asked] == ["/catalog", "/box"]
    digest = hashlib.sha256(packed(b"a disk")).hexdigest()
    direct = box_at(UrlSource(None, f"{boxes}/box", digest))
    assert here.identity(direct) == before  # the same box, however it is named
    with here.open(direct, tmp_path) as supply:
        assert supply.disks[0].path.read_bytes() == b"a disk"
    assert len(world.server.asked) == 2  # it is kept


def test_what_is_wrong_with_a_box_is_told_of_its_url(
    boxes: str, world: World, tmp_path: Path
) -> None:
    digest = hashlib.sha256(bytes(DOCUMENT_LIMIT + 1)).hexdigest()
    source = box_at(UrlSource(None, f"{boxes}/endless?key=secret", digest))
    downloads = partial(world.downloads, length=DOCUMENT_LIMIT * 2)
    with (
        pytest.raises(UnsafeImage, match=f"'{boxes}/endless' is refused"),
        sources(downloads).open(source, tmp_path),
    ):
        pass


def test_where_a_catalog_may_not_be(boxes: str, world: World, tmp_path: Path) -> None:
    def careful() -> Downloads:
        return Downloads(tmp_path, open_progress(Mode.NONE), Reach())

    with pytest.raises(AddressRefused):
        sources(careful).identity(box_at(CatalogBox(f"{boxes}/catalog")))
    with pytest.raises(UnsafeImage, match="more than 4 MiB"):
        sources(world.downloads).identity(box_at(CatalogBox(f"{boxes}/endless")))
    with pytest.raises(NotFound, match="answers 404"):
        sources(world.downloads).identity(box_at(CatalogBox(f"{boxes}/missing")))
