"""Where blocks are said to be, by scripted answers of FIEMAP. Real ones are in tests/system."""

from pathlib import Path

import pytest

from adapters.filesystem import calls, fiemap
from adapters.filesystem.fiemap import BlockMap, Piece

UNWRITTEN, SHARED, LAST, ENCODED = 0x800, 0x2000, 0x1, 0x8
K = 4096


def block_map(monkeypatch: pytest.MonkeyPatch, *pieces: Piece) -> BlockMap:
    monkeypatch.setattr(fiemap, "pieces", lambda _: iter(pieces))
    return BlockMap(0)


def test_pieces_that_go_on_are_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = block_map(
        monkeypatch,
        Piece(0, 2 * K, 100 * K, SHARED),
        Piece(2 * K, K, 102 * K, 0),
        Piece(3 * K, K, 7 * K, LAST),
    )
    assert found.runs(0, 4 * K) == [(0, 3 * K, 100 * K), (3 * K, K, 7 * K)]
    assert found.runs(K + 512, 2 * K) == [
        (0, 2 * K - 512, 101 * K + 512),
        (2 * K - 512, 512, 7 * K),
    ]


def test_a_hole_is_told_from_blocks_that_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = block_map(monkeypatch, Piece(0, 2 * K, 100 * K, 0), Piece(2 * K, K, 9 * K, LAST))
    holed = block_map(monkeypatch, Piece(0, K, 100 * K, 0), Piece(2 * K, K, 9 * K, LAST))
    assert whole.runs(0, 3 * K) != holed.runs(0, 3 * K)
    assert holed.runs(0, 3 * K) == [(0, K, 100 * K), (2 * K, K, 9 * K)]
    assert holed.runs(K, K) == [] == holed.runs(3 * K, K)
    assert block_map(monkeypatch).runs(0, K) == []


@pytest.mark.parametrize("flags", [UNWRITTEN, ENCODED, 0x2, 0x4, 0x80, 0x100, 0x200, 0x400])
def test_blocks_that_hold_something_else_say_nothing(
    monkeypatch: pytest.MonkeyPatch, flags: int
) -> None:
    """Unwritten, compressed, unknown, not allocated yet, encrypted, unaligned, inline, a tail."""
    found = block_map(monkeypatch, Piece(0, K, K, 0), Piece(K, K, 2 * K, flags | SHARED | LAST))
    assert found.runs(0, K) == [(0, K, K)]
    assert found.runs(0, K + 1) is None
    assert found.runs(K, K) is None


def test_where_nobody_promises_one_device_there_is_no_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * K)
    monkeypatch.setattr(calls, "kind", lambda _: "bcachefs")
    with path.open("rb") as file:
        assert fiemap.block_map(path, file.fileno()) is None
    monkeypatch.setattr(calls, "kind", lambda _: "xfs")
    monkeypatch.setattr(fiemap, "_realtime", lambda _: True)
    with path.open("rb") as file:
        assert fiemap.block_map(path, file.fileno()) is None


def test_a_file_in_too_many_pieces_has_no_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fiemap, "MAX_PIECES", 2)
    monkeypatch.setattr(calls, "kind", lambda _: "xfs")
    monkeypatch.setattr(fiemap, "_realtime", lambda _: False)
    monkeypatch.setattr(fiemap, "pieces", lambda _: iter([Piece(n, 1, n, 0) for n in range(3)]))
    assert fiemap.block_map(tmp_path, 0) is None
