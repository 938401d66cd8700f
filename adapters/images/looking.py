"""The first look at an image file: `adapters.images.looker`, in a process that lives for this one
file. A header that takes too long, too much memory, or finds a mistake in a parser makes a refusal.
"""

from dataclasses import dataclass
from typing import Any

from adapters.formats import Findings
from adapters.formats.window import Few, Parent
from adapters.images.headers import Policy
from adapters.process import parsing
from adapters.process.sandbox import Sandbox
from pipeline.ports import ImageFormat


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
    try:
        answer = parsing.ask(
            "adapters.images.looker",
            [str(fd), str(policy.virtual_size)],
            sandbox,
            parsing.Given(files=[fd]),
            directories=parsing.directories("oslo_utils"),
        )
    except parsing.Unreadable as error:
        return _not_read(str(error))
    try:
        return _parsed(answer)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return _not_read(f"its reader answered with no sense ({type(error).__name__})")


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
