"""Boxes and OVAs: good ones, and everything that a hostile archive can do; made at test time."""

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.process.sandbox import Sandbox
from adapters.progress import Mode, open_progress
from adapters.sources import HostSources
from adapters.sources import sparse as sparse_files
from adapters.sources.archive import unpack
from adapters.sources.machines import is_text
from pipeline.errors import GalleriaError, NoSpace, SourceChanged
from pipeline.model.descriptions import Description
from pipeline.model.sources import ArchiveForm, ArchiveSource
from pipeline.ports import Chain

pytestmark = pytest.mark.hostile

# what does not pack, a run of zeros, and an odd end
DISK = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(256)) + bytes(1 << 20) + b"end."
METADATA = b'{"provider": "libvirt", "format": "qcow2", "virtual_size": 1}'
VAGRANTFILE = b'File.write("/tmp/pwned", "x")\n'

Add = Callable[[tarfile.TarFile], None]


def member(name: str, content: bytes = b"", **fields: Any) -> Add:
    """One member; `fields` are those of its header, whatever the content is."""

    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        tar.addfile(info, io.BytesIO(content))

    return add


def header_only(name: str, **fields: Any) -> Add:
    """A header that promises bytes which are not there."""

    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(info, field, value)
        block = info.tobuf(tar.format or tarfile.PAX_FORMAT)
        assert tar.fileobj is not None
        tar.fileobj.write(block)
        tar.offset += len(block)

    return add


def raw(block: bytes) -> Add:
    def add(tar: tarfile.TarFile) -> None:
        assert tar.fileobj is not None
        tar.fileobj.write(block)
        tar.offset += len(block)

    return add


def packed(*adds: Add, compress: bool = True, format: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
        for add in adds:
            add(tar)
    content = stream.getvalue()
    return gzip.compress(content) if compress else content


BOX = (
    member("./metadata.json", METADATA),
    member("./Vagrantfile", VAGRANTFILE),
    member("./box.img", DISK),
)


def box(*more: Add) -> bytes:
    return packed(*BOX, *more)


OVF = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:r="CIM_Rasd"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
 <References>
  <File ovf:id="f1" ovf:href="os.vmdk" ovf:size="SIZE"/>
  <File ovf:id="f2" ovf:href="data.vmdk"/>
 </References>
 <DiskSection>
  <Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="8"
   ovf:capacityAllocationUnits="byte * 2^20"/>
  <Disk ovf:diskId="d2" ovf:fileRef="f2" ovf:capacity="4194304"/>
 </DiskSection>
 <VirtualSystem ovf:id="web">
  <OperatingSystemSection ovf:id="96"><Description>Debian_64</Description></OperatingSystemSection>
  <VirtualHardwareSection>
   <Item><r:InstanceID>3</r:InstanceID><r:ResourceType>20</r:ResourceType>
    <r:ResourceSubType>vmware.nvme.controller</r:ResourceSubType></Item>
   <Item><r:AddressOnParent>1</r:AddressOnParent><r:InstanceID>5</r:InstanceID>
    <r:HostResource>ovf:/disk/d2</r:HostResource><r:Parent>3</r:Parent>
    <r:ResourceType>17</r:ResourceType></Item>
   <Item><r:AddressOnParent>0</r:AddressOnParent><r:InstanceID>4</r:InstanceID>
    <r:HostResource>ovf:/disk/d1</r:HostResource><r:Parent>3</r:Parent>
    <r:ResourceType>17</r:ResourceType></Item>
   <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
  </VirtualHardwareSection>
 </VirtualSystem>
</Envelope>
""".replace("SIZE", str(len(DISK)))


def ova(
    ovf: str = OVF, *, manifest: str | None = None, disks: Sequence[Add] | None = None
) -> bytes:
    """`manifest` None: a right one."""
    if manifest is None:
        files = {"web.ovf": ovf.encode(), "os.vmdk": DISK, "data.vmdk": DISK[:4096]}
        manifest = "".join(
            f"SHA256({name})= {hashlib.sha256(content).hexdigest()}\n"
            for name, content in files.items()
        )
    default = (member("os.vmdk", DISK), member("data.vmdk", DISK[:4096]))
    return packed(
        member("web.ovf", ovf.encode()),
        *([member("web.mf", manifest.encode())] if manifest else []),
        *(default if disks is None else disks),
        compress=False,
    )


def metadata(text: str) -> bytes:
    return packed(member("metadata.json", text.encode()), member("box.img", DISK))


def damaged(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def sparse(*numbers: int, size: int = 1 << 20, name: str = "box.img") -> Add:
    """GNU's pax format 1.0: the map (its length, then starts and lengths), then what is stored."""
    text = b"".join(b"%d\n" % number for number in numbers)
    content = text.ljust(-(-len(text) // 512) * 512, b"\0") + b"x" * 512
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    return member(f"GNUSparseFile.0/{name}", content, pax_headers=headers)


def nested(name: str, count: int) -> bytes:
    """pax headers of pax headers."""
    info = tarfile.TarInfo(name)
    info.type, info.size = tarfile.XHDTYPE, 0
    return packed(*[raw(info.tobuf(tarfile.USTAR_FORMAT))] * count, *BOX)


def pax(**headers: str) -> Add:
    return member("box.img", DISK, pax_headers=headers)


ENTITY = '<!DOCTYPE Envelope [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
BOMB = "<!DOCTYPE e [" + '<!ENTITY a "aaaaaaaaaa">' + "]>"
B, V = ArchiveForm.BOX, ArchiveForm.OVA

HOSTILE: tuple[tuple[str, ArchiveForm, Callable[[], bytes], str], ...] = (
    # names and kinds of members
    ("parent", B, lambda: box(member("../evil", b"x")), "not allowed"),
    ("parent-inside", B, lambda: box(member("include/../../evil", b"x")), "not allowed"),
    ("absolute", B, lambda: box(member("/etc/cron.d/evil", b"x")), "not allowed"),
    ("deep", B, lambda: box(member("a/b/c.img", DISK)), "does not describe"),
    ("deep-name", B, lambda: box(member("a/" * 600 + "c.img", DISK)), "not allowed"),
    ("blank-name", B, lambda: box(member("a/ /c.img", DISK)), "not allowed"),
    ("empty-name", B, lambda: box(member("a//c.img", DISK)), "not allowed"),
    ("dotdot-disk", B, lambda: box(member("..img", b"x")), "not allowed"),
    ("newline", B, lambda: box(member("a\nb.img", b"x")), "not allowed"),
    ("control", B, lambda: box(member("a\x1b[2J.img", b"x")), "not allowed"),
    ("backslash", B, lambda: box(member("..\\evil.img", b"x")), "not allowed"),
    ("long", B, lambda: box(member("a" * 5000 + ".img", b"x")), "not allowed"),
    ("pax-path", B, lambda: packed(*BOX[:2], pax(path="../../evil.img")), "not allowed"),
    (
        "symlink",
        B,
        lambda: packed(BOX[0], member("box.img", type=tarfile.SYMTYPE, linkname="/etc/shadow")),
        "no regular file",
    ),
    (
        "symlink-directory",
        B,
        lambda: box(member("include", type=tarfile.SYMTYPE, linkname="/etc")),
        "no regular file",
    ),
    (
        "hardlink",
        B,
        lambda: packed(BOX[0], member("box.img", type=tarfile.LNKTYPE, linkname="/etc/shadow")),
        "no regular file",
    ),
    ("device", B, lambda: box(member("box.raw", type=tarfile.BLKTYPE)), "no regular file"),
    ("character", B, lambda: box(member("box.raw", type=tarfile.CHRTYPE)), "no regular file"),
    ("fifo", B, lambda: box(member("box.raw", type=tarfile.FIFOTYPE)), "no regular file"),
    ("directory", B, lambda: box(member("../etc", type=tarfile.DIRTYPE)), "not allowed"),
    (
        "directory-of-bytes",
        B,
        lambda: box(header_only("etc", type=tarfile.DIRTYPE, size=512)),
        "no regular file",
    ),
    ("contiguous", B, lambda: box(member("x.img", type=tarfile.CONTTYPE)), "no regular file"),
    ("unknown-type", B, lambda: box(member("x.img", b"x", type=b"Z")), "no regular file"),
    ("sparse-huge", B, lambda: packed(BOX[0], sparse(1, 0, 512, size=1 << 60)), "is sparse"),
    ("sparse-beyond", B, lambda: packed(BOX[0], sparse(1, 1 << 20, 512)), "map is wrong"),
    ("sparse-overlap", B, lambda: packed(BOX[0], sparse(2, 0, 512, 256, 9)), "map is wrong"),
    ("sparse-back", B, lambda: packed(BOX[0], sparse(2, 4096, 1, 0, 1)), "map is wrong"),
    ("sparse-negative", B, lambda: packed(BOX[0], sparse(1, 4096, -1)), "map is wrong"),
    (
        "sparse-lie",
        B,
        lambda: packed(BOX[0], sparse(1, 0, 1 << 20), compress=False),
        "unexpected end",
    ),
    ("sparse-no-map", B, lambda: packed(BOX[0], sparse(1 << 40, 0, 512)), "damaged"),
    (
        "sparse-map-bomb",
        B,
        lambda: packed(BOX[0], sparse(4 << 20, *([0] * (4 << 20)))),
        "absurd length",
    ),
    ("sparse-text", B, lambda: packed(sparse(1, 0, 512, name="metadata.json")), "no disk"),
    (
        "sparse-manifest",
        V,
        lambda: ova(disks=[sparse(1, 0, 512, name="os.vmdk"), member("data.vmdk", b"")]),
        "an OVA is ustar",
    ),
    ("twice", B, lambda: box(member("box.img", b"other")), "twice"),
    ("twice-dot", B, lambda: box(member("metadata.json", METADATA)), "twice"),
    ("many", B, lambda: box(*[member(f"d{n}.txt", b"x") for n in range(1010)]), "more than"),
    # lengths
    (
        "size-lie",
        B,
        lambda: packed(BOX[0], header_only("box.img", size=1 << 20), compress=False)[:4096],
        "unexpected end",
    ),
    (
        "size-huge",
        B,
        lambda: packed(BOX[0], header_only("box.img", size=1 << 60), compress=False),
        "room",
    ),
    (
        "size-negative",
        B,
        lambda: packed(BOX[0], header_only("box.img", size=-512), compress=False),
        "below zero",
    ),
    (
        "text-huge",
        B,
        lambda: packed(member("metadata.json", METADATA + b" " * (2 << 20)), compress=False),
        "larger",
    ),
    ("bomb", B, lambda: packed(BOX[0], member("box.img", bytes(64 << 20))), "own length"),
    (
        "pax-memory",
        B,
        lambda: packed(
            header_only("x", type=tarfile.XHDTYPE, size=1 << 40), *BOX, format=tarfile.GNU_FORMAT
        ),
        "damaged",
    ),
    (
        "name-memory",
        B,
        lambda: packed(
            header_only("x", type=tarfile.GNUTYPE_LONGNAME, size=1 << 33),
            *BOX,
            format=tarfile.GNU_FORMAT,
        ),
        "damaged",
    ),
    ("pax-nested", B, lambda: nested("x", 5000), "damaged"),
    ("pax-size", B, lambda: packed(BOX[0], pax(size="-1")), "below zero"),
    # the archive itself
    ("empty", B, lambda: b"", "empty file"),
    ("no-archive", B, lambda: DISK, "damaged"),
    ("no-members", B, lambda: packed(), "is refused: the archive is empty"),
    ("cut", B, lambda: box()[:-600], "unexpected end"),
    ("gzip-damaged", B, lambda: damaged(box(), 200), "damaged"),
    ("gzip-checksum", B, lambda: damaged(box(), len(box()) - 6), "crc error"),
    ("header-damaged", B, lambda: damaged(packed(*BOX, compress=False), 1024 + 150), "not in it"),
    ("double-gzip", B, lambda: gzip.compress(box()), "damaged"),
    # what a box says of itself
    ("no-metadata", B, lambda: packed(BOX[2]), "metadata.json"),
    ("no-json", B, lambda: metadata("{"), "not JSON"),
    ("json-deep", B, lambda: metadata("[" * 100_000), "not JSON"),
    ("no-object", B, lambda: metadata("[]"), "not an object"),
    ("provider", B, lambda: metadata('{"provider": "vmware_desktop"}'), "provider"),
    ("format", B, lambda: metadata('{"provider": "libvirt", "format": "json:{}"}'), "format"),
    ("format-list", B, lambda: metadata('{"provider": "libvirt", "format": ["raw"]}'), "format"),
    (
        "elsewhere",
        B,
        lambda: metadata('{"provider": "libvirt", "disks": [{"path": "/etc/shadow"}]}'),
        "not in it",
    ),
    (
        "one-twice",
        B,
        lambda: metadata('{"provider":"libvirt","disks":[{"path":"box.img"},{"path":"box.img"}]}'),
        "two disks",
    ),
    ("no-disks", B, lambda: metadata('{"provider": "libvirt", "disks": []}'), "list"),
    ("undescribed", B, lambda: box(member("extra.img", b"x")), "does not describe"),
    ("box-without-ovf", B, lambda: metadata('{"provider": "virtualbox"}'), "box.ovf"),
    # OVAs
    ("ovf-none", V, lambda: packed(member("os.vmdk", DISK), compress=False), "0 OVF"),
    (
        "ovf-two",
        V,
        lambda: ova(disks=[member("b.ovf", b"<x/>"), member("os.vmdk", DISK)]),
        "2 OVF",
    ),
    ("entity", V, lambda: ova(OVF.replace("<Envelope", ENTITY + "<Envelope", 1)), "entities"),
    ("entity-bomb", V, lambda: ova(OVF.replace("<Envelope", BOMB + "<Envelope", 1)), "entities"),
    ("no-xml", V, lambda: ova("<Envelope>"), "not XML"),
    ("other-xml", V, lambda: ova("<domain/>"), "Envelope"),
    (
        "two-machines",
        V,
        lambda: ova(OVF.replace("</Envelope>", "<VirtualSystem/></Envelope>")),
        "2",
    ),
    ("href-parent", V, lambda: ova(OVF.replace('"os.vmdk"', '"../os.vmdk"')), "not in it"),
    ("href-url", V, lambda: ova(OVF.replace('"os.vmdk"', '"http://h/os.vmdk"')), "not in it"),
    (
        "compressed",
        V,
        lambda: ova(OVF.replace('ovf:href="os', 'ovf:compression="gzip" ovf:href="os')),
        "compressed",
    ),
    ("chunks", V, lambda: ova(OVF.replace('ovf:href="os', 'ovf:chunkSize="9" ovf:href="os')), "ch"),
    (
        "delta",
        V,
        lambda: ova(OVF.replace('ovf:fileRef="f1"', 'ovf:fileRef="f1" ovf:parentRef="d2"')),
        "parentRef",
    ),
    ("blank-disk", V, lambda: ova(OVF.replace('ovf:fileRef="f1"', "")), "without a file"),
    (
        "no-drive",
        V,
        lambda: ova(OVF.replace("ResourceType>17", "ResourceType>10")),
        "without disks",
    ),
    ("one-file", V, lambda: ova(OVF.replace('fileRef="f2"', 'fileRef="f1"')), "two disks"),
    ("length", V, lambda: ova(OVF.replace(f'"{len(DISK)}"', '"7"')), "has 7 bytes"),
    ("missing", V, lambda: ova(disks=[member("os.vmdk", DISK)]), "not there"),
    (
        "changed",
        V,
        lambda: ova(disks=[member("os.vmdk", DISK[::-1]), member("data.vmdk", b"")]),
        "not what",
    ),
    ("manifest-noise", V, lambda: ova(manifest="hello\n"), "not known"),
    (
        "manifest-part",
        V,
        lambda: ova(manifest=f"SHA1(os.vmdk)= {hashlib.sha1(DISK).hexdigest()}"),  # noqa: S324
        "does not list",
    ),
    ("manifest-md5", V, lambda: ova(manifest=f"MD5(os.vmdk)= {'0' * 32}"), "not known"),
    (
        "manifest-other",
        V,
        lambda: ova(
            manifest="",
            disks=[member("b.mf", b""), member("os.vmdk", DISK), member("data.vmdk", b"")],
        ),
        "does not list",
    ),
)


class NoPins:
    """Pins that hold nothing still, and one day find a change."""

    def __init__(self, *, changed: bool = False) -> None:
        self._changed = changed

    @contextmanager
    def pin(self, chains: Sequence[Chain], work: Path) -> Iterator["_Held"]:
        yield _Held(tuple(chains), changed=self._changed)


class _Held:
    method = "lease"

    def __init__(self, chains: tuple[Chain, ...], *, changed: bool) -> None:
        self.chains = chains
        self._changed = changed

    def verify(self) -> None:
        if self._changed:
            raise SourceChanged("it changed")


@dataclass
class Place:
    work: Path
    path: Path

    def write(self, content: bytes) -> Path:
        self.path.write_bytes(content)
        return self.path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    work = tmp_path / "work"
    work.mkdir()
    return Place(work, tmp_path / "archive")


def sources(*, changed: bool = False) -> Any:
    pins: Any = NoPins(changed=changed)
    return HostSources(pins, none_wanted, "", Sandbox(enabled=False), open_progress(Mode.NONE))


def none_wanted() -> Any:
    raise AssertionError("an archive is no download")


@pytest.mark.parametrize(
    ("form", "make", "text"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_hostile_archives_are_refused(
    form: ArchiveForm, make: Callable[[], bytes], text: str, place: Place
) -> None:
    source = ArchiveSource(place.write(make()), form)
    before = sorted(place.path.parent.rglob("*"))
    with (
        pytest.raises(GalleriaError, match=re.escape(text)),
        sources().open(source, place.work),
    ):
        pass
    assert sorted(place.path.parent.rglob("*")) == before


def test_there_are_enough_hostile_archives() -> None:
    assert len(HOSTILE) >= 40


def test_a_box_is_its_disk(place: Place) -> None:
    source = ArchiveSource(place.write(box()), ArchiveForm.BOX)
    with sources().open(source, place.work) as supply:
        (disk,) = supply.disks
        assert (disk.lun, disk.path.read_bytes()) == (None, DISK)
        assert disk.path.stat().st_blocks * 512 < len(DISK)  # zeros became a hole
        assert disk.path.stat().st_mode & 0o777 == 0o600
        assert supply.description == Description()
    assert list(place.work.iterdir()) == []


def test_a_box_of_several_disks(place: Place) -> None:
    about = {
        "provider": "libvirt",
        "architecture": "arm64",
        "disks": [{"path": "b.qcow2", "format": "qcow2"}, {"path": "a.img", "format": "raw"}],
    }
    content = packed(
        member(".", type=tarfile.DIRTYPE),
        member("metadata.json", json.dumps(about).encode()),
        member("include/_Vagrantfile", VAGRANTFILE),
        member("a.img", b"data"),
        member("b.qcow2", DISK),
    )
    with sources().open(ArchiveSource(place.write(content), B), place.work) as supply:
        found = [(disk.lun, disk.declared.value, disk.path.read_bytes()) for disk in supply.disks]
        assert found == [(None, "qcow2", DISK), (0, "raw", b"data")]
        assert supply.description == Description(architecture="Arm64")


@pytest.mark.parametrize("form", ["ova", "box"])
def test_an_ovf_describes_the_machine(form: str, place: Place) -> None:
    content = ova()
    if form == "box":
        content = packed(
            member("metadata.json", b'{"provider": "virtualbox"}'),
            member("box.ovf", OVF.encode()),
            member("os.vmdk", DISK),
            member("data.vmdk", DISK[:4096]),
            member("Vagrantfile", VAGRANTFILE),
        )
    with sources().open(
        ArchiveSource(place.write(content), ArchiveForm(form)), place.work
    ) as found:
        disks = [(disk.lun, disk.virtual_size, disk.path.stat().st_size) for disk in found.disks]
        assert disks == [(None, 8 << 20, len(DISK)), (0, 4 << 20, 4096)]
        assert found.description == Description("V2", "x64", "NVMe", "Linux")


def test_an_archive_that_changes_is_refused(place: Place) -> None:
    source = ArchiveSource(place.write(box()), ArchiveForm.BOX)
    with pytest.raises(SourceChanged), sources(changed=True).open(source, place.work):
        pass
    assert list(place.work.iterdir()) == []


def test_room_is_looked_at_first(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_files, "SPARE", 1 << 62)
    into = place.work / "into"
    into.mkdir()
    source = place.write(packed(*BOX, compress=False))
    with pytest.raises(NoSpace, match="room"), source.open("rb") as file:
        unpack(file, None, into, is_text)
    assert list(into.iterdir()) == []


def test_a_vagrantfile_is_not_run(place: Place) -> None:
    marker = place.work.parent / "pwned"
    evil = member("Vagrantfile", f"File.write({str(marker)!r}, 'x')\n".encode())
    content = packed(BOX[0], evil, BOX[2])
    with sources().open(ArchiveSource(place.write(content), B), place.work) as supply:
        assert [disk.path.name for disk in supply.disks] == ["disk-0"]
    assert not marker.exists()


def test_windows_and_bios(place: Place) -> None:
    ovf = OVF.replace("Debian_64", "Microsoft Windows Server 2022 (64-bit)").replace(
        '"efi"', '"bios"'
    )
    with sources().open(ArchiveSource(place.write(ova(ovf)), V), place.work) as supply:
        assert supply.description == replace(
            Description(), generation="V1", architecture="x64", controller="NVMe", os_type="Windows"
        )
