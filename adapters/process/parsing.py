"""Parsers of untrusted bytes, each in a process that lives for one question.

    galleria --descriptor, bytes--> parser.py (in the sandbox; bounded CPU, memory) --JSON--> answer

What takes too long, too much memory, or finds a mistake in a parser costs that process, and is
told as `Unreadable`. What the parser refuses is raised here as it was raised there.
"""

import contextlib
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from adapters.process import command, parser
from adapters.process.sandbox import Sandbox
from pipeline.data.text import printable
from pipeline.errors import (
    DescriptionInvalid,
    GalleriaError,
    InvalidParameter,
    NoSpace,
    StageFailed,
    UnsafeImage,
)

SECONDS = 60.0
ANSWER_LIMIT = 4 << 20
ROOT = Path(__file__).parents[2]
# Largest tables that are taken need 2 s of CPU and 256 MiB, and Python's own beside them.
LIMITS = command.Limits(address_space=768 << 20, cpu_seconds=10)
REFUSALS: Mapping[str, type[GalleriaError]] = {
    kind.__name__: kind for kind in (DescriptionInvalid, InvalidParameter, NoSpace, UnsafeImage)
}
TOLD = 4000  # characters of what a refusal says
# statuses of a program that was killed by its limits, as bubblewrap and a shell say it
KILLED = {
    status for number in (signal.SIGKILL, signal.SIGXCPU) for status in (-number, 128 + number)
}
# how Python names what untrusted bytes made a parser raise
MISTAKES = ("IndexError", "KeyError", "ValueError", "struct.error", "OverflowError", "TypeError",
            "RecursionError", "UnicodeDecodeError", "AttributeError", "AssertionError")  # fmt: skip


class Unreadable(Exception):
    """A parser came to no answer: why."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a parser is given: bytes or an open file on standard input, open files by number, and a
    directory that it writes new files in."""

    stdin: bytes | IO[bytes] | None = None
    files: Sequence[int] = ()
    out: Path | None = None


def ask(
    module: str,
    arguments: Sequence[str],
    sandbox: Sandbox,
    given: Given,
    *,
    directories: Sequence[Path] = (),
    limits: command.Limits = LIMITS,
    seconds: float | None = SECONDS,
) -> dict[str, Any]:
    """What the function `answer` of a module says. Raises Unreadable, and the parser's refusal.
    `directories` hold modules that it needs besides galleria's own."""
    script, packages = Path(parser.__file__), [ROOT / "adapters", ROOT / "pipeline"]
    # the system's own directories are there; of an environment, those that are shown
    others = [path for path in directories if not path.is_relative_to("/usr")]
    argv = [_python(), "-I", "-S", sandbox.name(script), module]
    argv += [sandbox.name(path) for path in packages]
    argv += [sandbox.name(path) if path in others else str(path) for path in directories]
    wrapped = sandbox.wrap(
        [*argv, "--", *arguments], read=[script, *packages, *others], out=given.out, limits=limits
    )
    with contextlib.ExitStack() as stack:
        stdin: int | IO[bytes] = subprocess.DEVNULL
        if isinstance(given.stdin, bytes):
            stdin = stack.enter_context(tempfile.TemporaryFile())
            stdin.write(given.stdin)
            stdin.seek(0)
        elif given.stdin is not None:
            stdin = given.stdin
        process = stack.enter_context(
            command.spawn(wrapped, stdin=stdin, pass_fds=given.files, grouped=seconds is None)
        )
        stdout, stderr = _said(process, seconds)
    if process.returncode:
        raise _failure(process.returncode, stderr)
    try:
        answer = json.loads(stdout)
    except (ValueError, RecursionError) as error:
        raise _senseless(error) from None
    if not isinstance(answer, dict):
        raise Unreadable("its reader answered with no sense")
    if "refused" in answer:
        raise _refusal(answer["refused"])
    return answer


def _said(process: "subprocess.Popen[bytes]", seconds: float | None) -> list[bytes]:
    """What a process writes, to its end, and no more of it than an answer has."""
    pipes = [process.stdout, process.stderr]
    kept = {pipe: bytearray() for pipe in pipes if pipe is not None}
    deadline = None if seconds is None else time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for pipe in kept:
            selector.register(pipe, selectors.EVENT_READ, kept[pipe])
        while selector.get_map():
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            ready = selector.select(left)
            if not ready:
                raise Unreadable(f"no end after {seconds:.0f} s")
            for key, _ in ready:
                piece = os.read(key.fd, ANSWER_LIMIT)
                key.data.extend(piece)
                if not piece:
                    selector.unregister(key.fileobj)
                if len(key.data) > ANSWER_LIMIT:
                    raise Unreadable("its reader says too much")
    process.wait(None if deadline is None else 1 + max(deadline - time.monotonic(), 0))
    return [bytes(content) for content in kept.values()]


def _failure(status: int, stderr: bytes) -> Exception:
    last = stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if status in KILLED or "MemoryError" in last:
        return Unreadable("they need too much CPU or memory")
    if last.startswith(MISTAKES):
        return Unreadable(printable(last[:300]))
    return StageFailed(
        f"a parser in the sandbox failed: {printable(last[-300:])}",
        hint="galleria doctor tries the sandbox",
    )


def _senseless(error: Exception) -> Unreadable:
    return Unreadable(f"its reader answered with no sense ({type(error).__name__})")


def _refusal(refused: object) -> Exception:
    match refused:
        case [str(name), str(message), str(hint)] if name in REFUSALS:
            return REFUSALS[name](message[:TOLD], hint=hint[:TOLD])
    return Unreadable("its reader refused it without sense")


def _python() -> str:
    """The interpreter that galleria has, where the sandbox has it too."""
    own = Path(sys.executable).resolve()
    return str(own) if own.is_relative_to("/usr") else "python3"


def directories(module: str) -> list[Path]:
    """Where a module is, and those that the system's packages bring."""
    spec = importlib.util.find_spec(module)
    places = [] if spec is None or spec.origin is None else [Path(spec.origin).parents[1]]
    return [*places, *(path for path in map(Path, sys.path) if path.name == "dist-packages")]
