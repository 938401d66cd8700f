"""Captures of a running QEMU: one point in time, then only what changed; nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.process.sandbox import Sandbox
from adapters.progress import Mode, open_progress
from adapters.qmp.client import Refused
from adapters.qmp.machine import QemuMachines
from pipeline.errors import Conflict, InvalidParameter, NoSpace, NotFound
from pipeline.ports import ImageFormat, Layer
from pipeline.ports.machines import CaptureRequest, DiskPlan, whole
from tests.system.machine import Machine, machine

pytestmark = pytest.mark.system

MIB = 1 << 20
ONE, TWO = "1" * 32, "2" * 32


def qemu(*arguments: str | Path) -> None:
    subprocess.run([str(item) for item in arguments], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def disks(tmp_path: Path, require: Callable[..., None]) -> dict[str, Path]:
    require("qemu-system-x86_64", "qemu-img", "bwrap")
    os_disk, data = tmp_path / "os.qcow2", tmp_path / "data.raw"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", os_disk, "64M")
    qemu("qemu-img", "create", "-q", "-f", "raw", data, "16M")
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 1 1M 20M", os_disk)
    qemu("qemu-io", "-f", "raw", "-c", "write -P 2 0 4M", data)
    return {"os": os_disk, "data": data}


@pytest.fixture
def vm(tmp_path: Path, disks: dict[str, Path]) -> Iterator[Machine]:
    with machine(tmp_path, **disks) as running:
        yield running


@pytest.fixture
def machines(tmp_path: Path) -> QemuMachines:
    return QemuMachines(tmp_path / "captures", Sandbox())


def flat(path: Path, target: Path, *, format: str = "qcow2") -> Path:
    """A plain copy, by qemu-img and by the names in the headers."""
    qemu("qemu-img", "convert", "-U", "-f", format, "-O", "raw", path, target)
    return target


def same(one: Path, other: Path) -> bool:
    argv = ["qemu-img", "compare", "-f", "raw", "-F", "raw", str(one), str(other)]
    return subprocess.run(argv, stdout=subprocess.DEVNULL).returncode == 0


def test_a_capture_is_the_moment_it_was_taken_and_the_next_reads_what_changed(
    vm: Machine, machines: QemuMachines, disks: dict[str, Path], tmp_path: Path
) -> None:
    progress = open_progress(Mode.NONE)
    vm.io("os", "flush")
    before = {
        name: flat(path, tmp_path / f"{name}-before", format=path.suffix[1:])
        for name, path in disks.items()
    }
    facts = machines.facts(vm.qmp)
    assert [(d.name, d.lun, d.virtual_size) for d in facts.disks] == [
        ("os", None, 64 * MIB),
        ("data", 0, 16 * MIB),
    ]
    kept: dict[str, Path] = {}
    with machines.capture(CaptureRequest(vm.qmp, ONE, whole(facts.disks)), progress) as capture:
        vm.io("os", "write -P 9 1M 1M")  # the point in time is past
        for item in capture.disks:
            assert not item.incremental
            name = item.disk.name
            kept[name] = flat(item.chain[0].path, tmp_path / f"{name}-full.raw")
            assert same(kept[name], before[name])
        assert capture.stall.seconds < 2
        capture.keep()
    assert vm.debris() == []
    assert [disk.marks for disk in machines.facts(vm.qmp).disks] == [(ONE,), (ONE,)]

    vm.io("os", "write -P 7 40M 512k", "flush")
    now = flat(disks["os"], tmp_path / "os-now")
    full = tmp_path / "base.qcow2"
    qemu("qemu-img", "convert", "-f", "raw", "-O", "qcow2", kept["os"], full)
    plan = DiskPlan("os", since=ONE, below=(Layer(full, ImageFormat.QCOW2),))
    with machines.capture(CaptureRequest(vm.qmp, TWO, (plan,)), progress) as capture:
        (item,) = capture.disks
        assert item.incremental
        assert 1.5 * MIB <= item.transferred <= 1.5 * MIB + 512 * 1024  # and qcow2's own tables
        assert same(flat(item.chain[0].path, tmp_path / "os-second"), now)
        capture.keep()
    assert vm.bitmaps()["os"] == [f"galleria-{TWO}"]
    assert vm.debris() == []
    assert not any((tmp_path / "captures").iterdir())


def test_what_is_not_kept_leaves_the_machine_as_it_was(
    vm: Machine, machines: QemuMachines, tmp_path: Path
) -> None:
    progress = open_progress(Mode.NONE)
    everything = whole(machines.facts(vm.qmp).disks)
    with machines.capture(CaptureRequest(vm.qmp, ONE, everything), progress) as capture:
        capture.keep()
    with (
        pytest.raises(RuntimeError),
        machines.capture(CaptureRequest(vm.qmp, TWO, (DiskPlan("os", since=ONE),)), progress),
    ):
        raise RuntimeError
    assert vm.bitmaps() == {"os": [f"galleria-{ONE}"], "data": [f"galleria-{ONE}"]}
    with machines.capture(CaptureRequest(vm.qmp, TWO, everything), progress):
        pass  # and nobody says keep
    assert vm.bitmaps() == {"os": [f"galleria-{ONE}"], "data": [f"galleria-{ONE}"]}
    assert vm.debris() == []
    assert not any((tmp_path / "captures").iterdir())


KILLED = """
import sys
from pathlib import Path
from adapters.progress import Mode, open_progress
from adapters.qmp import jobs, machine
from adapters.process.sandbox import Sandbox
from pipeline.ports.machines import CaptureRequest, whole

machines = machine.QemuMachines(Path(sys.argv[2]), Sandbox())
socket = Path(sys.argv[1])
def stop(*_):
    print("here", flush=True)
    sys.stdin.read()
if sys.argv[4] == "follow":
    jobs.follow = stop
wanted = CaptureRequest(socket, sys.argv[3], whole(machines.facts(socket).disks))
with machines.capture(wanted, open_progress(Mode.NONE)):
    stop()
"""


@pytest.mark.parametrize("moment", ["follow", "captured"])
def test_a_killed_capture_is_resumed_or_cleaned_up(
    vm: Machine, machines: QemuMachines, tmp_path: Path, moment: str, repository: Path
) -> None:
    root = tmp_path / "captures"
    argv = [sys.executable, "-c", KILLED, str(vm.qmp), str(root), ONE, moment]
    before = flat(tmp_path / "os.qcow2", tmp_path / "before")
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=repository
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        child.send_signal(signal.SIGKILL)
    assert vm.ask("query-status")["status"] == "running"
    vm.io("os", "write -P 8 1M 1M", "flush")
    progress = open_progress(Mode.NONE)
    everything = whole(machines.facts(vm.qmp).disks)
    with machines.capture(CaptureRequest(vm.qmp, ONE, everything), progress) as capture:
        assert capture.resumed
        assert same(flat(capture.disks[0].chain[0].path, tmp_path / "after"), before)
    assert vm.debris() == []
    assert vm.bitmaps() == {"os": [], "data": []}


def test_the_next_run_cleans_up_after_a_killed_one(
    vm: Machine, machines: QemuMachines, tmp_path: Path, repository: Path
) -> None:
    root = tmp_path / "captures"
    argv = [sys.executable, "-c", KILLED, str(vm.qmp), str(root), ONE, "follow"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=repository
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        child.send_signal(signal.SIGKILL)
    assert len(vm.ask("query-jobs")) == 2
    everything = whole(machines.facts(vm.qmp).disks)
    request = CaptureRequest(vm.qmp, TWO, everything)
    with machines.capture(request, open_progress(Mode.NONE)) as capture:
        assert not capture.resumed
        capture.keep()
    assert vm.bitmaps() == {"os": [f"galleria-{TWO}"], "data": [f"galleria-{TWO}"]}
    assert vm.debris() == []
    assert not any(root.iterdir())


def test_a_capture_that_fails_half_way_takes_all_back(
    vm: Machine, machines: QemuMachines, tmp_path: Path
) -> None:
    """The second disk's incremental names a bitmap that QEMU does not have."""
    plans = (DiskPlan("os"), DiskPlan("data", since=TWO))
    with (
        pytest.raises(Refused, match="galleria-2222"),
        machines.capture(CaptureRequest(vm.qmp, ONE, plans), open_progress(Mode.NONE)),
    ):
        pass
    assert vm.debris() == []
    assert vm.bitmaps() == {"os": [], "data": []}
    assert not any((tmp_path / "captures").iterdir())


def test_refusals_say_why(
    vm: Machine,
    machines: QemuMachines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    progress = open_progress(Mode.NONE)
    with pytest.raises(NotFound, match="no QEMU answers"):
        machines.facts(tmp_path / "absent.sock")
    request = CaptureRequest(vm.qmp, ONE, (DiskPlan("sda"),))
    with (
        pytest.raises(InvalidParameter, match="no disk 'sda'"),
        machines.capture(request, progress),
    ):
        pass
    request = CaptureRequest(vm.qmp, ONE, (DiskPlan("os"),))
    monkeypatch.setattr("adapters.filesystem.calls.free_bytes", lambda _: 0)
    with pytest.raises(NoSpace, match="may need"), machines.capture(request, progress):
        pass
    monkeypatch.undo()
    vm.ask("stop")
    with pytest.raises(Conflict, match="is paused"), machines.capture(request, progress):
        pass
    vm.ask("cont")
    with machines.capture(request, progress), pytest.raises(Conflict, match="another process"):
        machines.capture(request, progress).__enter__()
    assert vm.debris() == []


def test_a_guest_whose_agent_is_silent_is_not_waited_for(
    vm: Machine, machines: QemuMachines, tmp_path: Path
) -> None:
    request = CaptureRequest(vm.qmp, ONE, (DiskPlan("os"),), agent=tmp_path / "nobody.sock")
    with machines.capture(request, open_progress(Mode.NONE)) as capture:
        assert capture.stall.file_systems == 0
        assert capture.stall.reason
        assert capture.stall.seconds < 2


AGENT = """
import json, socket, sys, time
server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen()
said = open(sys.argv[2], "w", buffering=1)
print("ready", flush=True)
while True:
    client, _ = server.accept()
    decoder, text = json.JSONDecoder(), ""
    while block := client.recv(4096):
        text += block.decode()
        while text:
            try:
                request, end = decoder.raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            name = request["execute"]
            said.write(json.dumps([name, time.monotonic()]) + "\\n")
            value = {"guest-sync": request["arguments"].get("id")}.get(name, 3)
            client.sendall(json.dumps({"return": value}).encode() + b"\\n")
"""


def test_file_systems_are_frozen_around_the_point_in_time(
    vm: Machine, machines: QemuMachines, tmp_path: Path
) -> None:
    socket, log = tmp_path / "agent.sock", tmp_path / "agent.log"
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, str(socket), str(log)], stdout=subprocess.PIPE
    ) as agent:
        try:
            assert agent.stdout is not None
            agent.stdout.readline()
            request = CaptureRequest(vm.qmp, ONE, (DiskPlan("os"),), agent=socket)
            with machines.capture(request, open_progress(Mode.NONE)) as capture:
                stall = capture.stall
        finally:
            agent.terminate()
    said = dict(json.loads(line) for line in log.read_text().splitlines())
    assert stall.file_systems == 3
    assert not stall.reason
    assert 0 < said["guest-fsfreeze-thaw"] - said["guest-fsfreeze-freeze"] <= stall.frozen_seconds
    assert stall.frozen_seconds < 2


def test_the_tests_machine_is_gone(tmp_path: Path, disks: dict[str, Path]) -> None:
    with machine(tmp_path, **disks) as running:
        number = running.process.pid
    time.sleep(0)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
