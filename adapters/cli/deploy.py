"""`galleria deploy` and `galleria deployed`: VMs from versions, and giving them up."""

from pathlib import Path
from typing import Any

import click

from adapters.cli import arguments
from adapters.cli.context import Settings
from adapters.cli.lazy import Command, Group
from adapters.text import fields, minute_text, printable, table
from pipeline.deploying.deploy import DeployRequest, deploy, vm_names
from pipeline.deploying.profile import with_defaults
from pipeline.deploying.release import find, release
from pipeline.errors import InvalidParameter
from pipeline.gallery import answers
from pipeline.gallery.access.shared_ids import shared_name
from pipeline.jobs.show import deployments_of
from pipeline.model import Deployment, Forward, Hardware, ImageDefinition, OsProfile
from pipeline.model.disks import disk_name

REGION = click.option("--region", required=True, metavar="NAME", help="Region to deploy from.")
OUT = click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Directory in which the directory of each VM is made.",
)
profile_options = arguments.options(
    click.option("--hostname", metavar="NAME", help="Computer name. Default: the VM's name."),
    click.option("--admin-username", default="", metavar="USER", help="User to create, with sudo."),
    arguments.repeated(
        "--ssh-key",
        "ssh_keys",
        metavar="KEY|FILE",
        help="Public SSH key, or its .pub file (repeatable).",
    ),
    click.option(
        "--custom-data",
        metavar="FILE",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Passed to cloud-init unchanged: a script or #cloud-config.",
    ),
)


hardware_options = arguments.options(
    click.option("--memory", type=int, metavar="MB", help="Default: what the image recommends."),
    click.option("--cpus", type=int, metavar="N", help="Default: what the image recommends."),
    click.option(
        "--network",
        default="",
        metavar="user|none|bridge:NAME|NAME",
        help="User-mode networking, none, a bridge, or a network of libvirt. Default: libvirt's "
        "network 'default', and user mode in start.sh.",
    ),
    click.option(
        "--forward",
        "forwards",
        multiple=True,
        metavar="HOST:GUEST",
        help="A TCP port of this host's loopback address that leads to one of the VM (repeatable). "
        "Of several VMs each takes the next number on the host.",
    ),
)


def hardware_of(values: dict[str, Any]) -> Hardware:
    """What the options ask for."""
    return Hardware(
        memory_mib=values["memory"],
        vcpus=values["cpus"],
        network=values["network"],
        forwards=tuple(map(_forward, values["forwards"])),
    )


def _forward(text: str) -> Forward:
    host, colon, guest = text.partition(":")
    if not (colon and host.isdecimal() and guest.isdecimal()):
        raise InvalidParameter(f"--forward: {text!r} is not HOST:GUEST", hint="such as 2222:22")
    return Forward(int(host), int(guest))


def profile_of(values: dict[str, Any], definition: ImageDefinition, name: str) -> OsProfile | None:
    """What the options ask for, with the defaults of the image."""
    data = values["custom_data"]
    asked = OsProfile(
        computer_name=values["hostname"] or "",
        admin_username=values["admin_username"],
        ssh_keys=tuple(_key(item) for item in values["ssh_keys"]),
        custom_data="" if data is None else _text(data),
    )
    return with_defaults(asked, definition, name)


def _key(item: str) -> str:
    """A key, or the one line of its file."""
    if " " in item.strip():
        return item.strip()
    try:
        return Path(item).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidParameter(
            f"--ssh-key: {item!r} is neither a public key nor a file with one: {error.strerror}"
        ) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidParameter(f"--custom-data: {path} is not text in UTF-8") from None


@click.command("deploy", cls=Command)
@arguments.REFERENCE
@REGION
@click.option(
    "--name", required=True, metavar="VM", help="Name of the VM, and of its directory in --out."
)
@click.option("--count", type=int, metavar="N", help="Number of VMs, named VM-1, VM-2, ...")
@OUT
@profile_options
@hardware_options
@click.pass_obj
def deploy_command(
    settings: Settings,
    /,
    *,
    reference: str,
    region: str,
    name: str,
    count: int | None,
    out: Path,
    **values: Any,
) -> None:
    """Make VMs: copy-on-write disks, a libvirt domain and a qemu command line."""
    with settings.session() as session:
        place = session.region(region)
        version = session.gallery.resolve(reference, place)
        definition = session.gallery.get_definition(version.name.definition)
        profile = profile_of(values, definition, name)
        image = shared_name(reference, version.number)
        request = DeployRequest(
            vm_names(name, count), out, place, profile, image=image, hardware=hardware_of(values)
        )
        made = deploy(version, request, session.vm_directories, session.context)
    document: dict[str, Any] = {"deployments": [answers.deployment(item) for item in made]}
    if count is None:
        document["deployment"] = answers.deployment(made[0])
    settings.emit(
        document, f"from {image or version.name} in {place}\n{_disks(made)}\n\n{_next(made[0])}"
    )


def image_of(item: Deployment) -> object:
    """What a VM was made from, by the name that its maker used."""
    return item.image or item.version


def _disks(made: list[Deployment]) -> str:
    rows = [
        (item.name, disk_name(disk.lun), disk.format, disk.path)
        for item in made
        for disk in item.disks
    ]
    return table(("VM", "DISK", "FORMAT", "PATH"), rows)


def _next(item: Deployment) -> str:
    home = printable(item.directory)
    return fields([("start it", f"{home}/start.sh"), ("or", f"virsh define {home}/domain.xml")])


@click.group(cls=Group)
def deployed() -> None:
    """List and release deployed VMs."""


@deployed.command("list")
@click.argument("reference", metavar="[GALLERY/DEFINITION[/VERSION]]", required=False)
@click.pass_obj
def list_deployed(settings: Settings, *, reference: str | None) -> None:
    """List the VMs that were made: all, those of a definition's versions, or those of a version."""
    with settings.session() as session:
        found = deployments_of(reference, session.gallery)
    rows = [
        (
            item.name,
            image_of(item),
            item.region,
            f"{item.zone} {item.replica}",
            minute_text(item.created),
            item.directory if Path(item.directory).exists() else f"{item.directory} (gone)",
        )
        for item in found
    ]
    header = ("VM", "VERSION", "REGION", "REPLICA", "CREATED", "DIRECTORY")
    text = table(header, rows) if rows else "no VM is deployed"
    settings.emit({"deployments": [answers.deployment(item) for item in found]}, text)


@deployed.command("release")
@click.argument("names", nargs=-1, required=True, metavar="VM...")
@click.option("--out", metavar="DIR", help="Directory of the VM, when several have the name.")
@click.option(
    "--keep-disks",
    is_flag=True,
    help="Keep the disks and only forget the VM: for disks that are clones.",
)
@click.pass_obj
def release_command(
    settings: Settings, *, names: tuple[str, ...], out: str | None, keep_disks: bool
) -> None:
    """Remove VMs with their disks; bases that nothing else needs go too."""
    place = None if out is None else str(Path(out).absolute())
    with settings.session() as session:
        known = session.gallery.list_deployments()
        found = [find(name, place, known) for name in names]
        release(found, session.vm_directories, session.context, keep_disks=keep_disks)
    gone = [answers.deployment(item) for item in found]
    settings.emit({"released": gone}, "\n".join(f"released {item.name}" for item in found))
