"""What the pipeline needs from outside. Adapters implement these; tests have in-memory doubles of
them.

Sizes and offsets are bytes. A call either does all it was asked or raises a GalleriaError or
OSError.
"""

from pipeline.model.images import ImageFormat
from pipeline.ports.guests import (
    FileStat,
    FreeSpace,
    Guest,
    GuestFacts,
    GuestHost,
    GuestSession,
    Package,
    Unmounted,
    VolumeState,
)
from pipeline.ports.host import Files, Meter, Progress, TransferStats, Work
from pipeline.ports.images import Chain, ImageFacts, Images, Layer, Pin, Pins, Sink, Source
from pipeline.ports.zones import (
    BaseStaging,
    Replica,
    ReplicaDisk,
    ShallowDisk,
    StoredBase,
    VersionRecord,
    Zone,
)

__all__ = [
    "BaseStaging",
    "Chain",
    "FileStat",
    "Files",
    "FreeSpace",
    "Guest",
    "GuestFacts",
    "GuestHost",
    "GuestSession",
    "ImageFacts",
    "ImageFormat",
    "Images",
    "Layer",
    "Meter",
    "Package",
    "Pin",
    "Pins",
    "Progress",
    "Replica",
    "ReplicaDisk",
    "ShallowDisk",
    "Sink",
    "Source",
    "StoredBase",
    "TransferStats",
    "Unmounted",
    "VersionRecord",
    "VolumeState",
    "Work",
    "Zone",
]
