"""`galleria subscription` and `galleria group`. Nobody needs them: there is a default of each."""

from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.text import table
from pipeline.gallery.documents import encode
from pipeline.gallery.names import DEFAULT_TENANT

ID = click.argument("identity", metavar="SUBSCRIPTION")
NAME = click.argument("name", metavar="GROUP")


@click.group(cls=Group)
def subscription() -> None:
    """Make, list and delete subscriptions."""


@subscription.command("create")
@ID
@click.option("--display-name", default="", metavar="NAME")
@click.option("--tenant", default=DEFAULT_TENANT, metavar="ID", help="Default: the default tenant.")
@click.pass_obj
def create_subscription(
    settings: Settings, *, identity: str, display_name: str, tenant: str
) -> None:
    """Make a subscription (a GUID), or change the display name of one."""
    with settings.app() as app:
        made = app.gallery.create_subscription(identity, display_name, tenant)
    settings.emit({"subscription": encode(made)}, f"subscription {made.id} in tenant {made.tenant}")


@subscription.command("list")
@click.pass_obj
def list_subscriptions(settings: Settings) -> None:
    """List the subscriptions and their tenants."""
    with settings.app() as app:
        found = app.gallery.list_subscriptions()
    rows = [(item.id, item.display_name, item.tenant) for item in found]
    text = table(("SUBSCRIPTION", "NAME", "TENANT"), rows)
    settings.emit({"subscriptions": encode(found)}, text)


@subscription.command("delete")
@ID
@click.pass_obj
def delete_subscription(settings: Settings, *, identity: str) -> None:
    """Delete a subscription that holds nothing."""
    with settings.app() as app:
        app.gallery.delete_subscription(identity)
    settings.emit({"deleted": f"/subscriptions/{identity}"}, f"deleted subscription {identity}")


@click.group(cls=Group)
def group() -> None:
    """Make, list and delete resource groups."""


@group.command("create")
@NAME
@click.option("--location", "-l", metavar="REGION", help="Default: the source region.")
@arguments.TAGS
@click.pass_obj
def create_group(settings: Settings, /, *, name: str, **values: Any) -> None:
    """Make a resource group, or change the tags of one."""
    labels = arguments.pairs(values["tags"], "--tags")
    with settings.app() as app:
        location = values["location"] or settings.load().source_region
        made = app.gallery.create_resource_group(settings.subscription, name, location, labels)
    settings.emit({"resourceGroup": encode(made)}, f"resource group {made.name} in {made.location}")


@group.command("list")
@click.pass_obj
def list_groups(settings: Settings) -> None:
    """List the resource groups of a subscription that were made."""
    with settings.app() as app:
        found = app.gallery.list_resource_groups(settings.subscription)
    rows = [(item.name, item.location) for item in found]
    text = table(("GROUP", "LOCATION"), rows) if rows else "there is the default group alone"
    settings.emit({"resourceGroups": encode(found)}, text)


@group.command("delete")
@NAME
@click.pass_obj
def delete_group(settings: Settings, *, name: str) -> None:
    """Delete a resource group that has no galleries."""
    with settings.app() as app:
        app.gallery.delete_resource_group(settings.subscription, name)
    settings.emit({"deleted": name}, f"deleted resource group {name}")
