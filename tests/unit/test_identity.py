"""What tells a source from another, and does not depend on where it lies."""

import os
import shutil
from pathlib import Path

import pytest

from adapters.filesystem.identity import file_identity
from pipeline.errors import NotFound


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "d.raw"
    path.write_bytes(os.urandom(3 << 20))
    return path


def test_the_same_file_elsewhere_is_the_same(disk: Path, tmp_path: Path) -> None:
    """A copy has another inode, change time and perhaps device, as a file has on another host."""
    other = tmp_path / "elsewhere" / "other.raw"
    other.parent.mkdir()
    shutil.copy2(disk, other)
    assert other.stat().st_ino != disk.stat().st_ino
    assert file_identity(other) == file_identity(disk)


@pytest.mark.parametrize("position", [0, (3 << 20) - 1])
def test_other_content_of_the_same_length_and_time_is_another(disk: Path, position: int) -> None:
    before, times = file_identity(disk), disk.stat()
    with disk.open("r+b") as file:
        file.seek(position)
        old = file.read(1)
        file.seek(position)
        file.write(bytes([old[0] ^ 1]))
    os.utime(disk, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file_identity(disk) != before


def test_another_time_or_length_is_another(disk: Path) -> None:
    before = file_identity(disk)
    os.utime(disk, ns=(0, 1))
    touched = file_identity(disk)
    os.truncate(disk, (3 << 20) + 512)
    os.utime(disk, ns=(0, 1))
    assert len({before, touched, file_identity(disk)}) == 3


def test_empty_and_absent_files(tmp_path: Path) -> None:
    (tmp_path / "e").touch()
    assert file_identity(tmp_path / "e")[0] == 0
    with pytest.raises(NotFound):
        file_identity(tmp_path / "none")
