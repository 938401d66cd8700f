"""Capture the disks of a running QEMU at one point in time.

One QMP transaction adds a dirty bitmap to every disk (what is written from now on) and starts a
backup job for every disk (what was there until now): before the guest changes a block that is not
copied yet, QEMU copies it first. The jobs write to qcow2 files that galleria opened and handed in,
so QEMU needs no right to them. https://www.qemu.org/docs/master/interop/bitmaps.html
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from adapters.filesystem import calls, durable
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from adapters.qmp import jobs
from adapters.qmp import state as records
from adapters.qmp.client import Monitor, connect
from adapters.qmp.state import CaptureState, DiskState, Phase
from pipeline.errors import NoSpace, NotFound, undone_by
from pipeline.ports import Chain, ImageFormat, Layer, Progress
from pipeline.ports.machines import (
    Capture,
    CapturedDisk,
    CaptureRequest,
    MachineDisk,
    MachineFacts,
    RunningMachines,
    Stall,
)

RESERVE = 64 << 20  # bytes that a file system is left with


class QemuMachines:
    """QEMUs on this host. `root` keeps the files of captures while they are made."""

    def __init__(self, root: Path, sandbox: Sandbox) -> None:
        self._root = root
        self._sandbox = sandbox

    def facts(self, socket: Path) -> MachineFacts:
        with connect(socket) as monitor:
            return jobs.facts(monitor)

    @contextlib.contextmanager
    def capture(self, request: CaptureRequest, progress: Progress) -> Iterator[Capture]:
        directory = self._root / request.mark
        with records.held(directory):
            with undone_by(partial(self._take_back, directory)):
                made = self._make(request, directory, progress)
                yield made
            if not made.kept:
                self._take_back(directory)
            durable.remove_tree(directory)

    def _make(self, request: CaptureRequest, directory: Path, progress: Progress) -> "QemuCapture":
        socket = str(request.socket.absolute())
        state = records.load(directory)
        if state is not None and state.phase is Phase.COMPLETE:
            return self._captured(request, directory, state, resumed=True)
        with connect(request.socket) as monitor:
            resumed = (
                state is not None and state.phase is Phase.RUNNING and jobs.alive(monitor, state)
            )
            if state is not None and not resumed:
                jobs.undo(monitor, state)
            self._clean(monitor, socket, directory)
            if state is None or not resumed:
                state = self._begin(monitor, request, directory)
            with undone_by(partial(jobs.undo, monitor, state)):
                jobs.follow(monitor, state, progress)
                jobs.finish(monitor, state)
        for number in range(len(state.disks)):
            durable.sync_file(_file(directory, number))
        state = dataclasses.replace(state, phase=Phase.COMPLETE)
        records.save(directory, state)
        return self._captured(request, directory, state, resumed=resumed)

    def _begin(self, monitor: Monitor, request: CaptureRequest, directory: Path) -> CaptureState:
        """Prepare the files, then take the point in time."""
        jobs.check_running(monitor)
        known = {disk.name: (disk, node) for disk, node in jobs.devices(monitor)}
        chosen = [jobs.known_disk(known, plan.name) for plan in request.disks]
        self._check_space([disk for disk, _ in chosen], directory)
        state = CaptureState(
            request.mark,
            str(request.socket.absolute()),
            str(request.agent.absolute()) if request.agent else "",
            Phase.BEGUN,
            tuple(
                DiskState(
                    disk.name,
                    node,
                    disk.lun,
                    disk.virtual_size,
                    disk.format,
                    plan.since,
                    request.remember and disk.writable,
                )
                for plan, (disk, node) in zip(request.disks, chosen, strict=True)
            ),
        )
        records.save(directory, state)
        with undone_by(lambda: jobs.undo(monitor, state)):
            for number, plan in enumerate(request.disks):
                self._target(monitor, state, number, plan.below, directory)
            stall = jobs.transaction(monitor, state, [disk for disk, _ in chosen], request.agent)
            state = dataclasses.replace(state, phase=Phase.RUNNING, stall=dataclasses.asdict(stall))
            records.save(directory, state)
        return state

    def _check_space(self, disks: Sequence[MachineDisk], directory: Path) -> None:
        need = RESERVE + sum(min(disk.data_bytes, disk.virtual_size) for disk in disks)
        free = calls.free_bytes(directory)
        if free < need:
            raise NoSpace(
                f"{directory.parent} has {free / 2**30:.1f} GiB free and a capture may need "
                f"{need / 2**30:.1f} GiB",
                hint="make room there, or set another `captures` directory: if it filled up, the "
                "guest's writes would fail",
            )

    def _target(
        self, monitor: Monitor, state: CaptureState, number: int, below: Chain, directory: Path
    ) -> None:
        """An empty file for one disk, opened by QEMU through a descriptor, and nothing below it:
        its header tells only galleria what the changes are changes of."""
        path = _file(directory, number)
        path.unlink(missing_ok=True)
        img.create_qcow2(
            self._sandbox,
            path,
            state.disks[number].virtual_size,
            backing=str(below[0].path.absolute()) if below else None,
            backing_format=below[0].format.qemu_name if below else None,
            cluster_size=jobs.CLUSTER,
        )
        monitor.add_fd(path, state.fdset(number))
        monitor.execute(
            "blockdev-add",
            driver="qcow2",
            node_name=state.job(number),
            backing=None,
            file={"driver": "file", "filename": f"/dev/fdset/{state.fdset(number)}"},
        )

    def _clean(self, monitor: Monitor, socket: str, own: Path) -> None:
        """Take away what killed captures of this machine left in it."""
        for directory, state in records.abandoned(self._root, socket):
            if directory != own:
                jobs.undo(monitor, state)
                durable.remove_tree(directory)

    def _take_back(self, directory: Path) -> None:
        """Leave nothing of a capture that is not wanted, nor in a machine that still runs."""
        state = records.load(directory)
        if state is not None:
            with contextlib.suppress(NotFound), connect(Path(state.socket)) as monitor:
                jobs.undo(monitor, state)
        durable.remove_tree(directory)

    def _captured(
        self, request: CaptureRequest, directory: Path, state: CaptureState, *, resumed: bool
    ) -> "QemuCapture":
        plans = {plan.name: plan for plan in request.disks}
        disks = []
        for number, disk in enumerate(state.disks):
            path = _file(directory, number)
            below = plans[disk.name].below if disk.name in plans and disk.since else ()
            described = MachineDisk(
                disk.name, disk.lun, disk.virtual_size, 0, disk.format, disk.bitmap
            )
            chain = (Layer(path, ImageFormat.QCOW2), *below)
            amount = path.stat().st_blocks * 512
            disks.append(CapturedDisk(described, chain, amount, disk.since is not None))
        return QemuCapture(state, tuple(disks), resumed=resumed)


class QemuCapture:
    """A finished capture: files, and bitmaps in QEMU."""

    def __init__(
        self, state: CaptureState, disks: tuple[CapturedDisk, ...], *, resumed: bool
    ) -> None:
        self._state = state
        self._disks = disks
        self._resumed = resumed
        self.kept = False

    @property
    def disks(self) -> tuple[CapturedDisk, ...]:
        return self._disks

    @property
    def stall(self) -> Stall:
        return Stall(**self._state.stall)

    @property
    def resumed(self) -> bool:
        return self._resumed

    def keep(self) -> None:
        self.kept = True
        # a machine that has ended keeps its bitmaps in its disks: the next capture finds them
        with contextlib.suppress(NotFound), connect(Path(self._state.socket)) as monitor:
            for disk in self._state.disks:
                if disk.since is not None and disk.bitmap:
                    jobs.remove_bitmap(monitor, disk.node, records.bitmap_name(disk.since))


def _file(directory: Path, number: int) -> Path:
    return directory / f"{number}.qcow2"


_machines: type[RunningMachines] = QemuMachines
_capture: type[Capture] = QemuCapture
