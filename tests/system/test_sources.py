"""A version from each kind of source, by the installed command, in one session; judged by
`qemu-img compare` with the flattened original."""

import contextlib
import gzip
import hashlib
import io
import os
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fixtures.chains import differencing_vhd, differencing_vhdx, qemu_child
from tests.home import Home
from tests.unit.test_large_sectors import gpt_disk

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MIB = 1 << 20
SIZE = 8 * MIB
CHANGES = {MIB: b"\x11" * 4096, 5 * MIB: b"\x22" * 65536}
DEFINE = ("--os-type", "Linux", "--os-state", "Specialized", "--publisher", "P", "--offer", "o")

DOMAIN = """<domain type='kvm'><name>web</name>
<os firmware='efi'><type arch='x86_64'>hvm</type><nvram>VARS.fd</nvram></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='top.qcow2'/>
 <backingStore type='file'><format type='qcow2'/><source file='base.qcow2'/><backingStore/>
 </backingStore><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='data.raw'/>
 <target dev='vdb' bus='virtio'/></disk>
</devices></domain>"""

OVF = """<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:r="rasd" xmlns:v="vmw">
<References><File id="f1" href="os.vmdk"/><File id="f2" href="data.vmdk"/></References>
<DiskSection><Disk diskId="d1" fileRef="f1" capacity="8388608"/>
 <Disk diskId="d2" fileRef="f2" capacity="8388608"/></DiskSection>
<VirtualSystem><OperatingSystemSection><Description>Debian_64</Description></OperatingSystemSection>
<VirtualHardwareSection>
 <Item><r:InstanceID>3</r:InstanceID><r:ResourceType>6</r:ResourceType></Item>
 <Item><r:AddressOnParent>0</r:AddressOnParent><r:HostResource>ovf:/disk/d1</r:HostResource>
  <r:InstanceID>4</r:InstanceID><r:Parent>3</r:Parent><r:ResourceType>17</r:ResourceType></Item>
 <Item><r:AddressOnParent>1</r:AddressOnParent><r:HostResource>/disk/d2</r:HostResource>
  <r:InstanceID>5</r:InstanceID><r:Parent>3</r:Parent><r:ResourceType>17</r:ResourceType></Item>
 <v:Config key="firmware" value="efi"/></VirtualHardwareSection></VirtualSystem></Envelope>"""


def qemu_img(*args: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, args)], check=True, stdout=subprocess.DEVNULL)


def archive(path: Path, members: dict[str, bytes], *, compress: bool) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    content = stream.getvalue()
    path.write_bytes(gzip.compress(content, 1) if compress else content)


@dataclass
class Session:
    """A home with a gallery, and the same two disks in every form."""

    home: Home
    count: int = 0

    @property
    def path(self) -> Path:
        return self.home.path

    def publish(self, *args: str) -> dict[str, Any]:
        self.count += 1
        document = self.home.json("--quiet", "publish", f"corp/web/1.0.{self.count}", *args)
        version: dict[str, Any] = document["version"]
        return version

    def check(self, *args: str, expected: tuple[str, ...] = ("changed.raw",)) -> dict[str, Any]:
        """Publish, and compare what was published with the flattened originals."""
        version = self.publish(*args)
        (replica,) = version["regions"][0]["result"]["replicas"]
        assert len(replica["disks"]) == len(expected)
        for disk, original in zip(replica["disks"], expected, strict=True):
            # -s compares what is allocated, too: both are written by one program
            pair = (self.path / "one.raw", self.path / "other.raw")
            qemu_img("convert", "-f", "raw", "-O", "raw", self.path / original, pair[0])
            qemu_img("convert", "-f", disk["format"], "-O", "raw", disk["path"], pair[1])
            qemu_img("compare", "-s", "-f", "raw", "-F", "raw", *pair)
        return version

    def refused(self, *args: str, status: int, text: str) -> None:
        done = self.home.run("--quiet", "publish", "corp/web/9.9.9", *args, status=status)
        assert re.search(text, done.stderr), done.stderr
        assert not list((self.path / "state/galleria/work").glob("*/*"))


def _disks(place: Path) -> None:
    (place / "base.raw").write_bytes(os.urandom(3 * MIB) + bytes(SIZE - 3 * MIB))
    (place / "data.raw").write_bytes(os.urandom(MIB) + bytes(SIZE - MIB))
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
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    home = Home(tmp_path_factory.mktemp("sources"))
    home.env |= {"GALLERIA_ALLOW_PRIVATE_SOURCES": "127.0.0.1/32", "GALLERIA_IMMUTABLE": "false"}
    home.run("init", "--region", f"eu={home.path}/eu")
    home.run("gallery", "create", "corp")
    home.run("definition", "create", "corp/web", *DEFINE, "--sku", "front")
    home.run(
        *("definition", "create", "corp/bios", *DEFINE, "--sku", "bios"),
        *("--hyper-v-generation", "V1"),
    )
    _disks(home.path)
    _archives(home.path)
    return Session(home)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def checksum(path: Path) -> str:
    out = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True)
    return f"sha256:{out.stdout.split()[0]}"


def digests(place: Path) -> dict[str, str]:
    return {path.name: checksum(path) for path in place.iterdir() if path.is_file()}


def test_a_version_from_each_kind(session: Session) -> None:
    at = session.path
    both = ("changed.raw", "data.raw")
    before = digests(at)
    session.check("--os-disk", str(at / "changed.raw"), expected=("changed.raw",))
    for top, base in (
        *(("top.qcow2", "base.qcow2"), ("top.vmdk", "base.vmdk")),
        *(("top.avhd", "base.vhd"), ("top.avhdx", "base.vhdx")),
    ):
        session.check("--os-disk", str(at / top), "--backing", str(at / base))
    session.check(
        *("--os-disk", str(at / "data.raw"), "--data-disk", f"0={at}/top.qcow2"),
        *("--backing", f"0={at}/base.qcow2"),
        expected=("data.raw", "changed.raw"),
    )
    session.check("--vm", str(at / "web.xml"), expected=both)
    deployed = at / "vms" / "vm1"
    name = f"corp/web/1.0.{session.count}"
    session.home.run("deploy", name, "--region", "eu", "--name", "vm1", "--out", str(at / "vms"))
    kept = [path.read_bytes() for path in deployed.iterdir() if path.stat().st_size == 540672]
    assert kept == [(at / "VARS.fd").read_bytes()]
    session.check("--box", str(at / "libvirt.box"))
    session.check("--box", str(at / "virtualbox.box"), expected=both)
    session.check("--ova", str(at / "web.ova"), expected=both)
    with served(at) as url:
        session.check(
            *("--os-vhd-uri", f"{url}/base.qcow2"),
            *("--checksum", checksum(at / "base.qcow2")),
            *("--data-disk", f"0={at}/data.raw"),
            *("--data-vhd-uri", f"1={url}/data.vmdk"),
            *("--checksum", f"1={checksum(at / 'data.vmdk')}"),
            expected=("base.raw", "data.raw", "data.raw"),
        )
    spec = at / "spec.yaml"
    spec.write_text(
        "apiVersion: galleria/v1\nkind: ImageVersion\n"
        "image: {gallery: corp, definition: web, version: 2.0.0}\n"
        "source: {osDisk: top.qcow2, osDiskBacking: [base.qcow2],"
        " dataDisks: [{lun: 0, path: data.raw}]}\n"
    )
    session.home.run("--quiet", "build", str(spec))
    after = digests(at)
    assert {name: after[name] for name in before} == before
    assert not (at / "pwned").exists()


def test_a_description_has_to_agree_with_the_definition(session: Session) -> None:
    at = session.path
    for option, file in (("--vm", "web.xml"), ("--ova", "web.ova")):
        done = session.home.run(
            *("--quiet", "publish", "corp/bios/1.0.0", option, str(at / file)), status=2
        )
        assert "generation (V2)" in done.stderr
    nvme = DOMAIN.replace("dev='vda' bus='virtio'", "dev='nvme0n1' bus='nvme'")
    (at / "nvme.xml").write_text(nvme)
    session.refused("--vm", str(at / "nvme.xml"), status=2, text="NVMe")
    (at / "arm.xml").write_text(DOMAIN.replace("x86_64", "aarch64"))
    session.refused("--vm", str(at / "arm.xml"), status=2, text="architecture")


def test_chains_for_single_commands(session: Session) -> None:
    at = session.path
    chain = (str(at / "top.avhdx"), "--backing", str(at / "base.vhdx"))
    root = session.home.json("--quiet", "hash", *chain)["root"]
    assert root == session.home.json("--quiet", "hash", str(at / "changed.raw"))["root"]
    assert session.home.json("inspect", "--no-guest", *chain)["safe"] is True
    assert session.home.json("inspect", "--no-guest", chain[0], status=6)["safe"] is False
    out = ("--to", "raw", "--out", str(at / "flat.raw"))
    session.home.run("--quiet", "convert", *chain, *out)
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


def test_sources_do_not_mix(session: Session) -> None:
    at = session.path
    session.refused(
        *("--vm", str(at / "web.xml"), "--os-disk", str(at / "data.raw")),
        status=2,
        text="One and only one",
    )
    session.refused(status=2, text="what is the version made from")
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
    with written_to(tmp_path / "top.qcow2", "qcow2"):
        session.refused("--vm", str(tmp_path / "web.xml"), status=6, text="open for writing")
    box = tmp_path / "libvirt.box"
    box.write_bytes((session.path / "libvirt.box").read_bytes())
    with box.open("r+b"):
        session.refused("--box", str(box), status=5, text="in use")
    with (tmp_path / "VARS.fd").open("r+b"):
        session.refused("--vm", str(tmp_path / "web.xml"), status=5, text="in use")


def test_machines_are_listed_and_shown(session: Session) -> None:
    listed = session.home.json("vm", "list", str(session.path))["vms"]
    assert "web" in [item.get("vm", {}).get("name") for item in listed]
    shown = session.home.json("vm", "show", str(session.path / "web.xml"))["vm"]
    assert (shown["hyperVGeneration"], shown["diskControllerType"]) == ("V2", "SCSI")
    layers = [[Path(layer["file"]).name for layer in d["layers"]] for d in shown["disks"]]
    assert layers == [["top.qcow2", "base.qcow2"], ["data.raw"]]
    text = session.home.run("vm", "show", str(session.path / "web.xml")).stdout
    assert "generation    V2" in text


def test_a_url_that_is_not_public_is_refused(session: Session) -> None:
    del session.home.env["GALLERIA_ALLOW_PRIVATE_SOURCES"]
    try:
        with served(session.path) as url:
            session.refused(
                *("--os-vhd-uri", f"{url}/base.qcow2", "--checksum", "sha256:" + "0" * 64),
                status=6,
                text="not a public address",
            )
    finally:
        session.home.env["GALLERIA_ALLOW_PRIVATE_SOURCES"] = "127.0.0.1/32"
