"""`galleria scale-set`: groups of like VMs."""

from pathlib import Path
from typing import Any

import click

from adapters.cli.context import Settings
from adapters.cli.deploy import OUT, REGION, image_of, profile_of, profile_options
from adapters.cli.lazy import Group
from adapters.text import fields, table
from pipeline.deploying import scale_sets as jobs
from pipeline.gallery import answers
from pipeline.model import Deployment, ScaleSet

COUNT = click.option("--count", required=True, type=int, metavar="N", help="Number of VMs.")
IMAGE = click.option(
    "--image", required=True, metavar="GALLERY/DEFINITION[/VERSION]", help="Image of new VMs."
)


@click.group("scale-set", cls=Group)
def scale_set() -> None:
    """Make, scale, update, list and delete groups of identical VMs."""


@scale_set.command("create")
@click.argument("name")
@IMAGE
@REGION
@OUT
@click.option("--count", default=0, type=int, metavar="N", help="Number of VMs. Default: 0.")
@profile_options
@click.pass_obj
def create(
    settings: Settings,
    /,
    *,
    name: str,
    image: str,
    region: str,
    out: Path,
    count: int,
    **values: Any,
) -> None:
    """Make a scale set, and its first VMs."""
    with settings.session() as session:
        place = session.region(region)
        version = session.gallery.resolve(image, place)
        definition = session.gallery.get_definition(version.name.definition)
        profile = profile_of(values, definition, name)
        machines = session.vm_directories
        made = jobs.create(name, image, place, out, profile, count, machines, session.context)
        members = jobs.members(made, session.gallery.list_deployments())
    _emit(settings, made, members)


@scale_set.command("scale")
@click.argument("name")
@COUNT
@click.pass_obj
def scale(settings: Settings, *, name: str, count: int) -> None:
    """Make more VMs from the current image, or release the last ones."""
    with settings.session() as session:
        found = session.gallery.get_scale_set(name)
        members = jobs.scale(found, count, session.vm_directories, session.context)
        found = session.gallery.get_scale_set(name)
    _emit(settings, found, members)


@scale_set.command("update")
@click.argument("name")
@IMAGE
@click.pass_obj
def update(settings: Settings, *, name: str, image: str) -> None:
    """Change the image of new VMs; OS type, generation, state and data disks stay the same."""
    with settings.session() as session:
        found = jobs.change_image(session.gallery.get_scale_set(name), image, session.context)
        members = jobs.members(found, session.gallery.list_deployments())
    _emit(settings, found, members)


@scale_set.command("show")
@click.argument("name")
@click.pass_obj
def show(settings: Settings, *, name: str) -> None:
    """Show a scale set and its VMs."""
    with settings.session() as session:
        found = session.gallery.get_scale_set(name)
        members = jobs.members(found, session.gallery.list_deployments())
    _emit(settings, found, members)


@scale_set.command("list")
@click.pass_obj
def list_sets(settings: Settings) -> None:
    """List scale sets."""
    with settings.session() as session:
        deployments = session.gallery.list_deployments()
        found = [
            (item, jobs.members(item, deployments)) for item in session.gallery.list_scale_sets()
        ]
    rows = [
        (item.name, len(members), item.image, answers.last_image(item), item.region, item.directory)
        for item, members in found
    ]
    header = ("SCALE SET", "VMS", "IMAGE", "VERSION", "REGION", "DIRECTORY")
    settings.emit(
        {"scaleSets": [answers.scale_set(item, len(members)) for item, members in found]},
        table(header, rows) if rows else "there are no scale sets",
    )


@scale_set.command("delete")
@click.argument("name")
@click.pass_obj
def delete(settings: Settings, *, name: str) -> None:
    """Release all VMs of a scale set, and forget it."""
    with settings.session() as session:
        jobs.delete(session.gallery.get_scale_set(name), session.vm_directories, session.context)
    settings.emit({"deleted": name}, f"deleted {name}")


def _emit(settings: Settings, item: ScaleSet, members: list[Deployment]) -> None:
    about = fields(
        [
            ("scale set", item.name),
            ("image", f"{item.image}, last {answers.last_image(item)}"),
            ("region", item.region),
            ("directory", item.directory),
            ("VMs", str(len(members))),
        ]
    )
    rows = [
        (vm.name, image_of(vm), "" if vm.version == item.version else "older image")
        for vm in members
    ]
    parts = [about, table(("VM", "VERSION", ""), rows)] if rows else [about]
    document = {
        "scaleSet": answers.scale_set(item, len(members)),
        "deployments": list(map(answers.deployment, members)),
    }
    settings.emit(document, "\n\n".join(parts))
