"""Disks for new VMs, made from a replica."""

from collections.abc import Sequence
from pathlib import Path

from adapters.filesystem import durable
from adapters.process.sandbox import Sandbox
from adapters.zones import children
from pipeline.errors import Conflict
from pipeline.ports import Replica, ReplicaDisk


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
