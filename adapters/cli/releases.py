"""`galleria version`: change, delete and bring back published versions."""

from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.cli.showing import show
from adapters.cli.versions import list_versions, region_table
from pipeline.gallery.documents import encode
from pipeline.gallery.rules import VersionChange
from pipeline.jobs.delete import delete_version, purge_expired
from pipeline.jobs.update import update_version
from pipeline.model.names import parse_definition, parse_version

NAME = click.argument("name", metavar="GALLERY/DEFINITION/VERSION")


@click.group(cls=Group)
def version() -> None:
    """List, show, change, delete and undelete image versions."""


version.add_command(list_versions, "list")
version.add_command(show, "show")


@version.command("update")
@NAME
@click.option(
    "--target-regions",
    "--target-region",
    "targets",
    multiple=True,
    metavar="REGION[=REPLICAS][=SKU]...",
    help="The whole new list: the version leaves the regions that are not in it.",
)
@click.option(
    "--add-region",
    "added",
    multiple=True,
    metavar="REGION[=REPLICAS][=SKU]",
    help="A region more, or another number of replicas in one (repeatable).",
)
@arguments.ADDITIONAL
@arguments.EDGE_ZONES
@click.option("--remove-region", "removed", multiple=True, metavar="REGION", help="(repeatable)")
@click.option("--replica-count", type=int, metavar="N", help="Where a region gives none.")
@click.option("--exclude-from-latest", type=bool, help="latest never means this version.")
@click.option(
    "--exclude-from-latest-in", "excluded", multiple=True, metavar="REGION", help="Not there."
)
@click.option(
    "--include-in-latest-in", "included", multiple=True, metavar="REGION", help="There again."
)
@click.option("--end-of-life-date", callback=arguments.as_date, metavar="DATE", help="ISO 8601.")
@click.option("--no-end-of-life-date", is_flag=True, help="Take the date away.")
@click.option(
    "--allow-replicated-location-deletion",
    type=bool,
    help="Whether the version may leave regions, also by being left out of --target-regions.",
)
@click.option(
    "--block-deletion-before-end-of-life",
    "--block-delete-before-eol",
    "block",
    type=bool,
    help="Whether it can't be deleted before its end of life.",
)
@arguments.TAGS
@click.pass_obj
def update(settings: Settings, /, *, name: str, **values: Any) -> None:
    """Change regions, replicas, exclusion from latest, end of life, safety and tags."""
    regions = settings.load().regions
    targets = arguments.target_regions(values["targets"], regions)
    added = arguments.target_regions(values["added"], regions, "--add-region")
    named = arguments.with_additional((*targets, *added), values["additional"], regions)
    change = VersionChange(
        target_regions=named[: len(targets)] or None,
        target_edge_zones=arguments.edge_zones(values["edges"], regions),
        add=named[len(targets) :],
        remove=values["removed"],
        replica_count=values["replica_count"],
        exclude_from_latest=values["exclude_from_latest"],
        exclude_in={
            **dict.fromkeys(values["excluded"], True),
            **dict.fromkeys(values["included"], False),
        },
        end_of_life_date=values["end_of_life_date"],
        forget_end_of_life=values["no_end_of_life_date"],
        allow_deletion_of_replicated_locations=values["allow_replicated_location_deletion"],
        block_deletion_before_end_of_life=values["block"],
        tags=arguments.pairs(values["tags"], "--tags") or None,
    )
    with settings.app() as app:
        changed = update_version(parse_version(name), change, app.context)
    settings.emit({"version": encode(changed)}, f"{changed.name}\n{region_table(changed)}")


@version.command("delete")
@NAME
@click.option(
    "--permanent",
    "--bypass-soft-delete",
    "permanent",
    is_flag=True,
    help="For good, also where the gallery keeps deleted versions for a while.",
)
@click.option("--force", is_flag=True, help="Also when a process on another host works on it.")
@click.pass_obj
def delete(settings: Settings, *, name: str, permanent: bool, force: bool) -> None:
    """Delete a version with its replicas. Disks that were deployed from it keep working."""
    wanted = parse_version(name)
    with settings.app() as app:
        kept = delete_version(wanted, app.context, permanent=permanent, force=force)
    if kept is None:
        text = f"deleted {wanted}"
    else:
        deletion = kept.soft_deleted
        until = f" until {deletion.consumption_end_time:%Y-%m-%d %H:%M}Z" if deletion else ""
        text = f"deleted {wanted}; it is kept{until}: galleria version undelete brings it back"
    settings.emit({"deleted": wanted.arm_id, "softDeleted": encode(kept)}, text)


@version.command("undelete")
@NAME
@click.pass_obj
def undelete(settings: Settings, *, name: str) -> None:
    """Bring back a deleted version that is still kept."""
    with settings.app() as app:
        found = app.gallery.undelete(parse_version(name))
    settings.emit({"version": encode(found)}, f"{found.name} is back")


@version.command("purge")
@click.argument("name", metavar="GALLERY/DEFINITION[/VERSION]")
@click.pass_obj
def purge(settings: Settings, *, name: str) -> None:
    """Remove a deleted version for good, or all of a definition whose time is over."""
    with settings.app() as app:
        if len(name.strip("/").split("/")) in (2, 10):
            gone = purge_expired(parse_definition(name), app.context)
        else:
            wanted = parse_version(name)
            app.gallery.check_in_the_bin(wanted)
            delete_version(wanted, app.context, permanent=True)
            gone = [wanted]
    text = "\n".join(f"removed {item}" for item in gone) or "there is nothing to remove"
    settings.emit({"removed": [item.arm_id for item in gone]}, text)
