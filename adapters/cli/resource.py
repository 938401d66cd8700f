"""What the commands of disks, snapshots and managed images have in common."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adapters.cli import arguments
from adapters.cli.sources import parse_disk
from adapters.text import bytes_text, fields, minute_text, printable, table
from pipeline.errors import NotFound
from pipeline.gallery import answers
from pipeline.model import Architecture, HyperVGeneration, OsType
from pipeline.model.disks import disk_name
from pipeline.model.resource_names import ResourceName, resource_of
from pipeline.model.resources import Disk, DiskControllerTypes, ManagedImage, Resource, Snapshot
from pipeline.model.sources import AnySource, DiskKinds, VmSource
from pipeline.resources.lineage import Family, Lineage, Step, Thing
from pipeline.resources.lineage import document as lineage_document

if TYPE_CHECKING:
    from adapters.app import Session
    from pipeline.resources.snapshots import Properties


WORDS = {
    "virtualMachine": "VM",
    "vhd": "file",
    "managedImage": "managed image",
    "deployment": "deployed disk",
}
DIGEST = 16  # how many digits of a digest tell it apart, for people


def lineage_of(thing: Thing, session: "Session") -> tuple[list[dict[str, Any]], str]:
    """As JSON data, and for people."""
    found = Family(session.gallery, session.resources).of(thing)
    return lineage_document(found), "\n".join(_lines(thing, found))


def _lines(thing: Thing, lineage: Lineage) -> Iterator[str]:
    for part in thing.parts:
        yield f"lineage of {disk_name(part.lun)}, {part.digest[:DIGEST]}"
        source = lineage.sources.get(part.lun)
        yield from _tree("from", (source,) if source is not None else ())
        yield from _tree("into", lineage.copies.get(part.lun, ()))


def _tree(word: str, steps: tuple[Step, ...], depth: int = 1) -> Iterator[str]:
    for step in steps:
        lun = "" if step.lun is None else f", {disk_name(step.lun)}"
        digest = f", {step.digest[:DIGEST]}" if step.digest else ""
        gone = " (gone)" if step.present is False else ""
        kind = WORDS.get(step.kind, step.kind)
        yield printable(f"{'  ' * depth}{word} {kind} {step.id}{lun}{digest}{gone}")
        yield from _tree(word, step.next, depth + 1)


F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.option(
        "--location", "-l", "--region", "location", metavar="REGION", help="Region of the resource."
    ),
    click.option(
        "--os-type", type=arguments.enum_choice(OsType), help="Operating system on the disk."
    ),
    click.option(
        "--hyper-v-generation",
        type=arguments.enum_choice(HyperVGeneration),
        help="V1 boots with BIOS, V2 with UEFI.",
    ),
    click.option(
        "--architecture", type=arguments.enum_choice(Architecture), help="Processor architecture."
    ),
    click.option(
        "--accelerated-network",
        type=bool,
        help="Whether VMs with it support accelerated networking.",
    ),
    click.option(
        "--disk-controller-types",
        type=arguments.enum_choice(DiskControllerTypes),
        help="Disk controllers that VMs with it can have.",
    ),
    arguments.PLAN,
    arguments.TAGS,
)


LINEAGE = click.option(
    "--lineage", is_flag=True, help="Show what it came from, and what came from it."
)


def property_options(command: F) -> F:
    """The options that describe a disk's content."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def properties_of(values: Mapping[str, Any], session: "Session") -> "Properties":
    from pipeline.resources.snapshots import Properties

    return Properties(
        session.region(values["location"] or None),
        _value(OsType, values["os_type"]),
        _value(HyperVGeneration, values["hyper_v_generation"]),
        _value(Architecture, values["architecture"]),
        arguments.pairs(values["tags"], "--tags"),
        values["accelerated_network"],
        _value(DiskControllerTypes, values["disk_controller_types"]),
        arguments.plan(values["plan"], "--plan"),
    )


E = TypeVar("E", OsType, HyperVGeneration, Architecture, DiskControllerTypes)


def _value(kind: type[E], text: str | None) -> E | None:
    return None if text is None else next(m for m in kind if m.value.lower() == text.lower())


def one_source(text: str, session: "Session") -> AnySource:
    """What `--source` names: an ARM id, a file (of libvirt's XML: a VM), else a disk or snapshot.

    Raises NotFound.
    """
    from pipeline.resources.opening import named_source

    if resource_of(text) is None:
        disk = parse_disk(text)
        if disk.path.exists():
            return VmSource(text) if disk.path.suffix == ".xml" else disk
    found = named_source(text, session.resources)
    if found is None:
        raise NotFound(
            f"{text!r} is neither a file nor a disk or snapshot",
            hint="galleria disk list and galleria snapshot list show what there is",
        )
    return found


def one_disk(text: str, session: "Session") -> DiskKinds:
    """As `one_source`, but no VM."""
    found = one_source(text, session)
    if isinstance(found, DiskKinds):
        return found
    raise click.UsageError(f"{text!r} is a VM: name one of its disks")


def text(resource: Resource, state: str = "") -> str:
    """What a person wants to know of one."""
    creation = getattr(resource, "creation_data", None)
    rows: list[tuple[str, object]] = [
        (resource.name.kind.noun, resource.name),
        ("id", resource.id),
        ("region", resource.location),
        ("state", f"{resource.provisioning_state.value}, {resource.completion_percent} %"),
        ("virtual size", bytes_text(resource.disk_size_bytes)),
        ("made", minute_text(resource.time_created)),
    ]
    if creation is not None:
        source = creation.gallery_image_reference or creation.source_resource_id
        rows.append(
            ("from", f"{creation.create_option.value} {source or creation.source_uri}".rstrip())
        )
    if isinstance(resource, Snapshot) and resource.incremental:
        rows.append(("family", resource.incremental_snapshot_family_id))
    if isinstance(resource, Disk):
        rows += [("disk state", state), ("file", resource.file and resource.file.path)]
    if isinstance(resource, ManagedImage):
        rows += [
            ("os state", resource.os_state.value),
            ("vm", resource.source_virtual_machine),
            ("storage", resource.storage.value),
            *(
                (f"caching {disk_name(item.lun)}", item.caching and item.caching.value)
                for item in resource.contents
            ),
        ]
    rows += [
        ("os type", resource.os_type and resource.os_type.value),
        ("generation", resource.hyper_v_generation and resource.hyper_v_generation.value),
        ("read", bytes_text(resource.bytes_read)),
        ("written", bytes_text(resource.bytes_written)),
        *((f"digest {disk_name(item.lun)}", item.digest) for item in resource.contents),
    ]
    return fields([(name, value) for name, value in rows if value not in (None, "")])


def shown(
    resource: Resource, session: "Session", *, lineage: bool, state: str = ""
) -> tuple[dict[str, Any], str]:
    """As JSON data and for people; with its lineage where that is asked for."""
    from pipeline.resources.lineage import of_resource

    if not lineage:
        return answers.resource(resource), text(resource, state)
    entries, tree = lineage_of(of_resource(resource), session)
    return {**answers.resource(resource), "lineage": entries}, f"{text(resource, state)}\n\n{tree}"


def listing(found: Sequence[Resource], noun: str) -> str:
    rows = [
        (
            item.name,
            item.location,
            item.provisioning_state.value,
            bytes_text(item.disk_size_bytes),
            minute_text(item.time_created),
            ", ".join(disk_name(content.lun) for content in item.contents),
        )
        for item in found
    ]
    header = ("NAME", "REGION", "STATE", "VIRTUAL SIZE", "MADE", "DISKS")
    return table(header, rows) if rows else f"there are no {noun}s"


SCRUB = click.option("--scrub", is_flag=True, help="Read from the disk, not from the page cache.")


def verify(context: click.Context, target: ResourceName, *, scrub: bool) -> None:
    """Read what is kept of a resource again, and tell what it showed."""
    from adapters.cli.context import Settings
    from adapters.cli.proof import tell_verified
    from pipeline.jobs.scrub import verify_resource

    with context.ensure_object(Settings).session() as session:
        resource = session.resources.get(target)
        found = verify_resource(resource, session.context, scrub=scrub)
    tell_verified(context, "resource", resource.id, found)
