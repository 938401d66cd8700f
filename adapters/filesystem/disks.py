"""Where the files of managed disks are made (the `DiskDirectories` port).

A directory that the user names is made beside it, under a name that nobody else uses, and renamed
when it is whole; until the catalog knows the file, a mark in it says whose it is:

    .DIR.<unique id>/          being made: whoever finds it may take it away
    DIR/.galleria-<unique id>  made, and not yet in the catalog
    DIR/os.raw|os.qcow2
"""

import os
from collections.abc import Sequence
from pathlib import Path

from adapters.filesystem import durable, modes
from pipeline.errors import Conflict
from pipeline.model.resources import Disk
from pipeline.ports import Zone
from pipeline.ports.disks import DiskDirectories

DISKS = "disks"  # the directory beside a zone's own


class HostDiskDirectories:
    """`group`: who may use the disks beside the user; None: whoever the directory is for."""

    def __init__(self, group: int | None = None) -> None:
        self._group = group

    def begin(self, disk: Disk, zone: Zone) -> Path:
        target = _beside(disk) if disk.directory else _in_zone(disk, zone)
        _remove_directory(target)
        group = self._group if disk.directory else modes.group_of(zone.path)
        modes.make_directories(target.parent, group)
        return target

    def create_empty(self, directory: Path, length: int) -> Path:
        directory.mkdir(mode=modes.DIRECTORY)
        path = directory / "os.raw"
        with path.open("xb") as file:
            file.truncate(length)
        return path

    def commit(self, file: Path, disk: Disk) -> Path:
        directory = file.parent
        group = self._group if disk.directory else None
        modes.give(directory, modes.group_of(directory.parent) if group is None else group)
        durable.sync_file(file)
        if disk.directory:
            (directory / _mark(disk).name).touch()
            durable.sync_directory(directory)
            try:
                durable.rename_new(directory, Path(disk.directory))
            except (FileExistsError, NotADirectoryError):
                raise _taken(disk.directory) from None
            directory = Path(disk.directory)
        durable.sync_directory(directory)
        durable.sync_directory(directory.parent)
        return directory.absolute() / file.name

    def recorded(self, disk: Disk) -> None:
        if disk.directory:
            _mark(disk).unlink(missing_ok=True)

    def check_new(self, disk: Disk) -> None:
        if disk.directory and _mark(disk).exists():
            _remove_directory(Path(disk.directory))
        if disk.directory and os.path.lexists(disk.directory):
            raise _taken(disk.directory)

    def forget_unfinished(self, disk: Disk, zones: Sequence[Zone]) -> None:
        for zone in zones:
            _remove_directory(_in_zone(disk, zone))
        if disk.directory:
            _remove_directory(_beside(disk))
            if _mark(disk).exists():
                _remove_directory(Path(disk.directory))

    def exists(self, disk: Disk) -> bool:
        return disk.file is not None and Path(disk.file.path).exists()

    def remove(self, disk: Disk) -> None:
        if disk.file is None:
            return
        path = Path(disk.file.path)
        path.unlink(missing_ok=True)
        self.recorded(disk)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _in_zone(disk: Disk, zone: Zone) -> Path:
    return zone.path / DISKS / disk.unique_id


def _beside(disk: Disk) -> Path:
    directory = Path(disk.directory)
    return directory.with_name(f".{directory.name}.{disk.unique_id}")


def _mark(disk: Disk) -> Path:
    return Path(disk.directory) / f".galleria-{disk.unique_id}"


def _taken(directory: str) -> Conflict:
    return Conflict(
        f"{directory} exists already", hint="name a directory that is to be made for the disk"
    )


def _remove_directory(path: Path) -> None:
    """A directory of files; one that is not there is no mistake, and a link may lead anywhere."""
    if path.is_dir() and not path.is_symlink() and not path.parent.is_symlink():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()


_: type[DiskDirectories] = HostDiskDirectories
