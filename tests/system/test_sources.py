"""One session: a version from each kind of source, judged by `qemu-img compare` with the flattened
original; the permission that each kind takes; and what is refused."""

import contextlib
import filecmp
import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.process.sandbox import Sandbox
from adapters.sources.machine_archives import open_archive
from fixtures.chains import differencing_vhd, differencing_vhdx, qemu_child
from pipeline.model.sources import ArchiveForm, ArchiveSource
from tests.conftest import missing
from tests.contract.storing import pattern
from tests.docs.console import Line, lines_of
from tests.docs.reference import GUIDES
from tests.home import Session as InProcess
from tests.system.conftest import mounted, used
from tests.system.machine import machine
from tests.system.sources import DOMAIN, OVF, archive, checksum, qemu_img, served
from tests.unit.test_large_sectors import gpt_disk

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MIB = 1 << 20
SIZE = 8 * MIB
CHANGES = {MIB: b"\x11" * 4096, 5 * MIB: b"\x22" * 65536}
PARTNER = "22222222-2222-2222-2222-222222222222"
DEFINE = ("--os-type", "Linux", "--publisher", "P", "--offer", "o")


class Session(InProcess):
    """A home with galleries, and the same two disks in every form. Its two regions lie on one file
    system, that clones files."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.zones = path / "zones"
        self.count = 0

    def publish(self, *args: str, to: str = "corp/web", by: tuple[str, ...] = ()) -> dict[str, Any]:
        self.count += 1
        document = self.json("--quiet", *by, "publish", f"{to}/1.0.{self.count}", *args)
        version: dict[str, Any] = document["version"]
        return version

    def check(
        self,
        *args: str,
        expected: tuple[str | Path, ...] = ("changed.raw",),
        to: str = "corp/web",
        by: tuple[str, ...] = (),
        known: bool = False,
    ) -> str:
        """Publish, and compare what was published with the flattened originals. What zones know
        is not read. Returns the version's name."""
        version = self.publish(*args, to=to, by=by)
        result = version["regions"][0]["result"]
        assert (result["bytesRead"] == 0) == known
        (replica,) = result["replicas"]
        assert len(replica["disks"]) == len(expected)
        for disk, original in zip(replica["disks"], expected, strict=True):
            same(Path(disk["path"]), self.path / original)
        return f"{to}/1.0.{self.count}"

    def refused(self, *args: str, status: int, text: str) -> None:
        done = self.run("--quiet", "publish", "corp/web/9.9.9", *args, status=status)
        assert re.search(text, done.stderr), done.stderr
        assert not list((self.path / "state/galleria/work").glob("*/*"))


DRIVERS = {".raw": "raw", ".qcow2": "qcow2", ".s1": "qcow2"}


def same(one: Path, other: Path) -> None:
    """That two disks have the same length and content, by qemu's own account."""
    formats = ("-f", DRIVERS[one.suffix], "-F", DRIVERS[other.suffix])
    argv = ["qemu-img", "compare", "-U", *formats, str(one), str(other)]  # -U: a machine has it
    said = subprocess.run(argv, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "mismatch" not in said.stdout + said.stderr


def _disks(place: Path) -> None:
    (place / "base.raw").write_bytes(pattern(1, 3 * MIB) + bytes(SIZE - 3 * MIB))
    (place / "data.raw").write_bytes(pattern(2, MIB) + bytes(SIZE - MIB))
    changed = bytearray((place / "base.raw").read_bytes())
    for offset, content in CHANGES.items():
        changed[offset : offset + len(content)] = content
    (place / "changed.raw").write_bytes(changed)
    vhd = ("-o", "subformat=dynamic,force_size=on")
    for name, driver, options in (
        *(("base.qcow2", "qcow2", ()), ("base.vmdk", "vmdk", ())),
        *(("base.vhd", "vpc", vhd), ("base.vhdx", "vhdx", ("-o", "block_size=1M"))),
    ):
        qemu_img("convert", "-f", "raw", "-O", driver, *options, place / "base.raw", place / name)
    for name in ("os", "data"):
        qemu_img("create", "-q", "-f", "qcow2", place / f"live-{name}.qcow2", str(SIZE))
    qemu_child(place / "base.qcow2", place / "top.qcow2", "qcow2", "qcow2", CHANGES)
    qemu_child(place / "base.vmdk", place / "top.vmdk", "vmdk", "vmdk", CHANGES)
    differencing_vhd(place / "base.vhd", place / "top.avhd", CHANGES)
    differencing_vhdx(place / "base.vhdx", place / "top.avhdx", CHANGES, SIZE)
    (place / "web.xml").write_text(DOMAIN)
    # as long as the variables of OVMF's 4 MiB firmware
    (place / "VARS.fd").write_bytes(b"variables".ljust(540672, b"\xff"))


def _archives(place: Path) -> None:
    streams = {}
    for name, original in (("os.vmdk", "changed.raw"), ("data.vmdk", "data.raw")):
        stream = ("-o", "subformat=streamOptimized")
        qemu_img("convert", "-f", "raw", "-O", "vmdk", *stream, place / original, place / name)
        streams[name] = (place / name).read_bytes()
    qemu_img("convert", "-f", "raw", "-O", "qcow2", place / "changed.raw", place / "box.img")
    evil = {"Vagrantfile": f"File.write('{place}/pwned', 'x')".encode()}
    metadata = {"metadata.json": b'{"provider":"libvirt","format":"qcow2","virtual_size":1}'}
    box = {"box.img": (place / "box.img").read_bytes()}
    archive(place / "libvirt.box", metadata | evil | box, compress=True)
    ovf = {"box.ovf": OVF.encode()}
    metadata = {"metadata.json": b'{"provider":"virtualbox"}'}
    archive(place / "virtualbox.box", metadata | evil | ovf | streams, compress=True)
    members = {"web.ovf": OVF.encode()} | streams
    lines = [f"SHA256({n})= {hashlib.sha256(c).hexdigest()}\n" for n, c in members.items()]
    archive(place / "web.ova", {**members, "web.mf": "".join(lines).encode()}, compress=False)


@pytest.fixture(scope="module")
def session(
    tmp_path_factory: pytest.TempPathFactory, require: Callable[..., None]
) -> Iterator[Session]:
    require("qemu-img", "qemu-io", "bwrap", "mkfs.xfs", "qemu-system-x86_64")
    if os.geteuid() != 0:
        missing("only root can mount file systems")
    place = tmp_path_factory.mktemp("sources")
    image = tmp_path_factory.mktemp("zones") / "zones.img"
    settings = {"GALLERIA_ALLOW_PRIVATE_SOURCES": "127.0.0.1/32", "GALLERIA_IMMUTABLE": "false"}
    with (
        mounted("xfs", image, place / "zones", 512) as zones,
        Session.begun(place, **settings) as made,
    ):
        made.run("init", "--region", f"eu={zones}/eu", "--region", f"us={zones}/us")
        for gallery, region in (("corp", "eu"), ("vendor", "eu"), ("public", "eu"), ("lab", "us")):
            made.run("gallery", "create", gallery, "--location", region)
        for name, state, generation in (
            ("corp/web", "Specialized", "V2"),
            ("corp/bios", "Specialized", "V1"),
            ("corp/general", "Generalized", "V2"),
            ("corp/golden", "Generalized", "V2"),
            ("lab/web", "Specialized", "V2"),
            ("vendor/web", "Specialized", "V2"),
            ("public/web", "Specialized", "V2"),
        ):
            made.run(
                *("definition", "create", name, *DEFINE, "--sku", name.rpartition("/")[2]),
                *("--os-state", state, "--hyper-v-generation", generation),
            )
        _disks(place)
        _archives(place)
        yield made


def digests(place: Path) -> dict[str, str]:
    """Of the sources, but for the disks that a machine of the test writes."""
    files = [path for path in place.iterdir() if path.is_file() and "live" not in path.name]
    return {path.name: checksum(path) for path in files}


def test_a_version_from_each_kind(session: Session) -> None:
    at = session.path
    both = ("changed.raw", "data.raw")
    before = digests(at)

    # a VHD, as a file and as others; chains as they are declared
    session.check("--os-disk", "base.vhd", expected=("base.raw",))
    for top, base in (
        *(("top.qcow2", "base.qcow2"), ("top.vmdk", "base.vmdk")),
        *(("top.avhd", "base.vhd"), ("top.avhdx", "base.vhdx")),
    ):
        session.check("--os-disk", top, "--backing", base)
    session.check(
        *("--os-disk", "data.raw", "--data-disk", "0=top.qcow2", "--backing", "0=base.qcow2"),
        expected=("data.raw", "changed.raw"),
    )

    # a VHD behind a URL, and another kind of disk beside it
    with served(at) as url:
        name = session.check(
            *("--os-vhd-uri", f"{url}/base.vhd", "--checksum", checksum(at / "base.vhd")),
            *("--data-disk", "0=data.raw", "--data-vhd-uri", f"1={url}/data.vmdk"),
            *("--checksum", f"1={checksum(at / 'data.vmdk')}"),
            expected=("base.raw", "data.raw", "data.raw"),
        )
    assert " base.vhd (vhd)" in session.run("show", name).stdout

    # a VM: described by libvirt, with its firmware's variables; in archives; running
    name = session.check("--vm", "web.xml", expected=both)
    session.run("deploy", name, "--region", "eu", "--name", "vm1", "--out", "vms")
    deployed = (at / "vms" / "vm1").iterdir()
    kept = [path.read_bytes() for path in deployed if path.stat().st_size == 540672]
    assert kept == [(at / "VARS.fd").read_bytes()]
    name = session.check("--box", "libvirt.box")
    assert "(qcow2) of libvirt.box" in session.run("show", name).stdout
    session.check("--box", "virtualbox.box", expected=both)
    session.check("--ova", "web.ova", expected=both)
    with machine(at, os=at / "live-os.qcow2", data=at / "live-data.qcow2") as vm:
        vm.io("os", "write -P 3 1M 1M", "flush")
        session.check("--qmp", str(vm.qmp), expected=("live-os.qcow2", "live-data.qcow2"))
        assert vm.debris() == []

    # a snapshot of a file; a writable disk of the snapshot; a snapshot of the disk
    (first,) = session.json("snapshot", "create", "--source", "changed.raw", "-n", "s1")[
        "snapshots"
    ]
    assert first["completionPercent"] == 100
    assert first["creationData"]["createOption"] == "Import"
    disk = session.json("disk", "create", "-n", "d1", "--source", "s1")
    assert disk["creationData"]["createOption"] == "Copy"
    file = Path(disk["file"]["path"])
    qemu_io = ["qemu-io", "-f", disk["file"]["format"], "-c", "write -P 9 6M 1M", str(file)]
    subprocess.run(qemu_io, check=True, stdout=subprocess.DEVNULL)
    (second,) = session.json("snapshot", "create", "--source", "d1", "-n", "s2")["snapshots"]
    assert second["contents"][0]["digest"] != first["contents"][0]["digest"]
    made_of = [session.check("--os-snapshot", "s1", known=True)]
    mixed = ("--os-snapshot", disk["id"], "--data-snapshot", "4=s2", "--data-disk", "7=data.raw")
    made_of.append(session.check(*mixed, expected=(file, file, "data.raw")))

    # a managed image of a VHD: to a version, which needs no reading
    image = ("image", "create", "-n", "gold", "--os-disk", "base.vhd", "--no-generalize")
    made = session.json(*image, "--data-disk", "0=data.raw")
    assert [content.get("lun") for content in made["contents"]] == [None, 0]
    disks = ("base.raw", "data.raw")
    name = session.check("--managed-image", "gold", to="corp/golden", expected=disks, known=True)

    # a version of the same gallery: the bases are the same; of another one, in another region on
    # the same file system: not a byte moves; through a shared id and a community id as well
    bases = session.zones / "eu" / "bases"
    found = sorted(bases.iterdir())
    source = ("--image-version", name)
    copy = session.check(*source, to="corp/golden", expected=disks, known=True)
    assert sorted(bases.iterdir()) == found
    taken = used(session.zones)
    made_of.append(session.check(*source, to="lab/web", expected=disks, known=True))
    assert used(session.zones) - taken < 256 * 1024  # records and manifests; the disks hold 4 MiB
    for gallery, permissions in (("vendor", "Groups"), ("public", "Community")):
        session.check("--managed-image", "gold", to=f"{gallery}/web", expected=disks, known=True)
        session.run("share", "set-permissions", gallery, permissions)
    session.run("share", "add", "vendor", "--subscription-ids", PARTNER)
    about = ("--publisher-uri", "https://v.example", "--eula", "https://v.example/eula")
    contact = ("--publisher-email", "images@v.example", "--public-name-prefix", "vendor")
    session.run("share", "enable-community", "public", *about, *contact)
    session.run("principal", "create", "partner", "--subscription-ids", PARTNER)
    publisher = ("--role", "Compute Gallery Artifacts Publisher")
    session.run("role", "assign", "--assignee", "partner", *publisher, "--scope", "lab")
    by = ("--as", "partner")
    for kind in ("shared", "community"):
        (item,) = session.json(*by, f"list-{kind}")["galleries"]
        id = f"{item['uniqueId']}/Images/web"
        shared = ("--image-version", f"{id}/Versions/latest")
        got = session.check(*shared, to="lab/web", by=by, expected=disks, known=True)
        (entry, _) = session.json(*by, "show", got, "--lineage")["lineage"]
        assert entry["sources"][0]["id"].startswith(f"{id}/Versions/1.0.")
        shown = session.run(*by, "show", got, "--lineage", "--json").stdout
        assert f"galleries/{'vendor' if kind == 'shared' else 'public'}" not in shown
    # of the last one, which is everybody's, a disk
    wanted = ("--image-version", id, "--lun", "0")
    far_disk = session.json("disk", "create", "-n", "far", *wanted)
    assert far_disk["creationData"]["galleryImageReference"].startswith(f"{id}/Versions/1.0.")
    same(Path(far_disk["file"]["path"]), at / "data.raw")

    # both directions, recursively
    (entry, _) = session.json("show", copy, "--lineage")["lineage"]
    steps, step = [], entry["sources"][0]
    while step is not None:
        steps.append((step["kind"], step["id"].rpartition("/")[2], step["present"]))
        step = next(iter(step["next"]), None)
    assert steps == [
        ("version", name.rpartition("/")[2], True),
        ("managedImage", "gold", True),
        ("vhd", "base.vhd", None),
    ]
    tree = session.run("snapshot", "show", "s1", "--lineage").stdout
    words = [line.split(",")[0].split()[1] for line in tree.splitlines() if "  into " in line]
    assert words == ["version", "disk", "version", "snapshot", "version"]
    (entry, _) = session.json("image", "show", "gold", "--lineage")["lineage"]
    far = [copy for step in entry["copies"] for copy in step["next"]]
    assert sum("/galleries/lab/" in step["id"] for step in far) == 3  # also by their shared names

    # what they came from goes; what was made stays
    for name in ("s1", "s2"):
        session.run("snapshot", "delete", name)
    session.run("image", "delete", "gold")
    session.run("disk", "delete", "d1")
    assert not file.exists()
    for version in made_of:
        session.run("--quiet", "verify", version)
    same(Path(far_disk["file"]["path"]), at / "data.raw")
    after = digests(at)
    assert {name: after[name] for name in before} == before
    assert not (at / "pwned").exists()


# what each kind of source takes (source, a role that does not do, what is said, one that does):
# rights on machines and files are of this host, those of galleries are given where they lie
RIGHTS = (
    (("--vm", "web.xml"), None, (6, "virtualMachines/write"), "Artifacts Publisher"),
    (("--ova", "web.ova"), "Reader", (6, "virtualMachines/write"), "Artifacts Publisher"),
    (("--os-disk", "base.vhd"), None, (6, "listKeys/action"), "Storage Account Contributor"),
    (("--os-vhd-uri", "URL"), "Reader", (6, "listKeys/action"), "Storage Account Contributor"),
    (("--os-snapshot", "DISK"), "Reader", (6, "disks/write"), "Artifacts Publisher"),
    (("--os-snapshot", "kept"), "Artifacts Publisher", (6, "snapshots/write"), "Contributor"),
    (("--managed-image", "kept"), None, (4, "there is no managed image kept"), "Reader"),
    (("--image-version", "lab/web/2.0.0"), None, (4, "there is no gallery lab"), "Image Reader"),
)


def test_each_kind_takes_its_right(session: Session) -> None:
    at = session.path
    session.run("snapshot", "create", "changed.raw", "-n", "kept")
    disk = session.json("disk", "create", "-n", "kept", "--source", "kept")["id"]
    session.run("image", "create", "-n", "kept", "--os-disk", "changed.raw", "--no-generalize")
    session.run("--quiet", "publish", "lab/web/2.0.0", "--os-snapshot", "kept")
    session.run("principal", "create", "ci", "--type", "ServicePrincipal")

    def role(act: str, name: str, *scope: str) -> None:
        full = name if name.startswith(("Reader", "Contr", "Stor")) else f"Compute Gallery {name}"
        session.run("role", act, "--assignee", "ci", "--role", full, *scope)

    role("assign", "Artifacts Publisher", "--scope", "corp")
    trial = ("--quiet", "--as", "ci", "publish", "corp/web/8.0.0", "--dry-run")
    with served(at) as url:
        checked = (f"{url}/base.vhd", "--checksum", checksum(at / "base.vhd"))
        for source, little, (status, text), enough in RIGHTS:
            option, named = source
            wanted = (option, *(checked if named == "URL" else (named.replace("DISK", disk),)))
            if little is not None:
                role("assign", little)
            done = session.run(*trial, *wanted, status=status)
            assert re.search(text, done.stderr), done.stderr
            if little is not None:
                role("remove", little)
            where = ("--scope", "lab/web") if enough == "Image Reader" else ()
            role("assign", enough, *where)
            session.run(*trial, *wanted)
            role("remove", enough, *where)


def test_azures_three_scenarios(session: Session) -> None:
    """The very lines of the guide."""
    at = session.path
    lines = [
        line
        for line in lines_of(GUIDES / "sources.md")
        if "corp/general/" in line.command or "image create" in line.command
    ]
    assert len(lines) == 7
    with served(at) as url:
        for line in lines:
            text = line.command.replace("https://images.example", url)
            text = text.replace("sha256:HEX", checksum(at / "base.vhd"))
            session.run("--quiet", *Line(line.where, text).words[1:])
    for number, disks in enumerate(
        (("changed.raw", "data.raw"), ("base.raw", "data.raw"), ("base.raw",), ("base.raw",))
    ):
        shown = session.json("show", f"corp/general/1.0.{number}")["version"]
        (status,) = shown["regions"]
        assert (status["result"]["bytesRead"] == 0) == (number < 3)  # an image is not read again
        for disk, original in zip(status["result"]["replicas"][0]["disks"], disks, strict=True):
            same(Path(disk["path"]), at / original)


def test_a_description_has_to_agree_with_the_definition(session: Session) -> None:
    at = session.path
    for option, file in (("--vm", "web.xml"), ("--ova", "web.ova")):
        done = session.run(
            *("--quiet", "publish", "corp/bios/1.0.0", option, str(at / file)), status=2
        )
        assert "they boot as generation V2, and the definition says V1" in done.stderr
    nvme = DOMAIN.replace("dev='vda' bus='virtio'", "dev='nvme0n1' bus='nvme'")
    (at / "nvme.xml").write_text(nvme)
    session.refused("--vm", str(at / "nvme.xml"), status=2, text="NVMe")
    (at / "arm.xml").write_text(DOMAIN.replace("x86_64", "aarch64"))
    session.refused("--vm", str(at / "arm.xml"), status=2, text="architecture")


def test_chains_for_single_commands(session: Session) -> None:
    at = session.path
    chain = (str(at / "top.avhdx"), "--backing", str(at / "base.vhdx"))
    root = session.json("--quiet", "hash", *chain)["root"]
    assert root == session.json("--quiet", "hash", str(at / "changed.raw"))["root"]
    assert session.json("inspect", "--no-guest", *chain)["safe"] is True
    assert session.json("inspect", "--no-guest", chain[0], status=6)["safe"] is False
    out = ("--to", "raw", "--out", str(at / "flat.raw"))
    session.run("--quiet", "convert", *chain, *out)
    assert (at / "flat.raw").read_bytes() == (at / "changed.raw").read_bytes()


def test_large_sectors_are_refused(session: Session) -> None:
    block = "<blockio logical_block_size='4096'/><target dev='vda'"
    (session.path / "4kn.xml").write_text(DOMAIN.replace("<target dev='vda'", block))
    session.refused("--vm", str(session.path / "4kn.xml"), status=6, text="4096 bytes")
    # a data disk that says so itself
    disk = session.path / "4kn.raw"
    disk.write_bytes(gpt_disk(4096))
    disks = ("--os-disk", str(session.path / "data.raw"), "--data-disk", f"0={disk}")
    session.refused(*disks, status=6, text=r"4kn\.raw was used with logical sectors of 4096 bytes")


SPARSE = (
    ("--format=gnu",),
    *(("--format=pax", f"--sparse-version={version}") for version in ("0.0", "0.1", "1.0")),
)


@pytest.mark.parametrize("options", SPARSE, ids=lambda options: options[-1])
def test_boxes_that_tar_packed_with_holes(options: tuple[str, ...], tmp_path: Path) -> None:
    """Each of GNU tar's forms; what is not stored is not written either."""
    disk, into = tmp_path / "box.img", tmp_path / "into"
    with disk.open("wb") as file:
        for number in range(30):  # more than fits into one header
            file.seek(number * 3 * MIB + 4096)
            file.write(pattern(number, 70_000))
        file.truncate(100 * MIB)
    (tmp_path / "metadata.json").write_text('{"provider":"libvirt","format":"raw"}')
    names = ("metadata.json", "box.img")
    tar = ["tar", "-S", *options, "-czf", "sparse.box", *names]
    subprocess.run(tar, cwd=tmp_path, check=True)
    into.mkdir()
    source = ArchiveSource(tmp_path / "sparse.box", ArchiveForm.BOX)
    (unpacked,) = open_archive(source, source.path, into, Sandbox()).disks
    assert filecmp.cmp(unpacked.path, disk, shallow=False)
    assert unpacked.path.stat().st_blocks <= disk.stat().st_blocks + 8 * 30


def test_sources_do_not_mix(session: Session) -> None:
    at = session.path
    session.refused(
        *("--vm", str(at / "web.xml"), "--os-disk", str(at / "data.raw")),
        status=2,
        text="sources of two kinds",
    )
    session.refused(status=2, text="a source is missing")
    session.refused("--data-disk", f"0={at}/data.raw", status=2, text="exactly one OS disk")
    session.refused(
        *("--os-disk", str(at / "data.raw"), "--backing", f"3={at}/base.raw"),
        status=2,
        text="LUN 3",
    )
    session.refused("--os-vhd-uri", "http://x.example/a.vhd", status=2, text="checksum")


@contextlib.contextmanager
def written_to(path: Path, format: str) -> Iterator[None]:
    """A qemu that has an image open for writing, as a running machine has."""
    argv = ["qemu-io", "-f", format, str(path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("length\n")
        process.stdin.flush()
        while "MiB" not in process.stdout.readline():
            pass
        try:
            yield
        finally:
            process.stdin.write("quit\n")
            process.stdin.close()
            process.wait(10)


def test_a_source_in_use_is_said_to_be(session: Session, tmp_path: Path) -> None:
    for name in ("top.qcow2", "base.qcow2", "data.raw", "VARS.fd"):
        (tmp_path / name).write_bytes((session.path / name).read_bytes())
    (tmp_path / "web.xml").write_text(DOMAIN)
    described = ("--vm", str(tmp_path / "web.xml"))
    chain = ("--os-disk", str(tmp_path / "top.qcow2"), "--backing", str(tmp_path / "base.qcow2"))
    raw = ("--os-disk", str(tmp_path / "data.raw"))
    # a machine's locks, on any layer of any disk
    for name, format, sources, status, text in (
        ("top.qcow2", "qcow2", (described, chain), 6, "is refused: .*open for writing"),
        ("base.qcow2", "qcow2", (described, chain), 6, "is refused: .*open for writing"),
        ("data.raw", "raw", (described, raw), 5, "is in use: a running qemu writes to it"),
    ):
        with written_to(tmp_path / name, format):
            for source in sources:
                session.refused(*source, status=status, text=f"{name} {text}")
    # any other program's: a file that is open for writing gets no lease
    for name, options in (
        *(("libvirt.box", ("--box",)), ("web.ova", ("--ova",)), ("base.vhd", ("--os-disk",))),
        *(("base.vmdk", ("--os-disk",)), ("base.vhdx", ("--os-disk",))),
    ):
        file = tmp_path / name
        file.write_bytes((session.path / name).read_bytes())
        with file.open("r+b"):
            session.refused(*options, str(file), status=5, text="in use")
    with (tmp_path / "VARS.fd").open("r+b"):
        session.refused("--vm", str(tmp_path / "web.xml"), status=5, text="in use")


def test_machines_are_listed_and_shown(session: Session) -> None:
    listed = session.json("vm", "list", str(session.path))["vms"]
    assert "web" in [item.get("vm", {}).get("name") for item in listed]
    shown = session.json("vm", "show", str(session.path / "web.xml"))["vm"]
    assert (shown["hyperVGeneration"], shown["diskControllerType"]) == ("V2", "SCSI")
    layers = [[Path(layer["file"]).name for layer in d["layers"]] for d in shown["disks"]]
    assert layers == [["top.qcow2", "base.qcow2"], ["data.raw"]]
    text = session.run("vm", "show", str(session.path / "web.xml")).stdout
    assert "generation    V2" in text


def test_a_url_that_is_not_public_is_refused(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GALLERIA_ALLOW_PRIVATE_SOURCES")
    with served(session.path) as url:
        session.refused(
            *("--os-vhd-uri", f"{url}/base.qcow2", "--checksum", "sha256:" + "0" * 64),
            status=6,
            text="not a public address",
        )
