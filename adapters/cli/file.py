"""`galleria inspect`, `generalize`, `convert`, `hash` and `export`: each stage on one file."""

import shlex
from pathlib import Path
from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.cli.operation import plan_of, plan_options
from adapters.cli.proof import check_guest, try_guest
from adapters.cli.report import guest_name
from adapters.cli.sources import EXTENTS_FROM, over, parse_disk
from adapters.text import bytes_text, fields, printable, table
from pipeline.data.chunks import CHUNK_SIZE, chunk_length
from pipeline.data.manifest import Run
from pipeline.errors import InvalidParameter, UnsafeImage
from pipeline.gallery.documents import without_inventory
from pipeline.jobs.box import export_box
from pipeline.jobs.files import (
    Inspection,
    arm_file,
    convert_file,
    export_version,
    generalize_file,
    hash_file,
    inspect_archive,
    inspect_file,
)
from pipeline.model import Architecture
from pipeline.model.disks import disk_name
from pipeline.model.sources import ArchiveForm, ArchiveSource
from pipeline.ports import GuestFacts, ImageFacts, ImageFormat
from pipeline.ports.boxes import Provider

# the disk where every Windows has a driver for it; no network, so that no update comes between
MACHINE = (*("-cpu", "max", "-smp", "2", "-m", "4096", "-nic", "none", "-rtc", "base=localtime"),)
FIRMWARE = (
    Path("/usr/share/OVMF/OVMF_CODE_4M.fd"),
    Path("/usr/share/OVMF/OVMF_CODE.fd"),
    Path("/usr/share/edk2/ovmf/OVMF_CODE.fd"),
)


def boot_command(disk: Path, format: ImageFormat, generation: str, accelerator: str) -> str:
    """A shell command that boots an armed disk. It restarts once and powers off at the end.
    `accelerator` is one that works: with "kvm:tcg" QEMU aborts where KVM is there but broken."""
    argv = ["qemu-system-x86_64", "-machine", f"q35,accel={accelerator}", *MACHINE]
    if generation == "V2":
        firmware = next((path for path in FIRMWARE if path.exists()), FIRMWARE[0])
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={firmware}"]
    # a comma in a file name is doubled (qemu-options)
    path = str(disk.absolute()).replace(",", ",,")
    argv += ["-drive", f"if=ide,format={format.qemu_name},file={path}"]
    return shlex.join(argv)


def instructions(disk: Path, command: str) -> str:
    return (
        f"wrote {printable(str(disk))}: its next boot runs sysprep /generalize /oobe /shutdown. "
        "Boot it once:\n"
        f"  {command}\n"
        "It restarts, waits two minutes, runs Sysprep and powers off. Then see what came of it:\n"
        f"  galleria generalize {shlex.quote(str(disk))} --check"
    )


ARCHIVES = {".box": ArchiveForm.BOX, ".ova": ArchiveForm.OVA}
FORMATS = click.Choice(["raw", "vhd", "vhdx", "qcow2"])
TO = click.option(
    "--to", "--format", "format_name", required=True, type=FORMATS, help="Format of the file."
)
TO_QCOW2 = click.option(
    "--to",
    "--format",
    "format_name",
    type=FORMATS,
    default="qcow2",
    show_default=True,
    help="Format of the file.",
)
SUBFORMAT = click.option(
    "--subformat",
    default="",
    help="vhd: fixed (default) or dynamic; vhdx: dynamic (default) or fixed; qcow2: zlib or zstd, "
    "compressed (default: not).",
)
FILE = click.argument("file", metavar="FILE[@SNAPSHOT]")
BACKING = click.option(
    "--backing",
    multiple=True,
    metavar="FILE",
    help="Backing file of the disk (repeatable, from top to bottom).",
)
OUT = click.option(
    "--out", required=True, metavar="FILE", type=click.Path(path_type=Path), help="File to create."
)


@click.command(cls=Command)
@FILE
@BACKING
@EXTENTS_FROM
@click.option("--guest/--no-guest", default=True, help="Look into the guest, too, in an appliance.")
@click.pass_context
def inspect(
    context: click.Context,
    *,
    file: str,
    backing: tuple[str, ...],
    extents_from: Path | None,
    guest: bool,
) -> None:
    """Show what an image file, a Vagrant box or an OVA really is and holds, and if it is safe."""
    settings = context.ensure_object(Settings)
    form = next((form for end, form in ARCHIVES.items() if file.lower().endswith(end)), None)
    if form is not None and not backing:
        _inspect_archive(ArchiveSource(Path(file), form), settings, context)
        return
    with settings.session() as session:
        disk = over(parse_disk(file), backing, extents_from)
        found = inspect_file(disk, session.context, deep=guest)
    settings.emit(_examination_document(found), _examination_text(found))
    if found.facts.refusals:
        context.exit(UnsafeImage.exit_status)


@click.command(cls=Command)
@click.argument("file", metavar="FILE[@SNAPSHOT]")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="File to create.")
@click.option(
    "--check",
    is_flag=True,
    help="Only show whether the guest of FILE, or of GALLERY/DEFINITION/VERSION, is generalized,"
    " and why; exit 1 when it is not.",
)
@click.option("--dry-run", is_flag=True, help="Generalize, print the report, and keep nothing.")
@TO_QCOW2
@click.option(
    "--arm-sysprep",
    is_flag=True,
    help="For a specialized Windows: make its next boot run Sysprep.",
)
@click.option(
    "--unattend",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --arm-sysprep: answer file of Sysprep. Default: one without answers.",
)
@plan_options
@click.pass_context
def generalize(
    context: click.Context,
    /,
    *,
    file: str,
    out: Path | None,
    check: bool,
    dry_run: bool,
    format_name: str,
    arm_sysprep: bool,
    unattend: Path | None,
    **values: Any,
) -> None:
    """Write a generalized copy of a disk."""
    from adapters.filesystem.outputs import check_target

    settings = context.ensure_object(Settings)
    if check:
        check_guest(context, file)
        return
    if dry_run and not arm_sysprep:
        try_guest(settings, file, plan_of(values))
        return
    if out is None or dry_run:
        raise click.UsageError("one of --out FILE, --check and --dry-run is needed")
    check_target(out)  # the guest takes a while
    if arm_sysprep:
        _arm(settings, file, out, ImageFormat(format_name), unattend, force=values["force"])
        return
    if unattend is not None:
        raise click.UsageError("--unattend goes with --arm-sysprep")
    plan = plan_of(values)
    with settings.session() as session:
        report = generalize_file(
            parse_disk(file), plan, out, ImageFormat(format_name), session.context
        )
    settings.emit(
        {"file": out, "format": format_name, "report": without_inventory(report)},
        f"wrote {printable(str(out))}",
    )


def _arm(
    settings: Settings,
    file: str,
    out: Path,
    format: ImageFormat,
    unattend: Path | None,
    *,
    force: bool,
) -> None:
    answers = None if unattend is None else unattend.read_bytes()
    with settings.session() as session:
        armed = arm_file(parse_disk(file), answers, out, format, session.context, force=force)
        accelerator = session.context.boots.accelerator(Architecture.X64)
    command = boot_command(out, format, armed.facts.generation, accelerator)
    document = {"file": out, "format": format, "armed": armed.written, "boot": command}
    settings.emit(document, instructions(out, command))


@click.command(cls=Command)
@FILE
@BACKING
@EXTENTS_FROM
@OUT
@TO
@SUBFORMAT
@click.pass_obj
def convert(
    settings: Settings,
    *,
    file: str,
    backing: tuple[str, ...],
    extents_from: Path | None,
    out: Path,
    format_name: str,
    subformat: str,
) -> None:
    """Write a disk in another format."""
    with settings.session() as session:
        disk = over(parse_disk(file), backing, extents_from)
        convert_file(disk, out, ImageFormat(format_name), subformat, session.context)
    length = out.stat().st_size
    settings.emit(
        {"file": out, "format": format_name, "fileSize": length},
        f"wrote {printable(str(out))} ({format_name}, {bytes_text(length)})",
    )


@click.command("hash", cls=Command)
@FILE
@BACKING
@EXTENTS_FROM
@click.option("--chunks/--no-chunks", default=False, help="Print the digests of every chunk, too.")
@click.pass_obj
def hash_command(
    settings: Settings,
    *,
    file: str,
    backing: tuple[str, ...],
    extents_from: Path | None,
    chunks: bool,
) -> None:
    """Print the digest of a disk's content: the same in every format."""
    listed: list[dict[str, Any]] = []
    disk = over(parse_disk(file), backing, extents_from)
    with settings.session() as session, hash_file(disk, session.context) as (result, runs):
        virtual_size = result.stats.virtual_size
        for run in runs if chunks else ():
            listed += _chunks(run, virtual_size)
    lines = [
        f"{chunk['offset']:>16}  {chunk['length']:>9}  "
        + (f"{chunk['xxh3']}  {chunk['blake3']}" if "blake3" in chunk else "zero")
        for chunk in listed
    ]
    document = {"root": result.root, "virtualSize": virtual_size, "chunkSize": CHUNK_SIZE}
    if chunks:
        document["chunks"] = listed
    settings.emit(document, "\n".join([*lines, f"{result.root}  {printable(file)}"]))


def _chunks(run: Run, virtual_size: int) -> list[dict[str, Any]]:
    """A run of zeros as one entry, of data as one for each chunk."""
    if run.chunks is None:
        start = run.first * CHUNK_SIZE
        return [{"offset": start, "length": min(run.end * CHUNK_SIZE, virtual_size) - start}]
    return [
        {
            "offset": index * CHUNK_SIZE,
            "length": chunk_length(index, virtual_size),
            "xxh3": chunk.xxh3.hex(),
            "blake3": chunk.blake3.hex(),
        }
        for index, chunk in enumerate(run.chunks, run.first)
    ]


def _inspect_archive(source: ArchiveSource, settings: Settings, context: click.Context) -> None:
    with settings.session() as session:
        found = inspect_archive(source, session.context)
    about = found.description
    safe = not any(disk.facts.refusals for disk in found.disks)
    document = {
        "file": source.path,
        "safe": safe,
        "archive": source.form,
        "hyperVGeneration": about.generation,
        "architecture": about.architecture,
        "diskControllerType": about.controller,
        "osType": about.os_type,
        "disks": [
            {"lun": disk.lun, "name": printable(disk.name), "facts": disk.facts}
            for disk in found.disks
        ],
    }
    lines = [
        ("file", source.path),
        ("archive", "Vagrant box" if source.form is ArchiveForm.BOX else "OVA"),
        ("generation", about.generation or ""),
        ("architecture", about.architecture or ""),
        ("os", about.os_type or ""),
        ("safe", "yes" if safe else "no"),
    ]
    rows = [
        (
            disk_name(disk.lun),
            _format(disk.facts),
            bytes_text(disk.facts.virtual_size),
            printable(disk.name.partition(": ")[2]),
            next(iter(disk.facts.refusals), ""),
        )
        for disk in found.disks
    ]
    shown = table(("DISK", "FORMAT", "VIRTUAL SIZE", "MEMBER", "REFUSED"), rows)
    settings.emit(document, f"{fields(lines)}\n\n{shown}")
    if not safe:
        context.exit(UnsafeImage.exit_status)


def _examination_document(found: Inspection) -> dict[str, Any]:
    return {
        "file": found.facts.path,
        "safe": not found.facts.refusals,
        "facts": found.facts,
        "partitionTable": found.partitions,
        "guest": found.guest,
        "evidence": found.evidence,
    }


def _format(facts: ImageFacts) -> str:
    name = facts.format.value
    return name if facts.variant in ("", name) else f"{name} {facts.variant}"


def _os_text(guest: GuestFacts) -> str:
    if guest.os_type == "unknown":
        return "not recognized"  # a data disk, say
    name = guest_name(guest.os_type, guest.distribution, guest.version)
    product = guest.product_name if guest.product_name not in name else ""
    architecture = "" if guest.architecture == "unknown" else guest.architecture
    return ", ".join(filter(None, (name, product, architecture)))


def _examination_text(found: Inspection) -> str:
    facts = found.facts
    about: list[tuple[str, object]] = [
        ("file", facts.path),
        ("format", _format(facts)),
        ("virtual size", f"{bytes_text(facts.virtual_size)} ({facts.virtual_size} bytes)"),
        (
            "file size",
            f"{bytes_text(facts.file_size)}, {bytes_text(facts.allocated_size)} allocated",
        ),
        ("sectors", f"{facts.logical_sector_size} bytes" * (facts.logical_sector_size != 512)),
        ("safe", "not verified" if facts.unread else "no" if facts.refusals else "yes"),
        *(("  because", reason) for reason in facts.refusals),
        *(("note", note) for note in facts.notes),
        ("snapshots", ", ".join(facts.snapshots)),
    ]
    if found.partitions is not None:
        scheme, count = found.partitions.scheme, len(found.partitions.partitions)
        about.append(("partitions", f"{scheme}, {count}" if count else scheme))
        about.append(("generation", found.partitions.generation))
    if found.guest is not None:
        guest = found.guest
        about.append(("os", _os_text(guest)))
        about.append(("hostname", guest.hostname))
        kinds = ", ".join(f"{device} {kind}" for device, kind in guest.filesystems)
        about.append(("file systems", kinds))
    if found.evidence is not None:
        about.append(("looks", found.evidence.verdict))
        about += [("  because", reason) for reason in found.evidence.reasons]
    return fields(about)


BOX = "box"
PROVIDERS = {**{provider.value: provider for provider in Provider}, "qemu": Provider.LIBVIRT}


@click.command(cls=Command)
@arguments.REFERENCE
@click.option(
    "--to",
    "--format",
    "format_name",
    required=True,
    type=click.Choice([*FORMATS.choices, BOX]),
    help="Format of the file; box: a Vagrant box of all disks.",
)
@click.option(
    "--out", required=True, metavar="FILE", type=click.Path(path_type=Path), help="File to create."
)
@click.option("--lun", type=int, metavar="N", help="A data disk. Default: the OS disk.")
@SUBFORMAT
@click.option(
    "--provider",
    type=click.Choice(list(PROVIDERS)),
    help="box: what is to run it. Default: libvirt; qemu, which is vagrant-qemu, takes the same.",
)
@click.pass_obj
def export(
    settings: Settings,
    *,
    reference: str,
    format_name: str,
    out: Path,
    lun: int | None,
    subformat: str,
    provider: str | None,
) -> None:
    """Write one disk of a version as a stand-alone file, or all of it as a Vagrant box."""
    boxed = PROVIDERS[provider or "libvirt"] if format_name == BOX else None
    if boxed and (lun is not None or subformat):
        raise InvalidParameter("--to box takes all disks: leave out --lun and --subformat")
    if provider and not boxed:
        raise InvalidParameter("--provider is for --to box")
    with settings.session() as session:
        version = session.gallery.own_version(reference)
        for caution in session.gallery.cautions(version):
            session.context.progress.warn(caution)
        if boxed:
            export_box(version, boxed, out, session.context)
        else:
            export_version(version, lun, out, ImageFormat(format_name), subformat, session.context)
    length = out.stat().st_size
    disk = f"{disk_name(lun)} of {version.name}"
    what = f"{version.name} for {boxed.value}" if boxed else disk
    settings.emit(
        {
            "version": version.name.arm_id,
            "lun": lun,
            "file": out,
            "format": format_name,
            "provider": boxed.value if boxed else None,
            "fileSize": length,
        },
        f"wrote {what} to {printable(str(out))} ({format_name}, {bytes_text(length)})",
    )
