"""What tells a file, as it now is, from another."""

from pathlib import Path

from pipeline.gallery import rules
from pipeline.model.sources import DiskSource


def file_identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to or replaced. Raises NotFound."""
    try:
        found = path.stat()
    except OSError as error:
        why = error.strerror or "it can't be read"
        gone = isinstance(error, FileNotFoundError)
        raise rules.source_missing(path, why, gone=gone) from error
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def disk_identity(disk: DiskSource) -> tuple[object, ...]:
    """As `file_identity`, for every layer of a disk."""
    files = tuple(file_identity(layer.path) for layer in disk.layers)
    return (disk.lun, disk.internal_snapshot, *files)
