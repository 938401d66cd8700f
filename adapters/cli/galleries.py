"""`galleria gallery` and `galleria definition`."""

from datetime import UTC, datetime
from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.text import fields, printable, table
from pipeline.gallery.documents import encode
from pipeline.gallery.model import (
    Architecture,
    Disallowed,
    Gallery,
    HyperVGeneration,
    Identifier,
    ImageDefinition,
    OsState,
    OsType,
    PurchasePlan,
    Recommended,
    ResourceRange,
)
from pipeline.gallery.names import parse_definition, parse_gallery

TAGS = click.option("--tags", multiple=True, metavar="NAME=VALUE...", help="Tags (repeatable).")


@click.group(cls=Group)
def gallery() -> None:
    """Make, list, show and delete galleries."""


@gallery.command("create")
@click.argument("name", metavar="GALLERY")
@click.option("--location", "-l", metavar="REGION", help="Home region. Default: the source region.")
@click.option("--description", default="", help="What it is for.")
@TAGS
@click.pass_obj
def create_gallery(
    settings: Settings, *, name: str, location: str | None, description: str, tags: tuple[str, ...]
) -> None:
    """Make a gallery, or change the description and tags of one."""
    labels = arguments.pairs(tags, "--tags")
    with settings.app() as app:
        made = app.gallery.create_gallery(
            parse_gallery(name),
            location or settings.load().source_region,
            description=description,
            tags=labels,
        )
    settings.emit({"gallery": encode(made)}, f"gallery {made.name} in {made.location}")


@gallery.command("list")
@click.pass_obj
def list_galleries(settings: Settings) -> None:
    """List the galleries."""
    with settings.app() as app:
        found = app.gallery.list_galleries()
    rows = [(item.name, item.location, _day(item.created), item.description) for item in found]
    text = table(("GALLERY", "LOCATION", "CREATED", "DESCRIPTION"), rows)
    settings.emit({"galleries": encode(found)}, text if found else "there are no galleries")


@gallery.command("show")
@click.argument("name", metavar="GALLERY")
@click.pass_obj
def show_gallery(settings: Settings, *, name: str) -> None:
    """Show a gallery and its definitions."""
    wanted = parse_gallery(name)
    with settings.app() as app:
        found = app.gallery.get_gallery(wanted)
        definitions = app.gallery.list_definitions(wanted)
    text = fields(
        [
            ("gallery", found.name),
            ("id", found.name.arm_id),
            ("location", found.location),
            ("created", _day(found.created)),
            ("description", found.description),
            ("tags", _tags(found)),
        ]
    )
    if definitions:
        text += "\n\n" + _definition_table(definitions)
    settings.emit({"gallery": encode(found), "definitions": encode(definitions)}, text)


@gallery.command("delete")
@click.argument("name", metavar="GALLERY")
@click.pass_obj
def delete_gallery(settings: Settings, *, name: str) -> None:
    """Delete a gallery that has no definitions."""
    wanted = parse_gallery(name)
    with settings.app() as app:
        app.gallery.delete_gallery(wanted)
    settings.emit({"deleted": wanted.arm_id}, f"deleted gallery {printable(str(wanted))}")


@click.group(cls=Group)
def definition() -> None:
    """Make, list, show and delete image definitions."""


@definition.command("create")
@click.argument("name", metavar="GALLERY/DEFINITION")
@click.option("--os-type", required=True, type=arguments.enum_choice(OsType))
@click.option("--publisher", "-p", required=True, help="Part of the identifier.")
@click.option("--offer", "-f", required=True, help="Part of the identifier.")
@click.option("--sku", "-s", required=True, help="Publisher, offer and SKU are unique together.")
@click.option(
    "--os-state",
    type=arguments.enum_choice(OsState),
    default=OsState.GENERALIZED.value,
    show_default=True,
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
)
@click.option("--location", "-l", metavar="REGION", help="Default: the gallery's.")
@click.option("--description", default="")
@click.option("--end-of-life-date", callback=arguments.as_date, metavar="DATE", help="ISO 8601.")
@click.option("--features", multiple=True, metavar="NAME=VALUE...", help='As "A=b C=d".')
@click.option("--minimum-cpu-core", type=int, metavar="N")
@click.option("--maximum-cpu-core", type=int, metavar="N")
@click.option("--minimum-memory", type=int, metavar="MB")
@click.option("--maximum-memory", type=int, metavar="MB")
@click.option("--disallowed-disk-types", multiple=True, metavar="TYPE...")
@click.option("--eula", default="")
@click.option("--privacy-statement-uri", default="", metavar="URI")
@click.option("--release-note-uri", default="", metavar="URI")
@click.option("--plan-name", default="")
@click.option("--plan-publisher", default="")
@click.option("--plan-product", default="")
@TAGS
@click.pass_obj
def create_definition(
    settings: Settings, /, *, name: str, location: str | None, **values: Any
) -> None:
    """Make an image definition, or change what may be changed of one."""
    wanted = parse_definition(name)
    with settings.app() as app:
        home = location or app.gallery.get_gallery(wanted.gallery).location
        made = app.gallery.create_definition(
            ImageDefinition(
                name=wanted,
                location=home,
                created=datetime.now(UTC),
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
            )
        )
    text = f"definition {made.name}: {made.os_type.value}, {made.os_state.value}, " + (
        f"{made.hyper_v_generation.value}, {made.architecture.value}"
    )
    settings.emit({"definition": encode(made)}, text)


@definition.command("list")
@click.argument("name", metavar="GALLERY")
@click.pass_obj
def list_definitions(settings: Settings, *, name: str) -> None:
    """List the definitions of a gallery."""
    with settings.app() as app:
        found = app.gallery.list_definitions(parse_gallery(name))
    text = _definition_table(found) if found else f"there are no definitions in {printable(name)}"
    settings.emit({"definitions": encode(found)}, text)


@definition.command("show")
@click.argument("name", metavar="GALLERY/DEFINITION")
@click.pass_obj
def show_definition(settings: Settings, *, name: str) -> None:
    """Show an image definition."""
    with settings.app() as app:
        found = app.gallery.get_definition(parse_definition(name))
    identifier = found.identifier
    text = fields(
        [
            ("definition", found.name),
            ("id", found.name.arm_id),
            ("location", found.location),
            ("created", _day(found.created)),
            ("os", f"{found.os_type.value} {found.os_state.value}"),
            ("generation", found.hyper_v_generation.value),
            ("architecture", found.architecture.value),
            ("identifier", f"{identifier.publisher} / {identifier.offer} / {identifier.sku}"),
            ("description", found.description),
            ("end of life", _day(found.end_of_life_date)),
            ("features", " ".join(f"{item.name}={item.value}" for item in found.features)),
            ("vCPUs", _range(found.recommended.vcpus, "")),
            ("memory", _range(found.recommended.memory, " MB")),
            ("tags", _tags(found)),
        ]
    )
    settings.emit({"definition": encode(found)}, text)


@definition.command("delete")
@click.argument("name", metavar="GALLERY/DEFINITION")
@click.pass_obj
def delete_definition(settings: Settings, *, name: str) -> None:
    """Delete an image definition that has no versions."""
    wanted = parse_definition(name)
    with settings.app() as app:
        app.gallery.delete_definition(wanted)
    settings.emit({"deleted": wanted.arm_id}, f"deleted definition {printable(str(wanted))}")


def _definition_table(found: list[ImageDefinition]) -> str:
    rows = [
        (
            item.name,
            item.os_type.value,
            item.os_state.value,
            item.hyper_v_generation.value,
            item.architecture.value,
            f"{item.identifier.publisher}/{item.identifier.offer}/{item.identifier.sku}",
            _day(item.end_of_life_date),
        )
        for item in found
    ]
    header = ("DEFINITION", "OS", "STATE", "GEN", "ARCH", "PUBLISHER/OFFER/SKU", "END OF LIFE")
    return table(header, rows)


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


def _tags(item: Gallery | ImageDefinition) -> str:
    return " ".join(f"{name}={value}" for name, value in item.tags.items())


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d}"
