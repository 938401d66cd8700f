"""Boxes that Vagrant has unpacked: found by name, and read as the archive that they were."""

import json
import os
from pathlib import Path

import pytest

from adapters.pins import FilePins
from adapters.process.sandbox import Sandbox
from adapters.progress import Mode, open_progress
from adapters.sources import HostSources
from adapters.sources.boxes import find_box
from adapters.sources.download import Downloads
from pipeline.errors import (
    DescriptionInvalid,
    GalleriaError,
    InvalidParameter,
    NotFound,
    UnsafeImage,
)
from pipeline.model.sources import ArchiveForm, ArchiveSource


def no_downloads() -> Downloads:
    raise AssertionError("nothing is to be downloaded")


SOURCES = HostSources(
    FilePins(), no_downloads, "test:///default", Sandbox(enabled=False), open_progress(Mode.NONE)
)


def add(home: Path, *place: str, content: bytes = b"disk") -> Path:
    made = home.joinpath("boxes", *place)
    made.mkdir(parents=True)
    metadata = {"provider": "libvirt", "format": "raw", "virtual_size": 1}
    (made / "metadata.json").write_text(json.dumps(metadata))
    (made / "Vagrantfile").write_text("raise 'never run'\n")
    (made / "box.img").write_bytes(content)
    return made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant"))
    return tmp_path / "vagrant"


def test_the_newest_version_is_meant(home: Path) -> None:
    name = "generic-VAGRANTSLASH-debian12"
    add(home, name, "4.3.9", "libvirt")
    newest = add(home, name, "4.3.12", "amd64", "libvirt")
    assert find_box("generic/debian12") == newest
    assert find_box("generic/debian12:libvirt") == newest
    assert find_box("generic/debian12@4.3.9") == home / "boxes" / name / "4.3.9/libvirt"
    for text, what in (
        ("generic/debian12@1.0", "4.3.9, 4.3.12"),
        ("generic/debian13", "vagrant box list"),
    ):
        with pytest.raises(NotFound) as caught:
            find_box(text)
        assert what in caught.value.hint
    with pytest.raises(NotFound, match="for virtualbox"):
        find_box("generic/debian12:virtualbox")


def test_one_of_several_providers_is_to_be_named(home: Path) -> None:
    add(home, "web", "0", "libvirt")
    chosen = add(home, "web", "0", "virtualbox")
    with pytest.raises(InvalidParameter) as caught:
        find_box("web")
    assert caught.value.hint == "web@0:libvirt, web@0:virtualbox"
    assert find_box("web:virtualbox") == chosen


def test_a_path_is_no_name(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    add(home, "web", "0", "libvirt")
    assert find_box("none.box") == Path("none.box")
    assert find_box("../web") == Path("../web")
    Path("web").mkdir()
    assert find_box("web") == Path("web")


def test_its_disks_are_those_of_the_archive(home: Path, tmp_path: Path) -> None:
    content = os.urandom(4096) + bytes(1 << 20)
    place = add(home, "web", "0", "libvirt", content=content)
    source = ArchiveSource(place, ArchiveForm.BOX)
    before = SOURCES.identity(source)
    with SOURCES.open(source, tmp_path) as supply:
        (disk,) = supply.disks
        assert disk.path.read_bytes() == content
        assert not supply.lasting
    assert SOURCES.identity(source) == before
    (place / "box.img").write_bytes(b"another")
    assert SOURCES.identity(source) != before


def test_a_directory_that_is_no_box_is_told(tmp_path: Path) -> None:
    place = tmp_path / "x"
    place.mkdir()
    for make, kind in (
        (lambda: None, NotFound),
        (lambda: (place / "readme").write_text("x"), DescriptionInvalid),
        (lambda: (place / "box.img").symlink_to("/etc/shadow"), UnsafeImage),
    ):
        make()
        with (
            pytest.raises(GalleriaError) as caught,
            SOURCES.open(ArchiveSource(place, ArchiveForm.BOX), tmp_path),
        ):
            pass
        assert isinstance(caught.value, kind)
    assert [item.name for item in tmp_path.iterdir()] == ["x"]
