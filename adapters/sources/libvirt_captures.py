"""Capture a machine that libvirt runs: its disks at one point in time, while it goes on.

QEMU copies them at libvirt's word (`virsh backup-begin`, push mode: libvirt, "Backup XML format"):
before the guest changes a block that is not copied yet, that is copied first. libvirt lets QEMU
write to the files, wherever it confines it; that QEMU's user may enter their directory is ours to
see to. File systems are not frozen: it is as after a power cut.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

from adapters.filesystem import calls, durable
from adapters.sources.domains import Machine
from adapters.sources.libvirt import virsh
from adapters.sources.unpacking import discard, private_directory
from pipeline.errors import CommandFailed, Conflict, EnvironmentMissing, NoSpace, StageFailed
from pipeline.model.disks import disk_name
from pipeline.model.images import ImageFormat
from pipeline.model.sources import DiskSource
from pipeline.ports import Progress
from pipeline.ports.machines import MachineDisk, MachineFacts

BESIDE = ".galleria-captures"  # a directory beside the machine's disk
ENTER = 0o711  # for QEMU's user, who knows the name
RESERVE = 64 << 20  # bytes that a file system is left with
POLL_SECONDS = 0.2
BUSY = "cannot acquire state change lock"  # what libvirt says after 30 s
NO_JOB = "None"
DENIED = "Permission denied"


@contextlib.contextmanager
def captured(
    machine: Machine, uri: str, work: Path, progress: Progress
) -> Iterator[tuple[DiskSource, ...]]:
    """The disks of a running machine, as files that are there for the length of the `with`. Raises
    Conflict while another backup of it runs, NoSpace before it is touched, and EnvironmentMissing
    where QEMU may not write anywhere that galleria may."""
    with contextlib.ExitStack() as stack:
        directory = _begun(machine, uri, work, stack)
        try:
            _follow(machine, uri, progress)
        except BaseException:
            with contextlib.suppress(CommandFailed):  # it has ended
                virsh(uri, "domjobabort", "--domain", machine.name)
            raise
        progress.warn("file systems were not frozen: it is crash-consistent")
        yield tuple(
            replace(
                disk,
                path=_file(directory, disk),
                declared=ImageFormat.QCOW2,
                backing=(),
                name=disk.shown,
            )
            for disk in machine.disks
        )


def facts(machine: Machine, uri: str) -> MachineFacts:
    """A running machine's disks, as libvirt has them."""
    disks = []
    for disk, target in zip(machine.disks, machine.targets, strict=True):
        sizes = _pairs(uri, "domblkinfo", "--domain", machine.name, "--device", target)
        capacity, allocation = (int(sizes[name]) for name in ("Capacity", "Allocation"))
        format = disk.declared.qemu_name if disk.declared else ""
        disks.append(MachineDisk(target, disk.lun, capacity, allocation, format, writable=True))
    return MachineFacts("", machine.name, running=True, disks=tuple(disks))


def _begun(machine: Machine, uri: str, work: Path, stack: contextlib.ExitStack) -> Path:
    """Where the capture goes that has begun. Galleria's own place serves where QEMU runs as the
    same user; a system's libvirt runs it as one who may not enter that."""
    if _job(machine, uri).get("Job type") != NO_JOB:  # a second one would wait, even if nobody does
        raise _busy(machine)
    denied: Exception | None = None
    for place in (_within(work), _beside(machine.disks[0].path.parent)):
        with contextlib.ExitStack() as attempt:
            try:
                directory = attempt.enter_context(place)
                _check_space(machine, directory)
                _begin(machine, uri, directory)
            except (OSError, NoSpace) as error:  # the other place may do
                denied = error
            except CommandFailed as error:
                if BUSY in error.stderr:
                    raise _busy(machine) from error
                if DENIED not in error.stderr:
                    raise EnvironmentMissing(
                        f"libvirt does not capture the machine: {error.message}",
                        hint="shut it down, or capture it through a QMP socket of its own: --qmp",
                    ) from error
                denied = error
            else:
                stack.push(attempt.pop_all())
                return directory
    if isinstance(denied, NoSpace):
        raise denied
    raise EnvironmentMissing(
        f"the QEMU of {machine.name!a} may not write where galleria reads: {denied}",
        hint="run galleria as root or as QEMU's user, or shut the machine down",
    )


def _busy(machine: Machine) -> Conflict:
    return Conflict(
        f"libvirt has another job with the machine {machine.name!a}: a backup, say",
        hint="wait for it (virsh domjobinfo), or end it (virsh domjobabort)",
    )


@contextlib.contextmanager
def _within(work: Path) -> Iterator[Path]:
    path = private_directory(work)
    try:
        yield path
    finally:
        discard(path)


@contextlib.contextmanager
def _beside(place: Path) -> Iterator[Path]:
    root = place / BESIDE
    durable.sweep(root)
    try:
        with durable.Staging(root) as staging:
            for directory in (root, staging.path):
                _let_in(directory)
            yield staging.path
    finally:
        with contextlib.suppress(OSError):  # another capture is in it
            root.rmdir()


def _let_in(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(fd, ENTER)
    finally:
        os.close(fd)


def _check_space(machine: Machine, directory: Path) -> None:
    need = RESERVE
    for disk in machine.disks:
        for layer in disk.layers:
            with contextlib.suppress(OSError):  # QEMU alone may see it
                need += layer.path.stat().st_blocks * 512
    free = calls.free_bytes(directory)
    if free < need:
        raise NoSpace(
            f"{directory.parent} has {free / 2**30:.1f} GiB free and a capture may need "
            f"{need / 2**30:.1f} GiB"
        )


def _begin(machine: Machine, uri: str, directory: Path) -> None:
    document = directory / "backup.xml"
    document.write_bytes(backup_xml(machine, directory))
    virsh(uri, "backup-begin", "--domain", machine.name, "--backupxml", str(document))


def backup_xml(machine: Machine, directory: Path) -> bytes:
    """What libvirt is asked for: only the disks that are listed are copied."""
    root = ET.Element("domainbackup", mode="push")
    disks = ET.SubElement(root, "disks")
    for disk, target in zip(machine.disks, machine.targets, strict=True):
        element = ET.SubElement(disks, "disk", name=target, backup="yes", type="file")
        ET.SubElement(element, "target", file=str(_file(directory, disk)))
        ET.SubElement(element, "driver", type="qcow2")
    content: bytes = ET.tostring(root)
    return content


def _file(directory: Path, disk: DiskSource) -> Path:
    return directory / f"{disk_name(disk.lun)}.qcow2"


def _follow(machine: Machine, uri: str, progress: Progress) -> None:
    """Wait until the files are whole."""
    with progress.stage("capture"):
        while _job(machine, uri).get("Job type") != NO_JOB:
            time.sleep(POLL_SECONDS)
    ended = _job(machine, uri, "--completed")
    if (ended.get("Job type"), ended.get("Operation")) != ("Completed", "Backup"):
        raise StageFailed(f"libvirt did not finish the capture of {machine.name!a}: {ended}")


def _job(machine: Machine, uri: str, *options: str) -> dict[str, str]:
    return _pairs(uri, "domjobinfo", "--domain", machine.name, *options)


def _pairs(uri: str, *arguments: str) -> dict[str, str]:
    said = virsh(uri, *arguments).decode(errors="replace")
    pairs = (line.partition(":") for line in said.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if value.strip()}
