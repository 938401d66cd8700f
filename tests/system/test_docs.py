"""The commands of README and the guides, run in order in a home of their own; what they print is
as the page shows."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adapters.cli.guide import TOPICS
from adapters.guestfs import client
from fixtures.chains import qemu_child
from pipeline.ports import Chain, FreeSpace, GuestFacts
from tests.contract.memory_guest import MemoryGuest, MemoryHost, MemorySession
from tests.contract.storing import pattern
from tests.docs.console import File, Line, matches, parts_of
from tests.docs.reference import GUIDES, ROOT
from tests.home import Session
from tests.system.phony import ROOT_FILES, debian_disk
from tests.system.phony import run as run_tool
from tests.system.sources import DOMAIN, OVF, archive, checksum, qemu_img, served

IDENTITY = {"etc/machine-id", "etc/hostname", "root/.bash_history", "tmp/file"}
MIB = 1 << 20
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SERVER = "https://images.example"
# the guest of these pages' disks is opened by libguestfs; that of the others' is in memory
REAL = {"README.md", "linux.md"}
PAGES = (ROOT / "README.md", *(GUIDES / f"{topic}.md" for topic in TOPICS))
FACTS = GuestFacts(
    *("linux", "debian", "12.5", "Debian GNU/Linux 12 (bookworm)", "x86_64", "oldbox", "V1", "mbr"),
    filesystems=(("/dev/sda1", "ext4"),),
    mountpoints=(("/", "/dev/sda1"),),
)


class FakeHost(MemoryHost):
    """A session of web.* sees the dirty Debian of the disks; one of others (base.*, what is stored
    in a zone) sees it generalized."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(MemoryGuest(), FACTS)

    @contextmanager
    def session(self, chains: Sequence[Chain], *, writable: bool) -> Iterator[MemorySession]:
        self.guest, self.free = MemoryGuest(), FreeSpace(((),) * len(chains), ())
        dirty = chains[0][-1].path.name.startswith("web")
        for path, content in ROOT_FILES.items():
            if dirty or path not in IDENTITY:
                self.guest.plant(f"/{path}", content)
        with super().session(chains, writable=writable) as session:
            yield session


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, require: Callable[..., None]) -> Path:
    """What the pages take as given: the disks of a VM, in every form."""
    require("qemu-img", "qemu-io", "bwrap", "sfdisk", "mke2fs")
    place = tmp_path_factory.mktemp("files")
    work = tmp_path_factory.mktemp("work")
    debian_disk(place / "web.raw", work)
    with (place / "web.raw").open("r+b") as file:
        file.write(b"\xeb\xfe")  # boot code: a disk of generation 1
    patched = work / "patched.raw"
    shutil.copy(place / "web.raw", patched)
    with patched.open("r+b") as file:
        file.seek(40 * MIB)
        file.write(b"patched")
    data = work / "data"
    data.mkdir()
    (data / "table").write_bytes(pattern(2, MIB))
    run_tool("mke2fs", "-q", "-t", "ext4", "-d", data, place / "data.raw", "8m")
    vhd = ("-o", "subformat=dynamic,force_size=on")
    for source, name, driver, options in (
        (place / "web.raw", "web.vhdx", "vhdx", ("-o", "block_size=1M")),
        (place / "web.raw", "base.vhd", "vpc", vhd),
        (place / "web.raw", "web.qcow2", "qcow2", ()),
        (place / "web.raw", "base.qcow2", "qcow2", ()),
        (patched, "web-patched.vhdx", "vhdx", ("-o", "block_size=1M")),
        (patched, "web-patched.qcow2", "qcow2", ()),
        (place / "data.raw", "data.vhd", "vpc", vhd),
    ):
        qemu_img("convert", "-f", "raw", "-O", driver, *options, source, place / name)
    qemu_child(place / "base.qcow2", place / "top.qcow2", "qcow2", "qcow2", {MIB: b"\x11" * 4096})
    for written, text, changes in (
        ("web.xml", DOMAIN, (("<os firmware='efi'>", "<os>"), ("<nvram>VARS.fd</nvram>", ""))),
        ("web.ovf", OVF, ((f'"{8 * MIB}"/>', f'"{64 * MIB}"/>'), ('value="efi"', 'value="bios"'))),
    ):
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        (place / written).write_text(text)

    streams = {}
    for name, source in (("os.vmdk", place / "web.raw"), ("data.vmdk", place / "data.raw")):
        stream = ("-o", "subformat=streamOptimized")
        qemu_img("convert", "-f", "raw", "-O", "vmdk", *stream, source, work / name)
        streams[name] = (work / name).read_bytes()
    archive(
        place / "web.ova", {"web.ovf": (place / "web.ovf").read_bytes(), **streams}, compress=False
    )
    metadata = b'{"provider":"libvirt","format":"qcow2","virtual_size":1}'
    box = {"metadata.json": metadata, "box.img": (place / "web.qcow2").read_bytes()}
    archive(place / "web.box", box, compress=True)
    key = Ed25519PrivateKey.generate().public_key()
    openssh = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (place / "id_ed25519.pub").write_bytes(openssh + b" ada\n")
    (place / "setup.sh").write_text("#!/bin/sh\n")
    return place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page(
    page: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.name not in REAL:
        monkeypatch.setattr(client, "GuestfsHost", FakeHost)
    home = tmp_path / "home"
    subprocess.run(["cp", "-a", "--sparse=always", files, home], check=True)
    settings = {"GALLERIA_ALLOW_PRIVATE_SOURCES": "127.0.0.1/32", "GALLERIA_IMMUTABLE": "false"}
    with served(home) as url, Session.begun(home, **settings) as session:
        for part in parts_of(page):
            if isinstance(part, File):
                (home / part.name).write_text(part.content)
            elif part.words and not part.why_not:
                run(session, part, url)


def run(session: Session, line: Line, url: str) -> None:
    """Run one command, and compare what it prints (an error: on stderr) with the page."""
    command = line.command
    if f"{SERVER}/" in command:
        named = command.split(f"{SERVER}/")[1].split()[0]
        command = command.replace(SERVER, url)
        command = command.replace("sha256:HEX", checksum(session.path / named))
    actual = Line(line.where, command)
    if actual.galleria is not None and not set(actual.words) & {"|", ">", "&&"}:
        done = session.run(*actual.galleria, status=line.status)
    else:
        done = in_shell(session, command, line.status)
    printed = done.stdout or done.stderr  # an error alone is on stderr
    printed = printed.replace(url, SERVER).replace(f"{session.path}/", "")
    if line.output.strip():
        assert matches(line.output, printed), f"{line.where}: {line.command}\n{printed}"


def in_shell(session: Session, command: str, status: int) -> Any:
    programs = f"{Path(sys.executable).parent}:{session.env['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        env=session.env | {"PATH": programs},
        cwd=session.path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, (command, done.stdout, done.stderr)
    return done
