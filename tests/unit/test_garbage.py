"""`galleria gc`: what nobody needs goes, what is needed or is not galleria's stays, and each is
said."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.model.garbage import DAY
from tests.home import DEFINE, Session

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

MIB = 1 << 20
UID = "0" * 31 + "a"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Session]:
    for seed in range(4):
        (tmp_path / f"{seed}.raw").write_bytes(bytes([seed + 1]) * MIB + bytes(MIB))
    with Session.begun(tmp_path, GALLERIA_IMMUTABLE="false") as made:
        made.run("init", "--region", "eu=eu")
        made.run("gallery", "create", "corp")
        made.run(*DEFINE)
        yield made


def publish(home: Session, number: int) -> None:
    home.run("publish", f"corp/web/1.0.{number}", "--os-disk", f"{number}.raw")


def bases(home: Session) -> set[str]:
    return {path.name for path in (home.path / "eu/bases").iterdir()}


def collect(home: Session, *options: str) -> dict[str, Any]:
    return home.json("gc", *options)


def freed(document: dict[str, Any], kind: str) -> list[str]:
    return [i["name"] for p in document["places"] for i in p["freed"] if i["kind"] == kind]


def kept(document: dict[str, Any], kind: str) -> dict[str, str]:
    return {
        i["name"]: i["reason"] for p in document["places"] for i in p["kept"] if i["kind"] == kind
    }


def aged(path: Path, days: float) -> Path:
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))
    return path


def loose(home: Session, number: int) -> str:
    """A base that nothing uses: as a run leaves it that is killed before it is committed."""
    before = bases(home)
    publish(home, number)
    (made,) = bases(home) - before
    aside = home.path / "aside"
    (home.path / "eu/bases" / made).rename(aside)
    home.run("version", "delete", f"corp/web/1.0.{number}")
    aside.rename(home.path / "eu/bases" / made)
    return made


def test_what_is_needed_stays_and_is_not_even_told(home: Session) -> None:
    publish(home, 0)
    home.run("snapshot", "create", "1.raw", "-n", "s")
    home.run("disk", "create", "-n", "d", "--source", "2.raw")
    publish(home, 3)
    home.run("deploy", "corp/web/1.0.3", "--region", "eu", "--name", "vm", "--out", "vms")
    before = bases(home)
    home.run("version", "delete", "corp/web/1.0.3")
    assert bases(home) == before  # the VM needs it
    found = collect(home, "--grace", "0s")
    assert bases(home) == before
    assert found["freedBytes"] == 0
    assert list(kept(found, "base").values()) == ["the VM vm"]
    home.run("deployed", "release", "vm")
    assert len(bases(home)) == 3  # at once


def test_a_base_that_nobody_needs_goes_after_the_grace_period(home: Session) -> None:
    publish(home, 0)
    unused = loose(home, 1)
    found = collect(home)
    assert kept(found, "base") == {unused: "it was made just now"}
    found = collect(home, "--dry-run", "--grace", "0s")
    assert (found["dryRun"], freed(found, "base")) == (True, [unused])
    assert found["freedBytes"] >= MIB
    assert unused in bases(home)
    aged(home.path / "eu/bases" / unused, 0.1)
    found = collect(home)
    assert freed(found, "base") == [unused]
    (place,) = (item for item in found["places"] if item["region"] == "eu")
    assert place["freedBytes"] == found["freedBytes"] >= MIB
    assert len(bases(home)) == 1
    home.run("verify", "corp/web/1.0.0")


def test_what_the_catalog_names_stays_though_the_zone_s_record_is_gone(home: Session) -> None:
    publish(home, 0)
    (record,) = (home.path / "eu/versions").iterdir()
    record.rename(home.path / "lost")
    before = bases(home)
    found = collect(home, "--grace", "0s")
    assert bases(home) == before
    assert list(kept(found, "base").values()) == ["corp/web/1.0.0"]


def test_where_it_can_t_be_told_all_bases_stay(home: Session) -> None:
    publish(home, 0)
    unused = loose(home, 1)
    (record,) = (home.path / "eu/versions").glob("*/version.json")
    content = record.read_bytes()
    record.chmod(0o644)
    record.write_bytes(b"rot" + content)
    found = collect(home, "--grace", "0s")
    assert "it can't be told what is needed" in kept(found, "base")["all"]
    assert unused in bases(home)
    record.write_bytes(content)
    assert freed(collect(home, "--grace", "0s"), "base") == [unused]


def test_remains_of_killed_runs_go_and_what_others_put_there_stays(home: Session) -> None:
    token, other = "a" * 32, "b" * 32
    for root in (home.path / "eu/staging", home.path / "state/galleria/work/galleria"):
        root.mkdir(parents=True, exist_ok=True)
        (root / token).mkdir()
        (root / token / "base.raw").write_bytes(b"x" * 9000)
        (root / f"{token}.lock").write_bytes(b"galleria: this directory is being made\n")
        (root / other).mkdir()  # no marked lock
        (root / "notes").write_text("mine")
    found = collect(home, "--dry-run")
    assert (freed(found, "staging"), freed(found, "work")) == ([token], [token])
    assert (home.path / "eu/staging" / token).exists()
    found = collect(home)
    assert (freed(found, "staging"), freed(found, "work")) == ([token], [token])
    assert found["freedBytes"] >= 2 * 9000
    for root in (home.path / "eu/staging", home.path / "state/galleria/work/galleria"):
        assert sorted(path.name for path in root.iterdir()) == [other, "notes"]


def test_quarantine_by_age_and_by_size(home: Session) -> None:
    place = home.path / "eu/quarantine"
    place.mkdir()
    names = [f"{digit * 64}-{digit * 32}" for digit in "abc"]
    for name in names:
        (place / name).mkdir()
        (place / name / "base.raw").write_bytes(b"x" * MIB)
    (place / "mine").mkdir()
    assert freed(collect(home), "quarantine") == []
    home.env["GALLERIA_KEEP_QUARANTINE"] = "0 s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GALLERIA_KEEP_QUARANTINE", "0 s")
        assert freed(collect(home), "quarantine") == names
    assert [path.name for path in place.iterdir()] == ["mine"]


def test_logs_by_age_and_by_size(home: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = home.path / "state/galleria/logs"
    logs.mkdir(parents=True, exist_ok=True)
    for kind, days in (("boot", 91), ("publish", 2), ("replicate", 1)):
        path = logs / f"{kind}-corp+web+1.0.0+{UID}.log"
        path.write_bytes(b"x" * 100_000)
        aged(path, days)
    aged_notes = logs / "notes.log"
    aged_notes.write_text("mine")
    aged(aged_notes, 1000)
    link = logs / f"boot-x+{UID}.log"
    link.symlink_to(aged_notes)
    assert freed(collect(home), "log") == [f"boot-corp+web+1.0.0+{UID}.log"]
    monkeypatch.setenv("GALLERIA_MAX_LOGS", "150 KiB")
    assert freed(collect(home), "log") == [f"publish-corp+web+1.0.0+{UID}.log"]
    assert aged_notes.exists()
    assert link.is_symlink()
    monkeypatch.setenv("GALLERIA_KEEP_LOGS", "forever")
    monkeypatch.setenv("GALLERIA_MAX_LOGS", "1 TiB")
    assert freed(collect(home), "log") == []


def test_a_planted_directory_is_not_followed(home: Session) -> None:
    theirs = home.path / "theirs"
    theirs.mkdir()
    log = aged_file(theirs / f"boot-x+{UID}.log")
    (home.path / "state/galleria/logs").symlink_to(theirs)
    (home.path / "eu/quarantine").symlink_to(theirs)
    assert freed(collect(home), "log") == []
    assert log.exists()


def aged_file(path: Path) -> Path:
    path.write_bytes(b"x")
    return aged(path, 1000)


def test_old_downloads_and_fixtures(home: Session) -> None:
    downloads = home.path / "cache/galleria/downloads"
    downloads.mkdir(parents=True)
    mine = "f" * 64
    for suffix in ("lock", "image", "json"):
        aged_file(downloads / f"{mine}.{suffix}")
    young = "e" * 64
    (downloads / f"{young}.lock").touch()
    fixtures = home.path / "cache/galleria/fixtures"
    fixtures.mkdir()
    aged_file(fixtures / "tree-0123456789abcdef.tar")
    aged_file(fixtures / "letter.tar")
    found = collect(home)
    assert freed(found, "download") == [f"{mine}.lock"]
    assert freed(found, "fixture") == ["tree-0123456789abcdef.tar"]
    assert [path.name for path in downloads.iterdir()] == [f"{young}.lock"]
    assert [path.name for path in fixtures.iterdir()] == ["letter.tar"]


def test_deleting_removes_a_few_old_things_too(home: Session) -> None:
    publish(home, 0)
    log = home.path / "state/galleria/logs" / f"boot-x+{UID}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    aged_file(log)
    home.run("version", "delete", "corp/web/1.0.0")
    assert not log.exists()
    assert bases(home) == set()


def test_it_takes_a_right(home: Session) -> None:
    home.run("principal", "create", "eve")
    home.run("role", "assign", "--assignee", "eve", "--role", "Contributor", "--scope", "/")
    assert "garbage/collect" in str(home.json("--as", "eve", "gc", status=6))


def test_a_time_that_is_none_is_told(home: Session) -> None:
    error = home.json("gc", "--grace", "soon", status=2)["error"]
    assert "'soon' is not a time such as 30min, 12h or 7d" in error["message"]


def test_old_entries_of_the_audit_record_go_if_that_is_wanted(
    home: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(home, 0)
    before = len(home.json("audit", "list")["entries"])
    collect(home)
    assert len(home.json("audit", "list")["entries"]) >= before
    monkeypatch.setenv("GALLERIA_KEEP_AUDIT", "0 s")
    (said,) = freed(collect(home, "--dry-run"), "audit")
    assert len(home.json("audit", "list")["entries"]) >= before
    assert int(said.removesuffix(" entries")) >= before
    assert freed(collect(home), "audit")
    (entry,) = home.json("audit", "list")["entries"]
    assert "entries removed; the record begins after" in entry["details"]
    home.run("audit", "verify")
    publish(home, 1)
    home.run("audit", "verify")
