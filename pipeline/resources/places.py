"""Where the files of disks are made, so that a run that is killed leaves nothing in the way.

A directory that the user names is made beside it, under a name that nobody else uses, and renamed
when it is whole; until the catalog knows the file, a mark in it says whose it is:

    .DIR.<unique id>/          being made: whoever finds it may take it away
    DIR/.galleria-<unique id>  made, and not yet in the catalog
    DIR/os.raw|os.qcow2
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import Conflict
from pipeline.model.resources import Disk
from pipeline.ports import Zone

DISKS = "disks"  # the directory beside a zone's own


def workplace(disk: Disk, zone: Zone) -> Path:
    """Where the directory of a new disk is made: what a killed run left there is gone."""
    target = beside(disk) if disk.directory else in_zone(disk, zone)
    remove_directory(target)
    return target


def in_zone(disk: Disk, zone: Zone) -> Path:
    return zone.path / DISKS / disk.unique_id


def beside(disk: Disk) -> Path:
    directory = Path(disk.directory)
    return directory.with_name(f".{directory.name}.{disk.unique_id}")


def mark_of(disk: Disk) -> Path:
    return Path(disk.directory) / f".galleria-{disk.unique_id}"


def unmark(disk: Disk) -> None:
    """The catalog knows the disk's file from now on."""
    if disk.directory:
        mark_of(disk).unlink(missing_ok=True)


def settled(path: Path, disk: Disk) -> Path:
    """Make a disk's new file durable, and put its directory where the user wants it."""
    synced(path)
    directory = path.parent
    if disk.directory:
        (directory / mark_of(disk).name).touch()
        synced(directory)
        try:
            directory.rename(disk.directory)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            raise taken(disk.directory) from None
        directory = Path(disk.directory)
    synced(directory)
    synced(directory.parent)
    return directory.absolute() / path.name


def synced(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def refuse_taken(disk: Disk) -> None:
    """The directory that the user names is to be new, but for what a killed run made of it."""
    if disk.directory and mark_of(disk).exists():
        remove_directory(Path(disk.directory))
    if disk.directory and os.path.lexists(disk.directory):
        raise taken(disk.directory)


def taken(directory: str) -> Conflict:
    return Conflict(
        f"{directory} exists already", hint="name a directory that is to be made for the disk"
    )


def forget_unfinished(disk: Disk, zones: Sequence[Zone]) -> None:
    """Take away what a run made for a disk that it did not finish."""
    for zone in zones:
        remove_directory(in_zone(disk, zone))
    if disk.directory:
        remove_directory(beside(disk))
        if mark_of(disk).exists():
            remove_directory(Path(disk.directory))


def remove_directory(path: Path) -> None:
    """A directory of files; one that is not there is no mistake, and a link may lead anywhere."""
    if path.is_dir() and not path.is_symlink() and not path.parent.is_symlink():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
