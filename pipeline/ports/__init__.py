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
    VolumeState,
)
from pipeline.ports.host import Meter, Progress, TransferStats, Work
from pipeline.ports.images import Chain, ImageFacts, Images, Layer, Pin, Pins, Sink, Source
from pipeline.ports.zones import (
    BaseStaging,
    Leaning,
    Replica,
    ReplicaDisk,
    StoredBase,
    VersionRecord,
    Zone,
)

__all__ = [
    "BaseStaging",
    "Chain",
    "FileStat",
    "FreeSpace",
    "Guest",
    "GuestFacts",
    "GuestHost",
    "GuestSession",
    "ImageFacts",
    "ImageFormat",
    "Images",
    "Layer",
    "Leaning",
    "Meter",
    "Package",
    "Pin",
    "Pins",
    "Progress",
    "Replica",
    "ReplicaDisk",
    "Sink",
    "Source",
    "StoredBase",
    "TransferStats",
    "VersionRecord",
    "VolumeState",
    "Work",
    "Zone",
]
