"""Extents: which runs of a disk are data, and which are known to read as zero without looking."""

from collections.abc import Iterable, Iterator, Sequence

from pipeline.ports.extents import Extent, Kind, Range

SECTOR = 512


def mask_free(extents: Iterable[Extent], free: Iterable[Range]) -> Iterator[Extent]:
    """Turn what lies in `free` into FREE extents. Both inputs are sorted and do not overlap."""
    pending = iter(free)
    hole = next(pending, None)
    for extent in extents:
        position = extent.start
        while hole is not None and hole.end <= position:
            hole = next(pending, None)
        while hole is not None and hole.start < extent.end:
            if position < hole.start:
                yield extent.part(position, hole.start)
                position = hole.start
            end = min(hole.end, extent.end)
            kind = Kind.FREE if extent.kind is Kind.DATA else extent.kind
            yield Extent(position, end - position, kind)
            position = end
            if hole.end > extent.end:
                break
            hole = next(pending, None)
        if position < extent.end:
            yield extent.part(position, extent.end)


def data_bytes(extents: Iterable[Extent]) -> int:
    """Bytes that have to be read, and at most have to be stored."""
    return sum(extent.length for extent in extents if extent.kind is Kind.DATA)


def common(areas: Iterable[Range], others: Sequence[Range]) -> list[Range]:
    """What lies both in `areas` and in `others`. Few of either: every pair is looked at."""
    found = []
    for area in areas:
        for other in others:
            start, end = max(area.start, other.start), min(area.end, other.end)
            if start < end:
                found.append(Range(start, end - start))
    return found


def without(areas: Iterable[Range], others: Sequence[Range]) -> list[Range]:
    """What of `areas` does not lie in `others`, which may overlap. Few of either."""
    left = list(areas)
    for other in others:
        pieces = []
        for area in left:
            if area.start < min(other.start, area.end):
                pieces.append(Range(area.start, min(other.start, area.end) - area.start))
            if max(other.end, area.start) < area.end:
                start = max(other.end, area.start)
                pieces.append(Range(start, area.end - start))
        left = pieces
    return left


def join(areas: list[Range], area: Range) -> None:
    """Append a range, made one with the last if it touches it."""
    if areas and areas[-1].end == area.start:
        areas[-1] = Range(areas[-1].start, areas[-1].length + area.length)
    else:
        areas.append(area)
