"""What a capture asks of QEMU: its disks, the transaction, the jobs, and taking it all back."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.qmp import state as records
from adapters.qmp.client import Monitor, Refused
from adapters.qmp.state import CaptureState, Phase
from pipeline.errors import Conflict, InvalidParameter, StageFailed
from pipeline.errors import Refused as Forbidden
from pipeline.ports import Meter, Progress
from pipeline.ports.machines import MachineDisk, MachineFacts, Stall

POLL_SECONDS = 0.05
CANCEL_SECONDS = 30.0
CLUSTER = 65536  # of the files, and what one bit of a bitmap stands for: no copy is half of one


def facts(monitor: Monitor) -> MachineFacts:
    uuid = str(monitor.execute("query-uuid")["UUID"])
    name = str(monitor.execute("query-name").get("name", ""))
    running = bool(monitor.execute("query-status")["running"])
    disks = tuple(disk for disk, _ in devices(monitor))
    return MachineFacts(uuid if uuid.strip("0-") else "", name, running, disks)


def check_running(monitor: Monitor) -> None:
    """Refuse a machine that is paused: QEMU (7.2: monitor_fdset_cleanup) closes the descriptors
    that it was given only while the guest runs; the files of a capture would stay open for
    writing."""
    if not monitor.execute("query-status")["running"]:
        raise Conflict(
            "the machine is paused: QEMU would not let go of what is captured",
            hint="let it run on (cont, virsh resume), or end it and publish its disks",
        )


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


def known_disk(disks: dict[str, tuple[MachineDisk, str]], name: str) -> tuple[MachineDisk, str]:
    if name not in disks:
        raise InvalidParameter(
            f"the machine has no disk {name!r}", hint=f"it has: {', '.join(sorted(disks))}"
        )
    return disks[name]


def transaction(
    monitor: Monitor, state: CaptureState, disks: Sequence[MachineDisk], agent: Path | None
) -> Stall:
    """Take the point in time, of all disks at once.

    Where the file of a capture can't be written the guest's own write wins, and the capture fails:
    a QEMU that does not know the choice lets the guest's write fail, so room is made sure of first.
    """
    spare = {}
    if accepts(monitor, "blockdev-backup", "on-cbw-error"):
        spare = {"on-cbw-error": "break-snapshot"}
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
            **spare,
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


def accepts(monitor: Monitor, command: str, argument: str) -> bool:
    """Whether this QEMU's `command` has an argument of that name, by QEMU's own description."""
    found = {item["name"]: item for item in monitor.execute("query-qmp-schema")}
    members = found[found[command]["arg-type"]]["members"]
    return any(member["name"] == argument for member in members)


def alive(monitor: Monitor, state: CaptureState) -> bool:
    """Whether QEMU still works on every disk of a capture, or has ended that well."""
    jobs = {job["id"]: job for job in monitor.execute("query-jobs")}
    mine = [jobs.get(state.job(number)) for number in range(len(state.disks))]
    return all(job is not None and "error" not in job for job in mine)


def follow(monitor: Monitor, state: CaptureState, progress: Progress) -> None:
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


def finish(monitor: Monitor, state: CaptureState) -> None:
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
