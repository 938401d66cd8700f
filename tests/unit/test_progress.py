"""Progress off a terminal, for machines and as bars: what is written, and from many threads."""

import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from adapters.progress import JsonProgress, Mode, PlainProgress, open_progress
from adapters.progress.bars import BarProgress

MIB = 1 << 20


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_plain_says_a_line_per_tenth(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainProgress(stream).stage("convert os", 100 * MIB) as meter:
        for _ in range(100):
            clock.now += 0.2
            meter.advance(MIB)
    lines = stream.getvalue().splitlines()
    assert [re.search(r"(\d+) %", line) and int(line.split()[2]) for line in lines[:-1]] == list(
        range(10, 100, 10)
    )
    assert lines[0] == "convert os:  10 %  10 MiB of 100 MiB, 5 MiB/s"
    assert lines[-1] == "convert os: 100 MiB done in 20s"


def test_plain_says_a_line_per_fifteen_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainProgress(stream).stage("upload") as meter:
        for _ in range(46):
            clock.now += 1
            meter.advance(MIB)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "upload: 15 MiB, 1 MiB/s",
        "upload: 30 MiB, 1 MiB/s",
        "upload: 45 MiB, 1 MiB/s",
        "upload: 46 MiB done in 46s",
    ]


def test_plain_says_one_line_of_a_stage_that_takes_no_time(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainProgress(stream).stage("hash os", 100 * MIB) as meter:
        for _ in range(100):
            clock.now += 0.005
            meter.advance(MIB)
    assert stream.getvalue() == "hash os: 100 MiB done in 0.5s\n"


def test_plain_counts_steps_too(clock: Clock) -> None:
    stream = io.StringIO()
    with PlainProgress(stream).stage("generalize", 3, "step") as meter:
        for _ in range(3):
            clock.now += 2
            meter.advance(1)
    assert stream.getvalue().splitlines() == [
        "generalize:  33 %  1 of 3 steps",
        "generalize:  66 %  2 of 3 steps",
        "generalize: 3 steps done in 6.0s",
    ]


def test_a_failed_stage_is_not_done() -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError), PlainProgress(stream).stage("hash"):
        raise RuntimeError
    assert "done" not in stream.getvalue()


def test_quiet_leaves_warnings_alone() -> None:
    stream = io.StringIO()
    quiet = PlainProgress(stream, quiet=True)
    with quiet.stage("hash", 10) as meter:
        meter.advance(10)
    quiet.note("nothing")
    quiet.warn("bad \x1b[31m news")
    assert stream.getvalue() == "galleria: warning: bad \\x1b[31m news\n"


def test_json_lines(clock: Clock) -> None:
    stream = io.StringIO()
    reported = JsonProgress(stream)
    with reported.stage("hash", 3 * MIB) as meter:
        for _ in range(3):
            clock.now += 1.5
            meter.advance(MIB)
    reported.warn("x\x1b")
    with pytest.raises(RuntimeError), reported.stage("wait", 2, "regions"):
        raise RuntimeError
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == [
        *("started", "progress", "progress", "progress", "finished"),
        *("warning", "started", "failed"),
    ]
    assert {event["schemaVersion"] for event in events} == {1}
    assert [event.get("done") for event in events[:5]] == [0, MIB, 2 * MIB, 3 * MIB, 3 * MIB]
    assert events[4]["total"] == 3 * MIB
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("kind", [PlainProgress, JsonProgress, BarProgress])
def test_regions_report_at_the_same_time(
    kind: type[PlainProgress] | type[JsonProgress] | type[BarProgress],
) -> None:
    stream = io.StringIO()
    reported = kind(stream)
    ready = threading.Barrier(4)

    def region(index: int) -> None:
        with reported.stage(f"region {index}", 8000) as meter:
            ready.wait()
            for _ in range(8000):
                meter.advance(1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(region, range(4)))
    text = stream.getvalue()
    for index in range(4):
        assert f"region {index}" in text
    if kind is PlainProgress:
        assert sum("7.81 KiB done in" in line for line in text.splitlines()) == 4
    if kind is JsonProgress:
        finished = [json.loads(line) for line in text.splitlines() if '"finished"' in line]
        assert [event["done"] for event in finished] == [8000] * 4
    if kind is BarProgress:
        assert text.count("100%") >= 4


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_job_outlives_whoever_watched_it() -> None:
    with PlainProgress(Gone()).stage("hash", 10) as meter:
        meter.advance(10)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_which_progress_is_chosen() -> None:
    assert isinstance(open_progress(Mode.AUTO, io.StringIO()), PlainProgress)
    assert isinstance(open_progress(Mode.AUTO, Terminal()), BarProgress)
    assert isinstance(open_progress(Mode.JSON, Terminal()), JsonProgress)
    silent = io.StringIO()
    with open_progress(Mode.NONE, silent).stage("hash", 1) as meter:
        meter.advance(1)
    assert silent.getvalue() == ""
