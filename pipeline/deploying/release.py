"""Release: a deployed VM's disks are given up again; the bases that only they needed go."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import Conflict, NotFound, Refused
from pipeline.jobs.context import JobContext
from pipeline.jobs.garbage import collect_removed
from pipeline.jobs.running import running
from pipeline.jobs.shallow import refuse_needed
from pipeline.model import Deployment
from pipeline.model.runs import RunKind
from pipeline.ports import ImageFormat
from pipeline.ports.vms import VmDirectories
from pipeline.storage.placement import Zones, usable_base


def find(name: str, directory: str | None, deployments: Iterable[Deployment]) -> Deployment:
    """The VM of that name; `directory`, its own or the one it is in, tells namesakes apart."""
    found = [
        item
        for item in deployments
        if item.name == name
        and directory in (None, item.directory, str(Path(item.directory).parent))
    ]
    if not found:
        raise NotFound(f"There is no deployed VM '{name}'.", hint="galleria deployed list")
    if len(found) > 1:
        places = ", ".join(item.directory for item in found)
        raise Conflict(
            f"There are several deployed VMs '{name}': {places}", hint="say which with --out"
        )
    return found[0]


def release(
    deployments: Sequence[Deployment],
    machines: VmDirectories,
    context: JobContext,
    *,
    keep_disks: bool,
) -> None:
    """Remove the VMs' directories and records; with `keep_disks` only the records, of VMs whose
    disks need no base. Nothing is done when one of the VMs can't be released."""
    context.gallery.check_releasable(deployments)
    for item in deployments:
        if keep_disks:
            check_independent(item)
            continue
        check_idle(item, machines)
        refuse_needed([Path(item.directory)], context.zones, f"The VM '{item.name}'")
    if deployments:
        about = deployments[0].version.arm_id
        with running(context, RunKind.RELEASE, about) as context:
            _release(deployments, machines, context, keep_disks=keep_disks)


def _release(
    deployments: Sequence[Deployment],
    machines: VmDirectories,
    context: JobContext,
    *,
    keep_disks: bool,
) -> None:
    for item in deployments:
        if not keep_disks:
            machines.discard(Path(item.directory))
        # after its files: a base is needed as long as one of them is there
        context.gallery.forget_deployments([item])
    regions = {item.region for item in deployments}
    collect_removed(
        {str(z.path): z for name in regions for z in context.zones.get(name, ())}, context
    )


def bases_in_use(deployments: Iterable[Deployment], zones: Zones) -> set[Path]:
    """The files of bases that the disks of these VMs may have below them."""
    return {
        layer.path
        for item in deployments
        for digest in {disk.digest for disk in item.disks if disk.digest}
        for zone in zones.get(item.region, ())
        if (base := usable_base(zone, digest)) is not None
        for layer in base.chain
    }


def check_idle(deployment: Deployment, machines: VmDirectories) -> None:
    for disk in deployment.disks:
        users = machines.users(Path(disk.path))
        if users:
            raise Conflict(
                f"The VM '{deployment.name}' is in use: {disk.path}: {users}.",
                hint="shut it down first",
            )


def check_independent(deployment: Deployment) -> None:
    for disk in deployment.disks:
        if disk.format != ImageFormat.RAW.value:
            raise Refused(
                f"{disk.path} is an overlay: without its record the base that it needs would be "
                "removed",
                hint="make a stand-alone copy (galleria convert) and release the VM with its disks",
            )
