"""What the jobs need from outside, in one hand."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.boot import Boots
from pipeline.gallery.model import ImageVersion
from pipeline.gallery.service import GalleryService
from pipeline.placement import Zones
from pipeline.ports import GuestHost, Images, Pins, Progress, Work
from pipeline.sources import Sources


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that the jobs need from outside. `logs` is where what background
    processes and booted machines say is kept. `later` replicates a version in the background;
    `begun` is told of a version when its rules have passed and its number is taken."""

    gallery: GalleryService
    sources: Sources
    images: Images
    pins: Pins
    guests: GuestHost
    boots: Boots
    zones: Zones
    work: Work
    logs: Path
    progress: Progress
    later: Callable[[ImageVersion], None]
    begun: Callable[[ImageVersion], None] = lambda _: None
    zrs_same_filesystem: bool = False
