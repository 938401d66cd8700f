"""A real guest that writes all the time, captured while it runs."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.process.sandbox import Sandbox
from adapters.progress import Mode, open_progress
from adapters.qmp import jobs
from adapters.qmp.machine import QemuMachines
from fixtures import boot, debian
from fixtures.disk import stable_uuid
from pipeline.ports import ImageFormat, Layer
from pipeline.ports.machines import CaptureRequest, DiskPlan, whole
from tests.system.conftest import settle
from tests.system.machine import Machine
from tests.system.test_machines import flat, qemu, same

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900)]

MIB = 1 << 20
BOOT_SECONDS = 400
# a file is rewritten without end, 64 KiB at a time, each piece on the disk before the next
LOAD = (
    "mount -o remount,rw /; n=0; while :; do n=$((n+1));"
    " dd if=/dev/urandom of=/var/tmp/load bs=64k count=1"
    " seek=$((n%64)) conv=notrunc,fsync 2>/dev/null; read up rest </proc/uptime;"
    " echo load $n $up >/dev/ttyS0; done"
)


@pytest.fixture
def writer(guest: debian.Guest, tmp_path: Path, require: Callable[..., None]) -> Iterator[Machine]:
    require("qemu-system-x86_64", "qemu-img", "bwrap")
    disks = []
    for name, base in (("os", guest.os_disk), ("data", guest.data_disk)):
        path = tmp_path / f"{name}.qcow2"
        qemu("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, path)
        disks.append((path, "qcow2"))
    console = tmp_path / "console"
    argv = boot.arguments(boot.Machine("live", tuple(disks), console))
    argv = [item.replace(",if=none", ",if=none,stats-intervals.0=600") for item in argv]
    # a shell as the first process: a kernel, a file system and a writer, and nothing to wait for
    append = f'root=UUID={stable_uuid("root")} {boot.APPEND} init=/bin/sh -- -c "{LOAD}"'
    argv += ["-kernel", str(guest.kernel), "-initrd", str(guest.initrd), "-append", append]
    for name in ("qmp", "side"):
        argv += ["-qmp", f"unix:{tmp_path}/{name}.sock,server=on,wait=off"]
    settle(tmp_path)  # what other tests have written is not for this guest to wait for
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + BOOT_SECONDS
            while len(beats(console)) < 20:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline, text_of(console)[-3000:]
                time.sleep(0.5)
            yield Machine(tmp_path, process)
        finally:
            process.terminate()
            process.wait()


def beats(console: Path) -> list[float]:
    """The guest's own clock, in seconds, after each piece that it wrote."""
    found = re.findall(r"load \d+ ([0-9.]+)\s", text_of(console))
    return [float(text) for text in found]


def text_of(console: Path) -> str:
    return console.read_text(errors="replace") if console.exists() else ""


def longest_wait(vm: Machine) -> float:
    """The longest that a request of the guest took, in seconds, by QEMU's own account."""
    return max(
        float(stats[f"max_{kind}_latency_ns"]) / 1e9
        for device in vm.ask("query-blockstats")
        for stats in device["stats"]["timed_stats"]
        for kind in ("wr", "rd", "flush")
    )


def test_a_guest_that_writes_is_captured(
    writer: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = open_progress(Mode.NONE)
    machines = QemuMachines(tmp_path / "captures", Sandbox())
    frozen = tmp_path / "frozen.raw"
    transaction = jobs.transaction

    def at_rest(*arguments: object) -> object:
        """The machine is stopped for the moment itself: only so an oracle can see the same."""
        writer.ask("stop")
        flat(tmp_path / "os.qcow2", frozen)
        stall = transaction(*arguments)  # type: ignore[arg-type]
        writer.ask("cont")
        return stall

    # first: the copying itself goes on under load
    first, console = "a" * 32, tmp_path / "console"
    monkeypatch.setattr(jobs, "transaction", at_rest)
    disks = machines.facts(writer.qmp).disks
    with machines.capture(CaptureRequest(writer.qmp, first, whole(disks)), progress) as capture:
        written = len(beats(console))
        (full, _) = capture.disks
        assert same(flat(full.chain[0].path, tmp_path / "full.raw"), frozen)
        base = tmp_path / "base.qcow2"
        qemu("qemu-img", "convert", "-f", "raw", "-O", "qcow2", tmp_path / "full.raw", base)
        capture.keep()
    # then with nothing but galleria: the next one takes what changed, and the guest hardly waits
    while len(beats(console)) < written + 20:
        time.sleep(0.2)
    second = "b" * 32
    plan = DiskPlan("disk0", since=first, below=(Layer(base, ImageFormat.QCOW2),))
    monkeypatch.setattr(jobs, "transaction", at_rest)
    before = longest_wait(writer)
    with machines.capture(CaptureRequest(writer.qmp, second, (plan,)), progress) as capture:
        (changed,) = capture.disks
        assert same(flat(changed.chain[0].path, tmp_path / "second.raw"), frozen)
        assert changed.transferred < full.transferred / 4
        assert changed.transferred <= 64 * MIB  # the load's file has 4, journal and logs the rest
        capture.keep()
    monkeypatch.undo()
    with machines.capture(CaptureRequest(writer.qmp, "c" * 32, whole(disks)), progress) as capture:
        assert capture.stall.seconds < 2
    assert max(before, longest_wait(writer)) < 2
    count = len(beats(console))
    while len(beats(console)) < count + 5:  # it goes on
        time.sleep(0.2)
    assert writer.debris() == []
    print(
        f"full {full.transferred} bytes, then {changed.transferred}; "
        f"stalls {capture.stall.seconds:.3f} s, longest request {longest_wait(writer):.3f} s"
    )
