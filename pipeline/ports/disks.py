"""Where the files of managed disks are: made so that a run that is killed leaves nothing in the
way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pipeline.model.resources import Disk
from pipeline.ports.zones import Zone


class DiskDirectories(Protocol):
    """Each disk's file lies in a directory of its own: below the zone that keeps its base, or where
    the user says (`Disk.directory`)."""

    def begin(self, disk: Disk, zone: Zone) -> Path:
        """Where the directory of a new disk is to be made, on the file system of its base; there is
        nothing of that name, and the directory above it is there."""
        ...

    def create_empty(self, directory: Path, length: int) -> Path:
        """Make the directory, and in it a raw file that reads as zeros."""
        ...

    def commit(self, file: Path, disk: Disk) -> Path:
        """Make a new disk's file durable, and put its directory where it is to be; returns the
        file's path there. Raises Conflict when the user's directory is there already."""
        ...

    def recorded(self, disk: Disk) -> None:
        """The catalog knows the disk's file from now on: it is not unfinished any more."""
        ...

    def check_new(self, disk: Disk) -> None:
        """Raise Conflict when the directory that the user names is there already. What a killed run
        made of it goes."""
        ...

    def forget_unfinished(self, disk: Disk, zones: Sequence[Zone]) -> None:
        """Remove what a run made for a disk that it did not finish."""
        ...

    def exists(self, disk: Disk) -> bool:
        """Whether the disk's file is there."""
        ...

    def remove(self, disk: Disk) -> None:
        """Remove the disk's file, and its directory when nothing else is in it."""
        ...
