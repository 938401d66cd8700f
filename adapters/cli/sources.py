"""What a version is made from, as the command line and build specs name it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adapters.cli import arguments
from pipeline.sources import AnySource, Backing, DiskSource, parse_disk

if TYPE_CHECKING:
    from adapters.spec import SourceDisks

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.option("--os-disk", metavar="FILE[@SNAPSHOT]", help="The OS disk."),
    click.option(
        "--data-disk",
        "data_disks",
        multiple=True,
        metavar="LUN=FILE[@SNAPSHOT]",
        help="A data disk (repeatable).",
    ),
    click.option(
        "--backing",
        "backing",
        multiple=True,
        metavar="[LUN=]FILE",
        help="A file below the OS disk, or below a data disk (repeatable, the bottom last).",
    ),
)


def source_options(command: F) -> F:
    """The options that say what a version is made from."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def sources_of(values: Mapping[str, Any]) -> tuple[AnySource, ...]:
    """The sources that the options name."""
    backing = arguments.backing_files(values["backing"])
    disks = [
        *([parse_disk(values["os_disk"])] if values["os_disk"] else []),
        *(parse_disk(file, lun) for lun, file in arguments.lun_files(values["data_disks"]).items()),
    ]
    unknown = set(backing) - {disk.lun for disk in disks}
    if unknown:
        names = ", ".join("the OS disk" if lun is None else f"LUN {lun}" for lun in unknown)
        raise click.UsageError(f"--backing: there is no disk for {names}")
    return tuple(_over(disk, backing.get(disk.lun, ())) for disk in disks)


def spec_sources(source: "SourceDisks") -> tuple[AnySource, ...]:
    """The sources that a build spec names."""
    return (
        _over(parse_disk(source.os_disk), source.os_disk_backing),
        *(_over(parse_disk(disk.path, disk.lun), disk.backing) for disk in source.data_disks),
    )


def _over(disk: DiskSource, files: Sequence[str]) -> DiskSource:
    return replace(disk, backing=tuple(Backing(Path(file)) for file in files))
