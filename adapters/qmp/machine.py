"""Capture the disks of a running QEMU at one point in time.

One QMP transaction adds a dirty bitmap to every disk (what is written from now on) and starts a
backup job for every disk (what was there until now): before the guest changes a block that is not
copied yet, QEMU copies it first. The jobs write to qcow2 files that galleria opened and handed in,
so QEMU needs no right to them. https://www.qemu.org/docs/master/interop/bitmaps.html
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adapters import durable, filesystem, qemu
from adapters.qmp import state as records
from adapters.qmp.client import Monitor, Refused, connect
from adapters.qmp.state import CaptureState, DiskState, Phase
from adapters.sandbox import Sandbox
from pipeline.errors import Conflict, InvalidParameter, NoSpace, NotFound, StageFailed
from pipeline.errors import Refused as Forbidden
from pipeline.machines import (
    Capture,
    CapturedDisk,
    CaptureRequest,
    MachineDisk,
    MachineFacts,
    Machines,
    Stall,
)
from pipeline.ports import Chain, ImageFormat, Layer, Meter, Progress

POLL_SECONDS = 0.05
CANCEL_SECONDS = 30.0
CLUSTER = 65536  # of the files, and what one bit of a bitmap stands for: no copy is half of one
RESERVE = 64 << 20  # bytes that a file system is left with


class QemuMachines:
    """QEMUs on this host. `root` keeps the files of captures while they are made."""

    def __init__(self, root: Path, sandbox: Sandbox) -> None:
        self._root = root
        self._sandbox = sandbox

    def look(self, socket: Path) -> MachineFacts:
        with connect(socket) as monitor:
            return facts(monitor)

    @contextlib.contextmanager
    def capture(self, request: CaptureRequest, progress: Progress) -> Iterator[Capture]:
        directory = self._root / request.mark
        with records.held(directory):
            try:
                made = self._make(request, directory, progress)
                yield made
            except BaseException:
                self._take_back(directory)
                raise
            if not made.kept:
                self._take_back(directory)
            durable.remove_tree(directory)

    def _make(self, request: CaptureRequest, directory: Path, progress: Progress) -> "QemuCapture":
        socket = str(request.socket.absolute())
        state = records.load(directory)
        if state is not None and state.phase is Phase.COMPLETE:
            return self._captured(request, directory, state, resumed=True)
        with connect(request.socket) as monitor:
            resumed = state is not None and state.phase is Phase.RUNNING and _alive(monitor, state)
            if state is not None and not resumed:
                undo(monitor, state)
            self._clean(monitor, socket, directory)
            if state is None or not resumed:
                state = self._begin(monitor, request, directory)
            try:
                _follow(monitor, state, progress)
                _finish(monitor, state)
            except BaseException:
                undo(monitor, state)
                raise
        for number in range(len(state.disks)):
            durable.sync_file(_file(directory, number))
        state = dataclasses.replace(state, phase=Phase.COMPLETE)
        records.save(directory, state)
        return self._captured(request, directory, state, resumed=resumed)

    def _begin(self, monitor: Monitor, request: CaptureRequest, directory: Path) -> CaptureState:
        """Prepare the files, then take the point in time."""
        known = {disk.name: (disk, node) for disk, node in devices(monitor)}
        chosen = [_known(known, plan.name) for plan in request.disks]
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
        try:
            for number, plan in enumerate(request.disks):
                self._target(monitor, state, number, plan.below, directory)
            stall = _transaction(monitor, state, [disk for disk, _ in chosen], request.agent)
            state = dataclasses.replace(state, phase=Phase.RUNNING, stall=dataclasses.asdict(stall))
            records.save(directory, state)
        except BaseException:
            undo(monitor, state)
            raise
        return state

    def _check_space(self, disks: Sequence[MachineDisk], directory: Path) -> None:
        need = RESERVE + sum(min(disk.data_bytes, disk.virtual_size) for disk in disks)
        free = filesystem.free_bytes(directory)
        if free < need:
            raise NoSpace(
                f"{directory.parent} has {free / 2**30:.1f} GiB free and a capture may need "
                f"{need / 2**30:.1f} GiB",
                hint="make room there, or configure another work directory: if it filled up, the "
                "guest's writes would fail",
            )

    def _target(
        self, monitor: Monitor, state: CaptureState, number: int, below: Chain, directory: Path
    ) -> None:
        """An empty file for one disk, opened by QEMU through a descriptor, and nothing below it:
        its header tells only galleria what the changes are changes of."""
        path = _file(directory, number)
        path.unlink(missing_ok=True)
        qemu.create_qcow2(
            self._sandbox,
            path,
            state.disks[number].virtual_size,
            backing=str(below[0].path.absolute()) if below else None,
            backing_format=qemu.DRIVERS[below[0].format] if below else None,
            cluster_size=CLUSTER,
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
            if directory != own and state is not None:
                undo(monitor, state)
                durable.remove_tree(directory)

    def _take_back(self, directory: Path) -> None:
        """Leave nothing of a capture that is not wanted, nor in a machine that still runs."""
        state = records.load(directory)
        if state is not None:
            with contextlib.suppress(NotFound), connect(Path(state.socket)) as monitor:
                undo(monitor, state)
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
                    remove_bitmap(monitor, disk.node, records.bitmap_name(disk.since))


def facts(monitor: Monitor) -> MachineFacts:
    uuid = str(monitor.execute("query-uuid")["UUID"])
    name = str(monitor.execute("query-name").get("name", ""))
    running = bool(monitor.execute("query-status")["running"])
    disks = tuple(disk for disk, _ in devices(monitor))
    return MachineFacts(uuid if uuid.strip("0-") else "", name, running, disks)


def devices(monitor: Monitor) -> list[tuple[MachineDisk, str]]:
    """The disks of a machine in the order of its command line, and the nodes that they read from.

    Drives for removable media are no disks, nor is firmware in flash.
    """
    found: list[tuple[MachineDisk, str]] = []
    for device in monitor.execute("query-block"):
        inserted = device.get("inserted")
        place = str(device.get("qdev", ""))
        name = str(device["device"]) or place.removesuffix("/virtio-backend")
        if inserted is None or device["removable"] or "flash" in f"{name} {place}":
            continue
        image = inserted["image"]
        marks = (
            records.mark_of(str(bitmap.get("name", "")))
            for bitmap in inserted.get("dirty-bitmaps", ())
            if bitmap["recording"] and not bitmap.get("inconsistent") and not bitmap["busy"]
        )
        lun = len(found) - 1 if found else None
        disk = MachineDisk(
            name,
            lun,
            int(image["virtual-size"]),
            int(image.get("actual-size", image["virtual-size"])),
            str(inserted["drv"]),
            not inserted["ro"],
            tuple(mark for mark in marks if mark is not None),
        )
        found.append((disk, str(inserted["node-name"])))
    if not found:
        raise Forbidden("the machine has no disk that could be captured")
    return found


def _known(disks: dict[str, tuple[MachineDisk, str]], name: str) -> tuple[MachineDisk, str]:
    if name not in disks:
        raise InvalidParameter(
            f"the machine has no disk {name!r}", hint=f"it has: {', '.join(sorted(disks))}"
        )
    return disks[name]


def _transaction(
    monitor: Monitor, state: CaptureState, disks: Sequence[MachineDisk], agent: Path | None
) -> Stall:
    """Take the point in time, of all disks at once."""
    actions: list[dict[str, Any]] = []
    for disk, wanted in zip(disks, state.disks, strict=True):
        if wanted.bitmap:
            persistent = disk.format == "qcow2"  # only there they outlive the machine's process
            data = {"node": wanted.node, "name": state.bitmap, "granularity": CLUSTER}
            actions.append(
                {"type": "block-dirty-bitmap-add", "data": {**data, "persistent": persistent}}
            )
    for number, wanted in enumerate(state.disks):
        backup: dict[str, Any] = {
            "job-id": state.job(number),
            "device": wanted.node,
            "target": state.job(number),
            "sync": "full",
            "auto-dismiss": False,
        }
        if wanted.since is not None:
            # `never`: should this capture come to nothing, the old bitmap is as it was
            bitmap = records.bitmap_name(wanted.since)
            backup |= {"sync": "bitmap", "bitmap": bitmap, "bitmap-mode": "never"}
        actions.append({"type": "blockdev-backup", "data": backup})
    if agent is not None:
        answer = monitor.execute_frozen(agent, "transaction", actions=actions)
        return Stall(
            answer["frozen_seconds"],
            answer["command_seconds"],
            answer["file_systems"],
            answer["reason"],
        )
    started = time.monotonic()
    monitor.execute("transaction", actions=actions)
    seconds = time.monotonic() - started
    return Stall(0.0, seconds, 0, "no guest agent was named")


def _alive(monitor: Monitor, state: CaptureState) -> bool:
    """Whether QEMU still works on every disk of a capture, or has ended that well."""
    jobs = {job["id"]: job for job in monitor.execute("query-jobs")}
    mine = [jobs.get(state.job(number)) for number in range(len(state.disks))]
    return all(job is not None and "error" not in job for job in mine)


def _follow(monitor: Monitor, state: CaptureState, progress: Progress) -> None:
    """Wait until every job has ended. Raises StageFailed with QEMU's words for one that failed."""
    names = {state.job(number): disk.name for number, disk in enumerate(state.disks)}
    with progress.stage("capture", sum(disk.virtual_size for disk in state.disks)) as meter:
        told = 0
        while True:
            jobs = [job for job in monitor.execute("query-jobs") if job["id"] in names]
            if len(jobs) < len(names):
                raise Conflict("somebody else ended the capture's jobs in QEMU")
            failed = [job for job in jobs if "error" in job]
            if failed:
                job = failed[0]
                raise StageFailed(
                    f"QEMU could not copy {names[job['id']]!r}: {str(job['error'])!r}",
                    hint="the machine goes on; nothing was captured",
                )
            told = _tell(meter, jobs, told)
            if all(job["status"] == "concluded" for job in jobs):
                return
            time.sleep(POLL_SECONDS)


def _tell(meter: Meter, jobs: Sequence[dict[str, Any]], told: int) -> int:
    done = sum(int(job["current-progress"]) for job in jobs)
    meter.advance(max(0, done - told))
    return max(done, told)


def _finish(monitor: Monitor, state: CaptureState) -> None:
    """Let QEMU close the files."""
    for number in range(len(state.disks)):
        monitor.execute("job-dismiss", id=state.job(number))
        monitor.execute("blockdev-del", node_name=state.job(number))
        monitor.execute("remove-fd", fdset_id=state.fdset(number))


def undo(monitor: Monitor, state: CaptureState) -> None:
    """Leave nothing of a capture in QEMU, however far it came; the guest goes on."""
    if state.agent and state.phase is Phase.BEGUN:
        monitor.thaw(Path(state.agent))  # its owner may have been killed while it was frozen
    for number, disk in enumerate(state.disks):
        _end_job(monitor, state.job(number))
        with contextlib.suppress(Refused):  # there is none
            monitor.execute("blockdev-del", node_name=state.job(number))
        with contextlib.suppress(Refused):
            monitor.execute("remove-fd", fdset_id=state.fdset(number))
        if disk.bitmap:
            remove_bitmap(monitor, disk.node, state.bitmap)


def _end_job(monitor: Monitor, name: str) -> None:
    deadline = time.monotonic() + CANCEL_SECONDS
    while True:
        job = next((j for j in monitor.execute("query-jobs") if j["id"] == name), None)
        if job is None:
            return
        if time.monotonic() > deadline:
            raise StageFailed(f"QEMU does not end the job {name}: it is {job['status']}")
        # a job between two states refuses both: it is asked again
        with contextlib.suppress(Refused):
            monitor.execute(
                "job-dismiss" if job["status"] == "concluded" else "job-cancel", id=name
            )
        time.sleep(POLL_SECONDS / 5)


def remove_bitmap(monitor: Monitor, node: str, name: str) -> None:
    with contextlib.suppress(Refused):  # there is none
        monitor.execute("block-dirty-bitmap-remove", node=node, name=name)


def _file(directory: Path, number: int) -> Path:
    return directory / f"{number}.qcow2"


_machines: type[Machines] = QemuMachines
_capture: type[Capture] = QemuCapture
