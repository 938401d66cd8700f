"""What the command line and build specs say a version is made from."""

from pathlib import Path
from typing import Any

import click
import pytest

from adapters.cli.sources import source_options, sources_of, spec_sources
from adapters.spec import SpecInvalid
from pipeline.errors import InvalidParameter
from pipeline.model.sources import (
    AnySource,
    ArchiveForm,
    ArchiveSource,
    Backing,
    CatalogBox,
    DiskSource,
    SourceKind,
    UrlSource,
    VmSource,
)
from tests.specs import load_spec

HEX = "a" * 64
URL = "https://files.example/a.vhd"
CATALOG = "https://boxes.example/corp/web"


def parsed(*args: str) -> tuple[AnySource, ...]:
    """The sources of a command line."""
    found: list[tuple[AnySource, ...]] = []

    @click.command()
    @source_options
    def command(**values: Any) -> None:
        found.append(sources_of(values))

    command.main(args, standalone_mode=False)
    return found[0]


def remote(name: str, where: UrlSource | CatalogBox) -> ArchiveSource:
    return ArchiveSource(Path(name), ArchiveForm.BOX, remote=where)


def backing(*names: str) -> tuple[Backing, ...]:
    return tuple(Backing(Path(name)) for name in names)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("--os-disk a.vhd", [DiskSource(None, Path("a.vhd"))]),
        ("--os-disk a.qcow2@old", [DiskSource(None, Path("a.qcow2"), "old")]),
        (
            "--os-disk a --backing b --backing c",
            [DiskSource(None, Path("a"), backing=backing("b", "c"))],
        ),
        (
            "--os-disk a --data-disk 0=d --data-disk 7=e --backing 7=f --backing 7=g",
            [
                DiskSource(None, Path("a")),
                DiskSource(0, Path("d")),
                DiskSource(7, Path("e"), backing=backing("f", "g")),
            ],
        ),
        ("--os-disk a --backing ./0=b", [DiskSource(None, Path("a"), backing=backing("./0=b"))]),
        (f"--os-vhd-uri {URL} --checksum sha256:{HEX}", [UrlSource(None, URL, HEX)]),
        (
            f"--os-disk a --data-vhd-uri 3={URL} --checksum 3=SHA256:{HEX.upper()}",
            [DiskSource(None, Path("a")), UrlSource(3, URL, HEX)],
        ),
        ("--vm web.xml", [VmSource("web.xml")]),
        ("--box web.box", [ArchiveSource(Path("web.box"), ArchiveForm.BOX)]),
        (
            f"--box {CATALOG}#1.2.0:libvirt",
            [remote("web", CatalogBox(CATALOG, "1.2.0", "libvirt"))],
        ),
        (f"--box {CATALOG}", [remote("web", CatalogBox(CATALOG))]),
        (
            f"--box {CATALOG}.box?key=1 --checksum sha256:{HEX}",
            [remote("web.box", UrlSource(None, f"{CATALOG}.box?key=1", HEX))],
        ),
        ("--ova web.ova", [ArchiveSource(Path("web.ova"), ArchiveForm.OVA)]),
    ],
)
def test_options_name_sources(args: str, expected: list[AnySource]) -> None:
    assert list(parsed(*args.split())) == expected


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("", "a source is missing"),
        ("--backing b", "OS disk"),
        ("--os-disk a --backing 2=b", "LUN 2"),
        ("--os-disk a --backing 0=", "says nothing"),
        ("--os-disk a --data-disk 0=b --data-disk 0=c", "given twice"),
        ("--os-disk a --data-disk b", "LUN=FILE"),
        (f"--os-vhd-uri {URL}", "checksum"),
        (f"--os-vhd-uri {URL} --checksum sha256:{HEX} --checksum sha256:{HEX}", "one checksum"),
        (f"--os-disk a --checksum sha256:{HEX}", "OS disk"),
    ],
)
def test_options_that_say_nothing_sensible(args: str, text: str) -> None:
    with pytest.raises(click.UsageError, match=text):
        parsed(*args.split())


def test_a_checksum_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="sha256"):
        parsed("--os-vhd-uri", URL, "--checksum", "md5:" + "a" * 32)


def spec(source: str, directory: Path) -> Path:
    path = directory / "web.yaml"
    path.write_text(
        "apiVersion: galleria/v1\nkind: ImageVersion\n"
        "image: {gallery: corp, definition: web, version: 1.0.0}\n"
        f"source: {source}\n"
    )
    return path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{osDisk: a, osDiskBacking: [b, /c]}",
            [DiskSource(None, Path("AT/a"), backing=backing("AT/b", "/c"))],
        ),
        (
            "{osDisk: a, dataDisks: [{lun: 1, path: d, backing: [e]}]}",
            [
                DiskSource(None, Path("AT/a")),
                DiskSource(1, Path("AT/d"), backing=backing("AT/e")),
            ],
        ),
        (
            f"{{osVhdUri: '{URL}', checksum: 'sha256:{HEX}', "
            f"dataDisks: [{{lun: 0, vhdUri: '{URL}', checksum: 'sha256:{HEX}'}}]}}",
            [UrlSource(None, URL, HEX), UrlSource(0, URL, HEX)],
        ),
        ("{vm: web.xml}", [VmSource("AT/web.xml")]),
        ("{vm: web}", [VmSource("web")]),
        ("{box: web.box}", [ArchiveSource(Path("AT/web.box"), ArchiveForm.BOX)]),
        (f"{{box: '{CATALOG}#1.2.0'}}", [remote("web", CatalogBox(CATALOG, "1.2.0"))]),
        (
            f"{{box: '{CATALOG}.box', checksum: 'sha256:{HEX}'}}",
            [remote("web.box", UrlSource(None, f"{CATALOG}.box", HEX))],
        ),
        ("{ova: web.ova}", [ArchiveSource(Path("AT/web.ova"), ArchiveForm.OVA)]),
    ],
)
def test_specs_name_sources(source: str, expected: list[AnySource], tmp_path: Path) -> None:
    found = spec_sources(load_spec(spec(source, tmp_path)).source)
    assert repr(found) == repr(tuple(expected)).replace("AT/", f"{tmp_path}/")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{}", "give one of"),
        ("{osDisk: a, vm: b}", "give one of"),
        ("{vm: a, dataDisks: [{lun: 0, path: d}]}", "give one of"),
        ("{box: a, ova: b}", "give one of"),
        ("{box: a, osDiskBacking: [b]}", "goes with osDisk"),
        (f"{{osVhdUri: '{URL}'}}", "go together"),
        (f"{{osVhdUri: '{URL}', checksum: abc}}", "checksum"),
        (f"{{box: web.box, checksum: 'sha256:{HEX}'}}", "the URL of a box"),
        ("{osDisk: a, dataDisks: [{lun: 0}]}", "a path, a vhdUri or a snapshot"),
        (
            f"{{osDisk: a, dataDisks: [{{lun: 0, path: b, vhdUri: '{URL}'}}]}}",
            "a path, a vhdUri or a snapshot",
        ),
        (f"{{osDisk: a, dataDisks: [{{lun: 0, vhdUri: '{URL}'}}]}}", "go together"),
    ],
)
def test_specs_that_say_nothing_sensible(source: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match=text):
        load_spec(spec(source, tmp_path))


def test_each_source_has_its_kind() -> None:
    """What rights it takes depends on it."""
    assert DiskSource(None, Path("a")).kind is SourceKind.VHD
    assert UrlSource(None, URL, HEX).kind is SourceKind.VHD
    assert VmSource("a").kind is SourceKind.VIRTUAL_MACHINE
    assert ArchiveSource(Path("a"), ArchiveForm.BOX).kind is SourceKind.VIRTUAL_MACHINE
