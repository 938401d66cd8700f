"""What a version is made from, as the command line and build specs name it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from adapters.cli import arguments
from pipeline.model.resource_names import ResourceKind, parse_resource, resource_of
from pipeline.model.sources import (
    AnySource,
    ArchiveForm,
    ArchiveSource,
    Backing,
    CatalogBox,
    DiskSource,
    ManagedImageSource,
    QemuSource,
    SnapshotSource,
    StoredDiskSource,
    UrlSource,
    VersionSource,
    VmSource,
    public_url,
)

if TYPE_CHECKING:
    from adapters.spec import DataDisk, SourceDisks

SOCKET = click.Path(path_type=Path)

EXTENTS_FROM = click.option(
    "--extents-from",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where the parts of a VMDK in several files lie. Default: beside its descriptor.",
)

source_options = arguments.options(
    click.option("--os-disk", metavar="FILE[@SNAPSHOT]", help="The OS disk."),
    arguments.repeated(
        "--data-disk",
        "data_disks",
        metavar="LUN=FILE[@SNAPSHOT]",
        help="A data disk (repeatable).",
    ),
    arguments.repeated(
        "--backing",
        metavar="[LUN=]FILE",
        help="Backing file of the OS disk, or of a data disk (repeatable, from top to bottom).",
    ),
    EXTENTS_FROM,
    click.option("--os-vhd-uri", metavar="URL", help="The OS disk, downloaded by http(s)."),
    arguments.repeated(
        "--data-vhd-uri",
        "data_vhd_uris",
        metavar="LUN=URL",
        help="A data disk, downloaded by http(s) (repeatable).",
    ),
    arguments.repeated(
        "--checksum",
        "checksums",
        metavar="[LUN=]sha256:HEX",
        help="SHA-256 of a downloaded file (one for each).",
    ),
    click.option("--vm", metavar="FILE.xml|NAME", help="All disks of a libvirt domain."),
    click.option(
        "--box",
        metavar="FILE|DIR|NAME[@VERSION][:PROVIDER]|URL[#VERSION[:PROVIDER]]",
        help="All disks of a Vagrant box: a file, an unpacked one, one that Vagrant has, or one "
        "of a catalog (with --checksum: a box's own URL).",
    ),
    click.option("--ova", metavar="FILE", help="All disks of an OVA."),
    click.option("--machine", metavar="NAME", help="With --ova: which of its machines."),
    click.option(
        "--configuration",
        metavar="NAME",
        help="With --ova: which of its deployment options. Default: the OVA's default.",
    ),
    click.option(
        "--qmp",
        metavar="SOCKET",
        type=SOCKET,
        help="All disks of a running QEMU, by its QMP socket.",
    ),
    click.option(
        "--qga",
        metavar="SOCKET",
        type=SOCKET,
        help="Socket of its guest agent: it freezes the file systems for a moment.",
    ),
    click.option("--os-snapshot", metavar="NAME|ID", help="The OS disk: a snapshot or a disk."),
    arguments.repeated(
        "--data-snapshot",
        "data_snapshots",
        metavar="LUN=NAME|ID",
        help="A data disk: a snapshot or a disk (repeatable).",
    ),
    click.option("--managed-image", metavar="NAME|ID", help="All disks of a managed image."),
    click.option(
        "--image-version", metavar="GALLERY/DEFINITION[/VERSION]", help="All disks of a version."
    ),
)


def sources_of(values: Mapping[str, Any]) -> tuple[AnySource, ...]:
    """The sources that the options name."""
    files = _with_os(values["os_disk"], arguments.lun_files(values["data_disks"]))
    urls = _with_os(
        values["os_vhd_uri"], arguments.lun_files(values["data_vhd_uris"], "--data-vhd-uri")
    )
    checksums = arguments.of_disks(values["checksums"], "--checksum")
    backing = arguments.of_disks(values["backing"], "--backing")
    _refuse_strays("--checksum", checksums, urls | _with_os(_remote(values["box"]), {}))
    extents = values["extents_from"]
    if extents is not None and not files:
        raise click.UsageError("--extents-from goes with --os-disk or --data-disk")
    if values["vm"] is None:
        _refuse_strays("--backing", backing, files)
    return _some(
        [
            *_vm(values["vm"], backing),
            *_archives(
                _box(values["box"], checksums.get(None, ())) if values["box"] else None,
                values["ova"],
                values["machine"],
                values["configuration"],
            ),
            *(
                over(parse_disk(file, lun), backing.get(lun, ()), extents)
                for lun, file in files.items()
            ),
            *(_url(lun, url, checksums.get(lun, ())) for lun, url in urls.items()),
            *_known(values),
        ],
        "--os-disk, --os-snapshot, --os-vhd-uri, --vm, --qmp, --box, --ova, --managed-image or "
        "--image-version",
    )


def spec_sources(source: "SourceDisks") -> tuple[AnySource, ...]:
    """The sources that a build spec names."""
    backing: dict[int | None, Sequence[str]] = {}
    if source.os_disk_backing:
        backing[None] = source.os_disk_backing
    found: list[AnySource] = [
        *_vm(source.vm, backing),
        *_archives(
            _box(source.box, (source.checksum,) if source.checksum else ()) if source.box else None,
            source.ova,
            source.ova_machine,
            source.ova_configuration,
        ),
    ]
    extents = Path(source.extents_from) if source.extents_from else None
    if source.qmp is not None:
        found.append(QemuSource(Path(source.qmp), Path(source.qga) if source.qga else None))
    if source.os_disk is not None:
        found.append(over(parse_disk(source.os_disk), source.os_disk_backing, extents))
    if source.os_vhd_uri is not None:
        found.append(_url(None, source.os_vhd_uri, (source.checksum,) if source.checksum else ()))
    found += _catalogued(source.managed_image, source.image_version, source.os_snapshot, {})
    return _some(
        [*found, *(_data_disk(disk, extents) for disk in source.data_disks)],
        "osDisk, osVhdUri, osSnapshot, vm, box, ova, qmp, managedImage or imageVersion",
    )


def _data_disk(disk: "DataDisk", extents: Path | None) -> AnySource:
    if disk.path is not None:
        return over(parse_disk(disk.path, disk.lun), disk.backing, extents)
    if disk.snapshot is not None:
        return _stored(disk.snapshot, disk.lun)
    return _url(disk.lun, disk.vhd_uri or "", (disk.checksum,) if disk.checksum else ())


def _with_os(os_disk: str | None, others: Mapping[int, str]) -> dict[int | None, str]:
    found: dict[int | None, str] = {None: os_disk} if os_disk else {}
    return found | {lun: value for lun, value in others.items()}


def _vm(name: str | None, backing: Mapping[int | None, Sequence[str]]) -> list[AnySource]:
    if name is None:
        return []
    below = tuple((lun, tuple(map(Path, files))) for lun, files in backing.items())
    return [VmSource(name, below)]


def _archives(
    box: ArchiveSource | None, ova: str | None, machine: str | None, configuration: str | None
) -> list[AnySource]:
    if ova is None and (machine is not None or configuration is not None):
        raise click.UsageError("--machine and --configuration go with --ova")
    return [
        *([box] if box else []),
        *([ArchiveSource(Path(ova), ArchiveForm.OVA, machine, configuration)] if ova else []),
    ]


def _box(text: str, checksums: Sequence[str]) -> ArchiveSource:
    """What `--box` means. A URL with a checksum is a box's, one without a catalog's."""
    from adapters.sources.boxes import find_box

    url = _remote(text)
    if url is None:
        return ArchiveSource(find_box(text), ArchiveForm.BOX)
    place = Path(PurePosixPath(public_url(url)).name)
    if checksums:
        return ArchiveSource(place, ArchiveForm.BOX, remote=_url(None, url, checksums))
    address, _, wanted = url.partition("#")
    version, _, provider = wanted.partition(":")
    return ArchiveSource(place, ArchiveForm.BOX, remote=CatalogBox(address, version, provider))


def _remote(box: str | None) -> str | None:
    return box if box and box.lower().startswith(("http://", "https://")) else None


def _known(values: Mapping[str, Any]) -> list[AnySource]:
    """What the catalog knows, and machines that run."""
    if values["qga"] and not values["qmp"]:
        raise click.UsageError("--qga needs --qmp: the QEMU whose guest agent it is")
    others = arguments.lun_files(values["data_snapshots"], "--data-snapshot")
    running = [QemuSource(values["qmp"], values["qga"])] if values["qmp"] else []
    image, version = values["managed_image"], values["image_version"]
    return [*running, *_catalogued(image, version, values["os_snapshot"], others)]


def _catalogued(
    image: str | None, version: str | None, os_snapshot: str | None, others: Mapping[int, str]
) -> list[AnySource]:
    return [
        *([ManagedImageSource(parse_resource(image, ResourceKind.IMAGE).arm_id)] if image else []),
        *([VersionSource(version)] if version else []),
        *(_stored(name, lun) for lun, name in _with_os(os_snapshot, others).items()),
    ]


def _stored(text: str, lun: int | None) -> AnySource:
    """A snapshot by its name, or a snapshot or disk by its id."""
    found = resource_of(text)
    if found is not None and found.kind is ResourceKind.DISK:
        return StoredDiskSource(lun, found.arm_id)
    return SnapshotSource(lun, parse_resource(text, ResourceKind.SNAPSHOT).arm_id)


def over(disk: DiskSource, files: Sequence[str], extents: Path | None = None) -> DiskSource:
    """A disk with the files below it, and where its parts lie if it has any."""
    backing = tuple(Backing(Path(file)) for file in files)
    return replace(disk, backing=backing, extents_from=extents)


def _url(lun: int | None, url: str, checksums: Sequence[str]) -> UrlSource:
    from adapters.sources.download import parse_checksum

    if len(checksums) != 1:
        raise click.UsageError(
            f"{arguments.disk_option(lun)} is downloaded: give one checksum of it, "
            f"--checksum {'' if lun is None else f'{lun}='}sha256:..."
        )
    return UrlSource(lun, url, parse_checksum(checksums[0]))


def _refuse_strays(
    option: str, given: Mapping[int | None, Sequence[str]], disks: Mapping[int | None, str]
) -> None:
    for lun in given:
        if lun not in disks:
            raise click.UsageError(
                f"{option} is given for {arguments.disk_option(lun)}, but no such disk is given"
            )


def _some(sources: list[AnySource], names: str) -> tuple[AnySource, ...]:
    if not sources:
        raise click.UsageError(f"a source is missing: give {names}")
    return tuple(sources)


def parse_disk(text: str, lun: int | None = None) -> DiskSource:
    """`FILE` or `FILE@NAME`: an existing file whose name holds an @ is meant before a snapshot
    is."""
    path = Path(text)
    if "@" in path.name and not path.exists():
        file, _, snapshot = text.rpartition("@")
        return DiskSource(lun, Path(file), snapshot)
    return DiskSource(lun, path)
