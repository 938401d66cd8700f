"""Files as other programs and people make them, read right: judged by qemu-img on the host, or by
the bytes that they were made of."""

import json
import plistlib
import random
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from adapters.images import QemuImages
from adapters.pins import FilePins
from adapters.process.sandbox import Sandbox
from adapters.progress import Mode, open_progress
from adapters.sources import HostSources
from fixtures import people
from fixtures.images import MIB, qemu_convert
from pipeline.errors import GalleriaError, NotFound, UnsafeImage
from pipeline.model.sources import (
    AnySource,
    ArchiveForm,
    ArchiveSource,
    Backing,
    DiskSource,
    UrlSource,
    VmSource,
)
from pipeline.ports import ImageFormat, Layer
from pipeline.ports.extents import Kind
from pipeline.ports.sources import Supply
from pipeline.sources.ingest import ingest, inspect_disk

pytestmark = pytest.mark.system
IMAGES = QemuImages(Sandbox())
SIZE = 4 * MIB
V, B = ArchiveForm.OVA, ArchiveForm.BOX


def no_downloads() -> Any:
    raise AssertionError("nothing is downloaded here")


SOURCES = HostSources(
    FilePins(), no_downloads, "test:///default", Sandbox(), open_progress(Mode.NONE)
)


def noise(seed: int, size: int = SIZE) -> bytes:
    """A disk with some data, and zeros."""
    chance = random.Random(seed)  # noqa: S311 - the same bytes on every run
    data = bytearray(size)
    for start in range(0, size, MIB):
        data[start + 4096 : start + 70_000] = chance.randbytes(70_000 - 4096)
    data[:4] = b"\xeb\x63\x90\0"
    return bytes(data)


OS, DATA = noise(1), noise(2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The two disks in the formats that archives hold."""
    directory = tmp_path_factory.mktemp("made")
    found = {}
    for name, content in (("os", OS), ("data", DATA)):
        raw = directory / f"{name}.raw"
        raw.write_bytes(content)
        for suffix, driver, options in (
            ("vmdk", "vmdk", "subformat=streamOptimized"),
            ("sparse", "vmdk", ""),
            ("qcow2", "qcow2", ""),
            ("vhd", "vpc", "subformat=dynamic,force_size=on"),
            ("vhdx", "vhdx", ""),
        ):
            path = directory / f"{name}.{suffix}"
            qemu_convert(raw, path, driver, options)
            found[path.name] = path.read_bytes()
    return found


@contextmanager
def opened(source: AnySource, tmp_path: Path) -> Iterator[Supply]:
    """The disks of a source; afterwards nothing of them is left."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    with SOURCES.open(source, work) as supply:
        yield supply
    assert list(work.iterdir()) == []


def content(disk: DiskSource) -> bytes:
    """What galleria reads of a disk."""
    with IMAGES.open(inspect_disk(disk, IMAGES).chain) as source:
        data = bytearray(source.virtual_size)
        for extent in source.extents():
            if extent.kind is Kind.DATA:
                source.read_into(memoryview(data)[extent.start : extent.end], extent)
    return bytes(data)


def contents(source: AnySource, tmp_path: Path) -> list[bytes]:
    with opened(source, tmp_path) as supply:
        return [content(disk) for disk in supply.disks]


def archive(tmp_path: Path, form: ArchiveForm, data: bytes) -> ArchiveSource:
    path = tmp_path / f"people.{form.value}"
    path.write_bytes(data)
    return ArchiveSource(path, form)


# --- compressed, packed --------------------------------------------------------------------------


def zipped(members: people.Members) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            file.writestr(name, data)
    return stream.getvalue()


WRAPPED: tuple[tuple[str, Callable[[dict[str, bytes]], bytes]], ...] = (
    *(
        (f"disk.raw.{program}", lambda _, program=program: people.packed(OS, program))
        for program in ("gzip", "bzip2", "xz", "zstd", "lz4")
    ),
    ("disk.qcow2.xz", lambda made: people.packed(made["os.qcow2"], "xz")),
    ("disk.vhd.zst", lambda made: people.packed(made["os.vhd"], "zstd")),
    (
        "two-members.raw.gz",
        lambda _: people.packed(OS[:MIB], "gzip") + people.packed(OS[MIB:], "gzip"),
    ),
    (
        "pzstd.zst",
        lambda _: b"\x50\x2a\x4d\x18" + bytes([4, 0, 0, 0] * 2) + people.packed(OS, "zstd"),
    ),
    ("gce.tar.gz", lambda _: people.tar([("disk.raw", OS)], "gzip")),
    ("azure.vhd.zip", lambda made: zipped([("web.vhd", made["os.vhd"]), ("README.txt", b"x")])),
    ("plain.tar", lambda made: people.tar([("sub/web.qcow2", made["os.qcow2"])])),
)


@pytest.mark.parametrize(("name", "make"), WRAPPED, ids=[item[0] for item in WRAPPED])
def test_a_compressed_or_packed_image_is_read(
    name: str, make: Callable[[dict[str, bytes]], bytes], made: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(make(made))
    with opened(DiskSource(None, path), tmp_path) as supply:
        (disk,) = supply.disks
        assert content(disk) == OS
        assert disk.shown.startswith(str(path))
        assert not supply.lasting
        assert disk.path.stat().st_blocks * 512 < SIZE  # zeros are holes


REFUSED: tuple[tuple[str, Callable[[dict[str, bytes]], bytes], str], ...] = (
    ("cut.xz", lambda _: people.packed(OS, "xz")[:-1000], "damaged"),
    ("cut.zst", lambda _: people.packed(OS, "zstd")[:-1000], "damaged"),
    ("crc.gz", lambda _: people.packed(OS, "gzip")[:-8] + bytes(8), "damaged"),
    ("bomb.zst", lambda _: people.packed(b"\1" * (192 << 20), "zstd"), "more than 400 times"),
    ("twice.gz", lambda _: people.packed(people.packed(OS, "xz"), "gzip"), "once more"),
    ("two.zip", lambda _: zipped([("a.raw", OS), ("b.raw", OS)]), "several disks"),
    ("none.zip", lambda _: zipped([("README", b"x")]), "holds no disk"),
    ("evil.zip", lambda _: zipped([("../../a.raw", OS)]), "not allowed"),
    ("is-ova.tar", lambda _: people.tar([("web.ovf", b"x")]), "is an OVA"),
    ("is-box.tar.gz", lambda _: people.tar([("metadata.json", b"{}")], "gzip"), "a Vagrant box"),
    ("page.raw.gz", lambda _: people.packed(b"<!DOCTYPE html>".ljust(512), "gzip"), "HTML page"),
    ("disk.raw.lz", lambda _: b"LZIP\1" + bytes(507), "lzip -d"),
    ("disk.raw.7z", lambda _: b"7z\xbc\xaf\x27\x1c" + bytes(506), "7z x"),
)


@pytest.mark.parametrize(("name", "make", "text"), REFUSED, ids=[item[0] for item in REFUSED])
def test_a_wrapping_that_is_no_good_is_refused_by_its_name(
    name: str,
    make: Callable[[dict[str, bytes]], bytes],
    text: str,
    made: dict[str, bytes],
    tmp_path: Path,
) -> None:
    path = tmp_path / name
    path.write_bytes(make(made))
    with pytest.raises(GalleriaError, match=re.escape(text)) as told:
        contents(DiskSource(None, path), tmp_path)
    assert name in told.value.message
    assert str(tmp_path / "work") not in told.value.message


def test_zeros_of_a_large_disk_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "large.raw.zst"
    command = f"(head -c 5000 /dev/urandom; truncate -s 1G {tmp_path}/z; cat {tmp_path}/z)"
    subprocess.run(["bash", "-c", f"{command} | zstd -q -1 > {path}"], check=True)
    (tmp_path / "z").unlink()
    with opened(DiskSource(None, path), tmp_path) as supply:
        facts = supply.disks[0].path.stat()
    assert (facts.st_size, facts.st_blocks * 512 < MIB) == ((1 << 30) + 5000, True)


# --- OVAs ----------------------------------------------------------------------------------------


def one(href: str = "os.vmdk", more: str = "", capacity: object = SIZE) -> bytes:
    """A descriptor of one disk."""
    return people.ovf(
        [people.ovf_file("f1", href, more)],
        [people.ovf_disk("d1", "f1", capacity)],
        [people.ovf_drive(1, "ovf:/disk/d1")],
    )


def plain(made: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return [("web.ovf", one()), ("os.vmdk", made["os.vmdk"])]


def chunked(made: dict[str, bytes], size: int = 100_000) -> list[tuple[str, bytes]]:
    disk = made["os.vmdk"]
    parts = [disk[start : start + size] for start in range(0, len(disk), size)]
    named = [(f"os.vmdk.{index:09d}", part) for index, part in enumerate(parts)]
    return [("web.ovf", one(more=f'ovf:chunkSize="{size}" ovf:size="{len(disk)}"')), *named]


def named(name: str, href: str, made: dict[str, bytes]) -> list[tuple[str, bytes]]:
    members = [(f"{name}.ovf", one(href)), (f"{name}-disk1.vmdk", made["os.vmdk"])]
    return [*members, (f"{name}.mf", people.manifest(members, "SHA1").replace(b"\n", b"\r\n"))]


def xenserver(made: dict[str, bytes]) -> list[tuple[str, bytes]]:
    items = [
        people.ovf_drive(1, "ovf:/disk/d1", kind=19, more="<r:Connection>device=0</r:Connection>")
    ]
    text = people.ovf([people.ovf_file("f1", "u.vhd")], [people.ovf_disk("d1", "f1", SIZE)], items)
    return [("web.ovf", text), ("u.vhd", made["os.vhd"])]


OVAS: tuple[tuple[str, Callable[[dict[str, bytes]], bytes]], ...] = (
    *(
        (program, lambda made, program=program: people.tar(plain(made), program))
        for program in ("gzip", "bzip2", "xz", "zstd")
    ),
    ("zip", lambda made: zipped(plain(made))),
    (
        "folder",
        lambda made: people.tar([(f"sub/{name}", data) for name, data in plain(made)]),
    ),
    ("chunks", lambda made: people.tar(chunked(made))),
    (
        "chunks-manifest",
        lambda made: people.tar([*chunked(made), ("web.mf", people.manifest(chunked(made)))]),
    ),
    (
        "gzip-member",
        lambda made: people.tar(
            [
                ("web.ovf", one("os.vmdk.gz", 'ovf:compression="gzip"')),
                ("os.vmdk.gz", people.packed(made["os.vmdk"], "gzip")),
            ]
        ),
    ),
    (
        "undeclared-xz-member",
        lambda made: people.tar(
            [("web.ovf", one()), ("os.vmdk", people.packed(made["os.vmdk"], "xz"))]
        ),
    ),
    (
        "disk-manifest",
        lambda made: people.tar(
            [*plain(made), ("os.mf", people.manifest(plain(made)[1:], "SHA1"))]
        ),
    ),
    (
        "other-manifest",
        lambda made: people.tar([*plain(made), ("image.mf", people.manifest(plain(made)))]),
    ),
    ("xenserver", lambda made: people.tar(xenserver(made))),
    (
        "qcow2-without-suffix",
        lambda made: people.tar([("vm.ovf", one("8b0a9c1e")), ("8b0a9c1e", made["os.qcow2"])]),
    ),
    *(
        (f"named-{name}", lambda made, name=name, href=href: people.tar(named(name, href, made)))
        for name, href in (
            ("Kali 2016.2 x64 (Workshop)", "Kali 2016.2 x64 (Workshop)-disk1.vmdk"),
            ("web[1]", "web[1]-disk1.vmdk"),
            ("Büro, Ann's", "Büro, Ann's-disk1.vmdk"),
            ("R&D @ 50%", "R&amp;D @ 50%-disk1.vmdk"),
            ("My VM", "My%20VM-disk1.vmdk"),
            ("虚拟机", "虚拟机-disk1.vmdk"),
        )
    ),
    (
        "extras",
        lambda made: people.tar(
            [
                *plain(made),
                ("web.mf", people.manifest([*plain(made), ("README.txt", b"read me\n")])),
                ("README.txt", b"read me\n"),
                ("tools.iso", bytes(4096)),
                ("web.nvram", bytes(600_000)),
                ("web.cert", b"-----BEGIN"),
                ("._web.ovf", b"AppleDouble"),
                ("EULA.rtf", b"{"),
            ]
        ),
    ),
)


@pytest.mark.parametrize("make", [item[1] for item in OVAS], ids=[item[0] for item in OVAS])
def test_an_ova_of_another_writer_is_its_disk(
    make: Callable[[dict[str, bytes]], bytes], made: dict[str, bytes], tmp_path: Path
) -> None:
    assert contents(archive(tmp_path, V, make(made)), tmp_path) == [OS]


def test_a_member_that_a_manifest_lists_is_verified_though_it_is_not_needed(
    made: dict[str, bytes], tmp_path: Path
) -> None:
    listed = people.manifest([*plain(made), ("README", b"one")])
    data = people.tar([*plain(made), ("web.mf", listed), ("README", b"two")])
    with pytest.raises(UnsafeImage, match=r"README.*is not what the archive's manifest says"):
        contents(archive(tmp_path, V, data), tmp_path)


def test_a_chunk_that_was_changed_or_is_missing(made: dict[str, bytes], tmp_path: Path) -> None:
    members = chunked(made)
    listed = ("web.mf", people.manifest(members))
    changed = [*members[:2], (members[2][0], members[2][1][::-1]), *members[3:], listed]
    with pytest.raises(UnsafeImage, match=r"is not what"):
        contents(archive(tmp_path, V, people.tar(changed)), tmp_path)
    for broken in (members[:-1], [*members[:2], *members[3:]]):
        with pytest.raises(GalleriaError, match=r"has .* bytes|is not in it"):
            contents(archive(tmp_path, V, people.tar(broken)), tmp_path)


OPTIONS = """<DeploymentOptionSection>
 <Configuration ovf:id="large"/><Configuration ovf:id="small" ovf:default="true"/>
</DeploymentOptionSection>"""


def configured(made: dict[str, bytes], sections: str = OPTIONS) -> bytes:
    text = people.ovf(
        [people.ovf_file("f1", "os.vmdk"), people.ovf_file("f2", "data.vmdk")],
        [people.ovf_disk("d1", "f1", SIZE), people.ovf_disk("d2", "f2", SIZE)],
        [
            people.ovf_drive(1, "ovf:/disk/d1"),
            people.ovf_drive(2, "ovf:/disk/d2", options="large huge"),
        ],
        sections,
    )
    return people.tar(
        [("a.ovf", text), ("os.vmdk", made["os.vmdk"]), ("data.vmdk", made["data.vmdk"])]
    )


def test_the_disks_of_a_configuration(made: dict[str, bytes], tmp_path: Path) -> None:
    source = archive(tmp_path, V, configured(made))
    assert contents(source, tmp_path) == [OS]  # the default, which is not the first
    assert contents(replace(source, configuration="large"), tmp_path) == [OS, DATA]
    with pytest.raises(GalleriaError, match=r"no configuration 'tiny': 'large', 'small'"):
        contents(replace(source, configuration="tiny"), tmp_path)
    first = OPTIONS.replace(' ovf:default="true"', "")
    assert contents(archive(tmp_path, V, configured(made, first)), tmp_path) == [OS, DATA]
    assert SOURCES.identity(source) != SOURCES.identity(replace(source, configuration="large"))


def test_an_item_of_a_configuration_stands_for_the_general_one(
    made: dict[str, bytes], tmp_path: Path
) -> None:
    text = people.ovf(
        [people.ovf_file("f1", "os.vmdk"), people.ovf_file("f2", "data.vmdk")],
        [people.ovf_disk("d1", "f1", SIZE), people.ovf_disk("d2", "f2", SIZE)],
        [people.ovf_drive(1, "ovf:/disk/d1"), people.ovf_drive(1, "ovf:/disk/d2", options="small")],
        OPTIONS,
    )
    members = [("a.ovf", text), ("os.vmdk", made["os.vmdk"]), ("data.vmdk", made["data.vmdk"])]
    source = archive(tmp_path, V, people.tar(members))
    assert contents(source, tmp_path) == [DATA]
    assert contents(replace(source, configuration="large"), tmp_path) == [OS]


def test_one_of_several_machines(made: dict[str, bytes], tmp_path: Path) -> None:
    text = people.ovf(
        [people.ovf_file("f1", "os.vmdk"), people.ovf_file("f2", "data.vmdk")],
        [people.ovf_disk("d1", "f1", SIZE), people.ovf_disk("d2", "f2", SIZE)],
        {
            "web": [people.ovf_drive(1, "ovf:/disk/d1")],
            "db": [people.ovf_drive(1, "ovf:/disk/d2")],
        },
    )
    members = [("a.ovf", text), ("os.vmdk", made["os.vmdk"]), ("data.vmdk", made["data.vmdk"])]
    source = archive(tmp_path, V, people.tar(members))
    assert contents(replace(source, machine="web"), tmp_path) == [OS]
    assert contents(replace(source, machine="the db"), tmp_path) == [DATA]
    with pytest.raises(GalleriaError, match=r"2 machines.*'web', 'db'") as told:
        contents(source, tmp_path)
    assert "--machine" in told.value.hint
    with pytest.raises(GalleriaError, match=r"no machine 'mail'"):
        contents(replace(source, machine="mail"), tmp_path)


def test_an_empty_disk_is_made(made: dict[str, bytes], tmp_path: Path) -> None:
    size = '<ProductSection><Property ovf:key="size" ovf:value="3"/></ProductSection>'
    unit = 'ovf:capacityAllocationUnits="byte * 2^20"'
    text = people.ovf(
        [people.ovf_file("f1", "os.vmdk")],
        [
            people.ovf_disk("d1", "f1", SIZE),
            people.ovf_disk("d2", "", 2, unit),
            people.ovf_disk("d3", "", "${size}", unit),
        ],
        [people.ovf_drive(number, f"ovf:/disk/d{number}") for number in (1, 2, 3)],
        size,
    )
    source = archive(tmp_path, V, people.tar([("a.ovf", text), ("os.vmdk", made["os.vmdk"])]))
    assert contents(source, tmp_path) == [OS, bytes(2 * MIB), bytes(3 * MIB)]


def test_a_length_that_is_not_the_descriptions_is_told_by_the_members_name(
    made: dict[str, bytes], tmp_path: Path
) -> None:
    data = people.tar([("a.ovf", one(capacity=SIZE - 512)), ("os.vmdk", made["os.vmdk"])])
    with pytest.raises(UnsafeImage, match=rf"people.ova: os.vmdk has {SIZE}.*{SIZE - 512}"):
        contents(archive(tmp_path, V, data), tmp_path)


def test_an_empty_member_is_told_by_its_name(tmp_path: Path) -> None:
    source = archive(tmp_path, V, people.tar([("a.ovf", one()), ("os.vmdk", b"")]))
    with pytest.raises(UnsafeImage, match=r"'people.ova: os.vmdk' is empty"):
        contents(source, tmp_path)


def test_a_descriptor_alone_is_told_from_an_ova(tmp_path: Path) -> None:
    with pytest.raises(GalleriaError, match=r"an OVF descriptor alone") as told:
        contents(archive(tmp_path, V, one()), tmp_path)
    assert "tar -cf" in told.value.hint


# --- boxes ---------------------------------------------------------------------------------------


def about(provider: str, **more: object) -> tuple[str, bytes]:
    return "metadata.json", json.dumps({"provider": provider, **more}).encode()


VMX = b"""\
firmware = "efi"
guestOS = "debian12-64"
scsi0.present = "TRUE"
scsi0:0.fileName = "os.vmdk"
scsi0:1.present = "TRUE"
scsi0:1.fileName = "data.vmdk"
ide0:0.deviceType = "cdrom-image"
ide0:0.fileName = "tools.iso"
sata0:0.present = "FALSE"
sata0:0.fileName = "gone.vmdk"
nvram = "web.nvram"
"""
FLAT = people.descriptor("monolithicFlat", [f'RW {SIZE // 512} FLAT "data-flat.vmdk" 0'])
PLAIN_HDD = b"""<?xml version="1.0"?><Parallels_disk_image><StorageData><Storage><Image>
<GUID>{5fbaabe3}</GUID><Type>Plain</Type><File>web.hds</File></Image></Storage></StorageData>
</Parallels_disk_image>"""

BOXES: tuple[tuple[str, Callable[[dict[str, bytes]], people.Members], list[bytes]], ...] = (
    (
        "vmware",
        lambda made: [
            about("vmware_desktop"),
            ("web.vmx", VMX),
            ("os.vmdk", made["os.sparse"]),
            ("data.vmdk", FLAT),
            ("data-flat.vmdk", DATA),
            ("web.nvram", bytes(9000)),
            ("web.vmsd", b""),
        ],
        [OS, DATA],
    ),
    (
        "hyperv",
        lambda made: [
            about("hyperv"),
            ("Virtual Machines/1B.vmcx", bytes(4096)),
            ("Virtual Hard Disks/web.vhdx", made["os.vhdx"]),
        ],
        [OS],
    ),
    (
        "qemu",
        lambda made: [about("qemu", format="qcow2"), ("box.img", made["os.qcow2"])],
        [OS],
    ),
    (
        "utm",
        lambda made: [
            about("utm"),
            (
                "box.utm/config.plist",
                plistlib.dumps(
                    {
                        "System": {"Architecture": "aarch64"},
                        "Drive": [
                            {"ImageType": "CD", "ImageName": "a.iso"},
                            {"ImageType": "Disk", "ImageName": "os.qcow2"},
                        ],
                    }
                ),
            ),
            ("box.utm/Data/os.qcow2", made["os.qcow2"]),
            ("box.utm/screenshot.png", b"\x89PNG"),
        ],
        [OS],
    ),
    (
        "parallels",
        lambda _: [
            about("parallels"),
            ("box.pvm/web.hdd/DiskDescriptor.xml", PLAIN_HDD),
            ("box.pvm/web.hdd/web.hds", OS),
            ("box.pvm/config.pvs", b"<x/>"),
        ],
        [OS],
    ),
    (
        "libvirt-two",
        lambda made: [
            about(
                "libvirt",
                disks=[{"path": "os.qcow2"}, {"path": "d.vmdk", "format": "vmdk"}],
            ),
            ("os.qcow2", made["os.qcow2"]),
            ("d.vmdk", made["data.sparse"]),
        ],
        [OS, DATA],
    ),
    (
        "extras",
        lambda made: [
            about("libvirt", format="qcow2"),
            ("box.img", made["os.qcow2"]),
            ("include/BigSur.nvram", bytes(4096)),
            ("include/seed.img", bytes(4096)),
            ("README.md", b"x"),
            ("setup.sh", b"x"),
            (".bashrc", b"x"),
            ("._box.img", b"AppleDouble"),
            ("docs/LICENSE", b"x"),
        ],
        [OS],
    ),
    (
        "virtualbox-1",
        lambda made: [("box.ovf", one()), ("os.vmdk", made["os.vmdk"]), ("Vagrantfile", b"x")],
        [OS],
    ),
)


@pytest.mark.parametrize(("make", "disks"), [i[1:] for i in BOXES], ids=[i[0] for i in BOXES])
def test_a_box_of_each_provider(
    make: Callable[[dict[str, bytes]], people.Members],
    disks: list[bytes],
    made: dict[str, bytes],
    tmp_path: Path,
) -> None:
    program = {0: "gzip", 1: "xz"}[len(disks) - 1]
    source = archive(tmp_path, B, people.tar(make(made), program))
    assert contents(source, tmp_path) == disks


def test_what_a_box_says_of_its_machine(made: dict[str, bytes], tmp_path: Path) -> None:
    for name, generation, architecture in (("vmware", "V2", None), ("utm", None, "Arm64")):
        make = next(item[1] for item in BOXES if item[0] == name)
        with opened(archive(tmp_path, B, people.tar(make(made))), tmp_path) as supply:
            found = supply.description
            assert (found.generation, found.architecture) == (generation, architecture)


BAD_BOXES: tuple[tuple[str, people.Members, str], ...] = (
    ("two-vhdx", [about("hyperv"), ("a.vhdx", b"x"), ("b.vhdx", b"x")], "'a.vhdx', 'b.vhdx'"),
    ("no-vmx", [about("vmware_desktop"), ("a.vmdk", b"x")], "NAME.vmx"),
    ("vmx-away", [about("vmware"), ("a.vmx", b'ide0:0.fileName = "/etc/x.vmdk"')], "not in it"),
    ("plist", [about("utm"), ("config.plist", b"<plist>")], "no property list"),
    (
        "plist-entity",
        [about("utm"), ("config.plist", b'<!DOCTYPE p [<!ENTITY a "b">]><plist/>')],
        "no property list",
    ),
    (
        "plist-elsewhere",
        [about("utm"), ("config.plist", plistlib.dumps({"Drive": [{"ImageName": "../a"}]}))],
        "not in it",
    ),
    (
        "parallels-own",
        [
            about("parallels"),
            ("DiskDescriptor.xml", PLAIN_HDD.replace(b"Plain", b"Compressed")),
            ("web.hds", b"WithoutFreeSpace"),
        ],
        "Parallels' own format",
    ),
    ("docker", [about("docker"), ("a.img", b"x")], "'docker': known are libvirt"),
)


@pytest.mark.parametrize(
    ("members", "text"), [i[1:] for i in BAD_BOXES], ids=[i[0] for i in BAD_BOXES]
)
def test_a_box_that_is_not_understood_is_refused(
    members: people.Members, text: str, tmp_path: Path
) -> None:
    with pytest.raises(GalleriaError, match=re.escape(text)):
        contents(archive(tmp_path, B, people.tar(members)), tmp_path)


# --- VMDKs ---------------------------------------------------------------------------------------

FIRST_LINES = (
    b"# Disk DescriptorFile",
    b"# Disk Descriptor File\n# Created by VMDKstream",
    b"# Description file created by VMDK stream converter",
    b"#",
)


@pytest.mark.parametrize("first", FIRST_LINES)
@pytest.mark.parametrize("kind", ["os.vmdk", "os.sparse"])
def test_a_vmdk_of_another_writer(
    first: bytes, kind: str, made: dict[str, bytes], tmp_path: Path
) -> None:
    text = people.descriptor_of(made[kind])
    text = first + b"\n" + text.partition(b"\n")[2] + b'ddb.toolsVersion = "2147483647"\n'
    text = text.replace(b"\nRW ", b"\nRDONLY ").replace(b"\n", b"\r\n")
    path = tmp_path / "web.vmdk"
    path.write_bytes(
        people.with_descriptor(made[kind], text + b'ddb.toolsVersion = "2147483647"\r\n')
    )
    assert content(DiskSource(None, path)) == OS


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("GBK", "测试虚拟机"),
        ("UTF-8", "Büro Server"),
        ("windows-1252", "Café"),
        ("Shift_JIS", "表示"),
    ],
)
def test_a_vmdk_of_a_machine_with_a_name_of_its_country(
    encoding: str, name: str, made: dict[str, bytes], tmp_path: Path
) -> None:
    text = people.descriptor_of(made["os.sparse"])
    text = text.replace(b"version=1\n", f'version=1\nencoding="{encoding}"\n'.encode())
    text = text.replace(b"os.sparse", f"{name}.vmdk".encode(encoding))
    path = tmp_path / "web.vmdk"
    path.write_bytes(people.with_descriptor(made["os.sparse"], text))
    qemu = ["qemu-img", "info", "-f", "vmdk", str(path)]
    subprocess.run(qemu, check=True, capture_output=True)
    assert content(DiskSource(None, path)) == OS


def test_a_descriptor_that_runs_over_its_sectors(made: dict[str, bytes], tmp_path: Path) -> None:
    text = people.descriptor_of(made["os.sparse"]).rstrip() + b"\n#"
    text = text.ljust(506, b"x") + b'\nddb.toolsVersion = "2147483647"\n'
    path = tmp_path / "web.vmdk"
    path.write_bytes(people.with_descriptor(made["os.sparse"], text, sectors=1))
    assert content(DiskSource(None, path)) == OS
    hidden = text + b'RW 1 FLAT "/etc/passwd" 0\n'
    path.write_bytes(people.with_descriptor(made["os.sparse"], hidden, sectors=1))
    with pytest.raises(UnsafeImage, match=r"not allowed"):
        inspect_disk(DiskSource(None, path), IMAGES)


# --- VMDKs in parts ------------------------------------------------------------------------------

PARTED = ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat")


@pytest.mark.parametrize("subformat", PARTED)
def test_a_vmdk_in_parts(subformat: str, tmp_path: Path) -> None:
    raw, disk, parts = tmp_path / "os.raw", tmp_path / "web.vmdk", tmp_path / "elsewhere"
    raw.write_bytes(OS)
    qemu_convert(raw, disk, "vmdk", f"subformat={subformat}")
    source = DiskSource(None, disk)
    assert contents(source, tmp_path) == [OS]
    before = SOURCES.identity(source)
    parts.mkdir()
    for part in tmp_path.glob("web-*"):
        part.rename(parts / part.name)
    with pytest.raises(NotFound, match=r"web.vmdk is the descriptor.*web-[sf]") as told:
        contents(source, tmp_path)
    assert "--extents-from" in told.value.hint
    source = replace(source, extents_from=parts)
    assert contents(source, tmp_path) == [OS]
    assert len(SOURCES.identity(source)) == len(before)


def test_a_part_alone_is_told_from_a_disk(tmp_path: Path) -> None:
    raw = tmp_path / "os.raw"
    raw.write_bytes(OS)
    qemu_convert(raw, tmp_path / "web.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse")
    (tmp_path / "web-delta.vmdk").write_bytes(people.cowd({}, SIZE))
    (tmp_path / "web-sesparse.vmdk").write_bytes(people.sesparse({}, [], SIZE))
    for name in ("web-s001.vmdk", "web-delta.vmdk", "web-sesparse.vmdk"):
        facts = IMAGES.inspect(tmp_path / name)
        assert "name " in facts.refusals[0]
        assert "descriptor, NAME.vmdk" in facts.refusals[0]
        assert facts.unread


def test_parts_of_each_kind(tmp_path: Path) -> None:
    """One disk of a flat part, a sparse one and zeros; qemu reads the same."""
    (tmp_path / "a.raw").write_bytes(DATA)
    qemu_convert(tmp_path / "a.raw", tmp_path / "web-s002.vmdk", "vmdk")
    (tmp_path / "web-f001.vmdk").write_bytes(b"skip".ljust(1024, b"\0") + OS)
    sectors = SIZE // 512
    lines = [f'RW {sectors} FLAT "web-f001.vmdk" 2', f'RW {sectors} SPARSE "web-s002.vmdk"']
    disk = tmp_path / "web.vmdk"
    disk.write_bytes(people.descriptor("custom", [*lines, "RW 2048 ZERO"]))
    assert contents(DiskSource(None, disk), tmp_path) == [OS + DATA + bytes(MIB)]


@pytest.mark.parametrize("kind", ["VMFSSPARSE", "SESPARSE"])
def test_a_delta_of_esxi(kind: str, tmp_path: Path) -> None:
    """Over its flat parent, as an ESXi datastore has them; qemu-img judges."""
    sectors, grain = SIZE // 512, 512 if kind == "VMFSSPARSE" else 4096
    changed = {number: bytes([number % 251 + 1]) * grain for number in (0, 1, 5, 77, 1000)}
    delta, created = (
        (people.cowd(changed, SIZE), "vmfsSparse")
        if kind == "VMFSSPARSE"
        else (people.sesparse(changed, [2, 3], SIZE), "seSparse")
    )
    (tmp_path / "web-flat.vmdk").write_bytes(OS)
    (tmp_path / "web-delta.vmdk").write_bytes(delta)
    base, top = tmp_path / "web.vmdk", tmp_path / "web-000001.vmdk"
    base.write_bytes(people.descriptor("vmfs", [f'RW {sectors} VMFS "web-flat.vmdk"'], cid="12ab"))
    line = f'RW {sectors} {kind} "web-delta.vmdk"'
    top.write_bytes(people.descriptor(created, [line], parent="12ab", hint="web.vmdk"))
    wanted = bytearray(OS)
    for number, data in changed.items():
        wanted[number * grain : (number + 1) * grain] = data
    if kind == "SESPARSE":
        wanted[2 * grain : 4 * grain] = bytes(2 * grain)
    source = DiskSource(None, top, backing=(Backing(base),))
    assert contents(source, tmp_path) == [bytes(wanted)]
    flat = tmp_path / "flat.raw"
    argv = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(top), str(flat)]
    subprocess.run(argv, check=True)
    assert flat.read_bytes() == bytes(wanted)
    with pytest.raises(UnsafeImage, match=r"delta over another disk, 'web.vmdk'") as told:
        contents(replace(source, backing=()), tmp_path)
    assert "--backing" in told.value.hint
    base.write_bytes(base.read_bytes().replace(b"12ab", b"12ac"))
    with pytest.raises(UnsafeImage, match=r"another disk, or one that"):
        contents(source, tmp_path)


EVIL = (
    ('RW 8192 FLAT "/etc/passwd" 0', "another place"),
    ('RW 8192 FLAT "..\\\\x" 0', "another place"),
    ('RW 8192 FLAT ".." 0', "another place"),
    ('RW 8192 VMFSRDM "rdm.vmdk"', "a device"),
    ('RW 8192 FLAT "link" 0', "not to be found"),
    ('RW 8192 FLAT "short" 0', "truncated"),
    ('RW 8192 FLAT "fifo" 0', "not to be found"),
    ('RW 8192 SPARSE "short"', "does not begin"),
    ("RW 8192 ZERO\nhello", "not allowed"),
    ('RW 8192 ZERO\nchangeTrackPath="/etc/x"', "unknown key"),
    ("", "0 extents"),
)


@pytest.mark.parametrize(("line", "text"), EVIL, ids=[item[0] for item in EVIL])
def test_a_descriptor_that_leads_elsewhere_is_refused(line: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(4096))
    (tmp_path / "link").symlink_to("/etc/passwd")
    subprocess.run(["mkfifo", str(tmp_path / "fifo")], check=True)
    disk = tmp_path / "web.vmdk"
    disk.write_bytes(people.descriptor("monolithicFlat", [line]))
    with pytest.raises(GalleriaError, match=text):
        contents(DiskSource(None, disk), tmp_path)


# --- chains, devices, CDs ------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["compat=0.10", "compat=1.1", "compat=0.10,cluster_size=4k"])
def test_an_overlay_over_a_box_is_read(
    options: str, made: dict[str, bytes], tmp_path: Path
) -> None:
    """oslo.utils takes the extensions of a version 2 header for the feature bits of version 3."""
    box, top = tmp_path / "box.img", tmp_path / "machine.img"
    box.write_bytes(made["os.qcow2"])
    people.overlay(box, top, options)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 7 1M 64k", str(top)], check=True)
    wanted = bytearray(OS)
    wanted[MIB : MIB + 65536] = b"\7" * 65536
    assert content(DiskSource(None, top, backing=(Backing(box),))) == bytes(wanted)


def test_an_overlay_alone_is_not_verified_and_a_lie_is_not_safe(
    made: dict[str, bytes], tmp_path: Path
) -> None:
    box, top = tmp_path / "box.img", tmp_path / "machine.img"
    box.write_bytes(made["os.qcow2"])
    people.overlay(box, top, "compat=1.1")
    facts = IMAGES.inspect(top)
    assert facts.refusals
    assert facts.unread
    with pytest.raises(UnsafeImage, match="has a backing file") as told:
        inspect_disk(DiskSource(None, top), IMAGES)
    assert "--backing" in told.value.hint
    assert not IMAGES.inspect(top, declared=ImageFormat.RAW).unread
    (tmp_path / "qed").write_bytes(b"QED\0".ljust(4096, b"\0"))
    assert IMAGES.inspect(tmp_path / "qed").unread
    (tmp_path / "lie").write_bytes(b'json:{"driver":"file"}'.ljust(4096, b"\0"))
    assert not IMAGES.inspect(tmp_path / "lie").unread
    top.write_bytes(top.read_bytes()[:70_000])
    assert not IMAGES.inspect(top).unread


DOMAIN = """<domain type="kvm"><name>web</name><devices><disk type="file" device="disk">
<driver name="qemu" type="qcow2"/><source file="machine.img"/><target dev="vda" bus="virtio"/>
</disk></devices></domain>"""


def test_a_machine_over_a_box_says_its_chain(made: dict[str, bytes], tmp_path: Path) -> None:
    """As vagrant-libvirt leaves one: its description names the top alone."""
    box = tmp_path / "box.img"
    box.write_bytes(made["os.qcow2"])
    people.overlay(box, tmp_path / "machine.img", "compat=0.10")
    xml = tmp_path / "web.xml"
    xml.write_text(DOMAIN)
    source = VmSource(str(xml), ((None, (box,)),))
    assert contents(source, tmp_path) == [OS]
    assert SOURCES.identity(source) != SOURCES.identity(VmSource(str(xml)))
    with pytest.raises(UnsafeImage, match=r"backing file"):
        contents(VmSource(str(xml)), tmp_path)
    with pytest.raises(GalleriaError, match=r"no disk at LUN 3"):
        contents(VmSource(str(xml), ((3, (box,)),)), tmp_path)


class Fetched:
    """Downloads of which everything is there already."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def open(self, source: UrlSource) -> Iterator[Path]:
        yield self._path


def test_a_compressed_image_behind_a_url(made: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "0123456789abcdef.image"
    path.write_bytes(people.packed(made["os.qcow2"], "xz"))
    fetched: Any = Fetched(path)
    sources = HostSources(
        FilePins(), lambda: fetched, "test:///default", Sandbox(), open_progress(Mode.NONE)
    )
    url = UrlSource(None, "https://images.example/web.qcow2.xz?signature=secret", "0" * 64)
    work = tmp_path / "work"
    work.mkdir()
    with sources.open(url, work) as supply:
        (disk,) = supply.disks
        assert content(disk) == OS
        assert (disk.shown, supply.lasting) == ("https://images.example/web.qcow2.xz", False)


def test_a_read_only_device_is_a_source_and_a_writable_one_is_not(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(OS)
    for flags, right in ((["-r"], True), ([], False)):
        done = subprocess.run(
            ["losetup", *flags, "-f", "--show", str(raw)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no loop devices: {done.stderr}")
        device = Path(done.stdout.strip())
        try:
            if right:
                assert contents(DiskSource(None, device), tmp_path) == [OS]
            else:
                with pytest.raises(GalleriaError, match=rf"{device} is a block device") as told:
                    contents(DiskSource(None, device), tmp_path)
                assert "lvcreate --snapshot" in told.value.hint
        finally:
            subprocess.run(["losetup", "-d", str(device)], check=True)


def test_a_cd_is_no_os_disk_and_may_be_a_data_disk(made: dict[str, bytes], tmp_path: Path) -> None:
    data = bytearray(SIZE)
    data[32768 : 32768 + 7] = b"\x01CD001\x01"
    raw, packed = tmp_path / "cd.iso", tmp_path / "cd.qcow2"
    raw.write_bytes(data)
    qemu_convert(raw, packed, "qcow2", "", "-c")
    (tmp_path / "os.qcow2").write_bytes(made["os.qcow2"])
    os_disk = DiskSource(None, tmp_path / "os.qcow2")
    for path in (raw, packed):
        with pytest.raises(GalleriaError, match=rf"{path.name} is no OS disk: .*ISO 9660"):
            ingest([DiskSource(None, path)], IMAGES)
        assert len(ingest([os_disk, DiskSource(0, path)], IMAGES)) == 2


def test_formats_that_a_layer_has(made: dict[str, bytes], tmp_path: Path) -> None:
    """What was unwrapped is what it is by its content, whatever its name said."""
    path = tmp_path / "misnamed.raw.xz"
    path.write_bytes(people.packed(made["os.qcow2"], "xz"))
    with opened(DiskSource(None, path), tmp_path) as supply:
        disk = inspect_disk(supply.disks[0], IMAGES)
        assert disk.chain == (Layer(supply.disks[0].path, ImageFormat.QCOW2),)
        assert disk.facts is not None
        assert disk.facts.path == path
