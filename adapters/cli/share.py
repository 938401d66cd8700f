"""`galleria share`, `list-shared` and `list-community`: galleries for others, and of others."""

from collections.abc import Sequence
from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Command, Group
from adapters.text import bytes_text, day_text, end_of_life_text, fields, printable, table
from pipeline.gallery import answers
from pipeline.gallery.access.shared_ids import parse_shared
from pipeline.gallery.access.views import SharedGallery, SharedTo, SharedViews
from pipeline.model import ImageDefinition, ImageVersion, SharingPermissions
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
    with settings.session() as session:
        made = session.grants.share_with(
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
    with settings.session() as session:
        made = session.grants.unshare_with(
            parse_gallery(name), arguments.names(subscription_ids), arguments.names(tenant_ids)
        )
    _emit(settings, made)


@share.command("reset")
@GALLERY
@click.pass_obj
def reset(settings: Settings, *, name: str) -> None:
    """Stop sharing a gallery with anybody, also as a community gallery."""
    with settings.session() as session:
        made = session.grants.reset(parse_gallery(name))
    _emit(settings, made)


@share.command("enable-community")
@GALLERY
@click.option("--publisher-uri", metavar="URI", help="Web site of the publisher.")
@click.option(
    "--publisher-email",
    "--publisher-contact",
    metavar="ADDRESS",
    help="Contact address of the publisher.",
)
@click.option("--eula", metavar="TEXT-OR-URI", help="The end-user licence agreement.")
@click.option("--public-name-prefix", metavar="PREFIX", help="Start of the public name.")
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
    with settings.session() as session:
        made = session.grants.enable_community(parse_gallery(name), community)
    _emit(settings, made)


@share.command("set-permissions")
@GALLERY
@click.argument("permissions", type=arguments.enum_choice(SharingPermissions))
@click.pass_obj
def set_permissions(settings: Settings, *, name: str, permissions: str) -> None:
    """Make a gallery Private, or one to be shared: Groups or Community."""
    with settings.session() as session:
        made = session.grants.set_permissions(parse_gallery(name), SharingPermissions(permissions))
    _emit(settings, made)


@share.command("show")
@GALLERY
@click.pass_obj
def show(settings: Settings, *, name: str) -> None:
    """Show with whom a gallery is shared."""
    with settings.session() as session:
        found = session.grants.sharing(parse_gallery(name))
    _emit(settings, found)


def _emit(settings: Settings, item: Sharing) -> None:
    community = item.community
    direct, public = answers.shared_ids(item)
    text = fields(
        [
            ("gallery", item.gallery),
            ("permissions", item.permissions.value),
            ("subscriptions", " ".join(item.subscriptions)),
            ("tenants", " ".join(item.tenants)),
            ("shared id", direct),
            ("public id", public),
            ("publisher", f"{community.publisher_contact} {community.publisher_uri}")
            if community
            else ("", ""),
            ("eula", community.eula if community else ""),
        ]
    )
    settings.emit(answers.sharing(item), text)


PAGE = 100  # galleries
LOCATION = click.option("--location", "-l", metavar="REGION", help="Only those of this region.")


@click.command("list-shared", cls=Command)
@LOCATION
@click.option(
    "--shared-to",
    type=arguments.enum_choice(SharedTo),
    help="Only those that are shared with your tenants, or with your subscriptions.",
)
@click.pass_obj
def list_shared(settings: Settings, *, location: str | None, shared_to: str | None) -> None:
    """List the galleries that are shared with you directly."""
    through = None if shared_to is None else SharedTo(shared_to)
    with settings.session() as session:
        place = location and session.region(location)
        found = session.views.galleries(SharingPermissions.GROUPS, location=place, through=through)
    settings.emit({"galleries": [answers.shared_gallery(item) for item in found]}, _table(found))


@click.command("list-community", cls=Command)
@LOCATION
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=PAGE,
    show_default=True,
    metavar="N",
    help="Galleries to show.",
)
@click.option("--marker", default="", help="Start after this gallery: the next page.")
@click.option("--show-next-marker", is_flag=True, help="Print the marker of the next page.")
@click.pass_obj
def list_community(
    settings: Settings, *, location: str | None, limit: int, marker: str, show_next_marker: bool
) -> None:
    """List the community galleries."""
    with settings.session() as session:
        place = location and session.region(location)
        page = session.views.page(
            SharingPermissions.COMMUNITY, limit=limit, after=marker, location=place
        )
    document: dict[str, Any] = {
        "galleries": [answers.shared_gallery(item) for item in page.galleries]
    }
    text = _table(page.galleries)
    if page.following is not None:
        shown = len(page.galleries)
        text += f"\n{shown} of {page.total}: --marker {page.following} shows the next"
    settings.emit(document | ({"nextMarker": page.following} if show_next_marker else {}), text)


def _table(found: Sequence[SharedGallery]) -> str:
    rows = [(item.reference.id, item.gallery.location, _contact(item)) for item in found]
    return table(("GALLERY", "LOCATION", "CONTACT"), rows) if rows else "there are none"


def list_view(settings: Settings, views: SharedViews, text: str) -> None:
    """What `galleria list` says of a shared id: definitions of a gallery, or versions."""
    wanted = parse_shared(text)
    if wanted.definition is None:
        definitions = views.definitions(text)
        rows = [(f"{wanted.id}/Images/{item.name.name}", *_kind(item)) for item in definitions]
        columns = ("DEFINITION", "OS", "STATE", "GEN", "PUBLISHER/OFFER/SKU")
        documents = [answers.shared_definition(item, wanted.id) for item in definitions]
        settings.emit(
            {"definitions": documents}, table(columns, rows) if rows else "there are no definitions"
        )
        return
    versions = views.versions(text)
    id = f"{wanted.id}/Images/{wanted.definition}"
    lines = [
        (
            f"{id}/Versions/{item.number}",
            bytes_text(sum(disk.virtual_size for disk in item.disks)),
            ", ".join(item.completed_regions),
        )
        for item in versions
    ]
    header = ("VERSION", "VIRTUAL SIZE", "REGIONS")
    settings.emit(
        {"versions": [answers.shared_version(item, id) for item in versions]},
        table(header, lines) if lines else "there are no versions",
    )


def show_view(settings: Settings, views: SharedViews, version: ImageVersion, text: str) -> None:
    """What `galleria show` says of a shared id: nothing of sources, hosts and files."""
    wanted = parse_shared(text)
    definition = views.definition(text)
    id = f"{wanted.id}/Images/{definition.name.name}"
    about = fields(
        [
            ("version", f"{id}/Versions/{version.number}"),
            ("image", " ".join(_kind(definition)[:3])),
            ("identifier", _kind(definition)[3]),
            ("published", day_text(version.published_date)),
            ("end of life", end_of_life_text(version.end_of_life_date)),
            ("regions", ", ".join(version.completed_regions)),
            ("eula", definition.eula),
        ]
    )
    disks = table(
        ("LUN", "VIRTUAL SIZE"),
        [
            ("os" if disk.lun is None else disk.lun, bytes_text(disk.virtual_size))
            for disk in version.disks
        ],
    )
    settings.emit(
        {
            "version": answers.shared_version(version, id),
            "definition": answers.shared_definition(definition, wanted.id),
        },
        f"{about}\n\n{disks}",
    )


def _contact(item: SharedGallery) -> str:
    """Whom to ask; direct shares do not say."""
    community = item.sharing.community
    public = item.reference.kind is SharingPermissions.COMMUNITY
    return community.publisher_contact if community and public else ""


def _kind(item: ImageDefinition) -> tuple[str, str, str, str]:
    identifier = item.identifier
    return (
        item.os_type.value,
        item.os_state.value,
        item.hyper_v_generation.value,
        printable(f"{identifier.publisher}/{identifier.offer}/{identifier.sku}"),
    )
