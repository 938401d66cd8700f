"""What a boot check takes for a machine that is up, and how it ends when there is none."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from adapters.filesystem.files import HostFiles
from adapters.process.sandbox import Sandbox
from adapters.qemu import emulator
from adapters.qemu.emulator import AGENT, Firmware, QemuBoots, QemuRunning, arguments
from pipeline.errors import EnvironmentMissing, StageFailed
from pipeline.guest.boot import Booted, BootTools, boot, clean_console, read_console
from pipeline.model import Architecture
from pipeline.ports import Chain, ImageFormat, Images, Layer
from pipeline.ports.boots import Machine, MachineKind
from pipeline.sources.ingest import Disk
from tests.system.test_generalize import Quiet

CONSOLE = (
    "Detected first boot.\n"
    "[FAILED] Failed to start a.service - A.\n"
    "ci-info: SHA256:0123456789012345678901234567890123456789012 root@x (ED25519)\n"
    "\n[ 9.1] late message web-7 login: "
)


class Script:
    """A machine that says one thing a second; the last one is an ending if `ends`."""

    def __init__(self, *said: str, ends: str = "", agent: bool = False) -> None:
        self.said, self.ends, self.agent = list(said), ends, agent
        self.heard = self.told = ""
        self.gone = False
        self.machine: Machine | None = None

    def accelerator(self, architecture: Architecture) -> str:
        return "tcg"

    def check(self, kind: MachineKind) -> None: ...

    @contextmanager
    def start(self, machine: Machine, work: Path) -> Iterator["Script"]:
        self.machine = machine
        try:
            yield self
        finally:
            self.gone = True

    def console(self) -> str:
        return self.heard

    def firmware(self) -> str:
        return self.told

    def agent_answers(self) -> bool:
        return self.agent and not self.said

    def wait(self, seconds: float) -> str:
        if self.said:
            self.heard += self.said.pop(0)
            return ""
        return self.ends


class Overlays:
    def create_overlay(self, chain: Chain, path: Path) -> Chain:
        return (Layer(path, ImageFormat.QCOW2), *chain)


def run(script: Script, tmp_path: Path, seconds: float = 9) -> Booted:
    disk = Disk(None, (Layer(tmp_path / "base.raw", ImageFormat.RAW),), 1 << 20)
    tools = BootTools(script, cast(Images, Overlays()), HostFiles(), Quiet())
    log = tmp_path / "boot.log"
    return boot(tools, MachineKind(uefi=True), [disk], tmp_path, log, seconds=seconds)


def test_a_login_prompt_is_up(tmp_path: Path) -> None:
    script = Script("BIOS\r\n", "\x1b[0mGRUB\x1b[2J\n", CONSOLE)
    booted = run(script, tmp_path)
    assert booted == Booted(
        "login prompt",
        3,
        "web-7",
        True,
        ("SHA256:0123456789012345678901234567890123456789012",),
        ("a.service - A",),
    )
    assert script.gone
    assert script.machine is not None
    assert script.machine.disks[0][0].path == tmp_path / "os-boot.qcow2"
    assert (tmp_path / "boot.log").read_text().startswith("BIOS\nGRUB\nDetected")


def test_an_agent_that_answers_is_up(tmp_path: Path) -> None:
    assert run(Script("no prompt\n", agent=True), tmp_path).by == "guest agent"


@pytest.mark.parametrize(
    ("ends", "why"), [("", "no login prompt within 4 s"), ("it has ended", "it has ended")]
)
def test_the_end_of_the_console_is_in_the_error(tmp_path: Path, ends: str, why: str) -> None:
    script = Script("first\n" * 30, "kernel \x1b[1mpanic\x07\n", ends=ends)
    with pytest.raises(StageFailed, match=rf"(?s){why}.*boot\.log.*kernel panic\\x07$") as caught:
        run(script, tmp_path, seconds=4)
    assert script.gone
    assert caught.value.message.count("first") == 24
    assert "panic" in (tmp_path / "boot.log").read_text()


@pytest.mark.parametrize(
    ("console", "elsewhere"),
    [
        ("", "Boot failed: not a bootable disk\n\nNo bootable device.\n"),
        ("BdsDxe: starting Boot0002\r\n\x1b[1mMapping table\r\n\x1b[08;01H\x1b[1mShell> ", ""),
        ("\r\nBdsDxe: No bootable option or device was found.\r\n"
         "BdsDxe: Press any key to enter the Boot Manager Menu.\r\n", ""),
    ],
    ids=["BIOS", "shell", "UEFI"],
)  # fmt: skip
def test_firmware_that_finds_nothing_ends_the_wait(
    tmp_path: Path, console: str, elsewhere: str
) -> None:
    script = Script(console)
    script.told = elsewhere
    with pytest.raises(StageFailed, match="the firmware found nothing to boot") as caught:
        run(script, tmp_path, seconds=10**9)
    assert "no boot loader" in caught.value.hint
    assert "UEFI (V2)" in caught.value.hint


def test_what_begins_at_the_shell_of_uefi_is_waited_for(tmp_path: Path) -> None:
    script = Script("\nShell> ", "startup.nsh\nlinux\n", CONSOLE)
    assert run(script, tmp_path).hostname == "web-7"


def test_the_time_that_a_console_takes_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that prints without end keeps nobody longer than one that says nothing."""
    clock = iter(range(0, 36_000, 3600))
    monkeypatch.setattr("pipeline.guest.boot.time", SimpleNamespace(monotonic=lambda: next(clock)))
    script = Script(*["noise\n"] * 9)
    with pytest.raises(StageFailed, match="no login prompt within 4000 s"):
        run(script, tmp_path, seconds=4000)
    assert len(script.said) == 7


def test_a_console_without_end_ends_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "CONSOLE_MOST", 1 << 20)
    console = tmp_path / "console.log"
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            running = QemuRunning(process, tmp_path, tmp_path / "err")
            assert running.wait(0.01) == ""
            console.write_bytes(bytes(1 << 20))
            assert running.wait(0.01) == ""
            console.write_bytes(bytes((1 << 20) + 1))
            assert running.wait(0.01) == "it has said more than 1 MiB"
            console.rename(tmp_path / emulator.FIRMWARE)
            assert running.wait(0.01) == "it has said more than 1 MiB"
        finally:
            process.kill()


@pytest.mark.parametrize("text", ["a" * (4 << 20), "[FAILED] Failed to start " + " " * (4 << 20)])
def test_a_hostile_console_takes_no_time(text: str) -> None:
    assert read_console(f"{text}x", "", 1).hostname == ""


def test_a_word_before_login_is_needed() -> None:
    assert read_console("last login: never", "", 1).hostname == "last"
    assert read_console("please login", "", 1).hostname == ""


def test_the_console_cannot_act_on_a_terminal() -> None:
    assert (
        clean_console("\x1b]0;title\x07a\x9b2J\u202eb\tc\n") == "0;title\\x07a\\x9b2J\\u202eb\tc\n"
    )


def test_no_network_and_no_option_from_a_path() -> None:
    argv = arguments([("/in/a,readonly=on", "raw")], console="/out/c", identifier="1")
    assert argv[argv.index("-nic") + 1] == "none"
    assert any("file=/in/a,,readonly=on," in word for word in argv)
    windows = arguments([("/in/a", "raw")], console="/out/c", identifier="1", windows=True)
    assert any("ide-hd" in word for word in windows)
    assert not any("virtio-blk" in word for word in windows)


def test_an_agent_is_asked_over_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories may be deeper than the path of a socket may be long."""
    work = tmp_path / ("deep" * 20) / ("deeper" * 10)
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    errors = tmp_path / "err"
    errors.touch()

    def agent(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rw") as file:
            request: dict[str, Any] = json.loads(file.readline())
            assert request["execute"] == "guest-sync"
            file.write(f'{{"return": {request["arguments"]["id"]}}}\n')
            file.flush()
            answered.set()
            done.wait(10)

    answered, done = threading.Event(), threading.Event()
    with (
        socket.socket(socket.AF_UNIX) as server,
        subprocess.Popen(["sleep", "60"]) as process,
        QemuRunning(process, work, errors) as running,
    ):
        try:
            assert not running.agent_answers()
            server.bind(AGENT)
            server.listen()
            thread = threading.Thread(target=agent, args=[server])
            thread.start()
            asked = running.agent_answers()
            assert answered.wait(10)
            assert asked or running.agent_answers()
            assert running.wait(0.01) == ""
        finally:
            done.set()
            process.kill()
        assert running.wait(5).startswith("the machine has ended (status -9)")
        assert not running.agent_answers()


def test_an_arm_machine_is_another_one() -> None:
    argv = arguments(
        [("/in/a", "raw")],
        console="/out/c",
        identifier="1",
        architecture=Architecture.ARM64,
        windows=True,
    )
    assert argv[0] == "qemu-system-aarch64"
    assert argv[argv.index("-machine") + 1] == "virt,accel=tcg"
    assert any(word.startswith("nvme,") for word in argv)


def test_what_is_missing_for_a_boot_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Architecture, int | None]] = []

    def firmware(architecture: Architecture, length: int | None) -> Firmware:
        asked.append((architecture, length))
        raise EnvironmentMissing("no UEFI firmware", hint="install it")

    boots = QemuBoots(Sandbox(enabled=False), lambda: "tcg", firmware)
    programs = {Architecture.ARM64: ("no-such-emulator", "qemu-system-arm")}
    monkeypatch.setattr(emulator, "PROGRAMS", emulator.PROGRAMS | programs)
    kind = MachineKind(uefi=True, architecture=Architecture.ARM64)
    with pytest.raises(EnvironmentMissing, match="no Arm64 machine can be booted") as caught:
        boots.check(kind)
    assert "package qemu-system-arm" in caught.value.hint
    assert asked == []
    monkeypatch.setattr(
        emulator, "PROGRAMS", {Architecture.ARM64: ("true", ""), Architecture.X64: ("true", "")}
    )
    with pytest.raises(EnvironmentMissing, match="firmware"):  # Arm has no other way to boot
        boots.check(MachineKind(uefi=False, architecture=Architecture.ARM64, nvram=b"1234"))
    assert asked == [(Architecture.ARM64, 4)]
    boots.check(MachineKind(uefi=False))
    assert len(asked) == 1
