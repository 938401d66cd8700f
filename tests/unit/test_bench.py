"""How the benchmark makes figures of runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.bench.data import TINY, changes, data_blocks, digest_of
from tests.bench.judging import figures
from tests.bench.report import markdown
from tests.bench.rows import Measure, cells, select


def runs(walls: Sequence[float], **other: object) -> list[dict[str, Any]]:
    return [
        {"wall": wall, "cpu": 0.1, "stored": None, "peak": None, "profile": {}, **other}
        for wall in walls
    ]


def cell(name: str, **timings: list[dict[str, Any]]) -> dict[str, Any]:
    spelt = {key.replace("_", " "): value for key, value in timings.items()}
    return {"cell": name, "timings": spelt, "notes": [], "title": name}


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    record = cell("raw@xfs", galleria=runs([1, 2, 9]), **{"qemu-img": runs([4, 4, 10])})
    (figure,) = figures(record)
    assert (figure.value, figure.low, figure.high) == (0.5, 0.25, 0.9)
    assert (figure.ours, figure.theirs) == (2, 4)
    assert figure.met


def test_a_rate_is_to_be_at_least_so_high() -> None:
    record = cell("scrub@xfs", galleria=runs([2.0]), O_DIRECT_read=runs([1.0]))
    record["timings"] = {"galleria": runs([2.0]), "O_DIRECT read": runs([1.0])}
    (figure,) = figures(record)
    assert figure.value == 0.5
    assert not figure.met


def test_bytes_and_time_are_judged_apart() -> None:
    full = runs([10.0], stored=1000)
    (time, stored) = figures(cell("next-3@xfs", galleria=runs([1.0], stored=80), full_publish=full))
    assert (time.limit.measure, time.met) == (Measure.RATIO, True)
    assert (stored.limit.measure, stored.value, stored.met) == (Measure.BYTES, 0.08, False)


def test_a_peer_that_is_slow_is_run_once_and_compared_with_every_round() -> None:
    record = cell(
        "next-15@xfs",
        galleria=runs([1.0, 2.0, 3.0], stored=10),
        rsync=runs([20.0], stored=10),
    )
    found = figures(record)
    assert {figure.limit.peer for figure in found} == {"rsync"}
    assert found[0].value == 0.1


def test_memory_is_the_worst_of_all_rounds() -> None:
    record = cell("raw@xfs", galleria=runs([1.0], peak=97 << 20), **{"qemu-img": runs([4.0])})
    memory = figures(record)[-1]
    assert memory.limit.measure is Measure.MEMORY
    assert not memory.met


def test_every_row_is_in_a_quick_run_once() -> None:
    quick, every = cells(quick=True), cells(quick=False)
    assert {row.key for row, _ in every.values() if row.quick} == {k.split("@")[0] for k in quick}
    assert len(quick) == len({row.key for row, _ in quick.values()})
    assert {system for _, system in quick.values()} == {"xfs", "ext4", "btrfs"}


def test_rows_are_selected_by_name() -> None:
    assert set(select("raw", quick=False)) == {"raw@xfs", "raw@ext4", "raw@btrfs"}
    assert set(select("raw,qcow2@btrfs", quick=True)) == {"raw@xfs", "qcow2@btrfs"}
    with pytest.raises(SystemExit, match="no row 'row'"):
        select("row", quick=True)


def test_nothing_measured_is_said() -> None:
    assert "Nothing" in markdown([], {})


def test_changes_are_counted_by_grain(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    content = bytearray(b"x" * (3 << 20))
    old.write_bytes(content)
    content[1 << 20] = 0
    content[(1 << 20) + 300_000] = 0
    new.write_bytes(content)
    found = changes(old, new)
    assert found == {"4096": 8192, "65536": 131072, "262144": 524288, "1048576": 1048576}


def test_a_digest_does_not_depend_on_holes(tmp_path: Path) -> None:
    full, holes = tmp_path / "full", tmp_path / "holes"
    full.write_bytes(bytes(1 << 20) + b"a" * 70_000 + bytes((1 << 20) - 70_000))
    with holes.open("wb") as file:
        file.seek(1 << 20)
        file.write(b"a" * 70_000)
        file.truncate(2 << 20)
    assert digest_of(full) == digest_of(holes)
    assert digest_of(full)["data"] == 2 * 65536
    with holes.open("rb") as file:  # data that begins within a block of a hole
        assert [at for at, _ in data_blocks(file.fileno(), 2 << 20, 256 << 10)] == [1 << 20]
    assert TINY.packages is None
