"""galleria deletes only what it made: in every directory that a user may name, what is there beside
stays."""

import os
import time
from pathlib import Path

import pytest

from adapters.filesystem import durable
from adapters.guestfs import fixed
from adapters.qmp import state as captures
from adapters.qmp.state import CaptureState, Phase
from adapters.sources.download import collect_downloads
from adapters.vms import STAGING, HostVmDirectories
from pipeline.errors import Refused
from pipeline.model.garbage import AT_ONCE, DAY

TOKEN, MARK, KEY = "d" * 32, "a" * 32, "0123456789abcdef"


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def letters(*directories: Path) -> None:
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "letter").write_text("dear")


def test_a_link_planted_where_vms_are_put_together_leads_nowhere(tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    letters(victim, victim / TOKEN)
    (victim / f"{TOKEN}.lock").write_bytes(durable.MARKER)
    out.mkdir()
    (out / STAGING).symlink_to(victim)
    before = listing(victim)
    with pytest.raises(Refused, match=STAGING), HostVmDirectories().staging(out):
        pass
    assert listing(victim) == before


def test_what_is_beside_the_vms_stays(tmp_path: Path) -> None:
    letters(tmp_path / "vm", tmp_path / STAGING / "somebody", tmp_path / STAGING / TOKEN)
    before = listing(tmp_path)
    with HostVmDirectories().staging(tmp_path) as private:
        (private / "disk").write_text("x")
    assert listing(tmp_path) == before


def test_a_vm_s_directory_that_became_a_link_is_only_a_link(tmp_path: Path) -> None:
    letters(tmp_path / "victim")
    (tmp_path / "vm").symlink_to(tmp_path / "victim")
    HostVmDirectories().discard(tmp_path / "vm")
    assert listing(tmp_path) == ["victim", "victim/letter"]


def test_only_captures_of_the_machine_are_abandoned(tmp_path: Path) -> None:
    letters(tmp_path / "photos", tmp_path / ("b" * 32), tmp_path / ("c" * 32))
    (tmp_path / ("c" * 32) / captures.LOCK_FILE).touch()  # a lock, and nothing of a capture
    (tmp_path / ("e" * 32)).symlink_to(tmp_path / "photos")
    left = tmp_path / MARK
    with captures.held(left):
        captures.save(left, CaptureState(MARK, "/run/vm.sock", "", Phase.RUNNING, ()))
    before = listing(tmp_path)
    assert list(captures.abandoned(tmp_path, "/run/other.sock")) == []
    assert [path for path, _ in captures.abandoned(tmp_path, "/run/vm.sock")] == [left]
    assert listing(tmp_path) == before


def test_only_appliances_make_room_for_a_new_one(tmp_path: Path) -> None:
    letters(tmp_path / "photos", tmp_path / KEY)
    old, current = tmp_path / KEY[::-1], tmp_path / ("1" * 16)
    for appliance in (old, current):
        appliance.mkdir()
        for name in fixed.FILES:
            (appliance / name).touch()
    fixed._remove_others(tmp_path, current)
    assert not old.exists()
    assert current.exists()
    assert (tmp_path / "photos" / "letter").exists()
    assert (tmp_path / KEY / "letter").exists()


def test_only_downloads_grow_old(tmp_path: Path) -> None:
    old = time.time() - 7 * DAY - 60
    mine = "f" * 64
    for name in (f"{mine}.lock", f"{mine}.image", f"{mine}.txt", "notes.lock", "notes.image"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (old, old))
    collect_downloads(tmp_path, AT_ONCE)
    assert listing(tmp_path) == [f"{mine}.txt", "notes.image", "notes.lock"]
