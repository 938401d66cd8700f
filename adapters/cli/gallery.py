"""`galleria gallery` and `galleria cost`."""

from dataclasses import replace
from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.definition import DELETION, definition_table, deleted
from adapters.cli.lazy import Command, Group
from adapters.text import bytes_text, day_text, fields, table
from pipeline.errors import InvalidParameter
from pipeline.gallery.access.shared_ids import unique_name
from pipeline.gallery.answers import settled
from pipeline.jobs.cost import gallery_cost
from pipeline.model import Gallery, SharingPermissions, SoftDeletePolicy
from pipeline.model.names import parse_gallery

NAME = click.argument("name", metavar="GALLERY")


def _soft_delete(command: Any) -> Any:
    """The options of a soft-delete policy, as `az sig` names them."""
    for option in (
        click.option(
            "--soft-delete", type=bool, help="Whether deleted versions are kept for some time."
        ),
        click.option(
            "--soft-delete-retention",
            "--soft-delete-retention-period",
            "retention",
            type=int,
            metavar="DAYS",
            help="Days in which deleted versions can be used.",
        ),
        click.option(
            "--soft-delete-grace",
            "--soft-delete-grace-period",
            "grace",
            type=int,
            metavar="DAYS",
            help="Days after that in which they can be undeleted.",
        ),
    ):
        command = option(command)
    return command


def _no_identity(_context: click.Context, option: click.Parameter, value: object) -> None:
    """The callback of options that scripts for `az` may have."""
    if value:
        raise InvalidParameter(
            f"{option.opts[0]}: a gallery has no managed identity: nothing here acts in its name.",
            hint="galleria principal create makes one, galleria role assign gives it rights",
        )


def _identity(command: Any) -> Any:
    for names, is_flag in (
        (("--mi-system-assigned", "--system-assigned"), True),
        (("--mi-user-assigned", "--user-assigned"), False),
    ):
        command = click.option(
            *names,
            is_flag=is_flag,
            hidden=True,
            expose_value=False,
            callback=_no_identity,
        )(command)
    return command


@click.group(cls=Group)
def gallery() -> None:
    """Make, list, show, change and delete galleries."""


@gallery.command("create")
@NAME
@click.option("--location", "-l", metavar="REGION", help="Home region. Default: the source region.")
@click.option("--description", default="", help="What it is for.")
@click.option(
    "--permissions",
    type=arguments.enum_choice(SharingPermissions),
    default=SharingPermissions.PRIVATE.value,
    show_default=True,
    help="With whom the new gallery can be shared.",
)
@_soft_delete
@_identity
@arguments.TAGS
@click.pass_obj
def create_gallery(settings: Settings, /, *, name: str, **values: Any) -> None:
    """Make a gallery, or change the description and tags of one."""
    labels = arguments.pairs(values["tags"], "--tags")
    policy = _policy(SoftDeletePolicy(), values)
    with settings.session() as session:
        made = session.gallery.create_gallery(
            parse_gallery(name),
            values["location"],
            description=values["description"],
            tags=labels,
            soft_delete_policy=None if policy == SoftDeletePolicy() else policy,
            permissions=SharingPermissions(values["permissions"]),
        )
    settings.emit({"gallery": settled(made)}, f"gallery {made.name} in {made.location}")


@gallery.command("update")
@NAME
@click.option("--description", help="What the gallery is for.")
@_soft_delete
@arguments.TAGS
@arguments.SET
@click.pass_obj
def update_gallery(settings: Settings, /, *, name: str, **values: Any) -> None:
    """Change the description, the tags and the soft-delete policy of a gallery."""
    labels = arguments.pairs(values["tags"], "--tags")

    def change(old: Gallery) -> Gallery:
        new = replace(
            old,
            description=old.description if values["description"] is None else values["description"],
            tags=labels or old.tags,
            soft_delete_policy=_policy(old.soft_delete_policy, values),
        )
        return arguments.assigned(new, values["assignments"])

    with settings.session() as session:
        made = session.gallery.update_gallery(parse_gallery(name), change)
    settings.emit({"gallery": settled(made)}, _about(made))


@gallery.command("list")
@arguments.ALL_SUBSCRIPTIONS
@click.pass_obj
def list_galleries(settings: Settings, *, all_subscriptions: bool) -> None:
    """List the galleries."""
    with settings.session() as session:
        found = session.gallery.list_galleries(None if all_subscriptions else settings.subscription)
    rows = [(item.name, item.location, day_text(item.created), item.description) for item in found]
    text = table(("GALLERY", "LOCATION", "CREATED", "DESCRIPTION"), rows)
    settings.emit(
        {"galleries": list(map(settled, found))}, text if found else "there are no galleries"
    )


@gallery.command("show")
@NAME
@click.pass_obj
def show_gallery(settings: Settings, *, name: str) -> None:
    """Show a gallery and its definitions."""
    wanted = parse_gallery(name)
    with settings.session() as session:
        found = session.gallery.get_gallery(wanted)
        definitions = session.gallery.list_definitions(wanted)
    text = _about(found)
    if definitions:
        text += "\n\n" + definition_table(definitions)
    document = {
        "gallery": settled(found),
        "identifier": {"uniqueName": unique_name(found.name)},
        "definitions": list(map(settled, definitions)),
    }
    settings.emit(document, text)


@gallery.command("delete")
@NAME
@DELETION
@click.pass_obj
def delete_gallery(settings: Settings, /, *, name: str, **values: bool) -> None:
    """Delete a gallery that has no definitions, or (--cascade) one with all that is in it."""
    with settings.session() as session:
        settings.emit(
            *deleted(session, parse_gallery(name), session.gallery.delete_gallery, values)
        )


def _policy(old: SoftDeletePolicy, values: dict[str, Any]) -> SoftDeletePolicy:
    given = {
        "is_soft_delete_enabled": values["soft_delete"],
        "retention_period_in_days": values["retention"],
        "grace_period_in_days": values["grace"],
    }
    return replace(old, **{name: value for name, value in given.items() if value is not None})


def _about(found: Gallery) -> str:
    policy = found.soft_delete_policy
    grace = policy.grace_period_in_days
    kept = f"{policy.retention_period_in_days} days" + (f", {grace} more of grace" if grace else "")
    return fields(
        [
            ("gallery", found.name),
            ("id", found.name.arm_id),
            ("location", found.location),
            ("created", day_text(found.created)),
            ("kind", found.sharing_profile.permissions.value),
            ("description", found.description),
            ("soft delete", kept if policy.is_soft_delete_enabled else ""),
            ("tags", " ".join(f"{key}={value}" for key, value in found.tags.items())),
        ]
    )


@click.command("cost", cls=Command)
@click.argument("name", metavar="GALLERY")
@click.pass_obj
def cost_command(settings: Settings, *, name: str) -> None:
    """Show how many bytes a gallery stores and transferred, and what shared blocks saved."""
    with settings.session() as session:
        gallery = session.gallery.get_gallery(parse_gallery(name)).name
        found = gallery_cost(gallery, session.gallery, session.zones)
    header = (
        *("REGION", "VERSIONS", "REPLICAS", "AS COPIES", "STORED", "SAVED"),
        *("CONTENT SENT", "BYTES SENT"),
    )
    rows = [
        (
            item.region,
            item.versions,
            item.replicas,
            bytes_text(item.stored_logical),
            bytes_text(item.stored_real),
            bytes_text(max(0, item.saved)),
            bytes_text(item.sent_logical),
            bytes_text(item.sent_real),
        )
        for item in found
    ]
    documents = [item.document() for item in found]
    settings.emit({"gallery": gallery.arm_id, "regions": documents}, table(header, rows))
