"""Runs: one record of every job that does more than one durable act.

A run is owned by whoever has its `token`, as long as its `lease` lasts. A process, its number and
its host are told to people only: nothing is decided by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any


class RunKind(Enum):
    """What a run does."""

    PUBLISH = "publish"
    REPLICATE = "replicate"
    UPDATE = "update"
    DELETE = "delete"
    RETENTION = "retention"
    DEPLOY = "deploy"
    RELEASE = "release"
    SCALE = "scale"
    SNAPSHOT = "snapshot"
    DISK = "disk"
    IMAGE = "image"
    EXPORT = "export"
    CONVERT = "convert"
    GENERALIZE = "generalize"
    GC = "gc"
    SCRUB = "scrub"
    REPAIR = "repair"
    REBUILD = "rebuild"


class RunState(Enum):
    """`WAITING` has been recorded, and no process works on it yet."""

    WAITING = "Waiting"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class Presence(Enum):
    """What can be seen of the process that works on a run. It is a hint, by which work is taken
    from a dead one before its lease is over; what counts is the lease."""

    THERE = "there"  # it has not ended; whether it still works is another question
    GONE = "gone"  # it has certainly ended
    UNSEEN = "unseen"  # it has ended, or has lost its connection


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run failed, as the command said it; `code` never changes."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """`object` is the ARM id of what it is about, or a path. `digest` is that of what was asked:
    the same on another host, and after a reboot. `token` grows whenever a process takes the run.
    `step` is what it does now, `done` and `total` are bytes of that. `remains` is a directory that
    it left when it failed. One that is `kept` is taken up again by a server when its process has
    ended: whoever asked for it waits for its end."""

    id: str
    kind: RunKind
    object: str
    started: datetime
    state: RunState = RunState.RUNNING
    request: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    actor: str = ""
    principal: str = ""  # empty: the local operator
    host: str = ""
    boot_id: str = ""
    pid: int = 0
    token: int = 1
    heartbeat: datetime | None = None
    lease: datetime | None = None  # until when it is its owner's, unless that is prolonged
    cancelling: bool = False
    step: str = ""
    done: int = 0
    total: int = 0
    log: str = ""
    finished: datetime | None = None
    error: RunError | None = None
    remains: str = ""
    kept: bool = False

    @property
    def who(self) -> str:
        """What tells it to people."""
        return f"run {self.id} ({self.kind.value}) on {self.host}"

    @property
    def ended(self) -> bool:
        return self.state not in (RunState.WAITING, RunState.RUNNING)


@dataclass(frozen=True, slots=True)
class Held:
    """What holds a version or a resource. `free_in` are the seconds after which it is worth asking
    again, when the process seems to have ended; None: it works, as far as is known."""

    run: Run
    free_in: float | None = None
