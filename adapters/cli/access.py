"""`galleria principal`, `role` and `audit`: who there is, who may do what, and what was done."""

from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings, short_id
from adapters.cli.lazy import Group
from adapters.text import day_text, fields, printable, table
from pipeline.gallery.access.grants import parse_scope
from pipeline.gallery.access.roles import ROLES
from pipeline.gallery.audit import parse_head
from pipeline.gallery.documents import encode
from pipeline.model.access import Principal, PrincipalKind, Role
from pipeline.model.audit import AuditFilter
from pipeline.model.clock import utc_now
from pipeline.model.credentials import Credential
from pipeline.model.names import DEFAULT_TENANT

NAME = click.argument("name", metavar="PRINCIPAL")


@click.group(cls=Group)
def principal() -> None:
    """Make, list and delete users, groups, service principals, and their secrets."""


@principal.command("create")
@NAME
@click.option(
    "--type",
    "kind",
    type=arguments.enum_choice(PrincipalKind),
    default=PrincipalKind.USER.value,
    show_default=True,
    help="Kind of the principal.",
)
@click.option("--tenant", metavar="ID", default=DEFAULT_TENANT, help="Its home tenant.")
@click.option(
    "--guest-of", multiple=True, metavar="ID...", help="Other tenants of which it is a guest."
)
@click.option(
    "--subscription-ids",
    multiple=True,
    metavar="ID...",
    help="Subscriptions that it uses: what is shared with them is shared with it.",
)
@click.option(
    "--member",
    "members",
    multiple=True,
    metavar="PRINCIPAL",
    help="Member of the group (repeatable).",
)
@click.pass_obj
def create_principal(
    settings: Settings,
    *,
    name: str,
    kind: str,
    tenant: str,
    guest_of: tuple[str, ...],
    subscription_ids: tuple[str, ...],
    members: tuple[str, ...],
) -> None:
    """Make a principal, or replace the one of that name."""
    wanted = Principal(
        name,
        PrincipalKind(kind),
        tenant,
        arguments.names(guest_of),
        arguments.names(subscription_ids),
        arguments.names(members),
    )
    with settings.session() as session:
        made = session.grants.put_principal(wanted)
    settings.emit({"principal": encode(made)}, f"{made.kind.value} {printable(made.name)}")


@principal.command("list")
@click.pass_obj
def list_principals(settings: Settings) -> None:
    """List the principals."""
    with settings.session() as session:
        found = session.grants.principals()
    rows = [
        (
            item.name,
            item.kind.value,
            item.tenant,
            " ".join(item.guest_of),
            " ".join(item.subscriptions),
            " ".join(item.members),
        )
        for item in found
    ]
    header = ("PRINCIPAL", "TYPE", "TENANT", "GUEST OF", "SUBSCRIPTIONS", "MEMBERS")
    text = table(header, rows) if rows else "there are no principals: only the local operator"
    settings.emit({"principals": encode(found)}, text)


@principal.command("delete")
@NAME
@click.pass_obj
def delete_principal(settings: Settings, *, name: str) -> None:
    """Delete a principal, with its roles and memberships."""
    with settings.session() as session:
        session.grants.delete_principal(name)
    settings.emit({"deleted": name}, f"deleted principal {printable(name)}")


@principal.group("credential", cls=Group)
def credential() -> None:
    """Make, list and delete the secrets by which a principal logs in to a server."""


@credential.command("reset")
@NAME
@click.option("--append", is_flag=True, help="Keep the principal's other secrets.")
@click.option("--display-name", default="", metavar="TEXT", help="What the secret is for.")
@click.option(
    "--years",
    type=click.IntRange(min=1, max=100),
    default=1,
    show_default=True,
    metavar="N",
    help="How long it can be used.",
)
@click.option(
    "--end-date",
    callback=arguments.as_date,
    metavar="DATE",
    help="Until when it can be used, such as 2030-01-31; instead of --years.",
)
@click.pass_obj
def reset_credential(
    settings: Settings,
    *,
    name: str,
    append: bool,
    display_name: str,
    years: int,
    end_date: datetime | None,
) -> None:
    """Make a new secret for a principal, and show it: this once."""
    expires = end_date or utc_now() + years * timedelta(days=365)
    with settings.session() as session:
        secret, made = session.grants.reset_credential(
            name, expires, display_name=display_name, append=append
        )
        home = next(item for item in session.grants.principals() if item.key == name.lower())
    document = {
        "appId": made.principal,
        "password": secret,
        "tenant": home.tenant,
        "credential": _told(made),
    }
    rows = [
        ("client id", made.principal),
        ("secret", secret),
        ("tenant", home.tenant),
        ("key id", made.id),
        ("expires", day_text(made.expires)),
    ]
    settings.emit(document, f"{fields(rows)}\n\nthe secret is not kept: it is shown this once")


@credential.command("list")
@NAME
@click.pass_obj
def list_credentials(settings: Settings, *, name: str) -> None:
    """List the secrets of a principal, without the secrets themselves."""
    with settings.session() as session:
        found = session.grants.credentials(name)
    rows = [
        (item.id, day_text(item.created), day_text(item.expires), item.display_name)
        for item in found
    ]
    text = table(("KEY ID", "CREATED", "EXPIRES", ""), rows) if rows else "there are no secrets"
    settings.emit({"credentials": [_told(item) for item in found]}, text)


@credential.command("delete")
@NAME
@click.option("--key-id", required=True, metavar="ID", help="Which secret.")
@click.pass_obj
def delete_credential(settings: Settings, *, name: str, key_id: str) -> None:
    """Delete a secret, and end the logins that were made with it."""
    with settings.session() as session:
        session.grants.delete_credential(name, key_id)
    settings.emit({"deleted": key_id}, f"deleted secret {printable(key_id)}")


def _told(item: Credential) -> dict[str, Any]:
    """A credential as Azure names its members."""
    return {
        "keyId": item.id,
        "displayName": item.display_name,
        "startDateTime": item.created,
        "endDateTime": item.expires,
    }


@click.group(cls=Group)
def role() -> None:
    """Assign, list and remove roles."""


ASSIGNEE = click.option(
    "--assignee", required=True, metavar="PRINCIPAL", help="Principal that has the role."
)
ROLE = click.option(
    "--role",
    "kind",
    required=True,
    type=arguments.enum_choice(Role),
    help="Role, see galleria role definitions.",
)
SCOPE = click.option(
    "--scope",
    metavar="SCOPE",
    help="A gallery (corp), a definition (corp/web), or the ARM id of one of them, of a resource "
    "group or of a subscription. Default: the default subscription.",
)


@role.command("assign")
@ASSIGNEE
@ROLE
@SCOPE
@click.pass_obj
def assign(settings: Settings, *, assignee: str, kind: str, scope: str | None) -> None:
    """Give a role to a principal, for a resource and everything below it."""
    with settings.session() as session:
        made = session.grants.assign(assignee, Role(kind), _scope(settings, scope))
    settings.emit(
        {"roleAssignment": encode(made)},
        printable(f"{made.principal} is {made.role.value} at {made.scope}"),
    )


@role.command("list")
@click.option("--assignee", metavar="PRINCIPAL", help="Only roles of this principal.")
@click.option("--scope", metavar="SCOPE", help="Only roles that apply to this scope.")
@click.pass_obj
def list_roles(settings: Settings, *, assignee: str | None, scope: str | None) -> None:
    """List who has which role, and where."""
    wanted = None if scope is None else _scope(settings, scope)
    with settings.session() as session:
        found = session.grants.assignments(wanted, assignee)
    rows = [(item.principal, item.role.value, item.scope) for item in found]
    text = table(("PRINCIPAL", "ROLE", "SCOPE"), rows) if rows else "there are no roles"
    settings.emit({"roleAssignments": encode(found)}, text)


@role.command("remove")
@ASSIGNEE
@ROLE
@SCOPE
@click.pass_obj
def remove(settings: Settings, *, assignee: str, kind: str, scope: str | None) -> None:
    """Take a role away from a principal."""
    with settings.session() as session:
        gone = session.grants.unassign(assignee, Role(kind), _scope(settings, scope))
    settings.emit(
        {"removed": encode(gone)},
        printable(f"{gone.principal} is no longer {gone.role.value} at {gone.scope}"),
    )


@role.command("definitions")
@click.pass_obj
def definitions(settings: Settings) -> None:
    """List the roles and the actions that each allows."""
    rows = []
    for kind, permissions in ROLES.items():
        rows += [(kind.value, "", action) for action in permissions.actions]
        rows += [(kind.value, "not", action) for action in permissions.not_actions]
    document = [
        {
            "roleName": kind.value,
            "actions": permissions.actions,
            "notActions": permissions.not_actions,
        }
        for kind, permissions in ROLES.items()
    ]
    settings.emit({"roleDefinitions": document}, table(("ROLE", "", "ACTIONS"), rows))


def _scope(settings: Settings, text: str | None) -> str:
    """The ARM id of a scope; short names are in the subscription of the global options."""
    if text is None:
        return f"/subscriptions/{settings.subscription}"
    return parse_scope(text, settings.subscription, settings.resource_group)


@click.group(cls=Group)
def audit() -> None:
    """Read and verify the record of changes and refusals."""


@audit.command("list")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="Entries to show.",
)
@click.option("--actor", metavar="PRINCIPAL", help="Only what this principal did.")
@click.option(
    "--object", "id", metavar="ID", help="Only what was done to this object, or to what is in it."
)
@click.option("--denied", is_flag=True, help="Only refusals.")
@click.pass_obj
def list_audit(
    settings: Settings, *, limit: int, actor: str | None, id: str | None, denied: bool
) -> None:
    """List the record, newest first."""
    with settings.session() as session:
        entries = islice(session.grants.audit(AuditFilter(actor, id, denied)), limit)
        found = [{**entry.content, "hash": entry.hash} for entry in entries]
    rows = [
        (
            entry["seq"],
            entry["time"][:19] + "Z",
            entry["actor"],
            "done" if entry["allowed"] else "DENIED",
            entry["action"],
            short_id(entry["object"]),
            " ".join(map(short_id, entry["details"].split(" "))),
        )
        for entry in found
    ]
    header = ("SEQ", "TIME", "ACTOR", "", "ACTION", "OBJECT", "DETAILS")
    settings.emit({"entries": found}, table(header, rows) if rows else "nothing is recorded")


@audit.command("verify")
@click.option(
    "--head", metavar="SEQ:HASH", help="A head that was printed earlier; it must be in the record."
)
@click.pass_obj
def verify(settings: Settings, *, head: str | None) -> None:
    """Verify the hashes of the whole record, and print its head."""
    expected = None if head is None else parse_head(head)
    with settings.session() as session:
        found = session.grants.verify_audit(expected)
    settings.emit(
        {"entries": found.seq, "head": str(found)},
        f"the record of {found.seq} entries is whole\nhead  {found}",
    )
