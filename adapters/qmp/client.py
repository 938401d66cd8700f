"""Galleria's end of the process that talks to a running QEMU (`helper`)."""

import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.process import command
from pipeline.errors import EnvironmentMissing, GalleriaError, NotFound, StageFailed

CALL_SECONDS = 60.0
AGENT_SECONDS = 2.0  # for each answer of the guest agent: what the guest may wait for it at most
ANSWER_LIMIT = 64 << 20  # bytes


class Refused(GalleriaError):
    """QEMU refused one command; `kind` is QMP's error class."""

    code = "StageFailed"

    def __init__(self, command: str, kind: str, text: str) -> None:
        super().__init__(f"QEMU refused {command}: {text!r}")
        self.kind = kind
        self.text = text


class Monitor:
    """A connection to a QMP monitor. After a time-out, or when QEMU ends, every call fails."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path) -> None:
        self._process = process
        self._socket = socket
        self._pending = bytearray()

    def execute(self, command: str, **arguments: Any) -> Any:
        """One QMP command; keyword `a_b` is QMP's `a-b`. Raises Refused when QEMU says no."""
        return self._call({"do": "execute", "command": command, "arguments": dashed(arguments)})

    def add_fd(self, path: Path, number: int) -> None:
        """Hand QEMU an open file, as /dev/fdset/`number`: it needs no right of its own to it."""
        arguments = {"fdset-id": number, "opaque": "galleria"}
        self._call({"do": "add-fd", "command": "add-fd", "path": str(path), "arguments": arguments})

    def execute_frozen(self, agent: Path, command: str, **arguments: Any) -> dict[str, Any]:
        """One command while the guest's file systems are frozen: see `helper.frozen`."""
        request = {"do": "freeze", "agent": str(agent), "seconds": AGENT_SECONDS}
        answer: dict[str, Any] = self._call(
            {**request, "command": command, "arguments": dashed(arguments)}
        )
        return answer

    def thaw(self, agent: Path) -> bool:
        """Thaw whatever is frozen in the guest; whether its agent said so."""
        request = {"do": "thaw", "command": "thaw", "agent": str(agent)}
        return bool(self._call({**request, "seconds": AGENT_SECONDS}))

    def _call(self, request: dict[str, Any]) -> Any:
        stdin = self._process.stdin
        if stdin is None:
            raise ValueError("the helper has no input")
        # when it has ended, its last words are read below
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        return self.answer(str(request["command"]))

    def answer(self, command: str) -> Any:
        """The next answer. Raises Refused, StageFailed."""
        reply = self._line(command)
        if "refused" in reply:
            raise Refused(command, reply["refused"], reply["text"])
        if "lost" in reply:
            raise NotFound(
                f"no QEMU answers on {self._socket}: {reply['lost']!r}",
                hint="name the socket of a running QEMU's -qmp unix:SOCKET,server=on,wait=off; "
                "it serves one client at a time",
            )
        return reply["return"]

    def _line(self, command: str) -> dict[str, Any]:
        stdout = self._process.stdout
        if stdout is None:
            raise ValueError("the helper has no output")
        deadline = time.monotonic() + CALL_SECONDS
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise StageFailed(f"QEMU did not answer {command} within {CALL_SECONDS:.0f} s")
            block = stdout.raw.read(1 << 16) if hasattr(stdout, "raw") else stdout.read(1 << 16)
            if not block or len(self._pending) > ANSWER_LIMIT:
                raise self._ended(command)
            self._pending += block
        line, _, rest = self._pending.partition(b"\n")
        self._pending = bytearray(rest)
        reply = json.loads(line)
        if not isinstance(reply, dict):
            raise StageFailed(f"{command}: an answer that is no object")
        return reply

    def _ended(self, command: str) -> GalleriaError:
        errors = self._process.stderr.read() if self._process.stderr else b""
        text = errors.decode(errors="replace").strip()
        if "No module named" in text:
            return EnvironmentMissing(
                "the Python package qemu.qmp is not installed",
                hint="pip install qemu.qmp, into galleria's own environment",
            )
        return StageFailed(f"the connection to QEMU on {self._socket} ended in {command}: {text}")


@contextlib.contextmanager
def connect(socket: Path) -> Iterator[Monitor]:
    """A connection for the length of a `with`. Raises NotFound when nobody answers there."""
    helper = Path(__file__).with_name("helper.py")
    argv = [sys.executable, "-P", str(helper), str(socket)]
    with command.spawn(argv, stdin=subprocess.PIPE) as process:
        monitor = Monitor(process, socket)
        monitor.answer("qmp_capabilities")
        yield monitor


def dashed(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in arguments.items()}
