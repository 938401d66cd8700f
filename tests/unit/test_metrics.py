"""`galleria metrics`: Prometheus's own reader takes the text, and the numbers are right."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.gallery.metrics import Metric, text
from tests.home import DEFINE, Session

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "d.raw").write_bytes(b"x" * (1 << 20) + bytes(1 << 20))
    with Session.begun(tmp_path, GALLERIA_IMMUTABLE="false") as made:
        made.run("init", "--region", "eu=eu", "--region", "UK South=us")
        made.run("gallery", "create", "corp")
        made.run(*DEFINE)
        made.run("publish", "corp/web/1.0.0", "--os-disk", "d.raw")
        yield made


def numbers(shown: str) -> Numbers:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
    }


def test_what_there_is_in_numbers(home: Session) -> None:
    home.run("deploy", "corp/web/1.0.0", "--region", "eu", "--name", "vm", "--out", "vms")
    home.run("snapshot", "create", "d.raw", "-n", "s")
    found = numbers(home.run("metrics").stdout)
    assert found["galleria_galleries", ()] == 1
    assert found["galleria_definitions", ()] == 1
    assert found["galleria_versions", (("state", "Succeeded"),)] == 1
    completed = (("region", "eu"), ("state", "Completed"))
    assert found["galleria_version_regions", completed] == 1
    assert found["galleria_resources", (("kind", "snapshot"),)] == 1
    assert found["galleria_resources", (("kind", "disk"),)] == 0
    assert found["galleria_deployed_vms", (("region", "eu"),)] == 1
    assert found["galleria_deployed_vms_unfinished", ()] == 0
    assert found["galleria_runs", (("kind", "publish"), ("state", "Succeeded"))] == 1
    eu = (("region", "eu"), ("zone", str(home.path / "eu")))
    assert found["galleria_zone_allocated_bytes", eu] >= 1 << 20
    assert found["galleria_zone_free_bytes", eu] > 0
    assert found["galleria_zone_usable", eu] == 1
    assert found["galleria_audit_entries", ()] > 3


def test_a_zone_that_is_gone_and_a_failure_show(home: Session) -> None:
    (home.path / "eu").rename(home.path / "away")
    home.run("publish", "corp/web/1.0.1", "--os-disk", "d.raw", status=3)
    found = numbers(home.run("metrics").stdout)
    eu = (("region", "eu"), ("zone", str(home.path / "eu")))
    assert found["galleria_zone_usable", eu] == 0
    assert ("galleria_zone_free_bytes", eu) not in found
    assert found["galleria_runs", (("kind", "publish"), ("state", "Failed"))] == 1


def test_scrubs_show(home: Session) -> None:
    home.run("scrub")
    found = numbers(home.run("metrics").stdout)
    eu = (("region", "eu"), ("zone", str(home.path / "eu")))
    assert found["galleria_scrub_problems", eu] == 0
    last = found["galleria_scrub_last_timestamp_seconds", eu]
    assert 1.7e9 < found["galleria_scrub_oldest_timestamp_seconds", eu] <= last < 2.5e9


def test_a_file_is_replaced_as_a_whole(home: Session) -> None:
    out = home.path / "galleria.prom"
    out.write_text("old")
    before = out.stat().st_ino
    made = home.json("metrics", "--out", "galleria.prom")
    assert made["file"] == "galleria.prom"
    assert out.stat().st_ino != before
    assert [path.name for path in home.path.glob("*prom*")] == ["galleria.prom"]
    said = {item["name"] for item in made["metrics"] if item["samples"]}
    assert {name for name, _ in numbers(out.read_text())} == said


def test_any_label_is_read_back() -> None:
    for value in ('a"b', "back\\slash", "new\nline", "\udcff", "{}=,", "\u202e"):
        shown = text([Metric("m", "Help.", (({"zone": value}, 1.5),))])
        ((_, labels),) = numbers(shown)
        (read,) = dict(labels).values()
        assert read == value.encode("utf-8", "backslashreplace").decode()


def test_it_takes_a_right(home: Session) -> None:
    home.run("principal", "create", "eve")
    home.run("role", "assign", "--assignee", "eve", "--role", "Reader", "--scope", "corp")
    assert "metrics/read" in str(home.json("--as", "eve", "metrics", status=6))
