"""qemu-nbd in the sandbox: reading, writing an overlay, and how it ends."""

import mmap
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.process import command
from adapters.process.sandbox import Sandbox
from adapters.qemu import img, nbd
from pipeline.errors import StageFailed
from pipeline.ports import Chain, ImageFormat, Layer
from pipeline.ports.extents import Kind

pytestmark = pytest.mark.system
SIZE = (8 << 20) + 512
SANDBOX = Sandbox()


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """A delta base: a qcow2 that depends, by a relative name, on a raw file of data and a hole."""
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(os.urandom(4 << 20))
    os.truncate(base, SIZE)
    img.create_qcow2(SANDBOX, top, SIZE, backing="base.raw", backing_format="raw")
    return (Layer(top, ImageFormat.QCOW2), Layer(base, ImageFormat.RAW))


def merged(chain: Chain) -> bytes:
    """What qemu-img itself, on the host, reads; there the relative name resolves."""
    flat = chain[0].path.with_name("flat.raw")
    argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(chain[0].path), str(flat)]
    subprocess.run(argv, check=True, capture_output=True)
    return flat.read_bytes()


def test_the_top_is_written_and_the_base_is_not(chain: Chain) -> None:
    before = chain[1].path.read_bytes()
    want = bytearray(before)
    with nbd.serve(SANDBOX, chain, writable=True) as device:
        assert device.size == SIZE
        want[1000:1500] = b"x" * 500
        device.write(memoryview(b"x" * 500), 1000)
        want[2 << 20 : 3 << 20] = bytes(1 << 20)
        device.zero(1 << 20, 2 << 20)
        want[SIZE - 512 :] = b"e" * 512
        device.write(memoryview(b"e" * 512), SIZE - 512)
    assert merged(chain) == want
    assert chain[1].path.read_bytes() == before
    check = subprocess.run(
        ["qemu-img", "check", "-f", "qcow2", str(chain[0].path)], capture_output=True, check=False
    )
    assert check.returncode == 0, check.stdout


def test_many_threads_read_and_write(chain: Chain) -> None:
    step = 256 << 10
    blocks = [os.urandom(step) for _ in range(SIZE // step)]
    with nbd.serve(SANDBOX, chain, writable=True) as device:

        def work(number: int) -> bool:
            device.write(memoryview(blocks[number]), number * step)
            got = bytearray(step)
            device.read_into(memoryview(got), number * step)
            return got == blocks[number]

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(work, range(len(blocks))))
    assert merged(chain)[: len(blocks) * step] == b"".join(blocks)


def test_extents_know_the_hole(chain: Chain) -> None:
    with nbd.serve(SANDBOX, chain) as device:
        extents = list(device.extents())
    assert [(e.start, e.length, e.kind) for e in extents] == [
        (0, 4 << 20, Kind.DATA),
        (4 << 20, SIZE - (4 << 20), Kind.ZERO),
    ]


def test_a_read_only_export_is_not_written(chain: Chain) -> None:
    before = chain[0].path.read_bytes()
    with nbd.serve(SANDBOX, chain) as device:
        with pytest.raises(StageFailed):
            device.write(memoryview(bytes(512)), 0)
        with pytest.raises(StageFailed):
            device.zero(512, 0)
    assert chain[0].path.read_bytes() == before


def test_what_is_outside_is_not_asked_for(chain: Chain) -> None:
    with nbd.serve(SANDBOX, chain) as device, pytest.raises(ValueError, match="outside"):
        device.read_into(memoryview(bytearray(1024)), SIZE - 512)


def _children() -> set[int]:
    listing = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return {int(line.split()[0]) for line in listing.splitlines() if line.split()[1] != "ps"}


def test_nothing_is_left_after_the_with(chain: Chain, tmp_path: Path) -> None:
    before = _children()
    with nbd.serve(SANDBOX, chain):
        assert _children() - before
    assert _children() <= before
    with pytest.raises(RuntimeError, match="mine"), nbd.serve(SANDBOX, chain, writable=True):
        raise RuntimeError("mine")
    assert _children() <= before


@pytest.mark.timeout(120)
def test_a_server_that_dies_is_an_error(chain: Chain) -> None:
    before = _children()

    def die() -> None:
        with nbd.serve(SANDBOX, chain, writable=True) as device:
            (server,) = _children() - before
            os.kill(server, signal.SIGKILL)
            device.write(memoryview(bytes(512)), 0)
            device.flush()

    with pytest.raises(StageFailed):
        die()


@pytest.mark.parametrize("writing", [False, True])
def test_a_server_that_never_answers_is_an_error_that_says_what_to_do(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, *, writing: bool
) -> None:
    """The caller has its memory back, and nobody waits for the server again."""
    monkeypatch.setattr(nbd, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(command, "GRACE_SECONDS", 0.2)
    before, memory = _children(), mmap.mmap(-1, 1 << 20)

    def ask() -> None:
        with nbd.serve(Sandbox(enabled=False), chain, writable=True) as device:
            (server,) = _children() - before
            os.kill(server, signal.SIGSTOP)
            with memoryview(memory) as buf:
                (device.write if writing else device.read_into)(buf, 0)

    with pytest.raises(StageFailed, match="did not answer") as caught:
        ask()
    assert "storage" in caught.value.hint
    memory.close()  # raises BufferError while a request could still touch it
    assert _children() <= before


def test_a_broken_image_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = tmp_path / "broken.qcow2"
    path.write_bytes(b"nonsense" * 1000)
    broken = nbd.serve(SANDBOX, (Layer(path, ImageFormat.QCOW2),))
    with pytest.raises(StageFailed, match="not in qcow2 format"):
        broken.__enter__()


def test_without_a_sandbox_too(chain: Chain) -> None:
    with nbd.serve(Sandbox(enabled=False), chain, writable=True) as device:
        device.write(memoryview(b"y" * 512), 512)
    assert merged(chain)[512:1024] == b"y" * 512
