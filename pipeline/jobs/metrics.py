"""Numbers about the catalog and the zones, for those who watch them."""

from pipeline.gallery.metrics import Labels, Metric
from pipeline.jobs.context import JobContext
from pipeline.ports import Zone


def measure(context: JobContext) -> list[Metric]:
    """What there is, as numbers."""
    zones = [zone for places in context.zones.values() for zone in places]
    there = [zone for zone in zones if not zone.unusable]
    return [
        *context.records.metrics(),
        Metric(
            "galleria_zone_usable",
            "Whether a zone can be used.",
            tuple((_labels(zone), float(not zone.unusable)) for zone in zones),
        ),
        Metric(
            "galleria_zone_allocated_bytes",
            "What a zone's files occupy; shared blocks are counted once.",
            tuple((_labels(zone), zone.allocated_bytes()) for zone in there),
        ),
        Metric(
            "galleria_zone_free_bytes",
            "Room on a zone's file system.",
            tuple((_labels(zone), zone.free_bytes()) for zone in there),
        ),
    ]


def _labels(zone: Zone) -> Labels:
    return {"region": zone.region, "zone": str(zone.path)}
