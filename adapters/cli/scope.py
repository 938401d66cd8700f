"""`galleria tenant`, `subscription` and `group`. Nobody needs them: there is a default of each."""

from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.text import fields, table
from pipeline.gallery.documents import encode
from pipeline.model.names import DEFAULT_TENANT

ID = click.argument("identity", metavar="SUBSCRIPTION")
NAME = click.argument("name", metavar="GROUP")


TENANT = click.argument("identity", metavar="TENANT")


@click.group(cls=Group)
def tenant() -> None:
    """Make, list, show and delete tenants."""


@tenant.command("create")
@TENANT
@click.option("--display-name", default="", metavar="NAME", help="Name that people see.")
@click.pass_obj
def create_tenant(settings: Settings, *, identity: str, display_name: str) -> None:
    """Make a tenant (a GUID), or change the display name of one."""
    with settings.session() as session:
        made = session.gallery.create_tenant(identity, display_name)
    settings.emit({"tenant": encode(made)}, f"tenant {made.id}")


@tenant.command("list")
@click.pass_obj
def list_tenants(settings: Settings) -> None:
    """List the tenants."""
    with settings.session() as session:
        found = session.gallery.list_tenants()
    rows = [(item.id, item.display_name) for item in found]
    settings.emit({"tenants": encode(found)}, table(("TENANT", "NAME"), rows))


@tenant.command("show")
@TENANT
@click.pass_obj
def show_tenant(settings: Settings, *, identity: str) -> None:
    """Show a tenant and its subscriptions."""
    with settings.session() as session:
        found = session.gallery.get_tenant(identity)
        members = [item for item in session.gallery.list_subscriptions() if item.tenant == found.id]
    rows = [(item.id, item.display_name) for item in members]
    text = fields([("tenant", found.id), ("name", found.display_name)])
    if rows:
        text += "\n\n" + table(("SUBSCRIPTION", "NAME"), rows)
    settings.emit({"tenant": encode(found), "subscriptions": encode(members)}, text)


@tenant.command("delete")
@TENANT
@click.pass_obj
def delete_tenant(settings: Settings, *, identity: str) -> None:
    """Delete a tenant that has no subscriptions."""
    with settings.session() as session:
        session.gallery.delete_tenant(identity)
    settings.emit({"deleted": f"/tenants/{identity}"}, f"deleted tenant {identity}")


@click.group(cls=Group)
def subscription() -> None:
    """Make, list, show and delete subscriptions."""


@subscription.command("create")
@ID
@click.option("--display-name", default="", metavar="NAME", help="Name that people see.")
@click.option("--tenant", default=DEFAULT_TENANT, metavar="ID", help="Default: the default tenant.")
@click.pass_obj
def create_subscription(
    settings: Settings, *, identity: str, display_name: str, tenant: str
) -> None:
    """Make a subscription (a GUID), or change the display name of one."""
    with settings.session() as session:
        made = session.gallery.create_subscription(identity, display_name, tenant)
    settings.emit({"subscription": encode(made)}, f"subscription {made.id} in tenant {made.tenant}")


@subscription.command("list")
@click.pass_obj
def list_subscriptions(settings: Settings) -> None:
    """List the subscriptions and their tenants."""
    with settings.session() as session:
        found = session.gallery.list_subscriptions()
    rows = [(item.id, item.display_name, item.tenant) for item in found]
    text = table(("SUBSCRIPTION", "NAME", "TENANT"), rows)
    settings.emit({"subscriptions": encode(found)}, text)


@subscription.command("show")
@ID
@click.pass_obj
def show_subscription(settings: Settings, *, identity: str) -> None:
    """Show a subscription."""
    with settings.session() as session:
        found = session.gallery.get_subscription(identity)
    text = fields(
        [("subscription", found.id), ("name", found.display_name), ("tenant", found.tenant)]
    )
    settings.emit({"subscription": encode(found)}, text)


@subscription.command("delete")
@ID
@click.pass_obj
def delete_subscription(settings: Settings, *, identity: str) -> None:
    """Delete a subscription that holds nothing."""
    with settings.session() as session:
        session.gallery.delete_subscription(identity)
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
    with settings.session() as session:
        made = session.gallery.create_resource_group(
            settings.subscription, name, values["location"], labels
        )
    settings.emit({"resourceGroup": encode(made)}, f"resource group {made.name} in {made.location}")


@group.command("list")
@click.pass_obj
def list_groups(settings: Settings) -> None:
    """List the resource groups of a subscription that were made."""
    with settings.session() as session:
        found = session.gallery.list_resource_groups(settings.subscription)
    rows = [(item.name, item.location) for item in found]
    text = table(("GROUP", "LOCATION"), rows) if rows else "there is the default group alone"
    settings.emit({"resourceGroups": encode(found)}, text)


@group.command("delete")
@NAME
@click.pass_obj
def delete_group(settings: Settings, *, name: str) -> None:
    """Delete a resource group that has no galleries."""
    with settings.session() as session:
        session.gallery.delete_resource_group(settings.subscription, name)
    settings.emit({"deleted": name}, f"deleted resource group {name}")
