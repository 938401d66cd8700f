"""`galleria disk`: writable copy-on-write disks."""

from pathlib import Path
from typing import Any

import click

from adapters.cli import resource
from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from pipeline.gallery import answers
from pipeline.model.resource_names import ResourceKind, parse_resource

NAME = click.argument("name", metavar="NAME|ID")
DISK = ResourceKind.DISK


@click.group(cls=Group)
def disk() -> None:
    """Make, list, show and delete writable disks."""


@disk.command("create")
@click.option("--name", "-n", required=True, metavar="NAME", help="Name of the disk.")
@click.option("--source", metavar="DISK|SNAPSHOT|FILE", help="Disk, snapshot or file to copy.")
@click.option(
    "--image-version", metavar="GALLERY/DEFINITION[/VERSION]", help="Version to copy a disk of."
)
@click.option(
    "--lun", type=int, metavar="LUN", help="Data disk of the version. Default: the OS disk."
)
@click.option(
    "--size-gb", type=click.IntRange(1, 32767), metavar="GIB", help="Size of an empty disk."
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Directory to create. Default: in the zone.",
)
@resource.property_options
@click.pass_obj
def create(
    settings: Settings,
    /,
    *,
    name: str,
    source: str | None,
    image_version: str | None,
    lun: int | None,
    size_gb: int | None,
    out: Path | None,
    **values: Any,
) -> None:
    """Make a disk from a file, a disk, a snapshot or a version, or an empty one."""
    from pipeline.resources.disks import DiskOrigin, VersionDisk, create_disk

    if sum(item is not None for item in (source, image_version, size_gb)) != 1:
        raise click.UsageError("give one of --source, --image-version and --size-gb")
    target = parse_resource(name, DISK)
    with settings.session() as session:
        origin: DiskOrigin = None
        if image_version is not None:
            origin = VersionDisk(image_version, lun)
        elif source is not None:
            origin = resource.one_disk(source, session)
        made = create_disk(
            target,
            origin,
            resource.properties_of(values, session),
            session.context,
            virtual_size=(size_gb or 0) << 30,
            directory=out,
        )
    settings.emit(answers.resource(made), resource.text(made))


@disk.command("list")
@click.pass_obj
def list_command(settings: Settings) -> None:
    """List disks."""
    with settings.session() as session:
        found = session.resources.of_kind(DISK)
    settings.emit(
        {"disks": [answers.resource(item) for item in found]},
        resource.listing(found, "disk"),
    )


@disk.command()
@NAME
@resource.LINEAGE
@click.pass_obj
def show(settings: Settings, *, name: str, lineage: bool) -> None:
    """Show one disk, and whether it is in use."""
    from pipeline.gallery.service.resources import as_disk
    from pipeline.resources.disks import state_of

    with settings.session() as session:
        found = as_disk(session.resources.get(parse_resource(name, DISK)))
        state = state_of(found, session.context).value
        shown, text = resource.shown(found, session, lineage=lineage, state=state)
    settings.emit({**shown, "diskState": state}, text)


@disk.command()
@NAME
@click.pass_obj
def delete(settings: Settings, *, name: str) -> None:
    """Delete a disk and its file."""
    from pipeline.resources.disks import delete_disk

    target = parse_resource(name, DISK)
    with settings.session() as session:
        delete_disk(target, session.context)
    settings.emit({"deleted": target.arm_id}, f"deleted disk {target}")


@disk.command()
@NAME
@resource.SCRUB
@click.pass_context
def verify(context: click.Context, *, name: str, scrub: bool) -> None:
    """Read what a disk depends on, and its file's tables, again and compare every chunk."""
    resource.verify(context, parse_resource(name, DISK), scrub=scrub)
