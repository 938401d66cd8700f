"""Galleria's end of the helper process: requests with a time limit, and honest ends."""

import base64
import json
import os
import select
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO, Any

from pipeline.data.text import printable as escaped
from pipeline.errors import EnvironmentMissing, StageFailed

CALL_SECONDS = 300.0
# of all calls of one appliance, without scripts of the user's own. Under software emulation a large
# guest takes some minutes
GUEST_SECONDS = 3600.0
UNMETERED = ("sh",)
TAIL_LINES = 40  # of libguestfs's messages, quoted when it fails
REPLY_LIMIT = 64 << 20  # bytes; libguestfs's own messages end at 4 MiB


class CallFailed(StageFailed):
    """libguestfs refused one call; the appliance lives on. `reason_text` is its own message."""

    def __init__(self, call: str, text: str) -> None:
        super().__init__(f"libguestfs refused {call}: {printable(text)}")
        self.text = text

    @property
    def absent(self) -> bool:
        """Whether a path, or a directory on the way to it, does not exist."""
        return self.text.endswith(("No such file or directory", "Not a directory"))


def printable(text: str, limit: int = 2000) -> str:
    """A hostile string, safe to print: no control characters but newline, bounded."""
    return "\n".join(map(escaped, text.strip().split("\n")))[-limit:]


class Helper:
    """A running helper. After a time-out or a crash every call fails."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101 - both are pipes by construction
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        self._process = process
        self._requests: IO[bytes] = process.stdin
        self._replies = process.stdout.fileno()
        self._pending = bytearray()
        self._left = GUEST_SECONDS
        self._owed: deque[tuple[str, float]] = deque()  # posted calls and their time limits
        self._messages: deque[str] = deque(maxlen=TAIL_LINES)
        # an unread pipe would stop the helper once it is full
        self._drain = threading.Thread(target=self._read_messages, args=[process.stderr])
        self._drain.start()

    def post(self, name: str, *args: Any, timeout: float = CALL_SECONDS, **options: Any) -> None:
        """A call that nobody waits for yet: the next `call` does, and raises what it raises."""
        self._send(name, args, options)
        self._owed.append((name, timeout))

    def call(self, name: str, *args: Any, timeout: float = CALL_SECONDS, **options: Any) -> Any:
        """One libguestfs call. Raises CallFailed when libguestfs refuses it, EnvironmentMissing
        when the bindings are not there, StageFailed on a crash, after `timeout` seconds, and when
        all calls together have taken GUEST_SECONDS."""
        while self._owed:
            self._reply(*self._owed.popleft())
        if self._left <= 0:
            self._process.kill()
            raise self._failed(
                f"the guest took more than {GUEST_SECONDS / 60:.0f} minutes: something in it is "
                "far too large"
            )
        self._send(name, args, options)
        began = time.monotonic()
        try:
            return self._reply(name, timeout)
        finally:
            if name not in UNMETERED:
                self._left -= time.monotonic() - began

    def _send(self, name: str, args: Sequence[Any], options: Mapping[str, Any]) -> None:
        request = {
            "call": name,
            "args": [_encode(value) for value in args],
            "options": {key: _encode(value) for key, value in options.items()},
        }
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        except BrokenPipeError:
            pass  # it has ended: its last words are read with the reply, and say why

    def _reply(self, name: str, timeout: float) -> Any:
        line = self._line(name, time.monotonic() + timeout, timeout)
        try:
            reply = json.loads(line)
            if "result" in reply:
                return _decode(reply["result"])
            missing, error = reply.get("missing"), str(reply.get("error"))
        except (ValueError, TypeError, AttributeError, RecursionError) as mistake:
            self._process.kill()
            raise self._failed(
                f"libguestfs's {name} was answered with no sense ({mistake})"
            ) from None
        if missing is not None:
            raise EnvironmentMissing(
                f"libguestfs's Python bindings cannot be loaded: {printable(str(missing))}",
                hint="install python3-guestfs (Debian, Ubuntu) or python3-libguestfs (Fedora)",
            )
        raise CallFailed(name, error)

    def finish(self, timeout: float = 60) -> None:
        """Close stdin and wait for the helper's end, so that nothing of it is left."""
        self._requests.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._failed(f"the helper did not end within {timeout:.0f} s") from None

    def join(self) -> None:
        """Let go of the message thread; the process must have been stopped."""
        self._drain.join()

    def messages(self) -> str:
        """The last messages of libguestfs, qemu and the appliance's kernel."""
        return printable("\n".join(self._messages))

    def _line(self, name: str, deadline: float, timeout: float) -> bytes:
        while (end := self._pending.find(b"\n")) < 0:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([self._replies], [], [], wait)[0]:
                self._process.kill()
                raise self._failed(f"libguestfs's {name} did not end within {timeout:.0f} s")
            part = os.read(self._replies, 1 << 20)
            if not part or len(self._pending) > REPLY_LIMIT:
                self._process.kill()
                status = self._process.wait()
                raise self._failed(f"the libguestfs helper ended ({status}) in {name}")
            self._pending += part
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return line

    def _failed(self, what: str) -> StageFailed:
        self._drain.join(timeout=1)
        return StageFailed(
            f"{what}; its last messages: {self.messages() or 'none'}",
            hint="galleria doctor tries the appliance without a guest's disk",
        )

    def _read_messages(self, stream: IO[bytes]) -> None:
        try:
            for line in stream:
                self._messages.append(line.decode(errors="replace").rstrip())
        except ValueError:
            return  # closed by the owner of the process while it was read


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"bytes"}:
            return base64.b64decode(value["bytes"])
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value
