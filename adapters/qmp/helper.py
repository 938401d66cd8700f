"""The process that talks to a running QEMU: JSON lines on stdin, one answer a line on stdout.

    {"do": "execute", "command": C, "arguments": A}         a QMP command
    {"do": "add-fd", "path": P, "arguments": A}             open P to be written, and hand it in
    {"do": "freeze", "agent": S, "seconds": T,              freeze the guest's file systems by its
     "command": C, "arguments": A}                          agent, run C, thaw
    {"do": "thaw", "agent": S, "seconds": T}                whether the agent said that it thawed

A process of its own, as `qemu.qmp` has a licence of its own, and so that a guest is thawed even
when galleria is killed between the two: this process finishes what it began. Started by path;
imports nothing of galleria.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

CONNECT_SECONDS = 10.0
ANSWER_LIMIT = 64 << 20  # bytes of one line of an agent


class Agent:
    """The guest agent behind a socket. What it says is hostile: only its shape is used."""

    def __init__(self, path: str, seconds: float) -> None:
        self._path = path
        self._seconds = seconds

    async def __aenter__(self) -> "Agent":
        connecting = asyncio.open_unix_connection(self._path, limit=ANSWER_LIMIT)
        self._reader, self._writer = await asyncio.wait_for(connecting, self._seconds)
        # what an earlier client left unread is told apart by the token that comes back
        token = time.monotonic_ns() & 0x7FFFFFFF
        self._send("guest-sync", {"id": token})
        while (await self._answer()).get("return") != token:
            continue
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def execute(self, command: str) -> Any:
        self._send(command, {})
        answer = await self._answer()
        if "return" not in answer:
            raise QMPError(f"{command}: {json.dumps(answer.get('error'))}")
        return answer["return"]

    def _send(self, command: str, arguments: dict[str, Any]) -> None:
        self._writer.write(json.dumps({"execute": command, "arguments": arguments}).encode())

    async def _answer(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self._reader.readline(), self._seconds)
        if not line:
            raise QMPError("the agent closed the connection")
        answer = json.loads(line.lstrip(b"\xff"))
        return answer if isinstance(answer, dict) else {}


async def frozen(client: QMPClient, request: dict[str, Any]) -> dict[str, Any]:
    """Run one command while the guest's file systems are frozen; how long they were, in seconds.

    A guest whose agent does not answer is not waited for: the command runs all the same, and
    `reason` says why nothing was frozen.
    """
    reason, began, count = "", time.monotonic(), 0
    asked = False
    try:
        async with Agent(request["agent"], request["seconds"]) as agent:
            asked = True
            count = int(await agent.execute("guest-fsfreeze-freeze"))
    except (TimeoutError, OSError, QMPError, ValueError, TypeError) as error:
        reason = str(error) or "it did not answer in time"
    started = time.monotonic()
    try:
        answer = await client.execute(request["command"], request["arguments"])
    finally:
        ran = time.monotonic() - started
        # also when the freeze timed out: it may have happened all the same
        thawed = not asked or await thaw(request["agent"], request["seconds"])
    held = time.monotonic() - began if asked else 0.0
    if not thawed:
        reason = "the guest did not confirm that it was thawed"
    return {
        "answer": answer,
        "file_systems": count,
        "frozen_seconds": held,
        "command_seconds": ran,
        "thawed": thawed,
        "reason": reason,
    }


async def thaw(path: str, seconds: float) -> bool:
    """Thaw over a connection of its own: the one that froze may be out of step. (An agent's
    socket serves one at a time, so that one has to be closed.)"""
    for _ in range(3):
        try:
            async with Agent(path, seconds) as agent:
                await agent.execute("guest-fsfreeze-thaw")
                return True
        except (TimeoutError, OSError, QMPError, ValueError):
            continue
    return False


async def perform(client: QMPClient, request: dict[str, Any]) -> Any:
    if request["do"] == "freeze":
        return await frozen(client, request)
    if request["do"] == "thaw":
        return await thaw(request["agent"], request["seconds"])
    if request["do"] == "add-fd":
        fd = os.open(request["path"], os.O_RDWR | os.O_CLOEXEC)
        try:
            client.send_fd_scm(fd)
            return await client.execute("add-fd", request["arguments"])
        finally:
            os.close(fd)
    return await client.execute(request["command"], request["arguments"])


@contextlib.contextmanager
def unstoppable() -> Iterator[None]:
    """Signals wait until what was begun is done."""
    numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


async def main(socket: str) -> None:
    client = QMPClient("galleria")
    await asyncio.wait_for(client.connect(socket), CONNECT_SECONDS)
    tell({"return": None})
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
            with unstoppable():
                try:
                    tell({"return": await perform(client, json.loads(line))})
                except ExecuteError as error:
                    tell({"refused": error.error.error.class_, "text": error.error.error.desc})
    finally:
        await client.disconnect()


def tell(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1]))
    except BrokenPipeError:
        os._exit(0)  # galleria has gone, and there is nobody to tell
    except (TimeoutError, QMPError, OSError) as error:
        cause = error.__cause__ or error
        with contextlib.suppress(BrokenPipeError):
            tell({"lost": str(cause) or type(cause).__name__})
        os._exit(1)
