"""Captures by a libvirt that says no, or does not finish: a program in the place of virsh."""

from pathlib import Path

import pytest

from adapters.filesystem import calls, durable
from adapters.process import command
from adapters.progress import Mode, open_progress
from adapters.sources.domains import Machine
from adapters.sources.libvirt_captures import BESIDE, backup_xml, captured
from pipeline.errors import Conflict, EnvironmentMissing, GalleriaError, NoSpace, StageFailed
from pipeline.model.descriptions import Description
from pipeline.model.sources import DiskSource

URI = "test:///default"
# says what is asked of it; each command answers what a file of its name holds, or fails with that
# of its name and .fails
VIRSH = """#!/bin/sh
cd "$(dirname "$0")" && shift 2 && echo "$*" >>asked
name=$1
case "$*" in *--completed) name=completed ;; esac
if [ -e "$name.fails" ]; then cat "$name.fails" >&2; exit 1; fi
if [ -e "$name" ]; then cat "$name"; fi
"""


class Libvirt:
    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        program = place / "virsh"
        program.write_text(VIRSH)
        program.chmod(0o755)
        for name in ("cat", "dirname"):
            (place / name).symlink_to(f"/usr/bin/{name}")
        self.says("domjobinfo", "Job type:         None\n")
        self.says("completed", "Job type:         Completed\nOperation:        Backup\n")

    def says(self, name: str, text: str) -> None:
        (self.place / name).write_text(text)

    @property
    def asked(self) -> list[str]:
        return [line.split()[0] for line in (self.place / "asked").read_text().splitlines()]


@pytest.fixture
def libvirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Libvirt:
    made = Libvirt(tmp_path / "bin")
    monkeypatch.setattr(command, "PATH", str(made.place))
    return made


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "disks").mkdir()
    (tmp_path / "work").mkdir()
    disks = []
    for lun, name in ((None, "os"), (0, "a & b")):
        path = tmp_path / "disks" / name
        path.write_bytes(b"disk")
        disks.append(DiskSource(lun, path))
    about = Description("V1", "x64", "SCSI", "Linux")
    return Machine("web", tuple(disks), about, None, True, ("vda", "sdb"))


def capture(machine: Machine, tmp_path: Path) -> tuple[DiskSource, ...]:
    with captured(machine, URI, tmp_path / "work", open_progress(Mode.NONE)) as disks:
        return disks


def test_what_libvirt_is_asked_for(libvirt: Libvirt, machine: Machine, tmp_path: Path) -> None:
    disks = capture(machine, tmp_path)
    assert [disk.path.name for disk in disks] == ["os.qcow2", "data-0.qcow2"]
    assert [disk.shown for disk in disks] == [str(disk.path) for disk in machine.disks]
    assert libvirt.asked == ["domjobinfo", "backup-begin", "domjobinfo", "domjobinfo"]
    assert backup_xml(machine, Path("/to")).decode() == (
        '<domainbackup mode="push"><disks>'
        '<disk name="vda" backup="yes" type="file"><target file="/to/os.qcow2" />'
        '<driver type="qcow2" /></disk>'
        '<disk name="sdb" backup="yes" type="file"><target file="/to/data-0.qcow2" />'
        '<driver type="qcow2" /></disk></disks></domainbackup>'
    )
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "kind", "said", "asked"),
    [
        ("domjobinfo", "Job type:  Unbounded", Conflict, "another job", ["domjobinfo"]),
        (
            "backup-begin.fails",
            "error: cannot acquire state change lock (held by x)",
            Conflict,
            "another job",
            ["domjobinfo", "backup-begin"],
        ),
        (
            "backup-begin.fails",
            "error: Operation not supported: incremental backup",
            EnvironmentMissing,
            "Operation not supported",
            ["domjobinfo", "backup-begin"],
        ),
        (
            "backup-begin.fails",
            "error: Could not open 'x': Permission denied",
            EnvironmentMissing,
            "may not write where galleria reads",
            ["domjobinfo", "backup-begin", "backup-begin"],
        ),
        (
            "completed",
            "Job type:  Failed\nOperation:  Backup\nError message:  No space left\n",
            StageFailed,
            "No space left",
            ["domjobinfo", "backup-begin", "domjobinfo", "domjobinfo", "domjobabort"],
        ),
    ],
)
def test_what_goes_wrong_is_told_and_leaves_nothing(
    libvirt: Libvirt,
    machine: Machine,
    tmp_path: Path,
    name: str,
    text: str,
    kind: type[GalleriaError],
    said: str,
    asked: list[str],
) -> None:
    libvirt.says(name, text)
    with pytest.raises(kind, match=said):
        capture(machine, tmp_path)
    assert libvirt.asked == asked
    assert list((tmp_path / "work").iterdir()) == []
    assert not (tmp_path / "disks" / BESIDE).exists()


def test_there_has_to_be_room(
    libvirt: Libvirt, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "free_bytes", lambda _: 1 << 20)
    with pytest.raises(NoSpace, match="a capture may need"):
        capture(machine, tmp_path)
    assert libvirt.asked == ["domjobinfo"]


def test_what_a_killed_capture_left_beside_the_disk_goes(
    libvirt: Libvirt, machine: Machine, tmp_path: Path
) -> None:
    libvirt.says("backup-begin.fails", "error: Permission denied")
    left = tmp_path / "disks" / BESIDE / ("a" * 32)
    left.mkdir(parents=True)
    (left / "os.qcow2").write_bytes(b"half")
    (left.parent / f"{left.name}.lock").write_bytes(durable.MARKER)
    with pytest.raises(EnvironmentMissing):
        capture(machine, tmp_path)
    assert not left.parent.exists()
