"""Boot: does a version come up? A throw-away clone is started in an emulator without network, and
its serial console read until it asks for a login, or its guest agent answers.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.text import printable
from pipeline.errors import StageFailed
from pipeline.ports import Files, Images, Progress
from pipeline.ports.boots import Boots, Machine, MachineKind, Running
from pipeline.sources.ingest import Disk

TAIL_LINES = 25
SECONDS = 600.0  # 85 s measured for a Debian by its own boot loader under software emulation
# Other messages may stand before it on its line. A guest chooses the text: no pattern may take
# longer than the text is long, times a constant.
LOGIN = re.compile(r"(?<!\S)(\S+) login: ")
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][0-9A-B]|[@-_])")
FIRST_BOOT = ("Detected first boot", "Initializing machine ID")
KEYS = re.compile(r"\b(SHA256:[A-Za-z0-9+/]{43})")
FAILED = re.compile(r"\[FAILED\] Failed to start (.+)")
# how SeaBIOS and EDK II end when nothing on the disks can be booted
GAVE_UP = re.compile(
    r"(?:No bootable device\.|\nShell>|\nBdsDxe: Press any key to enter the Boot Manager Menu\.)"
    r"\s*\Z"
)


@dataclass(frozen=True, slots=True)
class Booted:
    """How a machine came up and who it says it is. `seconds` is whole; `first_boot`: it made
    itself a machine id; `host_keys`: fingerprints on the console; `failed`: units of systemd."""

    by: str
    seconds: int
    hostname: str
    first_boot: bool
    host_keys: tuple[str, ...]
    failed: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        return {
            "by": self.by,
            "seconds": self.seconds,
            "hostname": self.hostname,
            "first_boot": self.first_boot,
            "host_keys": list(self.host_keys),
            "failed": list(self.failed),
        }


@dataclass(frozen=True, slots=True)
class BootTools:
    """What a boot check needs from outside."""

    boots: Boots
    images: Images
    files: Files
    progress: Progress


def boot(
    tools: BootTools,
    kind: MachineKind,
    disks: Sequence[Disk],
    work: Path,
    log: Path,
    *,
    seconds: float = SECONDS,
) -> Booted:
    """Boot clones of the disks (OS disk first). The console is kept in `log`, also on failure.
    Raises StageFailed with its end when the machine stops, when it says nothing more in `seconds`,
    and as soon as its firmware finds nothing to boot."""
    clones = tuple(
        tools.images.create_overlay(disk.chain, work / f"{disk.name}-boot.qcow2") for disk in disks
    )
    machine = Machine(clones, kind)
    with tools.progress.stage("boot check"), tools.boots.start(machine, work) as running:
        started, passed, text, by, ended = time.monotonic(), 0.0, "", "", ""
        while not by:
            ended, before = running.wait(1.0), text
            # a guest that says much takes more time than is waited for it
            passed = max(passed + 1.0, time.monotonic() - started)
            text = clean_console(running.console())
            with tools.files.create(log) as file:
                file.write(text.encode())
            by = said_by(text, running)
            if not by and not ended and text == before and gave_up(text, running):
                raise _failed("the firmware found nothing to boot", text, log, _loader(kind))
            if not by and (ended or passed >= seconds):
                raise _failed(ended or f"no login prompt within {seconds:.0f} s", text, log)
    return read_console(text, by, round(passed))


def said_by(text: str, running: Running) -> str:
    """What shows that the machine is up; empty as long as nothing does."""
    if LOGIN.search(text):
        return "login prompt"
    return "guest agent" if running.agent_answers() else ""


def gave_up(text: str, running: Running) -> bool:
    """Whether the machine's firmware has tried all disks, and started none. UEFI says so on the
    console; what begins at its shell goes on without a pause."""
    return any(GAVE_UP.search(said[-200:]) for said in (text, running.firmware()))


def read_console(text: str, by: str, seconds: int) -> Booted:
    """What the machine says of itself."""
    names = LOGIN.findall(text)
    return Booted(
        by,
        seconds,
        names[-1] if names else "",
        any(mark in text for mark in FIRST_BOOT),
        tuple(dict.fromkeys(KEYS.findall(text))),
        tuple(dict.fromkeys(unit.rstrip().removesuffix(".") for unit in FAILED.findall(text))),
    )


def clean_console(text: str) -> str:
    """Without what drives a terminal: the console is the guest's, and people look at it."""
    plain = ESCAPES.sub("", text.replace("\r", ""))
    return "".join(c if c in "\n\t" else printable(c) for c in plain)


def _loader(kind: MachineKind) -> str:
    here, other = ("UEFI (V2)", "BIOS (V1)") if kind.uefi else ("BIOS (V1)", "UEFI (V2)")
    return (
        f"the definition's machines start by {here}: the OS disk has no boot loader for that. It "
        f"may be blank, not the OS disk, or made for {other}"
    )


def _failed(what: str, text: str, log: Path, hint: str = "") -> StageFailed:
    tail = "\n".join(text.rstrip().splitlines()[-TAIL_LINES:])
    return StageFailed(
        f"the boot check failed: {what}; the console is in {log} and ends:\n{tail or '(nothing)'}",
        hint=hint
        or "a guest that does not use its first serial port says nothing there: kernel argument "
        "console=ttyS0; --timeout gives it more time",
    )
