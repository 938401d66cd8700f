"""Where the time of a job went: what a record keeps of it."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from adapters.cli.version import stats_text
from adapters.process.usage import cpu_seconds
from pipeline.jobs.timing import Record
from pipeline.ports import Meter, TransferStats


class Told:
    def __init__(self) -> None:
        self.said: list[str] = []

    @contextmanager
    def stage(self, name: str, total: int = 0, unit: str = "B") -> Iterator[Meter]:
        self.said.append(f"{name} {total} {unit}")
        yield self

    def advance(self, amount: int) -> None:
        self.said.append(f"+{amount}")

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(f"! {message}")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def record(told: Told) -> Record:
    """Its CPU goes on by a second whenever it is asked."""
    counter = itertools.count()
    return Record(told, lambda: float(next(counter)))


def test_progress_goes_through(record: Record, told: Told) -> None:
    with record.stage("convert os", 5, "chunk") as meter:
        meter.advance(3)
    record.note("so far")
    record.warn("but")
    assert told.said == ["convert os 5 chunk", "+3", "so far", "! but"]


def test_stages_add_up_and_inner_ones_are_part_of_outer_ones(record: Record) -> None:
    for _ in range(2):
        with record.timed("store"), record.stage("convert os"):
            pass
    with record.stage("generalize"):
        pass
    document = record.document()
    assert [(one["name"], one["cpuSeconds"]) for one in document["stages"]] == [
        ("store", 2.0),
        ("generalize", 1.0),
    ]
    assert document["cpuSeconds"] == 7.0
    assert all(one["wallSeconds"] >= 0 for one in document["stages"])


def test_a_stage_that_fails_is_measured_too(record: Record) -> None:
    with pytest.raises(ValueError, match="broken"), record.timed("store"):
        raise ValueError("broken")
    with record.timed("replicate"):
        pass
    assert [one["name"] for one in record.document()["stages"]] == ["store", "replicate"]


def test_bytes_of_every_zone_are_summed(record: Record) -> None:
    stats = TransferStats(
        100, 40, 60, written={"eu": 30, "us": 10}, kept={"us": 20}, cloned={"ap": 40}
    )
    record.moved("store", stats)
    record.moved("store", stats)
    (stage,) = record.document()["stages"]
    moved = {name: value for name, value in stage.items() if name.startswith("bytes")}
    assert moved == {
        "bytesRead": 80,
        "bytesWritten": 80,
        "bytesCloned": 80,
        "bytesSkipped": 160,
    }


def test_people_see_a_line_a_stage_and_the_whole(record: Record) -> None:
    with record.timed("inspect"):
        pass
    record.moved("store", TransferStats(8 << 20, 2 << 20, 6 << 20, written={"eu": 2 << 20}))
    header, inspect, store, whole = stats_text(record.document()).splitlines()
    assert header.split() == ["STAGE", "TIME", "CPU", "READ", "WRITTEN", "CLONED", "SKIPPED"]
    assert inspect.split() == ["inspect", "0.0s", "1.0s", "-", "-", "-", "-"]
    assert store.split()[3:] == ["2", "MiB", "2", "MiB", "-", "6", "MiB"]
    assert whole.split()[0] == "all"
    assert stats_text({}) == ""


def test_the_cpu_of_a_process_only_grows() -> None:
    before = cpu_seconds()
    sum(range(100_000))
    assert cpu_seconds() > before
