"""Who is measured, galleria and its peers: each run is timed until its output is on the disk."""

import contextlib
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.ports import Chain
from tests.bench.data import MIB, named
from tests.bench.disks import flush

ROOT = Path(__file__).parents[2]
PIECE = MIB
WRITERS = 2


@dataclass(slots=True)
class Timing:
    """One run. `cpu` counts children; `stored` is bytes that the file system has used for it, where
    that is asked; `peak` the resident memory of the galleria process beyond what it had before, and
    `profile` what else is known of where the time went."""

    wall: float
    cpu: float = 0.0
    stored: int | None = None
    peak: int | None = None
    profile: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return asdict(self)


# --- the page cache ------------------------------------------------------------------------------


def page_cached(*paths: Path) -> None:
    """Bring the data of files into the page cache; holes are not read."""
    buffer = memoryview(bytearray(4 * MIB))
    for path in paths:
        with path.open("rb", buffering=0) as file:
            for start, end in data_runs(file.fileno()):
                for at in range(start, end, len(buffer)):
                    os.preadv(file.fileno(), [buffer[: min(len(buffer), end - at)]], at)


def cool(*paths: Path) -> None:
    """Drop files from the page cache. They have to be on their disk."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def data_runs(fd: int) -> Iterator[tuple[int, int]]:
    position, length = 0, os.fstat(fd).st_size
    while position < length:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # no more data
            return
        position = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, position


# --- galleria ------------------------------------------------------------------------------------


class Galleria:
    """A galleria of its own, with its state in `home`; told what to do over pipes."""

    def __init__(self, home: Path, process: "subprocess.Popen[str]") -> None:
        self.home = home
        self._process = process
        self.began = self._ask("begin")

    def publish(
        self,
        number: str,
        chain: Chain,
        counts: Mapping[str, int],
        prepared: Mapping[str, Any] | None = None,
    ) -> tuple[Timing, dict[str, Any]]:
        """The time of the data path, and the files that were made."""
        layers = [str(layer.path) for layer in chain]
        answer = self._ask(
            "publish", number=number, layers=layers, counts=dict(counts), prepared=prepared
        )
        return _timing(answer), answer

    def hash(self, chain: Chain) -> Timing:
        """Both digests of a disk, by the loop that publishing has, with nowhere to write to."""
        layers = [(str(layer.path), layer.format.value) for layer in chain]
        return _timing(self._ask("hash", chain=layers))

    def verify(self, number: str, subject: str, *, scrub: bool = False) -> Timing:
        answer = self._ask("verify", number=number, subject=subject, scrub=scrub)
        assert answer["sound"], f"{subject} of {number} is not sound"
        return _timing(answer)

    def _ask(self, job: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"job": job, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"galleria ended at {job}: what it said is above")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer


def _timing(answer: Mapping[str, Any]) -> Timing:
    profile = {
        name: answer[name]
        for name in ("stages", "bytes", "io", "whole", "cpu_children", "methods")
        if name in answer
    }
    cpu = answer["cpu"] + answer["cpu_children"]
    return Timing(answer["wall"], cpu, peak=answer["peak"] - answer["resident"], profile=profile)


@contextmanager
def galleria(home: Path, regions: Mapping[str, Path]) -> Iterator[Galleria]:
    """Start one. It ends with the `with`; its files stay."""
    home.mkdir(parents=True)
    lines = [f'catalog = "sqlite:///{home / "catalog.db"}"', f'work = "{home / "work"}"']
    lines += ["[regions]", *(f'{name} = ["{path}"]' for name, path in regions.items())]
    (home / "config.toml").write_text("\n".join(lines) + "\n")
    argv = [sys.executable, "-m", "tests.bench.subject"]
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Galleria(home, process)
        finally:
            with contextlib.suppress(BrokenPipeError):
                assert process.stdin is not None
                process.stdin.close()


def environment(home: Path) -> dict[str, str]:
    """None of the user's settings of galleria."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GALLERIA_")}
    return kept | {"GALLERIA_CONFIG": str(home / "config.toml")}


# --- peers ---------------------------------------------------------------------------------------


class TooSlow(Exception):
    """A peer that had not ended in its time."""


def command(
    *argv: str | Path,
    target: Path | None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit: float = 600,
    ok: int = 0,
) -> Timing:
    """Run a program, which has to end with the status `ok`, and flush the file system of `target`,
    if that is given: the time of both. Raises TooSlow."""
    before = os.times()
    began = time.monotonic()
    try:
        done = subprocess.run(
            list(map(str, argv)),
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=limit,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    except subprocess.TimeoutExpired:
        raise TooSlow(f"{argv[0]} had not ended after {limit:.0f} s") from None
    if done.returncode != ok:
        said = done.stderr.decode(errors="replace")
        raise RuntimeError(f"{argv} ended with status {done.returncode}: {said}")
    if target is not None:
        flush(target)
    wall, after = time.monotonic() - began, os.times()
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return Timing(wall, cpu)


def qemu_img(chain: Chain, target: Path) -> Timing:
    """`qemu-img convert` to a raw file: no digest, no check."""
    return command("qemu-img", "convert", "-O", "raw", named(chain), target, target=target.parent)


def copy(source: Path, target: Path) -> Timing:
    argv = ("cp", "--sparse=never", "--reflink=never", source, target)
    return command(*argv, target=target.parent)


def write_only(directory: Path, amount: int) -> Timing:
    """What the disk takes at this moment: so many bytes written by calls of 1 MiB, and flushed. By
    two threads, which was the fastest of one, two and four, through the page cache or past it."""
    return _measured(lambda: _write(directory / "written", amount), directory)


def _write(path: Path, amount: int) -> None:
    piece = memoryview(os.urandom(PIECE))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def every(first: int) -> None:
        for at in range(first * PIECE, amount, WRITERS * PIECE):
            os.pwrite(fd, piece[: min(PIECE, amount - at)], at)

    try:
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(every, range(WRITERS)))
    finally:
        os.close(fd)


def read_direct(path: Path) -> Timing:
    """Read the data of a file in order with O_DIRECT, 1 MiB a call."""
    return _measured(lambda: _read_direct(path), None)


def _read_direct(path: Path) -> None:
    buffer = mmap.mmap(-1, PIECE)  # aligned to pages, as O_DIRECT asks
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        for start, end in data_runs(fd):
            for at in range(start, end, PIECE):
                os.preadv(fd, [memoryview(buffer)[: min(PIECE, -(-(end - at) // 4096) * 4096)]], at)
    finally:
        os.close(fd)


def _measured(work: Callable[[], None], target: Path | None) -> Timing:
    cpu, began = time.process_time(), time.monotonic()
    work()
    if target is not None:
        flush(target)
    return Timing(time.monotonic() - began, time.process_time() - cpu)


# --- whether it is right -------------------------------------------------------------------------


class Wrong(RuntimeError):
    """An output is not what it should be."""


def check(output: Chain, expected: Chain) -> None:
    """Raise Wrong unless a disk has exactly the content and length of another one, as `qemu-img
    compare` reads both. Of a disk with one layer qemu follows the names in its header."""
    argv = ["qemu-img", "compare", named(output), named(expected)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode != 0 or "identical" not in said or "size mismatch" in said:
        raise Wrong(f"{output[0].path} is not {expected[0].path}: {said}")
