"""What is stored with the demonstration's versions, judged from outside: dissect reads the replica,
CycloneDX's own library the bill of materials; and boots that end as they should."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from dissect.target import Target

from adapters.filesystem.files import HostFiles
from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from adapters.qemu.emulator import Firmware, QemuBoots
from adapters.vms import firmware
from fixtures import canaries, debian
from fixtures.demonstration import DEFINITION, VERSIONS, Demonstration
from pipeline.errors import EnvironmentMissing, StageFailed
from pipeline.guest.boot import BootTools, boot
from pipeline.model import Architecture
from pipeline.ports import ImageFormat, Layer
from pipeline.ports.boots import MachineKind
from pipeline.sources.ingest import Disk
from tests.conftest import missing
from tests.home import DEFINE, Home
from tests.system.phony import debian_disk, run
from tests.system.test_generalize import Quiet

pytestmark = pytest.mark.system
FIRST, SECOND = (f"{DEFINITION}/{version}" for version in VERSIONS)


def record(demo: Demonstration, version: str) -> dict[str, Any]:
    (path,) = demo.zone("us").glob(f"versions/*+{version}+*/version.json")
    document = json.loads(path.read_text())["document"]
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def replica(
    demonstration: Demonstration, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The second version's OS disk, as qemu-img reads it."""
    path = tmp_path_factory.mktemp("proof") / "os.raw"
    (overlay,) = demonstration.zone("us").glob(f"versions/*+{VERSIONS[1]}+*/replica-0/os.*")
    kind = overlay.suffix[1:]
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", overlay, path], check=True)
    yield path
    path.unlink()


def test_the_bill_of_materials_is_what_another_reader_sees(
    demonstration: Demonstration, replica: Path
) -> None:
    document = demonstration.galleria("sbom", SECOND)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    told = {(item["name"], item["version"]) for item in document["components"]}
    status = Target.open(str(replica)).fs.path("/var/lib/dpkg/status").read_text()
    paragraphs = (
        dict(line.split(": ", 1) for line in part.splitlines() if ": " in line and line[0] != " ")
        for part in status.split("\n\n")
        if part.strip()
    )
    seen = {(found["Package"], found["Version"]) for found in paragraphs}
    assert told == seen
    assert len(told) > 150


def test_the_inventory_is_what_another_reader_sees(
    demonstration: Demonstration, replica: Path
) -> None:
    inventory = record(demonstration, VERSIONS[1])["report"]["inventory"]
    target = Target.open(str(replica))
    assert set(inventory["users"]) == {user.name for user in target.users()}
    assert not {"alice", "bob"} & set(inventory["users"])
    seen = [
        str(path) for path in target.fs.path("/etc").rglob("*") if path.lstat().st_mode >> 12 == 8
    ]
    assert sorted(inventory["files"]) == sorted(seen)


def test_the_report_is_bound_to_the_version_and_tells_no_identity(
    demonstration: Demonstration,
) -> None:
    document = record(demonstration, VERSIONS[0])
    report = document["report"]
    assert canaries.MACHINE_ID.value not in json.dumps(document)
    canonical = json.dumps(report, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert blake3(canonical.encode()).hexdigest() == document["version"]["reportDigest"]
    shown = demonstration.galleria("show", FIRST, "--report")
    assert shown["version"]["reportDigest"] == document["version"]["reportDigest"]
    assert shown["generalizeReport"]["check"]["verdict"] == "generalized"
    results = {item["name"]: item["result"] for item in report["operations"]}
    assert results["machine-id"] == "changed"


def test_what_changed(demonstration: Demonstration) -> None:
    found = demonstration.galleria("diff", FIRST, SECOND)["difference"]
    assert found["compared"] is True
    assert found["files"] == {"added": ["/etc/app.conf"], "removed": [], "changed": []}
    assert found["packagesAdded"] == found["packagesRemoved"] == found["packagesUpgraded"] == []
    system, data = found["disks"]
    assert 12 << 20 < system["changed"] < 40 << 20
    assert data["lun"] == 0
    assert data["changed"] <= 1 << 20
    same = demonstration.galleria("diff", SECOND, SECOND)["difference"]
    assert [disk["changed"] for disk in same["disks"]] == [0, 0]


def test_a_version_is_checked_as_a_file_is(demonstration: Demonstration) -> None:
    looked = demonstration.galleria("generalize", "--check", SECOND)
    assert (looked["generalized"], looked["check"]["verdict"]) == (True, "generalized")
    assert "no machine id" in looked["check"]["reasons"]


def test_a_changed_report_is_found(demonstration: Demonstration, tmp_path: Path) -> None:
    """In a copy of the catalog, and of one zone's record."""
    (path,) = demonstration.zone("us").glob(f"versions/*+{VERSIONS[0]}+*/version.json")
    original = path.read_bytes()
    subprocess.run(["chattr", "-i", path], check=False, stderr=subprocess.DEVNULL)
    path.chmod(0o644)
    try:
        path.write_bytes(original.replace(b'"generalized"', b'"specialized"'))
        done = verify(demonstration)
    finally:
        path.write_bytes(original)
        path.chmod(0o444)
    assert done.returncode == 1
    bad = [item for item in json.loads(done.stdout)["verdicts"] if not item["sound"]]
    assert [(item["region"], item["subject"]) for item in bad] == [("us", "record")]
    assert verify(demonstration).returncode == 0


def verify(demo: Demonstration) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from adapters.cli import main; main()"]
    return subprocess.run(
        [*program, "verify", FIRST, "--region", "us", "--json"],
        env=demo.environment(),
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(600)
def test_a_specialized_guest_is_not_taken_for_a_generalized_one(tmp_path: Path) -> None:
    disk = debian_disk(tmp_path / "disk.raw", tmp_path / "tree")
    home = Home(tmp_path / "home")
    home.path.mkdir()
    home.env["GALLERIA_CACHE"] = str(debian.default_cache())
    home.run("init", "--region", f"eu={home.path}/eu")
    home.run("gallery", "create", "corp")
    home.run(
        *("definition", "create", "corp/web", "--os-type", "Linux", "--os-state", "Generalized"),
        *("--publisher", "Contoso", "--offer", "web", "--sku", "front"),
        *("--hyper-v-generation", "V1"),
    )
    publish = ("publish", "corp/web/1.0.0", "--os-disk", str(disk), "--no-generalize")
    refused = home.json(*publish, status=6)["error"]
    assert "holds an id" in refused["message"]
    assert home.json("list", "corp/web")["versions"] == []
    home.run(*publish, "--force")
    shown = home.json("show", "corp/web/1.0.0")
    assert shown["generalizeReport"]["check"]["forced"] is True
    assert "osState" in shown["version"]["unverified"]


@pytest.mark.timeout(900)
def test_check_and_dry_run(tmp_path: Path) -> None:
    """One phony guest, used: first looked at, then generalized for nothing, then as it was."""
    disk = debian_disk(tmp_path / "disk.raw", tmp_path / "tree")
    before = disk.read_bytes()
    home = Home(tmp_path / "home")
    home.path.mkdir()
    home.env["GALLERIA_CACHE"] = str(debian.default_cache())
    home.run("init", "--region", f"eu={home.path}/eu")
    looked = home.json("generalize", "--check", str(disk), status=1)
    assert looked["generalized"] is False
    assert "/etc/machine-id holds an id" in looked["check"]["reasons"]
    missing_file = home.json("generalize", "--check", "none.raw", status=4)["error"]
    assert missing_file["code"] == "NotFound"
    tried = home.json("generalize", "--dry-run", str(disk))
    assert tried["report"]["check"]["verdict"] == "generalized"
    assert disk.read_bytes() == before
    work = home.path / "state" / "galleria"
    assert list(work.rglob("*.qcow2")) == []


def boot_sector(path: Path, said: bytes) -> Disk:
    """A disk that prints on the serial console and halts: 8086 code, by hand."""
    code = bytes(
        [
            *(0xFA, 0x31, 0xC0, 0x8E, 0xD8),  # cli; xor ax,ax; mov ds,ax
            *(0xBE, 0x20, 0x7C, 0xFC),  # mov si,0x7c20; cld
            0xAC,  # next: lodsb
            *(0x84, 0xC0, 0x74, 0x06),  # test al,al; jz halt
            *(0xBA, 0xF8, 0x03, 0xEE),  # mov dx,0x3f8; out dx,al
            *(0xEB, 0xF5),  # jmp next
            *(0xF4, 0xEB, 0xFD),  # halt: hlt; jmp halt
        ]
    )
    sector = code.ljust(0x20, b"\x90") + said + b"\0"
    path.write_bytes((sector.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
    return Disk(None, (Layer(path, ImageFormat.RAW),), 1 << 20)


BIOS = MachineKind(uefi=False)


def no_firmware(architecture: Architecture, length: int | None) -> Firmware:
    raise AssertionError


@pytest.mark.timeout(180)
@pytest.mark.parametrize("confined", [True, False])
def test_a_real_emulator(tmp_path: Path, require: Callable[..., None], *, confined: bool) -> None:
    require("qemu-system-x86_64", "bwrap", "qemu-img")
    sandbox = Sandbox(enabled=confined)
    boots = QemuBoots(sandbox, lambda: "tcg", no_firmware)
    source = boot_sector(tmp_path / "tiny.raw", b"hello\r\ntiny login: ")
    before = source.chain[0].path.read_bytes()
    work = tmp_path / "work"
    work.mkdir()
    log = tmp_path / "boot.log"
    tools = BootTools(boots, QemuImages(sandbox), HostFiles(), Quiet())
    booted = boot(tools, BIOS, [source], work, log, seconds=50)
    assert (booted.by, booted.hostname) == ("login prompt", "tiny")
    assert "hello\ntiny login: " in log.read_text()
    assert source.chain[0].path.read_bytes() == before


def efi_program(said: str) -> bytes:
    """An Arm64 EFI application (UEFI specification 2.1.1, Microsoft's PE format) that prints on the
    console by SystemTable->ConOut->OutputString, and goes on for ever: A64 code, by hand."""
    text = f"{said}\0".encode("utf-16-le")
    code = struct.pack(
        "<6I",
        0xF9402020,  # ldr x0, [x1, #64]: ConOut
        0xF9400402,  # ldr x2, [x0, #8]: OutputString
        0x10000000 | 4 << 5 | 1,  # adr x1, 16 bytes on: text
        0xD63F0040,  # blr x2
        0x14000000,  # b to itself
        0xD503201F,  # nop
    )
    section = (code + text).ljust(512, b"\0")
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0xAA64, 1, 0, 0, 0, 240, 0x22E)
    optional = struct.pack("<HBBIIIII", 0x20B, 1, 0, 512, 0, 0, 0x1000, 0x1000)
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0, 0x1000, 512, *(0,) * 6, 0, 0x2000, 512, 0, 10, 0)
    optional += struct.pack("<QQQQII", *(0,) * 5, 16) + bytes(128)
    name = b".text".ljust(8, b"\0")
    header = struct.pack("<8sIIIIIIHHI", name, 512, 0x1000, 512, 512, 0, 0, 0, 0, 0x60000020)
    return (dos + coff + optional + header).ljust(512, b"\0") + section


def host_firmware(architecture: Architecture, length: int | None) -> Firmware:
    found = firmware.find(architecture, secure_boot=False, nvram_length=length)
    return Firmware(found.code, found.template)


@pytest.mark.timeout(900)
def test_an_arm_machine(tmp_path: Path, require: Callable[..., None]) -> None:
    """By UEFI firmware, from an EFI system partition."""
    require("bwrap", "qemu-img", "mkfs.vfat", "mcopy", "sfdisk")
    boots = QemuBoots(Sandbox(), lambda: "kvm", host_firmware)
    kind = MachineKind(uefi=True, architecture=Architecture.ARM64)
    try:
        boots.check(kind)
    except EnvironmentMissing as error:
        missing(error.message)
    partition, program, disk = (tmp_path / name for name in ("esp", "program", "disk.raw"))
    program.write_bytes(efi_program("\r\narm64 login: "))
    for path, length in ((partition, 30 << 20), (disk, 32 << 20)):
        with path.open("wb") as file:
            file.truncate(length)
    run("mkfs.vfat", partition)
    run("mmd", "-i", partition, "::EFI", "::EFI/BOOT")
    run("mcopy", "-i", partition, program, "::EFI/BOOT/BOOTAA64.EFI")
    run("sfdisk", "-q", disk, stdin="label: gpt\nstart=2048, size=61440, type=U\n")
    with disk.open("r+b") as file:
        file.seek(1 << 20)
        file.write(partition.read_bytes())
    source = Disk(None, (Layer(disk, ImageFormat.RAW),), 32 << 20)
    log = tmp_path / "boot.log"
    work = tmp_path / "work"
    work.mkdir()
    tools = BootTools(boots, QemuImages(Sandbox()), HostFiles(), Quiet())
    booted = boot(tools, kind, [source], work, log, seconds=200)
    assert (booted.by, booted.hostname) == ("login prompt", "arm64")


@pytest.mark.timeout(180)
def test_a_machine_that_says_nothing_is_ended(tmp_path: Path, require: Callable[..., None]) -> None:
    require("qemu-system-x86_64", "bwrap", "qemu-img")
    sandbox = Sandbox()
    boots = QemuBoots(sandbox, lambda: "tcg", no_firmware)
    tools = BootTools(boots, QemuImages(sandbox), HostFiles(), Quiet())
    source = boot_sector(tmp_path / "mute.raw", b"kernel panic")
    log = tmp_path / "boot.log"
    for seconds in (6, 60):  # on a busy host it may take long to say even that
        with pytest.raises(StageFailed, match=f"no login prompt within {seconds} s") as caught:
            boot(tools, BIOS, [source], tmp_path, log, seconds=seconds)
        if said := "kernel panic" in caught.value.message:
            break
    assert said
    assert log.exists()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("uefi", [False, True], ids=["BIOS", "UEFI"])
def test_a_blank_disk_ends_early(
    tmp_path: Path, require: Callable[..., None], *, uefi: bool
) -> None:
    require("qemu-system-x86_64", "bwrap", "qemu-img")
    sandbox = Sandbox()
    boots = QemuBoots(sandbox, lambda: "tcg", host_firmware)
    tools = BootTools(boots, QemuImages(sandbox), HostFiles(), Quiet())
    blank = tmp_path / "blank.raw"
    blank.write_bytes(bytes(1 << 20))
    disk = Disk(None, (Layer(blank, ImageFormat.RAW),), 1 << 20)
    with pytest.raises(StageFailed, match="the firmware found nothing to boot"):
        boot(tools, MachineKind(uefi=uefi), [disk], tmp_path, tmp_path / "boot.log", seconds=3600)


@pytest.mark.timeout(900)
def test_publish_with_a_boot_check(tmp_path: Path, require: Callable[..., None]) -> None:
    """What does not boot is not published, and its number stays free."""
    require("qemu-system-x86_64", "bwrap", "qemu-img", "libguestfs-make-fixed-appliance")
    home = Home(tmp_path)
    home.env["GALLERIA_CACHE"] = str(debian.default_cache())
    home.run("init", "--region", f"eu={home.path}/eu")
    home.run("gallery", "create", "corp")
    home.run(*DEFINE, "--hyper-v-generation", "V1")
    boot_sector(tmp_path / "tiny.raw", b"tiny login: ")
    # lidt [0x7d00], which is zeros; int3: no handler for the fault of a fault, so it resets
    broken = bytes([0xFA, 0x31, 0xC0, 0x8E, 0xD8, 0x0F, 0x01, 0x1E, 0x00, 0x7D, 0xCC])
    content = (broken.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0")
    (tmp_path / "broken.raw").write_bytes(content)
    publish = ("publish", "corp/web/1.0.0", "--boot-check", "--os-disk")
    failed = home.json(*publish, "broken.raw", status=1)["error"]
    assert "the machine has ended" in failed["message"]
    home.run(*publish, "tiny.raw")
    shown = home.json("show", "corp/web/1.0.0")
    assert shown["generalizeReport"]["boot"]["hostname"] == "tiny"
    assert shown["version"]["reportDigest"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_version_boots(demonstration: Demonstration, require: Callable[..., None]) -> None:
    require("qemu-system-x86_64")
    shown = demonstration.galleria("boot-check", SECOND, "--region", "us", "--timeout", "800")
    assert shown["boot"]["by"] == "login prompt"
    assert shown["boot"]["hostname"] == "localhost"
    assert shown["boot"]["firstBoot"] is True
    assert shown["boot"]["hostKeys"]
    assert "login:" in Path(shown["console"]).read_text()
