"""Disks for new VMs, made from a replica."""

from collections.abc import Sequence
from pathlib import Path

from adapters.filesystem import durable
from adapters.formats import qcow2
from adapters.process.sandbox import Sandbox
from adapters.qemu import img
from adapters.zones import children, layout
from pipeline.errors import CommandFailed, Conflict, VerificationFailed
from pipeline.model import DeployedDisk
from pipeline.ports import ImageFormat, Layer, Replica, ReplicaDisk

_LOCKED = "another process using the image"  # qemu's words for a disk that a VM has open


def deploy(
    zone: Path, sandbox: Sandbox, replica: Replica, targets: Sequence[Path]
) -> list[tuple[ReplicaDisk, ...]]:
    """The replica's disks in each of `targets`, which are made.

    They depend on the bases (of a shallow version: on its sources), not on the replica: removing
    the version leaves them working.
    """
    made: list[Path] = []
    try:
        for target in targets:
            try:
                target.mkdir(mode=0o700)
            except FileExistsError:
                raise Conflict(
                    f"{target} exists already", hint="deploy into a directory of its own"
                ) from None
            made.append(target)
        disks = [_disks(zone, sandbox, disk, targets) for disk in replica.disks]
    except BaseException:
        for target in made:
            durable.remove_tree(target)
        raise
    return [tuple(disk[index] for disk in disks) for index in range(len(targets))]


def _disks(
    zone: Path, sandbox: Sandbox, disk: ReplicaDisk, targets: Sequence[Path]
) -> list[ReplicaDisk]:
    if disk.method == children.SHALLOW:
        copies = [children.again(disk, target) for target in targets]
        for copy in copies:
            copy.path.chmod(0o600)  # a copied replica is read-only
        return copies
    base = children.find_base(zone, disk.digest)
    return children.make(sandbox, base, targets, disk.lun, f"{base.chain[0].path.parent}/")


# --- disks that VMs have --------------------------------------------------------------------------


def problem(zone: Path, sandbox: Sandbox, disk: DeployedDisk) -> str:
    """Why a VM could not use a disk, for people; empty when nothing shows it. The tables of one
    that is in use are not looked at: they change."""
    path = Path(disk.path)
    try:
        layout.check_file(path)
    except VerificationFailed as error:
        return error.message
    if not path.exists():
        return "it is not there"
    if disk.format == ImageFormat.RAW.value or not disk.digest:
        return ""
    base = children.find_base(zone, disk.digest)
    with path.open("rb") as file:
        name = qcow2.backing_name(file)
    if name != str(base.chain[0].path):
        return f"its backing file is {name!a:.300}"
    try:
        found = img.check(sandbox, (Layer(path, ImageFormat.QCOW2), *base.chain))
    except CommandFailed as error:
        return "" if _LOCKED in error.stderr else f"its tables are damaged: {error.stderr!a:.300}"
    bad = found.get("corruptions", 0) + found.get("check-errors", 0)
    return f"its tables are damaged in {bad} places" if bad else ""


def relink(zone: Path, sandbox: Sandbox, disk: DeployedDisk) -> None:
    """Let an overlay name the base in this zone."""
    path = Path(disk.path)
    top = children.find_base(zone, disk.digest).chain[0]
    layout.check_file(path)
    with path.open("rb") as file:
        if qcow2.backing_name(file) == str(top.path):
            return
    try:
        img.rebase(sandbox, path, backing=str(top.path), backing_format=top.format.qemu_name)
    except CommandFailed as error:
        if _LOCKED not in error.stderr:
            raise
        raise Conflict(
            f"{path} is in use: its header can't be changed",
            hint="shut the VM down, then galleria repair",
        ) from None
    durable.sync_file(path)
