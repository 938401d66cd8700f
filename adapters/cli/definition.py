"""`galleria definition`, and `--cascade`: say what would go, ask, and delete it."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.text import bytes_text, day_text, end_of_life_text, fields, printable, table
from pipeline.errors import Refused
from pipeline.gallery.answers import settled
from pipeline.gallery.documents import encode
from pipeline.jobs.delete import Cascade, delete_cascade, plan_cascade
from pipeline.model import (
    Architecture,
    Disallowed,
    Feature,
    HyperVGeneration,
    Identifier,
    ImageDefinition,
    OsState,
    OsType,
    PurchasePlan,
    Recommended,
    ResourceRange,
)
from pipeline.model.names import DefinitionName, GalleryName, parse_definition, parse_gallery

if TYPE_CHECKING:
    from adapters.app import Session


DELETION = arguments.options(
    click.option("--cascade", is_flag=True, help="Delete everything in it, too, permanently."),
    click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation."),
    click.option("--dry-run", is_flag=True, help="Only show what would be deleted."),
)
Name = TypeVar("Name", GalleryName, DefinitionName)


def deleted(
    session: "Session", name: Name, delete: Callable[[Name], None], values: Mapping[str, bool]
) -> tuple[dict[str, Any], str]:
    """Delete what is empty, or as `DELETION` asks what is in it too; the result's document and
    text."""
    if values["cascade"]:
        return cascade(session, name, yes=values["yes"], dry_run=values["dry_run"])
    delete(name)
    kind = "gallery" if isinstance(name, GalleryName) else "definition"
    return {"deleted": name.arm_id}, f"deleted {kind} {printable(str(name))}"


def cascade(
    session: "Session", name: GalleryName | DefinitionName, *, yes: bool, dry_run: bool
) -> tuple[dict[str, Any], str]:
    """Plan, confirm and delete; returns the document and the text of the result."""
    plan = plan_cascade(session.context, name)
    document = plan.document()
    if dry_run:
        return {"plan": document}, _text(plan)
    if not yes:
        _confirm(plan, name)
    delete_cascade(plan, session.context)
    return {"deleted": document}, f"{_text(plan)}\n\ndeleted all of it"


def _confirm(plan: Cascade, name: GalleryName | DefinitionName) -> None:
    click.echo(_text(plan), err=True)
    if not sys.stdin.isatty():
        raise Refused(
            f"{name} and all that is in it would be deleted, and nobody is there to be asked.",
            hint="--yes deletes it without asking, --dry-run only says what would go",
        )
    question = f"Delete all of this for good, from {printable(str(name))}?"
    if not click.confirm(question, err=True):
        raise Refused("it was not confirmed: nothing was changed")


def _text(plan: Cascade) -> str:
    rows: list[tuple[object, ...]] = [
        (
            "version",
            item.name,
            ", ".join(item.completed_regions),
            bytes_text(sum(disk.virtual_size for disk in item.disks)),
        )
        for item in plan.versions
    ]
    rows += [
        ("channel", f"{item.definition}@{item.name}", "", str(item.version))
        for item in plan.channels
    ]
    rows += [("definition", item, "", "") for item in plan.definitions]
    rows += [("gallery", plan.gallery, "", "")] if plan.gallery else []
    return table(("DELETE", "NAME", "REGIONS", ""), rows)


NAME = click.argument("name", metavar="GALLERY/DEFINITION")
_RECOMMENDED = arguments.options(
    *(
        click.option(
            f"--{bound}-{what}", type=int, metavar=unit, help=f"Recommended {bound} of {noun}."
        )
        for what, unit, noun in (("cpu-core", "N", "vCPUs"), ("memory", "MB", "memory"))
        for bound in ("minimum", "maximum")
    )
)


@click.group(cls=Group)
def definition() -> None:
    """Make, list, show, change and delete image definitions."""


@definition.command("create")
@NAME
@click.option(
    "--os-type",
    required=True,
    type=arguments.enum_choice(OsType),
    help="Operating system of the image.",
)
@click.option("--publisher", "-p", required=True, help="Part of the identifier of the image.")
@click.option("--offer", "-f", required=True, help="Part of the identifier of the image.")
@click.option(
    "--sku",
    "-s",
    required=True,
    help="Publisher, offer and SKU together are unique in the gallery.",
)
@click.option(
    "--os-state",
    type=arguments.enum_choice(OsState),
    default=OsState.GENERALIZED.value,
    show_default=True,
    help="Whether its versions are generalized, or keep their identity.",
)
@click.option(
    "--hyper-v-generation",
    type=arguments.enum_choice(HyperVGeneration),
    default=HyperVGeneration.V2.value,
    show_default=True,
    help="V1 boots with BIOS, V2 with UEFI.",
)
@click.option(
    "--architecture",
    type=arguments.enum_choice(Architecture),
    default=Architecture.X64.value,
    show_default=True,
    help="Processor architecture.",
)
@click.option("--location", "-l", metavar="REGION", help="Home region. Default: the gallery's.")
@click.option("--description", default="", help="What the image is for.")
@click.option(
    "--end-of-life-date",
    callback=arguments.as_date,
    metavar="DATE",
    help="Date, such as 2030-01-31.",
)
@click.option("--features", multiple=True, metavar="NAME=VALUE...", help='Features, as "A=b C=d".')
@_RECOMMENDED
@click.option(
    "--disallowed-disk-types",
    multiple=True,
    metavar="TYPE...",
    help="Disk types that its VMs must not use.",
)
@click.option("--eula", default="", help="End-user licence agreement: a text or a URI.")
@click.option("--privacy-statement-uri", default="", metavar="URI", help="Privacy statement.")
@click.option("--release-note-uri", default="", metavar="URI", help="Release notes.")
@click.option("--plan-name", default="", help="Name of the purchase plan.")
@click.option("--plan-publisher", default="", help="Publisher of the purchase plan.")
@click.option("--plan-product", default="", help="Product of the purchase plan.")
@click.option(
    "--allow-update-image",
    type=bool,
    default=False,
    help="Whether features of an existing definition may change.",
)
@arguments.TAGS
@click.pass_obj
def create_definition(
    settings: Settings, /, *, name: str, location: str | None, **values: Any
) -> None:
    """Make an image definition, or change one."""
    wanted = parse_definition(name)
    with settings.session() as session:
        made = session.gallery.create_definition(
            ImageDefinition(
                name=wanted,
                location=location or "",
                os_type=OsType(values["os_type"]),
                os_state=OsState(values["os_state"]),
                identifier=Identifier(values["publisher"], values["offer"], values["sku"]),
                hyper_v_generation=HyperVGeneration(values["hyper_v_generation"]),
                architecture=Architecture(values["architecture"]),
                description=values["description"],
                eula=values["eula"],
                privacy_statement_uri=values["privacy_statement_uri"],
                release_note_uri=values["release_note_uri"],
                end_of_life_date=values["end_of_life_date"],
                recommended=Recommended(
                    ResourceRange(values["minimum_cpu_core"], values["maximum_cpu_core"]),
                    ResourceRange(values["minimum_memory"], values["maximum_memory"]),
                ),
                disallowed=Disallowed(arguments.names(values["disallowed_disk_types"])),
                features=arguments.features(values["features"]),
                purchase_plan=_plan(values),
                tags=arguments.pairs(values["tags"], "--tags"),
            ),
            allow_update_image=values["allow_update_image"],
        )
    text = f"definition {made.name}: {made.os_type.value}, {made.os_state.value}, " + (
        f"{made.hyper_v_generation.value}, {made.architecture.value}"
    )
    settings.emit({"definition": settled(made)}, text)


@definition.command("update")
@NAME
@click.option("--description", help="What the image is for.")
@click.option(
    "--end-of-life-date",
    callback=arguments.as_date,
    metavar="DATE",
    help="Date, such as 2030-01-31.",
)
@click.option("--release-note-uri", metavar="URI", help="Release notes.")
@click.option(
    "--features", multiple=True, metavar="NAME=VALUE...", help="The complete new list of features."
)
@click.option("--allow-update-image", type=bool, default=False, help="Whether features may change.")
@_RECOMMENDED
@arguments.TAGS
@arguments.SET
@click.pass_obj
def update_definition(settings: Settings, /, *, name: str, **values: Any) -> None:
    """Change what may be changed: recommendations, description, end of life, release notes, tags,
    and with --allow-update-image features."""
    labels = arguments.pairs(values["tags"], "--tags")
    features = arguments.features(values["features"])

    def change(old: ImageDefinition) -> ImageDefinition:
        given = {
            "description": values["description"],
            "end_of_life_date": values["end_of_life_date"],
            "release_note_uri": values["release_note_uri"],
            "features": features or None,
            "tags": labels or None,
        }
        vcpus, memory = old.recommended.vcpus, old.recommended.memory
        new = replace(
            old,
            recommended=Recommended(
                _changed(vcpus, values["minimum_cpu_core"], values["maximum_cpu_core"]),
                _changed(memory, values["minimum_memory"], values["maximum_memory"]),
            ),
            **{key: value for key, value in given.items() if value is not None},
        )
        return arguments.assigned(new, values["assignments"])

    with settings.session() as session:
        made = session.gallery.update_definition(
            parse_definition(name), change, allow_update_image=values["allow_update_image"]
        )
    settings.emit({"definition": settled(made)}, _about(made))


@definition.command("list")
@click.argument("name", metavar="GALLERY")
@click.pass_obj
def list_definitions(settings: Settings, *, name: str) -> None:
    """List the definitions of a gallery."""
    with settings.session() as session:
        found = session.gallery.list_definitions(parse_gallery(name))
    text = definition_table(found) if found else f"there are no definitions in {printable(name)}"
    settings.emit({"definitions": list(map(settled, found))}, text)


@definition.command("show")
@NAME
@click.pass_obj
def show_definition(settings: Settings, *, name: str) -> None:
    """Show an image definition and its channels."""
    with settings.session() as session:
        found = session.gallery.get_definition(parse_definition(name))
        channels = session.gallery.list_channels(found.name)
        count = session.gallery.count_versions(found.name)
    text = _about(found) + f"\nversions      {count}"
    if channels:
        rows = [(f"@{item.name}", item.version, day_text(item.promoted)) for item in channels]
        text += "\n\n" + table(("CHANNEL", "VERSION", "PROMOTED"), rows)
    settings.emit(
        {"definition": settled(found), "channels": encode(channels), "versionCount": count},
        text,
    )


@definition.command("delete")
@NAME
@DELETION
@click.pass_obj
def delete_definition(settings: Settings, /, *, name: str, **values: bool) -> None:
    """Delete an image definition that has no versions, or (--cascade) one with all of them."""
    with settings.session() as session:
        settings.emit(
            *deleted(session, parse_definition(name), session.gallery.delete_definition, values)
        )


def definition_table(found: list[ImageDefinition]) -> str:
    rows = [
        (
            item.name,
            item.os_type.value,
            item.os_state.value,
            item.hyper_v_generation.value,
            item.architecture.value,
            f"{item.identifier.publisher}/{item.identifier.offer}/{item.identifier.sku}",
            end_of_life_text(item.end_of_life_date),
        )
        for item in found
    ]
    header = ("DEFINITION", "OS", "STATE", "GEN", "ARCH", "PUBLISHER/OFFER/SKU", "END OF LIFE")
    return table(header, rows)


def _about(found: ImageDefinition) -> str:
    identifier = found.identifier
    plan = found.purchase_plan
    return fields(
        [
            ("definition", found.name),
            ("id", found.name.arm_id),
            ("location", found.location),
            ("created", day_text(found.created)),
            ("os", f"{found.os_type.value} {found.os_state.value}"),
            ("generation", found.hyper_v_generation.value),
            ("architecture", found.architecture.value),
            ("identifier", f"{identifier.publisher} / {identifier.offer} / {identifier.sku}"),
            ("description", found.description),
            ("end of life", end_of_life_text(found.end_of_life_date)),
            (
                "features",
                " ".join(f"{item.name}={item.value}" + _since(item) for item in found.features),
            ),
            ("vCPUs", _range(found.recommended.vcpus, "")),
            ("memory", _range(found.recommended.memory, " MB")),
            ("not for disks", ", ".join(found.disallowed.disk_types)),
            ("plan", f"{plan.publisher} / {plan.product} / {plan.name}" if plan else ""),
            ("release notes", found.release_note_uri),
            ("tags", " ".join(f"{key}={value}" for key, value in found.tags.items())),
        ]
    )


def _since(feature: Feature) -> str:
    return f" (from {feature.starts_at_version})" if feature.starts_at_version else ""


def _changed(old: ResourceRange, low: int | None, high: int | None) -> ResourceRange:
    return ResourceRange(old.min if low is None else low, old.max if high is None else high)


def _plan(values: dict[str, Any]) -> PurchasePlan | None:
    plan = values["plan_name"], values["plan_publisher"], values["plan_product"]
    if any(plan) and not all(plan):
        raise click.UsageError("--plan-name, --plan-publisher and --plan-product go together")
    return PurchasePlan(*plan) if all(plan) else None


def _range(limits: ResourceRange, unit: str) -> str:
    if limits.min is None and limits.max is None:
        return ""
    low = "" if limits.min is None else str(limits.min)
    high = "" if limits.max is None else str(limits.max)
    return f"{low}..{high}{unit}"
