"""The audit record's parts: who acted, what was done or refused, and one link of the chain."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GENESIS = "0" * 64  # the hash before the first entry


@dataclass(frozen=True, slots=True)
class Actor:
    """On whose behalf a process works. `operator` is the account that runs it, which is the same
    unless it acts as another principal; `request` tells this run from others; `address` is where a
    request of the network came from."""

    name: str
    operator: str
    request: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """What was done, or refused: an action on an object (an ARM id, mostly)."""

    action: str
    object: str
    allowed: bool = True
    details: str = ""  # of a change, what it made; of a refusal, the reason


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are asked for: what one actor did, or what was done to an object and to what is
    in it, or refusals alone."""

    actor: str | None = None
    object: str | None = None
    denied: bool = False

    def takes(self, content: Mapping[str, Any]) -> bool:
        """Whether an entry of this content is among them; names compare without regard to case."""
        return (
            (self.actor is None or content["actor"].lower() == self.actor.lower())
            and (self.object is None or _within(content["object"], self.object))
            and not (self.denied and content["allowed"])
        )


def _within(id: str, outer: str) -> bool:
    return f"{id.lower()}/".startswith(f"{outer.lower()}/")


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of the chain: the number of entries and the hash of the last."""

    seq: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One link, as it is stored. `text` is what was hashed, to the byte."""

    seq: int
    text: str
    hash: str

    @property
    def content(self) -> Mapping[str, Any]:
        content: Mapping[str, Any] = json.loads(self.text)
        return content
