"""What can be asked of any file system, without mounting one. Real ones are in tests/system."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from adapters.filesystem import calls, fiemap, profile

MIB = 1 << 20


def test_blocks_count_where_extents_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ioctl(*_: Any) -> int:
        raise OSError(errno.EOPNOTSUPP, "no FIEMAP here")

    path = tmp_path / "file"
    path.write_bytes(os.urandom(MIB))
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert fiemap.allocated_bytes([path, path]) == 2 * path.stat().st_blocks * 512


def test_a_hole_is_not_counted_and_a_lost_file_neither(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(os.urandom(MIB))
        file.truncate(1 << 30)
    assert MIB <= fiemap.allocated_bytes([path, tmp_path / "gone"]) < 2 * MIB
    # a file twice is a file once: its blocks are the same
    assert fiemap.allocated_bytes([path, path]) == fiemap.allocated_bytes([path])


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_real_error_is_not_taken_for_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def ioctl(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "file"
    path.write_bytes(b"x")
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with pytest.raises(OSError, match=os.strerror(number)):
        calls.clone(path, tmp_path / "clone")
    with pytest.raises(OSError, match=os.strerror(number)):
        fiemap.allocated_bytes([path])
    with pytest.raises(OSError, match=os.strerror(number)):
        calls.set_immutable(path, on=True)


def test_a_punched_hole_reads_as_zero_and_keeps_the_length(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = os.urandom(MIB)
    path.write_bytes(content)
    with path.open("r+b") as file:
        if not calls.punch_hole(file.fileno(), 4096, 65536):
            pytest.skip("this file system has no holes")
        with pytest.raises(OSError, match="Bad file descriptor"):
            calls.punch_hole(-1, 0, 4096)
    assert path.read_bytes() == content[:4096] + bytes(65536) + content[4096 + 65536 :]


def test_a_clone_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 4096)
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        calls.clone(tmp_path / "file", tmp_path / "link")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_directory_that_cannot_be_written_is_not_probed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        profile.probe(tmp_path / "absent")
