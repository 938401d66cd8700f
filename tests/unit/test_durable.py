"""Commits are all or nothing; debris is told from what is alive."""

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.filesystem import durable
from adapters.filesystem.work import WorkDirectory
from pipeline.errors import Refused
from tests.faults import Faulty

Rename = Callable[[Path, Path], None]


@pytest.fixture(params=["renameat2", "portable"])
def rename(request: pytest.FixtureRequest) -> Rename:
    """Both ways to give a new name: the kernel's, and the one for file systems without it."""
    if request.param == "renameat2":
        return durable.rename_new
    return durable._rename_new_portable


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_gets_a_new_name(rename: Rename, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    rename(tmp_path / "one", tmp_path / "two")
    assert names(tmp_path) == ["two"]


def test_a_files_name_is_never_taken(rename: Rename, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    with pytest.raises(FileExistsError):
        rename(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "one").read_text() == "1"
    assert (tmp_path / "two").read_text() == "2"


def test_a_directorys_name_is_never_taken(rename: Rename, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(FileExistsError):
        rename(tmp_path / "one", tmp_path / "two")
    (tmp_path / "plain").write_text("x")
    with pytest.raises(FileExistsError):
        rename(tmp_path / "one", tmp_path / "plain")
    rename(tmp_path / "one", tmp_path / "three")
    assert names(tmp_path) == ["plain", "three", "two"]
    assert (tmp_path / "two" / "file").read_text() == "two"


def test_what_is_not_there_has_no_name_to_give(rename: Rename, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rename(tmp_path / "one", tmp_path / "two")


def test_the_portable_way_is_taken_where_the_kernels_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(durable._libc, "renameat2", missing, raising=False)
    (tmp_path / "one").write_text("1")
    durable.rename_new(tmp_path / "one", tmp_path / "two")
    (tmp_path / "one").write_text("1")
    with pytest.raises(FileExistsError):
        durable.rename_new(tmp_path / "one", tmp_path / "two")


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write_file(path, b"one", mode=0o600)
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        durable.write_file(path, b"two")
    assert path.read_bytes() == b"one"
    durable.write_file(path, b"two", overwrite=True)
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("step", ["sync_file", "rename_new", "replace"])
def test_a_failed_write_leaves_things_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, overwrite: bool
) -> None:
    path = tmp_path / "file"
    if overwrite:
        path.write_bytes(b"before")
    if step == ("rename_new" if overwrite else "replace"):
        return  # that way does not take this step
    monkeypatch.setattr(durable, step, getattr(Faulty(durable, "E"), step))
    with pytest.raises(OSError, match=step):
        durable.write_file(path, b"after", overwrite=overwrite)
    assert names(tmp_path) == (["file"] if overwrite else [])
    if overwrite:
        assert path.read_bytes() == b"before"


def test_everything_is_synced_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of a commit: contents, inner directories, then the name, then its directory."""
    steps: list[tuple[str, str]] = []

    def record(name: str) -> None:
        real = getattr(durable, name)

        def call(path: Path, *rest: Path) -> None:
            steps.append((name, (rest or (path,))[0].name))
            real(path, *rest)

        monkeypatch.setattr(durable, name, call)

    with durable.Staging(tmp_path / "staging") as staging:
        token = staging.path.name
        (staging.path / "inner").mkdir()
        (staging.path / "inner" / "a").write_text("a")
        (staging.path / "b").write_text("b")
        for name in ("sync_file", "sync_directory", "rename_new"):
            record(name)
        staging.commit(tmp_path / "done")
    assert steps == [
        ("sync_file", "a"),
        ("sync_directory", "inner"),
        ("sync_file", "b"),
        ("sync_directory", token),
        ("rename_new", "done"),
        ("sync_directory", tmp_path.name),
        ("sync_directory", "staging"),
    ]
    assert names(tmp_path) == ["done", "staging"]
    assert names(tmp_path / "staging") == []


def test_staging_that_is_not_committed_is_gone(tmp_path: Path) -> None:
    with durable.Staging(tmp_path) as staging:
        (staging.path / "file").write_text("x")
        assert len(names(tmp_path)) == 2
    assert names(tmp_path) == []
    staging.close()


def test_a_name_that_is_taken_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "file").write_text("first")
    with durable.Staging(tmp_path / "staging") as staging:
        (staging.path / "file").write_text("second")
        with pytest.raises(FileExistsError):
            staging.commit(tmp_path / "done")
    assert (tmp_path / "done" / "file").read_text() == "first"
    assert names(tmp_path / "staging") == []


def test_sweep_takes_the_dead_and_leaves_the_living(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from adapters.filesystem import durable;"
        "s = durable.Staging(Path(sys.argv[1])); (s.path / 'x').write_text('x');"
        "print(s.path.name, flush=True); os.kill(os.getpid(), 9)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parent.parent.parent
    dead = subprocess.run(argv, stdout=subprocess.PIPE, text=True, cwd=root).stdout.strip()
    with durable.Staging(tmp_path) as alive:
        (alive.path / "file").write_text("x")
        assert durable.sweep(tmp_path) == [tmp_path / dead]
        assert names(tmp_path) == [alive.path.name, alive.path.name + ".lock"]
        assert (alive.path / "file").exists()
    assert durable.sweep(tmp_path) == []
    assert durable.sweep(tmp_path / "absent") == []


def test_an_empty_root_may_go_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last user removes it, while the next has just made sure that it is there."""
    root, real = tmp_path / "staging", durable.lock

    def lock(path: Path, *, create: bool = False) -> int | None:
        monkeypatch.setattr(durable, "lock", real)
        root.rmdir()
        return real(path, create=create)

    monkeypatch.setattr(durable, "lock", lock)
    with durable.Staging(root) as staging:
        assert staging.path.is_dir()


def test_removing_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    durable.remove_tree(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    durable.remove_tree(tmp_path / "file")
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"):
        durable.remove_tree(tmp_path / "link")
    assert (tmp_path / "target").exists()


def test_a_link_in_staging_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    with durable.Staging(tmp_path / "staging") as staging:
        (staging.path / "link").symlink_to(tmp_path / "precious")
    assert (tmp_path / "precious" / "file").exists()


def test_a_root_of_another_user_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory that all may write to, anybody may have been quicker."""
    (tmp_path / "planted").mkdir()
    real = os.stat

    def stat(path: Any, **how: Any) -> os.stat_result:
        found = real(path, **how)
        return os.stat_result((*found[:4], 0, *found[5:])) if path == ".." else found

    owner = (tmp_path / "planted").stat().st_uid
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        os.chown(tmp_path / "planted", 12345, -1)
    with pytest.raises(Refused, match="belongs to the user"):
        durable.Staging(tmp_path / "planted")
    assert durable.sweep(tmp_path / "planted") == []
    assert names(tmp_path / "planted") == []


def test_a_directory_of_scratch_is_the_job_s_alone(tmp_path: Path) -> None:
    """`work` may be a directory that others use, too: what is theirs stays."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one").write_text("x")
    (tmp_path / "notes.lock").touch()
    work = WorkDirectory(tmp_path / "galleria")
    for theirs in (tmp_path / "galleria" / "photos", tmp_path / "galleria" / ("a" * 32)):
        theirs.mkdir(parents=True)
        (theirs / "one").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    with work.directory() as directory:
        assert directory.parent == tmp_path / "galleria"
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "overlay").write_text("x")
    assert sorted(tmp_path.rglob("*")) == before
