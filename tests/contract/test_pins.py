"""The Pins contract where files can't be cloned: leases, fingerprints, and who is in the way."""

import contextlib
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.filesystem import calls
from adapters.pins import FilePins
from adapters.pins.leases import Leases
from pipeline.errors import Conflict, InvalidParameter, NotFound, SourceChanged
from pipeline.ports import ImageFormat, Layer

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    os.utime(path, ns=(10**18, 10**18))
    return path


@pytest.fixture(autouse=True)
def no_clones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "clone", lambda *_: False)


@pytest.fixture(params=["lease", "no lease"])
def leasing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Some files can't be leased: another user's, and those of some file systems."""
    if request.param == "no lease":
        monkeypatch.setattr(Leases, "take", lambda *_: False)
    return bool(request.param == "lease")


def raw(path: Path) -> tuple[Layer, ...]:
    return (Layer(path, ImageFormat.RAW),)


def in_child(code: str, *arguments: object) -> None:
    """Another process does something to the file."""
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, timeout=20)


def test_a_file_at_rest_holds_still(disk: Path, tmp_path: Path, leasing: bool) -> None:
    before = disk.stat()
    with FilePins().pin([raw(disk), raw(disk)], tmp_path) as pin:
        assert pin.chains == (raw(disk), raw(disk))
        assert pin.method == "lease"
        assert disk.read_bytes() == CONTENT
        in_child("import sys; open(sys.argv[1]).close()", disk)
        pin.verify()
        pin.verify()
    after = disk.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]
    with disk.open("r+b") as file:  # nothing is held any more
        file.write(b"x")


CHANGES = {
    "one byte": ("f = open(sys.argv[1], 'r+b'); f.write(b'x')", "modification time|writing"),
    "one byte, mtime set back": (
        "s = os.stat(sys.argv[1]); f = open(sys.argv[1], 'r+b'); f.write(b'x'); f.close();"
        "os.utime(sys.argv[1], ns=(s.st_atime_ns, s.st_mtime_ns))",
        "change time|writing",
    ),
    "longer": ("open(sys.argv[1], 'ab').write(b'x')", "length|writing"),
    "cut": ("os.truncate(sys.argv[1], 100)", "length|writing"),
    "replaced": ("open('n', 'wb').write(b'x'); os.replace('n', sys.argv[1])", "inode"),
    "removed": ("os.unlink(sys.argv[1])", "gone"),
    "opened and not written": ("open(sys.argv[1], 'r+b').close()", "writing"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed_and_named(
    disk: Path, tmp_path: Path, leasing: bool, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, what = CHANGES[change]
    monkeypatch.chdir(tmp_path)
    with FilePins().pin([raw(disk)], tmp_path) as pin:
        started = time.monotonic()
        in_child("import os, sys;" + code, disk)
        assert time.monotonic() - started < 10  # the writer does not wait for a held lease
        if change == "opened and not written" and not leasing:
            pin.verify()
            return
        with pytest.raises(SourceChanged, match=what) as caught:
            pin.verify()
        assert str(disk) in caught.value.message


def test_a_write_through_a_mapping_is_noticed(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a lease a mapping made before is invisible to times; the samples see it."""
    monkeypatch.setattr(Leases, "take", lambda *_: False)
    monkeypatch.setattr("adapters.pins.writers", lambda _: [])
    with (
        disk.open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapping,
        FilePins().pin([raw(disk)], tmp_path) as pin,
    ):
        facts = disk.stat()
        mapping[:4096] = bytes(4096)
        monkeypatch.setattr(Path, "stat", lambda *_, **__: facts)
        with pytest.raises(SourceChanged, match="content"):
            pin.verify()


def test_a_thread_that_is_not_the_main_one_can_pin(disk: Path, tmp_path: Path) -> None:
    results: list[str] = []

    def work() -> None:
        with FilePins().pin([raw(disk)], tmp_path) as pin:
            in_child("import sys; open(sys.argv[1], 'r+b').write(b'x')", disk)
            try:
                pin.verify()
            except SourceChanged as error:
                results.append(error.message)

    before = signal.getsignal(signal.SIGIO)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(results) == 1
    assert signal.getsignal(signal.SIGIO) is before


@contextlib.contextmanager
def running(argv: list[str], ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while not ready():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_writer_is_named(disk: Path, tmp_path: Path, leasing: bool) -> None:
    flag = tmp_path / "ready"
    code = (
        "import sys, time; f = open(sys.argv[1], 'r+b');"
        "open(sys.argv[2], 'w').close(); time.sleep(60)"
    )
    argv = [sys.executable, "-c", code, str(disk), str(flag)]
    with (
        running(argv, flag.exists) as process,
        pytest.raises(Conflict, match=rf"open for writing by .*\(pid {process.pid}\)"),
        FilePins().pin([raw(disk)], tmp_path),
    ):
        pass
    with FilePins().pin([raw(disk)], tmp_path) as pin:
        pin.verify()


@pytest.mark.system
@pytest.mark.parametrize("mode", ["writing", "reading"])
def test_qemus_locks_are_respected(
    disk: Path, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a shared file system, where neither leases nor /proc show the other host's qemu."""
    monkeypatch.setattr(Leases, "take", lambda *_: False)
    monkeypatch.setattr("adapters.pins.writers", lambda _: [])
    socket = tmp_path / "socket"
    argv = ["qemu-nbd", "--persistent", "--format=raw", f"--socket={socket}", str(disk)]
    if mode == "reading":
        argv.insert(1, "--read-only")
    with running(argv, socket.exists):
        if mode == "writing":
            with (
                pytest.raises(Conflict, match="qemu writes to it"),
                FilePins().pin([raw(disk)], tmp_path),
            ):
                pass
        else:
            with FilePins().pin([raw(disk)], tmp_path) as pin:
                pin.verify()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound), FilePins().pin([raw(tmp_path / "absent")], tmp_path):
        pass
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path):
        with (
            pytest.raises(InvalidParameter, match="regular"),
            FilePins().pin([raw(path)], tmp_path),
        ):
            pass


def test_nothing_stays_open(disk: Path, tmp_path: Path) -> None:
    def descriptors() -> set[str]:
        return {path.name for path in Path("/proc/self/fd").iterdir()}

    before, threads = descriptors(), set(threading.enumerate())
    with FilePins().pin([raw(disk)], tmp_path):
        pass
    with pytest.raises(NotFound), FilePins().pin([raw(disk), raw(tmp_path / "no")], tmp_path):
        pass
    assert descriptors() <= before
    assert set(threading.enumerate()) <= threads
    shutil.rmtree(tmp_path)
