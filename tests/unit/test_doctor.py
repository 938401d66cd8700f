"""What doctor says when something is missing; that it is right on this host is a system test."""

import grp
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapters import doctor
from adapters.catalog import open_catalog
from adapters.config import Config, ZonePlace
from adapters.doctor import Check, Status
from adapters.process import command
from adapters.process.sandbox import Sandbox
from adapters.zones import create_zone


def config(tmp_path: Path, **values: object) -> Config:
    defaults: dict[str, object] = {
        "regions": {},
        "source_region": "",
        "catalog": f"sqlite:///{tmp_path / 'catalog.db'}",
        "work": tmp_path / "work",
        "cache": tmp_path / "cache",
        "logs": tmp_path / "logs",
        "captures": tmp_path / "captures",
    }
    return Config(**(defaults | values))  # type: ignore[arg-type]


def found(checks: tuple[Check, ...], name: str) -> Check:
    return next(check for check in checks if check.name == name)


@pytest.fixture
def bare_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with no program at all, where the appliance can't be built either."""
    monkeypatch.setattr("adapters.process.command.PATH", str(tmp_path / "bin"))
    return tmp_path


def test_a_bare_host_can_not_run(bare_host: Path) -> None:
    checks = doctor.run(config(bare_host))
    assert not doctor.can_run(checks)
    for name in ("sandbox", "qemu-img", "qemu-nbd", "guestfs appliance"):
        check = found(checks, name)
        assert check.verdict is Status.FAIL, check
        assert check.advice, check


def test_every_complaint_says_what_to_do(bare_host: Path) -> None:
    for check in doctor.run(config(bare_host, sandbox=False)):
        assert check.verdict is Status.OK or check.advice, check


def test_a_lifted_sandbox_is_told_of(bare_host: Path) -> None:
    check = found(doctor.run(config(bare_host, sandbox=False)), "sandbox")
    assert check.verdict is Status.WARN
    assert "off" in check.found


def test_zones(bare_host: Path) -> None:
    one, two, absent = (bare_host / name for name in ("one", "two", "absent"))
    for region, directory in (("eu", one), ("us", two)):
        create_zone(directory, name=region, region=region, sandbox=Sandbox())
    before = sorted(one.rglob("*"))
    checks = doctor.run(
        config(
            bare_host, regions={"eu": (ZonePlace(one),), "us": (ZonePlace(two), ZonePlace(absent))}
        )
    )
    assert found(checks, f"zone us: {absent}").verdict is Status.FAIL
    together = found(checks, f"zone us: {two}")
    assert together.verdict is Status.WARN
    assert "zone of eu" in together.advice
    assert "free" in found(checks, f"zone eu: {one}").found
    assert sorted(one.rglob("*")) == before


def test_a_zone_that_others_can_read_is_told_and_left(bare_host: Path) -> None:
    zone, group = bare_host / "eu", grp.getgrgid(os.getegid()).gr_name
    create_zone(zone, name="eu", region="eu", sandbox=Sandbox())
    settings = config(bare_host, regions={"eu": (ZonePlace(zone),)})
    name = f"zone eu: {zone}"
    assert "mode" not in found(doctor.run(settings), name).found
    zone.chmod(0o755)
    check = found(doctor.run(settings), name)
    assert check.verdict is Status.WARN
    assert f"chmod 0700 {zone}" in check.advice
    check = found(doctor.run(replace(settings, group=group)), name)
    assert f"chgrp {group} {zone} && chmod 2750 {zone}" in check.advice
    assert zone.stat().st_mode & 0o7777 == 0o755
    zone.chmod(0o2750)
    assert "mode" not in found(doctor.run(replace(settings, group=group)), name).found


def test_a_directory_that_is_no_zone_is_a_failure(bare_host: Path) -> None:
    """What is there when the zone's file system is not mounted."""
    mountpoint = bare_host / "eu"
    mountpoint.mkdir()
    check = found(
        doctor.run(config(bare_host, regions={"eu": (ZonePlace(mountpoint),)})),
        f"zone eu: {mountpoint}",
    )
    assert check.verdict is Status.FAIL
    assert "mount" in check.advice


def test_a_damaged_catalog_is_a_failure(bare_host: Path) -> None:
    settings = config(bare_host)
    assert found(doctor.run(settings), "catalog").verdict is Status.WARN
    (bare_host / "catalog.db").write_bytes(b"not a database, but long enough for one" * 100)
    assert found(doctor.run(settings), "catalog").verdict is Status.FAIL


def test_a_password_is_not_shown(bare_host: Path) -> None:
    url = "postgresql+psycopg://user:secret@127.0.0.1:1/none"
    check = found(doctor.run(config(bare_host, catalog=url)), "catalog")
    assert check.verdict is Status.FAIL
    assert "secret" not in check.found + check.advice


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([Status.OK, Status.WARN], True),
        ([Status.OK, Status.FAIL, Status.WARN], False),
    ],
)
def test_only_a_failure_stops(verdicts: list[Status], *, expected: bool) -> None:
    checks = tuple(Check("c", verdict, "f") for verdict in verdicts)
    assert doctor.can_run(checks) is expected


def test_the_program_of_the_sandbox_says_its_version(require: Callable[..., None]) -> None:
    require("bwrap")
    assert command.run(["bwrap", "--version"]).stdout.startswith(b"bubblewrap")


def test_a_sound_catalog_says_how_it_is_kept(bare_host: Path) -> None:
    settings = config(bare_host)
    open_catalog(settings.catalog).close()
    check = found(doctor.run(settings), "catalog")
    assert check.verdict is Status.OK
    assert "journal_mode=truncate synchronous=3" in check.found
