"""What nobody needs any more: what was removed of it, and what stays and why."""

from dataclasses import dataclass
from enum import Enum

HOUR = 3600
DAY = 24 * HOUR


class Garbage(Enum):
    """What galleria makes and does not always need for ever."""

    BASE = "base"
    QUARANTINE = "quarantine"  # damaged bases that sound ones have replaced
    STAGING = "staging"  # of runs that were killed
    WORK = "work"
    DOWNLOAD = "download"
    BOX = "box"  # made for those who use Vagrant
    APPLIANCE = "appliance"
    FIXTURE = "fixture"
    LOG = "log"
    CAPTURE = "capture"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Keep:
    """How long (seconds) and how much (bytes) of what nobody needs is kept; None: without end.
    `unused` is for bases: what is about to use one may not have said so yet. At most `limit` things
    go from one place; `dry_run` removes nothing."""

    unused: int | None = 0
    downloads: int | None = 7 * DAY  # and boxes
    cache: int | None = 30 * DAY  # appliances and fixtures
    logs: int | None = 90 * DAY
    quarantine: int | None = 30 * DAY
    audit: int | None = None
    downloads_size: int | None = 64 << 30
    logs_size: int | None = 1 << 30
    quarantine_size: int | None = 64 << 30
    limit: int = 1 << 30
    dry_run: bool = False


AT_ONCE = Keep()


@dataclass(frozen=True, slots=True)
class Freed:
    """Something that is gone, and the bytes that its files occupied; blocks that it shared with
    others are counted."""

    kind: Garbage
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that stays although it is not in use, or might not be."""

    kind: Garbage
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of one place, a zone or a directory of this host. `region` is a zone's."""

    place: str
    freed: tuple[Freed, ...] = ()
    kept: tuple[Kept, ...] = ()
    region: str = ""

    @property
    def size(self) -> int:
        return sum(item.size for item in self.freed)
