"""Backups of the catalog: made while it is used, refused where they are not one, put in place."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.home import DEFINE, GALLERIA, Session, deletable

pytestmark = pytest.mark.timeout(180)
CATALOG = "state/galleria/catalog.db"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Session]:
    with Session.begun(tmp_path) as made:
        made.run("init", "--region", "eu=eu")
        made.run("gallery", "create", "corp")
        yield made


def integrity(path: Path) -> list[Any]:
    """As SQLite itself sees it."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return list(database.execute("PRAGMA integrity_check"))


def galleries(home: Session) -> list[str]:
    return [item["name"].rpartition("/")[2] for item in home.json("gallery", "list")["galleries"]]


def kept(home: Session) -> list[Path]:
    return sorted((home.path / "state/galleria").glob("catalog.db.*Z"))


def overwrite(path: Path) -> None:
    """Damage every page but the first."""
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 100] = b"\xff" * 100
    path.write_bytes(content)


def test_a_backup_is_whole_private_and_replaces_nothing(home: Session) -> None:
    file = home.path / "b.db"
    made = home.json("catalog", "backup", "b.db")
    assert made == {"file": "b.db", "fileSize": file.stat().st_size}
    assert integrity(file) == [("ok",)]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    error = home.json("catalog", "backup", "b.db", status=5)["error"]
    assert "exists already" in error["message"]
    assert file.read_bytes() == before
    assert "is not there" in home.run("catalog", "backup", "no/b.db", status=4).stderr
    assert [path.name for path in home.path.iterdir() if path.name.startswith(".b.db")] == []


def test_backups_while_others_write_are_whole(home: Session) -> None:
    script = (
        f"for i in $(seq 12); do {GALLERIA} --quiet gallery create g$i >/dev/null || exit 1; done"
    )
    with subprocess.Popen(["bash", "-c", script], env=home.env, cwd=home.path) as writer:
        count = 0
        while writer.poll() is None:
            home.run("catalog", "backup", f"b{count}.db")
            assert integrity(home.path / f"b{count}.db") == [("ok",)]
            count += 1
    assert writer.returncode == 0
    assert count >= 3


def test_what_was_is_there_again_and_what_is_replaced_is_kept(home: Session) -> None:
    home.run("catalog", "backup", "b.db")
    home.run("gallery", "create", "later")
    done = home.json("catalog", "restore", "b.db")
    assert galleries(home) == ["corp"]
    assert [str(path) for path in kept(home)] == [done["kept"]]
    with contextlib.closing(sqlite3.connect(done["kept"])) as old:
        assert list(old.execute("SELECT count(*) FROM galleries")) == [(2,)]
    newest = home.json("audit", "list", "--limit", "1")["entries"][0]
    assert newest["action"] == "Galleria/catalogs/restore/action"
    assert str(home.path / "b.db") in newest["details"]
    home.run("audit", "verify")
    assert stat.S_IMODE((home.path / CATALOG).stat().st_mode) == 0o600
    assert done["unknown"] == []


def test_a_lost_and_a_damaged_catalog_are_restored(home: Session) -> None:
    home.run("catalog", "backup", "b.db")
    place = home.path / CATALOG
    place.unlink()
    place.with_name("catalog.db-journal").write_bytes(b"of the lost one")
    assert "there is no catalog" in home.run("catalog", "check", status=4).stderr
    home.run("catalog", "backup", "c.db", status=4)
    assert not place.exists()
    assert home.json("catalog", "restore", "b.db")["kept"] is None
    journals = list(place.parent.glob("catalog.db.*-journal"))
    assert [path.read_bytes() for path in journals] == [b"of the lost one"]
    assert galleries(home) == ["corp"]
    overwrite(place)
    found = home.run("catalog", "check", status=1)
    assert "whole" not in found.stdout
    place.write_bytes(b"no database at all" * 500)
    home.run("catalog", "check", status=1)
    error = home.json("--as", "eve", "catalog", "restore", "b.db", status=6)["error"]
    assert "local operator" in error["hint"]
    home.run("catalog", "restore", "b.db")
    assert galleries(home) == ["corp"]
    assert kept(home)[0].read_bytes() == b"no database at all" * 500
    assert home.json("catalog", "check")["whole"] is True


def test_what_is_no_sound_catalog_is_refused(home: Session) -> None:
    before = (home.path / CATALOG).read_bytes()
    home.run("catalog", "backup", "b.db")
    (home.path / "notes").write_bytes(b"my notes " * 1000)
    with contextlib.closing(sqlite3.connect(home.path / "other.db")) as other:
        other.execute("CREATE TABLE galleries (x)")
    for change, file in (
        ("UPDATE alembic_version SET version_num = '9999'", "newer.db"),
        ("DELETE FROM galleries; INSERT INTO channels VALUES (77, 'a', '{}')", "orphans.db"),
        ("DROP TRIGGER audit_update; UPDATE audit SET entry = '{}' WHERE seq = 1", "audit.db"),
    ):
        shutil.copy(home.path / "b.db", home.path / file)
        with contextlib.closing(sqlite3.connect(home.path / file)) as database:
            database.executescript(change)
    shutil.copy(home.path / "b.db", home.path / "damaged.db")
    overwrite(home.path / "damaged.db")
    for file, status, said in (
        ("absent", 4, "there is no file"),
        ("notes", 6, "is no catalog of galleria"),
        ("other.db", 6, "is no catalog of galleria"),
        ("damaged.db", 1, "is damaged"),
        ("orphans.db", 1, "refers to a missing row"),
        ("newer.db", 3, "9999, which this galleria does not know"),
        ("audit.db", 1, "audit record is broken"),
    ):
        assert said in home.run("catalog", "restore", file, status=status).stderr, file
        assert (home.path / CATALOG).read_bytes() == before
    assert kept(home) == []
    assert not [path for path in (home.path / CATALOG).parent.iterdir() if path.name[0] == "."]
    home.run("catalog", "restore", "audit.db", "--force")
    assert "audit record is broken" in home.run("catalog", "check", status=1).stdout


def test_only_the_owner_of_the_catalog_may(home: Session) -> None:
    home.run("catalog", "backup", "b.db")
    home.run("principal", "create", "eve")
    home.run("role", "assign", "--assignee", "eve", "--role", "Contributor", "--scope", "/")
    for args in (
        ("backup", "c.db"),
        ("check",),
        ("restore", "b.db"),
        ("restore", "b.db", "--force"),
    ):
        home.run("--as", "eve", "catalog", *args, status=6)
    assert not (home.path / "c.db").exists()
    assert kept(home) == []
    home.run("role", "assign", "--assignee", "eve", "--role", "Owner", "--scope", "/")
    home.run("--as", "eve", "catalog", "backup", "c.db")


def test_a_restore_waits_for_no_job_and_tells_what_it_does_not_know(home: Session) -> None:
    """A version whose process lives stops a restore; one that came after the backup is named."""
    home.run(*DEFINE)
    home.run("catalog", "backup", "b.db")
    (home.path / "d.raw").write_bytes(os.urandom(1 << 20))
    home.run("publish", "corp/web/1.0.0", "--os-disk", "d.raw")
    home.run("catalog", "backup", "c.db")
    with working(home):
        said = home.run("catalog", "restore", "b.db", status=5).stderr
        assert "works on corp/web/1.0.0" in said
        done = home.json("catalog", "restore", "b.db", "--force")
    assert [(item["region"], item["version"][:15]) for item in done["unknown"]] == [
        ("eu", "corp+web+1.0.0+")
    ]
    assert home.json("catalog", "restore", "c.db")["unknown"] == []
    deletable(home.path)


@contextlib.contextmanager
def working(home: Session) -> Iterator[None]:
    """A process whose run the catalog names as the owner of version 1.0.0."""
    script = (
        "import sys, time\n"
        "from dataclasses import replace\n"
        "from adapters.catalog import open_catalog\n"
        "from pipeline.model.names import parse_version\n"
        "from tests.samples import services\n"
        "catalog = open_catalog(sys.argv[1])\n"
        "ask = services(catalog=catalog)\n"
        "with catalog.write() as writer:\n"
        "    found = writer.version(parse_version('corp/web/1.0.0'))\n"
        "    writer.put_version(replace(found, owner=ask.job_runs.id))\n"
        "print('ready', flush=True); time.sleep(100)\n"
    )
    argv = [sys.executable, "-c", script, f"sqlite:///{home.path / CATALOG}"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.kill()


def test_who_has_the_replaced_catalog_open_writes_nothing_to_it(home: Session) -> None:
    """SQLite itself refuses: its file was moved."""
    home.run("catalog", "backup", "b.db")
    with contextlib.closing(sqlite3.connect(home.path / CATALOG)) as other:
        other.execute("SELECT count(*) FROM galleries").fetchall()
        home.run("catalog", "restore", "b.db")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            other.execute("DELETE FROM audit_head")
    assert galleries(home) == ["corp"]


def test_a_catalog_in_a_server_has_its_own_tools(
    home: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALLERIA_CATALOG", "postgresql://nobody@127.0.0.1:1/none")
    assert "pg_restore" in home.run("catalog", "restore", "b.db", status=3).stderr
    assert "pg_dump" in home.run("catalog", "backup", "b.db", status=3).stderr


def test_an_adopted_zone_is_in_the_record_and_a_lost_one_is_told(home: Session) -> None:
    def adoptions() -> list[str]:
        entries = home.json("audit", "list")["entries"]
        return [e["details"] for e in entries if e["action"] == "Galleria/zones/adopt/action"]

    assert adoptions() == []
    (home.path / "eu").rename(home.path / "away")
    (home.path / "eu").mkdir()
    said = home.run("cost", "corp").stderr
    assert f"the zone {home.path}/eu is lost: its directory is empty" in said
    assert "galleria repair" in said
    home.run("init", "--adopt", "eu")
    assert adoptions() == [str(home.path / "eu")]
    assert home.run("cost", "corp").stderr == ""


def test_only_who_owns_everything_adopts_zones(home: Session) -> None:
    home.run("principal", "create", "bob")
    home.run("role", "assign", "--assignee", "bob", "--role", "Contributor")
    home.run("--as", "bob", "init", "--adopt", "eu", status=6)
    entry = home.json("audit", "list", "--limit", "1")["entries"][0]
    assert (entry["actor"], entry["allowed"]) == ("bob", False)
    assert entry["action"] == "Galleria/zones/adopt/action"
    home.run("role", "assign", "--assignee", "bob", "--role", "Owner", "--scope", "/")
    home.run("--as", "bob", "init", "--adopt", "eu")
    entry = home.json("audit", "list", "--limit", "1")["entries"][0]
    assert (entry["actor"], entry["allowed"]) == ("bob", True)


@pytest.mark.timeout(180)
def test_a_lost_catalog_is_made_again_by_init_alone(home: Session) -> None:
    place = home.path / CATALOG
    lost = place.rename(home.path / "lost.db")
    for command in (("list",), ("gallery", "create", "new"), ("audit", "verify"), ("cost", "corp")):
        error = home.json(*command, status=4)["error"]
        assert error["message"] == f"there is no catalog {place}"
        assert "galleria init" in error["hint"]
        assert "galleria catalog restore" in error["hint"]
        assert not place.exists()
    checks = home.json("doctor", status=3)["checks"]
    (check,) = (check for check in checks if check["name"] == "catalog")
    assert check["verdict"] == "fail"
    assert not place.exists()
    lost.rename(place)
    assert galleries(home) == ["corp"]


def test_files_need_no_catalog_and_make_none(tmp_path: Path) -> None:
    with Session.begun(tmp_path) as user:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "1M"], check=True)
        user.run("hash", "a.qcow2")
        user.run("convert", "a.qcow2", "--to", "raw", "--out", "a.raw")
        assert not (tmp_path / CATALOG).exists()
        assert "galleria init makes a new one" in user.run("list", status=4).stderr


def test_the_time_of_a_kept_catalog_is_in_its_name(home: Session) -> None:
    home.run("catalog", "backup", "b.db")
    for _ in range(2):
        home.run("catalog", "restore", "b.db")
    assert [path.name[11:19] for path in kept(home)] == [time.strftime("%Y%m%d", time.gmtime())] * 2
