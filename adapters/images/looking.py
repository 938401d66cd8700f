"""The first look at an image file: galleria's parsers, in a process that lives for this one file.

    galleria --descriptor--> looker.py (in the sandbox; bounded CPU and memory) --JSON--> Findings

A header that takes too long, too much memory, or finds a mistake in a parser costs that process,
and makes a refusal.
"""

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.formats import Findings
from adapters.formats.window import Few, Parent
from adapters.images import looker
from adapters.images.headers import Policy
from adapters.process import command
from adapters.process.sandbox import Sandbox
from pipeline.data.text import printable
from pipeline.errors import StageFailed
from pipeline.ports import ImageFormat

# The largest tables that are taken need 2 s of CPU and 256 MiB, and Python's own beside them.
LIMITS = command.Limits(address_space=768 << 20, cpu_seconds=10)
SECONDS = 60.0
ANSWER_LIMIT = 4 << 20
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen in a file. `oslo`: the virtual size that oslo.utils reads, None when it knows
    none, and the reason when it refuses."""

    format: ImageFormat
    doubts: tuple[str, ...]
    findings: Findings
    oslo: int | str | None


def look(fd: int, sandbox: Sandbox, policy: Policy) -> Look:
    """Look at an open file."""
    script, packages = Path(looker.__file__), [ROOT / "adapters", ROOT / "pipeline"]
    # the system's own directories are there; of an environment, the one that has oslo.utils
    others = [path for path in directories() if not path.is_relative_to("/usr")]
    argv = [_python(), "-I", "-S", sandbox.name(script), str(fd), str(policy.virtual_size)]
    argv += [sandbox.name(path) for path in packages]
    argv += [sandbox.name(path) if path in others else str(path) for path in directories()]
    wrapped = sandbox.wrap(argv, read=[script, *packages, *others], limits=LIMITS)
    with command.spawn(wrapped, pass_fds=[fd]) as process:
        try:
            stdout, stderr = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return _not_read(f"no end after {SECONDS:.0f} s")
    if process.returncode:
        last = stderr.decode(errors="replace").strip().rpartition("\n")[2]
        if process.returncode in KILLED or "MemoryError" in last:
            return _not_read("they need too much CPU or memory")
        if not last.startswith(MISTAKES):
            raise StageFailed(
                f"the first look at an image failed: {printable(last[-300:])}",
                hint="galleria doctor tries the sandbox",
            )
        return _not_read(printable(last[:300]))
    try:
        return _parsed(json.loads(stdout[:ANSWER_LIMIT]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return _not_read(f"its reader answered with no sense ({type(error).__name__})")


# statuses of a program that was killed by its limits, as bubblewrap and a shell say it
KILLED = (-9, -24, 137, 152)
# how Python names what a header made a parser raise
MISTAKES = ("IndexError", "KeyError", "ValueError", "struct.error", "OverflowError",
            "RecursionError", "UnicodeDecodeError", "TypeError")  # fmt: skip


def _not_read(reason: str) -> Look:
    findings = Findings(ImageFormat.RAW)
    findings.refusals.append(f"its headers cannot be read: {reason}")
    return Look(ImageFormat.RAW, (), findings, None)


def _parsed(answer: dict[str, Any]) -> Look:
    format = ImageFormat(answer["format"])
    findings = Findings(
        format,
        variant=str(answer["variant"]),
        virtual_size=int(answer["virtual_size"]),
        logical_sector_size=int(answer["logical_sector_size"]),
        snapshots=[str(name) for name in answer["snapshots"]],
        references=_few(answer["references"]),
        refusals=_few(answer["refusals"]),
        notes=_few(answer["notes"]),
        parent=_parent(answer["parent"]),
        identifier=str(answer["identifier"]),
        unread=bool(answer["unread"]),
    )
    size = answer.get("size")
    oslo = answer.get("unsafe", None if size is None else int(size))
    doubts = tuple(str(doubt) for doubt in answer["doubts"])
    return Look(format, doubts, findings, oslo if isinstance(oslo, int | None) else str(oslo))


def _few(spelled: dict[str, Any]) -> Few:
    few = Few()
    few += [str(sentence) for sentence in spelled["told"]]
    few.more += int(spelled["more"])
    return few


def _parent(spelled: dict[str, Any] | None) -> Parent | None:
    if spelled is None:
        return None
    names, identifiers = ([str(text) for text in spelled[key]] for key in ("names", "identifiers"))
    format = None if spelled["format"] is None else ImageFormat(spelled["format"])
    return Parent(tuple(names), tuple(identifiers), format)


def _python() -> str:
    """The interpreter that galleria has, where the sandbox has it too."""
    own = Path(sys.executable).resolve()
    return str(own) if own.is_relative_to("/usr") else "python3"


def directories() -> list[Path]:
    """Where the modules are that oslo.utils needs."""
    spec = importlib.util.find_spec("oslo_utils")
    places = [] if spec is None or spec.origin is None else [Path(spec.origin).parents[1]]
    return [*places, *(path for path in map(Path, sys.path) if path.name == "dist-packages")]
