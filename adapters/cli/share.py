"""`galleria share`: galleries for others."""

from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.text import fields
from pipeline.gallery.access.shared_ids import unique_name
from pipeline.model import SharingPermissions
from pipeline.model.names import parse_gallery
from pipeline.model.sharing import Community, Sharing

GALLERY = click.argument("name", metavar="GALLERY")


@click.group(cls=Group)
def share() -> None:
    """Share galleries with subscriptions, tenants or everyone."""


def _with_whom(command: Any) -> Any:
    for name, what in (("--tenant-ids", "Tenants"), ("--subscription-ids", "Subscriptions")):
        help = f"{what}, separated by blanks (repeatable)."
        command = click.option(name, multiple=True, metavar="ID...", help=help)(command)
    return command


@share.command("add")
@GALLERY
@_with_whom
@click.pass_obj
def add(
    settings: Settings, *, name: str, subscription_ids: tuple[str, ...], tenant_ids: tuple[str, ...]
) -> None:
    """Share a gallery with subscriptions and tenants (30 and 5 at most)."""
    with settings.app() as app:
        made = app.grants.share_with(
            parse_gallery(name), arguments.names(subscription_ids), arguments.names(tenant_ids)
        )
    _emit(settings, made)


@share.command("remove")
@GALLERY
@_with_whom
@click.pass_obj
def remove(
    settings: Settings, *, name: str, subscription_ids: tuple[str, ...], tenant_ids: tuple[str, ...]
) -> None:
    """Stop sharing a gallery with subscriptions and tenants."""
    with settings.app() as app:
        made = app.grants.unshare_with(
            parse_gallery(name), arguments.names(subscription_ids), arguments.names(tenant_ids)
        )
    _emit(settings, made)


@share.command("reset")
@GALLERY
@click.pass_obj
def reset(settings: Settings, *, name: str) -> None:
    """Share a gallery with nobody any more; a community gallery too."""
    with settings.app() as app:
        made = app.grants.reset(parse_gallery(name))
    _emit(settings, made)


@share.command("enable-community")
@GALLERY
@click.option("--publisher-uri", metavar="URI", help="Where the publisher is found.")
@click.option("--publisher-email", "--publisher-contact", metavar="ADDRESS", help="Who answers.")
@click.option("--eula", metavar="TEXT-OR-URI", help="The end-user licence agreement.")
@click.option("--public-name-prefix", metavar="PREFIX", help="What the public name begins with.")
@click.pass_obj
def enable_community(settings: Settings, /, *, name: str, **about: str | None) -> None:
    """Make a Community gallery public."""
    given = [value for value in about.values() if value is not None]
    if given and len(given) < len(about):
        raise click.UsageError(
            "--publisher-uri, --publisher-email, --eula and --public-name-prefix go together"
        )
    community = None
    if given:
        community = Community(
            publisher_uri=about["publisher_uri"] or "",
            publisher_contact=about["publisher_email"] or "",
            eula=about["eula"] or "",
            public_name_prefix=about["public_name_prefix"] or "",
        )
    with settings.app() as app:
        made = app.grants.enable_community(parse_gallery(name), community)
    _emit(settings, made)


@share.command("set-permissions")
@GALLERY
@click.argument("permissions", type=arguments.enum_choice(SharingPermissions))
@click.pass_obj
def set_permissions(settings: Settings, *, name: str, permissions: str) -> None:
    """Make a gallery Private, or one to be shared: Groups or Community."""
    with settings.app() as app:
        made = app.grants.set_permissions(parse_gallery(name), SharingPermissions(permissions))
    _emit(settings, made)


@share.command("show")
@GALLERY
@click.pass_obj
def show(settings: Settings, *, name: str) -> None:
    """Show with whom a gallery is shared."""
    with settings.app() as app:
        found = app.grants.sharing(parse_gallery(name))
    _emit(settings, found)


def _emit(settings: Settings, item: Sharing) -> None:
    groups = [
        {"type": kind, "ids": ids}
        for kind, ids in (("Subscriptions", item.subscriptions), ("AADTenants", item.tenants))
        if ids
    ]
    community = item.community
    shared_id = f"/SharedGalleries/{unique_name(item.gallery)}" if groups else ""
    public_id = f"/CommunityGalleries/{item.public_name}" if item.is_public else ""
    document: dict[str, Any] = {"permissions": item.permissions.value, "groups": groups}
    if community is not None:
        document["communityGalleryInfo"] = {
            "publisherUri": community.publisher_uri,
            "publisherContact": community.publisher_contact,
            "eula": community.eula,
            "publicNamePrefix": community.public_name_prefix,
            "communityGalleryEnabled": item.is_public,
            "publicNames": [item.public_name] if item.is_public else [],
        }
    text = fields(
        [
            ("gallery", item.gallery),
            ("permissions", item.permissions.value),
            ("subscriptions", " ".join(item.subscriptions)),
            ("tenants", " ".join(item.tenants)),
            ("shared id", shared_id),
            ("public id", public_id),
            ("publisher", f"{community.publisher_contact} {community.publisher_uri}")
            if community
            else ("", ""),
            ("eula", community.eula if community else ""),
        ]
    )
    ids = {"uniqueId": shared_id or public_id} if shared_id or public_id else {}
    # a profile is one record that every region reads: it is in force when the command ends
    status = {"sharingStatus": {"aggregatedState": "Succeeded"}} if item.is_shared else {}
    settings.emit(
        {"gallery": item.gallery.arm_id, "sharingProfile": document, "identifier": ids, **status},
        text,
    )
