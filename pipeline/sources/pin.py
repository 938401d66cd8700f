"""Pin: hold one point in time of the sources, and let the run read only that."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.ports import Pin, Pins
from pipeline.sources.ingest import Disk


@contextmanager
def pin_disks(
    disks: Sequence[Disk], work: Path, pins: Pins
) -> Iterator[tuple[tuple[Disk, ...], Pin]]:
    """The same disks, read from the pinned files; `Pin.verify` tells whether they held still."""
    with pins.pin([disk.chain for disk in disks], work) as pin:
        pinned = tuple(
            replace(disk, chain=chain) for disk, chain in zip(disks, pin.chains, strict=True)
        )
        yield pinned, pin
