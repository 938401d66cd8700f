"""Text for people: hostile strings made harmless, sizes, durations, dates and plain tables."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pipeline.data.text import printable

__all__ = [
    "bytes_text",
    "day_text",
    "end_of_life_text",
    "fields",
    "minute_text",
    "printable",
    "seconds_text",
    "table",
]

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def bytes_text(count: float) -> str:
    """ "3.1 GiB"; exact below 1 KiB, three digits above."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in UNITS[1:]:
        count /= 1024
        if count < 1023.95 or unit == UNITS[-1]:
            break
    return f"{count:.0f} {unit}" if count >= 99.95 else f"{count:.3g} {unit}"


def seconds_text(seconds: float) -> str:
    """ "0.4s", "12s", "1m16s", "2h05m"."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def day_text(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d}"


def minute_text(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}Z"


def end_of_life_text(end: datetime | None) -> str:
    """The day, and whether it is past."""
    return day_text(end) + (" (past)" if end is not None and end <= datetime.now(UTC) else "")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Left-aligned columns, two blanks apart; numbers and sizes to the right. Cells are escaped."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    right = [
        bool(cells)
        and all(row[column][:1].isdigit() or row[column] in ("", "-") for row in cells)
        and any(row[column][:1].isdigit() for row in cells)
        for column in range(len(header))
    ]
    lines = [list(header), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def fields(items: Sequence[tuple[str, object]]) -> str:
    """A line for each name and value; what has no value is left out. Values are escaped."""
    shown = [(name, printable(str(value))) for name, value in items if str(value)]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)
