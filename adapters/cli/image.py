"""`galleria image`: managed images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from adapters.cli import arguments, resource
from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.cli.operation import plan_of, plan_options
from adapters.cli.sources import source_options, sources_of
from pipeline.gallery import answers
from pipeline.model import HostCaching, StorageAccountType
from pipeline.model.resource_names import ResourceKind, parse_resource

if TYPE_CHECKING:
    from pipeline.resources.images import Storage


NAME = click.argument("name", metavar="NAME|ID")
IMAGE = ResourceKind.IMAGE


@click.group(cls=Group)
def image() -> None:
    """Make, list, show and delete managed images."""


@image.command("create")
@click.option("--name", "-n", required=True, metavar="NAME", help="Name of the managed image.")
@source_options
@click.option(
    "--generalize/--no-generalize",
    default=True,
    help="Generalize the disks, or take them as generalized already. Default: generalize.",
)
@click.option(
    "--storage-sku",
    "--storage-account-type",
    "kind",
    type=arguments.enum_choice(StorageAccountType),
    help="Type of storage: one zone, all zones (ZRS, zone-resilient), or a premium zone.",
)
@click.option(
    "--zone-resilient",
    type=bool,
    default=False,
    help="Keep it in every zone of the region (three or more). It can't be changed later.",
)
@click.option(
    "--os-disk-caching",
    "os_caching",
    type=arguments.enum_choice(HostCaching),
    help="Host caching of the OS disk in VMs. Default: None; on premium storage ReadOnly.",
)
@arguments.repeated(
    "--data-disk-caching",
    "data_caching",
    metavar="[LUN=]None|ReadOnly|ReadWrite",
    help="Host caching of all data disks, or of one (repeatable). Same default.",
)
@plan_options
@resource.property_options
@click.pass_obj
def create(settings: Settings, /, *, name: str, generalize: bool, **values: Any) -> None:
    """Make a managed image from a VM, or from an OS disk and data disks."""
    from pipeline.resources.images import create_image

    sources = sources_of(values)
    plan = plan_of(values) if generalize else None
    target = parse_resource(name, IMAGE)
    storage = _storage(values)
    with settings.session() as session:
        properties = resource.properties_of(values, session)
        made = create_image(target, sources, plan, properties, session.context, storage)
    settings.emit(answers.resource(made), resource.text(made))


def _storage(values: Mapping[str, Any]) -> "Storage":
    from pipeline.resources.images import Storage

    kind, os_caching = values["kind"], values["os_caching"]
    of_data = arguments.caching(values["data_caching"], "--data-disk-caching")
    return Storage(
        None if kind is None else StorageAccountType(kind),
        values["zone_resilient"],
        None if os_caching is None else HostCaching(os_caching),
        of_data.pop(None, None),
        of_data,
    )


@image.command("list")
@click.pass_obj
def list_command(settings: Settings) -> None:
    """List managed images."""
    with settings.session() as session:
        found = session.resources.of_kind(IMAGE)
    settings.emit(
        {"images": [answers.resource(item) for item in found]},
        resource.listing(found, "managed image"),
    )


@image.command()
@NAME
@resource.LINEAGE
@click.pass_obj
def show(settings: Settings, *, name: str, lineage: bool) -> None:
    """Show one managed image."""
    with settings.session() as session:
        found = session.resources.get(parse_resource(name, IMAGE))
        shown = resource.shown(found, session, lineage=lineage)
    settings.emit(*shown)


@image.command()
@NAME
@click.pass_obj
def delete(settings: Settings, *, name: str) -> None:
    """Delete a managed image; versions made from it stay."""
    from pipeline.resources.snapshots import delete_resource

    target = parse_resource(name, IMAGE)
    with settings.session() as session:
        delete_resource(target, session.context)
    settings.emit({"deleted": target.arm_id}, f"deleted managed image {target}")


@image.command()
@NAME
@resource.SCRUB
@click.pass_context
def verify(context: click.Context, *, name: str, scrub: bool) -> None:
    """Read a managed image's disks again and compare every chunk."""
    resource.verify(context, parse_resource(name, IMAGE), scrub=scrub)
