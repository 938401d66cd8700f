"""Export a version as a Vagrant box."""

from pathlib import Path

from pipeline.errors import Refused
from pipeline.guest.operations import Editor
from pipeline.guest.vagrant import open_to_vagrant
from pipeline.jobs.context import JobContext
from pipeline.jobs.files import disk_chain, write
from pipeline.jobs.replicate import sound_donor
from pipeline.model import HyperVGeneration, ImageVersion, OsState, OsType
from pipeline.model.disks import disk_name
from pipeline.ports import Chain, ImageFormat
from pipeline.ports.boxes import Box, BoxDisk, Provider

OPERATION = "vagrant-box"
FORMATS = {
    Provider.LIBVIRT: (ImageFormat.QCOW2, ""),
    Provider.VIRTUALBOX: (ImageFormat.VMDK, "streamOptimized"),
}


def export_box(version: ImageVersion, provider: Provider, path: Path, context: JobContext) -> Box:
    """Write a box of a version at `path`.

    A Generalized guest gets what Vagrant needs to log in, in overlays that are thrown away: the
    version stays as it is. A Specialized one goes as it is.
    """
    definition = context.gallery.get_definition(version.name.definition)
    generalized = definition.os_state is OsState.GENERALIZED
    if generalized and definition.os_type is not OsType.LINUX:
        raise Refused(
            f"{version.name} is a Generalized Windows: it has no account that Vagrant could use",
            hint="a box is made of a machine of Vagrant's in a Specialized definition",
        )
    context.boxes.check_target(path)
    zone = sound_donor(version, context)
    format, subformat = FORMATS[provider]
    recommended = definition.recommended
    with context.work.directory() as work:
        chains = [disk_chain(version, disk.lun, zone, context) for disk in version.disks]
        if generalized:
            chains = _opened(chains, work, context)
        files = [
            BoxDisk(work / f"{disk_name(disk.lun)}.{format.value}", disk.virtual_size)
            for disk in version.disks
        ]
        for chain, file in zip(chains, files, strict=True):
            write(chain, file.path, format, subformat, context)
        box = Box(
            provider,
            tuple(files),
            definition.os_type,
            definition.architecture,
            definition.hyper_v_generation is HyperVGeneration.V2,
            recommended.memory.min or 0,
            recommended.vcpus.min or 0,
            version.uid,
        )
        with context.progress.stage(f"pack {path.name}"):
            context.boxes.write(box, path)
    return box


def _opened(chains: list[Chain], work: Path, context: JobContext) -> list[Chain]:
    """The same disks, of a guest that lets Vagrant in."""
    overlays = [
        context.images.create_overlay(chain, work / f"overlay-{number}.qcow2")
        for number, chain in enumerate(chains)
    ]
    with (
        context.progress.stage("prepare for Vagrant"),
        context.guests.session(overlays, writable=True) as session,
    ):
        facts = session.inspect()
        if facts.os_type != "linux":
            raise Refused(f"the guest is no Linux but {facts.os_type}")
        for note in open_to_vagrant(Editor(session.mount(), OPERATION)):
            context.progress.warn(note)
    return overlays
