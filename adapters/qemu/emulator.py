"""Boots disks in QEMU, without network: the Boots port, and the command line that tests share.

In the sandbox: only the disks' files are there, and of those only the private overlays can be
written.
"""

import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.process import command
from adapters.process.sandbox import Sandbox
from pipeline.errors import EnvironmentMissing
from pipeline.model import Architecture
from pipeline.ports.boots import Boots, Machine, MachineKind, Running

PROGRAMS = {
    Architecture.X64: ("qemu-system-x86_64", "qemu-system-x86"),
    Architecture.ARM64: ("qemu-system-aarch64", "qemu-system-arm"),
}
NATIVE = {"x86_64": Architecture.X64, "aarch64": Architecture.ARM64}.get(platform.machine())
MACHINES = {Architecture.X64: "q35", Architecture.ARM64: "virt"}
# emulating the pointer authentication of Arm takes half of the time; a made-up one does as well
EMULATED = {Architecture.X64: "max", Architecture.ARM64: "max,pauth-impdef=on"}
MEMORY_MIB = 1024
CONSOLE, AGENT, VARIABLES = "console.log", "agent.sock", "variables.fd"
FIRMWARE = "firmware.log"
CONSOLE_LIMIT = 4 << 20  # bytes that are read
CONSOLE_MOST = 256 << 20  # bytes that are kept: a hostile guest may print until the disk is full


@dataclass(frozen=True, slots=True)
class Firmware:
    """UEFI: the code, and the template of its variables, of which a machine has a copy."""

    code: Path
    template: Path


def arguments(
    disks: list[tuple[str, str]],
    *,
    console: str,
    identifier: str,
    accelerator: str = "tcg",
    architecture: Architecture = Architecture.X64,
    windows: bool = False,
    code: str = "",
    variables: str = "",
    firmware: str = "",
) -> list[str]:
    """QEMU's command line for a machine with these disks (file and format), no network and a UUID
    of its own. Linux has virtio everywhere; Windows has no drivers for it. SeaBIOS writes to the
    file `firmware` what it says on a screen: there is none."""
    cpu = "host" if accelerator == "kvm" else EMULATED[architecture]
    machine = f"{MACHINES[architecture]},accel={accelerator}"
    argv = [
        *(program(architecture), "-nodefaults", "-no-user-config", "-display", "none"),
        *("-nic", "none", "-machine", machine, "-cpu", cpu, "-smp", "2"),
        *("-m", str(MEMORY_MIB), "-no-reboot", "-uuid", identifier, "-device", "virtio-rng-pci"),
        *("-chardev", f"file,id=console,path={_escaped(console)}", "-serial", "chardev:console"),
    ]
    for number, (path, format) in enumerate(disks):
        options = f"file={_escaped(path)},format={format},if=none,id=disk{number},cache=unsafe"
        device = "virtio-blk-pci"
        if windows:  # Arm's virtual machine has no other controller that Windows knows
            native = architecture is Architecture.X64
            device = f"ide-hd,bus=ide.{number}" if native else f"nvme,serial=disk{number}"
        argv += ["-drive", options, "-device", f"{device},drive=disk{number}"]
    if firmware and architecture is Architecture.X64:
        argv += ["-chardev", f"file,id=firmware,path={_escaped(firmware)}"]
        argv += ["-device", "isa-debugcon,iobase=0x402,chardev=firmware"]
    if code:
        argv += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_escaped(code)}"]
    if variables:
        argv += ["-drive", f"if=pflash,unit=1,format=raw,file={_escaped(variables)}"]
    return argv


def program(architecture: Architecture) -> str:
    return PROGRAMS[architecture][0]


@dataclass(frozen=True, slots=True)
class QemuBoots:
    """`native` says "kvm" or "tcg", whichever works here; `firmware` finds UEFI, for variables
    of a given length if that is given."""

    sandbox: Sandbox
    native: Callable[[], str]
    firmware: Callable[[Architecture, int | None], Firmware]

    def accelerator(self, architecture: Architecture) -> str:
        return self.native() if architecture is NATIVE else "tcg"

    def check(self, kind: MachineKind) -> None:
        name, package = PROGRAMS[kind.architecture]
        if shutil.which(name, path=command.PATH) is None:
            raise EnvironmentMissing(
                f"{name} is not installed: no {kind.architecture.value} machine can be booted here",
                hint=f"install it (package {package} on Debian), or leave the boot check out",
            )
        self._firmware(kind)

    def _firmware(self, kind: MachineKind) -> Firmware | None:
        """None: the machine boots by BIOS, which Arm does not have."""
        if not kind.uefi and kind.architecture is Architecture.X64:
            return None
        length = None if kind.nvram is None else len(kind.nvram)
        return self.firmware(kind.architecture, length)

    @contextlib.contextmanager
    def start(self, machine: Machine, work: Path) -> Iterator["QemuRunning"]:
        tops = [chain[0] for chain in machine.disks]
        kind = machine.kind
        accelerator = self.accelerator(kind.architecture)
        code = variables = ""
        firmware: list[Path] = []
        found = self._firmware(kind)
        if found is not None:
            (work / VARIABLES).write_bytes(kind.nvram or found.template.read_bytes())
            code, variables = self.sandbox.name(found.code), self.sandbox.out(work, VARIABLES)
            firmware = [found.code]
        argv = arguments(
            [(self.sandbox.name(top.path), top.format.qemu_name) for top in tops],
            console=self.sandbox.out(work, CONSOLE),
            identifier=str(uuid.uuid4()),
            accelerator=accelerator,
            architecture=kind.architecture,
            windows=kind.windows,
            code=code,
            variables=variables,
            firmware=self.sandbox.out(work, FIRMWARE),
        )
        agent = self.sandbox.out(work, AGENT)
        argv += ["-device", "virtio-serial-pci"]
        argv += ["-chardev", f"socket,id=agent,path={_escaped(agent)},server=on,wait=off"]
        argv += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        wrapped = self.sandbox.wrap(
            argv,
            read=[*firmware, *(layer for chain in machine.disks for layer in chain[1:])],
            edit=[top.path for top in tops],
            out=work,
            devices=["/dev/kvm"] if accelerator == "kvm" else [],
        )
        errors = work / "emulator.err"
        with (
            errors.open("wb") as sink,
            command.spawn(wrapped, stdout=sink, stderr=sink, grouped=True) as process,
            QemuRunning(process, work, errors) as running,
        ):
            yield running


class QemuRunning:
    def __init__(self, process: subprocess.Popen[bytes], work: Path, errors: Path) -> None:
        self._process = process
        self._work = work
        self._errors = errors
        self._socket: socket.socket | None = None
        self._heard = b""

    def __enter__(self) -> "QemuRunning":
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def console(self) -> str:
        return self._end_of(CONSOLE, CONSOLE_LIMIT)

    def firmware(self) -> str:
        return self._end_of(FIRMWARE, 4096)

    def _end_of(self, name: str, length: int) -> str:
        path = self._work / name
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - length))
            return file.read().decode(errors="replace")

    def agent_answers(self) -> bool:
        """QEMU guest agent protocol: a sync with a number of ours comes back with that number, and
        nothing comes back as long as nobody listens."""
        if self._process.poll() is not None or not (self._work / AGENT).exists():
            return False
        number = 47_000_001
        wanted = {"execute": "guest-sync", "arguments": {"id": number}}
        try:
            if self._socket is None:
                self._socket = self._connect()
            with contextlib.suppress(BlockingIOError):
                self._socket.send(json.dumps(wanted).encode() + b"\n")
            with contextlib.suppress(BlockingIOError):
                self._heard = (self._heard + self._socket.recv(4096))[-8192:]
        except OSError:  # QEMU is about to end, or has not begun to listen: next time anew
            self.__exit__()
            self._socket = None
            return False
        return f'"return": {number}'.encode() in self._heard

    def wait(self, seconds: float) -> str:
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            said = [self._work / name for name in (CONSOLE, FIRMWARE)]  # a guest can write to both
            endless = any(path.exists() and path.stat().st_size > CONSOLE_MOST for path in said)
            return f"it has said more than {CONSOLE_MOST >> 20} MiB" if endless else ""
        errors = self._errors.read_text(errors="replace").strip()[-1000:]
        return f"the machine has ended (status {status}) {errors}".strip()

    def _connect(self) -> socket.socket:
        """By the directory's descriptor: paths of sockets end at 107 bytes."""
        made = socket.socket(socket.AF_UNIX)
        directory = os.open(self._work, os.O_RDONLY | os.O_DIRECTORY)
        try:
            made.connect(f"/proc/self/fd/{directory}/{AGENT}")
        except OSError:
            made.close()
            raise
        finally:
            os.close(directory)
        made.setblocking(False)
        return made


def _escaped(path: str) -> str:
    """In QEMU's options a comma ends a value, and two are one."""
    return path.replace(",", ",,")


if TYPE_CHECKING:
    _boots: type[Boots] = QemuBoots
    _running: type[Running] = QemuRunning
