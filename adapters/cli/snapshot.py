"""`galleria snapshot`: points in time of disks."""

from pathlib import Path
from typing import Any

import click

from adapters.cli import resource
from adapters.cli.context import Settings
from adapters.cli.file import OUT, SUBFORMAT, TO_QCOW2
from adapters.cli.lazy import Group
from adapters.text import bytes_text, printable
from pipeline.gallery import answers
from pipeline.model.clock import utc_now
from pipeline.model.resource_names import ResourceKind, ResourceName, parse_resource
from pipeline.model.sources import QemuSource
from pipeline.ports import ImageFormat

NAME = click.argument("name", metavar="NAME|ID")
SNAPSHOT = ResourceKind.SNAPSHOT


@click.group(cls=Group)
def snapshot() -> None:
    """Make, list, show, export and delete snapshots of disks."""


@snapshot.command("create")
@click.argument("file", metavar="[DISK|FILE|VM.xml]", required=False)
@click.option("--source", metavar="DISK|FILE|VM.xml", help="The same as an option, as in az.")
@click.option("--name", "-n", metavar="NAME", help="Default: the source's name and the time.")
@click.option(
    "--incremental", is_flag=True, help="Store only what changed since the last snapshot."
)
@click.option(
    "--qmp", metavar="SOCKET", type=click.Path(path_type=Path), help="QMP socket of a running QEMU."
)
@click.option(
    "--qga", metavar="SOCKET", type=click.Path(path_type=Path), help="Socket of its guest agent."
)
@resource.property_options
@click.pass_obj
def create(
    settings: Settings,
    /,
    *,
    file: str | None,
    source: str | None,
    name: str | None,
    incremental: bool,
    qmp: Path | None,
    qga: Path | None,
    **values: Any,
) -> None:
    """Make a snapshot of a disk, a file or a VM."""
    from pipeline.resources.capturing import create_snapshots

    wanted = source or file
    if (wanted is None) == (qmp is None) or (source and file):
        raise click.UsageError("give one source: a disk, a file, a VM's description, or --qmp")
    label = Path(wanted.split("@")[0]).stem if wanted else "vm"
    name = name or f"{label}-{utc_now():%Y%m%dT%H%M%SZ}"
    target = parse_resource(name, SNAPSHOT)
    with settings.session() as session:
        properties = resource.properties_of(values, session)
        found = resource.one_source(wanted or "", session) if qmp is None else QemuSource(qmp, qga)
        made = create_snapshots(target, found, properties, session.context, incremental=incremental)
    settings.emit(
        {"snapshots": [answers.resource(item) for item in made]},
        "\n\n".join(resource.text(item) for item in made),
    )


@snapshot.command("list")
@click.pass_obj
def list_command(settings: Settings) -> None:
    """List snapshots."""
    with settings.session() as session:
        found = session.resources.of_kind(SNAPSHOT)
    settings.emit(
        {"snapshots": [answers.resource(item) for item in found]},
        resource.listing(found, "snapshot"),
    )


@snapshot.command()
@NAME
@resource.LINEAGE
@click.pass_obj
def show(settings: Settings, *, name: str, lineage: bool) -> None:
    """Show one snapshot."""
    with settings.session() as session:
        found = session.resources.get(parse_resource(name, SNAPSHOT))
        shown = resource.shown(found, session, lineage=lineage)
    settings.emit(*shown)


@snapshot.command()
@NAME
@click.pass_obj
def delete(settings: Settings, *, name: str) -> None:
    """Delete a snapshot; what was made from it stays."""
    from pipeline.resources.snapshots import delete_resource

    found: ResourceName = parse_resource(name, SNAPSHOT)
    with settings.session() as session:
        delete_resource(found, session.context)
    settings.emit({"deleted": found.arm_id}, f"deleted snapshot {found}")


@snapshot.command()
@NAME
@OUT
@TO_QCOW2
@SUBFORMAT
@click.pass_obj
def export(settings: Settings, *, name: str, out: Path, format_name: str, subformat: str) -> None:
    """Write a snapshot as a stand-alone file."""
    from pipeline.resources.snapshots import export_snapshot

    with settings.session() as session:
        target = parse_resource(name, SNAPSHOT)
        export_snapshot(target, out, ImageFormat(format_name), subformat, session.context)
    length = out.stat().st_size
    settings.emit(
        {"file": out, "format": format_name, "fileSize": length},
        f"wrote {printable(str(out))} ({format_name}, {bytes_text(length)})",
    )


@snapshot.command()
@NAME
@resource.SCRUB
@click.pass_context
def verify(context: click.Context, *, name: str, scrub: bool) -> None:
    """Read a snapshot's content again and compare every chunk."""
    resource.verify(context, parse_resource(name, SNAPSHOT), scrub=scrub)
