"""What reading a zone again showed, as the catalog remembers it."""

from dataclasses import dataclass
from datetime import datetime

from pipeline.model.spelling import region_key


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A run of bytes of a disk."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class ScrubRecord:
    """When something in a zone was last read, and what was wrong with it then; `problem` is empty
    when it was sound.

    `zone` is the zone's directory, and `subject` what lies where in it: `bases/<digest>` or
    `versions/<key>`; of the disk of a VM the whole path. `bad` are the first ranges that differ.
    """

    zone: str
    subject: str
    region: str
    read: datetime
    problem: str = ""
    bad: tuple[ByteRange, ...] = ()

    def stands_in(self, region: str) -> bool:
        return region_key(self.region) == region_key(region)


def base_subject(digest: str) -> str:
    """What the record of a base is of."""
    return f"bases/{digest}"


def version_subject(key: str) -> str:
    """What the record of a version, or of a disk, snapshot or image, in a zone is of."""
    return f"versions/{key}"
