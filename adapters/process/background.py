"""A job that goes on after its command has returned."""

import contextlib
import os
import signal
import sys
from pathlib import Path


class Background:
    """The child's side: the job runs here, and `leave` lets the command return."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def leave(self, message: bytes, log: Path) -> None:
        """Hand the command its result. What is printed from now on goes to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        with contextlib.suppress(BrokenPipeError), os.fdopen(self._pipe, "wb") as pipe:
            pipe.write(message)


def split() -> Background | bytes | int:
    """Go on in a child of its own session. Returns a Background in the child; in the parent, once
    the child has left, its message, or its exit status if it ended before that.

    Until then the child's errors are the command's: they go to the same terminal. Call it before
    there are threads or database connections.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        return Background(writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            message = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGTERM)  # interrupted before the job was on its own
        raise
    if message:
        return message
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status > 0 else 1
