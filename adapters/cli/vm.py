"""`galleria vm`: the virtual machines that versions can be made from."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.text import fields, printable, table
from pipeline.model.disks import disk_name
from pipeline.model.sources import VmSource

if TYPE_CHECKING:
    from adapters.sources.domains import Machine


@click.group(cls=Group)
def vm() -> None:
    """List and show virtual machines that can be published."""


@vm.command("list")
@click.argument("directory", required=False, metavar="[DIR]", type=click.Path(path_type=Path))
@click.pass_obj
def list_machines(settings: Settings, *, directory: Path | None) -> None:
    """List the domains of a directory of XML files, or of libvirt."""
    from adapters.process.sandbox import Sandbox
    from adapters.sources import domains, libvirt

    config = settings.load()
    found = libvirt.list_machines(directory, config.libvirt, Sandbox(enabled=config.sandbox))
    rows: list[tuple[object, ...]] = []
    documents: list[dict[str, Any]] = []
    for place, machine in found:
        if isinstance(machine, domains.Machine):
            about = machine.description
            documents.append({"from": place, "vm": _document(machine)})
            rows.append(
                (machine.name, len(machine.disks), about.generation, about.architecture, place)
            )
        else:
            documents.append({"from": place, "error": machine.message})
            rows.append(("?", "", "", "", f"{place}: {machine.message}"))
    settings.emit(
        {"vms": documents},
        table(("VM", "DISKS", "GENERATION", "ARCHITECTURE", "FROM"), rows) if rows else "",
    )


@vm.command()
@click.argument("name", metavar="FILE.xml|NAME")
@click.pass_obj
def show(settings: Settings, *, name: str) -> None:
    """Show a machine: firmware, controller, and every layer of every disk."""
    from adapters.process.sandbox import Sandbox
    from adapters.sources import libvirt

    config = settings.load()
    sandbox = Sandbox(enabled=config.sandbox)
    machine = libvirt.read_machine(VmSource(name), config.libvirt, sandbox)
    about = machine.description
    text = fields(
        [
            ("vm", machine.name),
            ("generation", about.generation),
            ("architecture", about.architecture or ""),
            ("controller", about.controller),
            ("os", about.os_type or ""),
            ("nvram", machine.nvram or ""),
            *([("state", "running")] if machine.live else []),
        ]
    )
    rows = [
        (
            disk_name(disk.lun) if depth == 0 else "",
            depth,
            layer.declared.value if layer.declared else "",
            layer.path,
        )
        for disk in machine.disks
        for depth, layer in enumerate(disk.layers)
    ]
    lines = [text, "", table(("DISK", "LAYER", "FORMAT", "FILE"), rows)]
    settings.emit({"vm": _document(machine)}, "\n".join(lines))


def _document(machine: "Machine") -> dict[str, Any]:
    about = machine.description
    return {
        "name": printable(machine.name),
        "hyperVGeneration": about.generation,
        "architecture": about.architecture,
        "diskControllerType": about.controller,
        "osType": about.os_type,
        "nvram": machine.nvram,
        "running": machine.live,
        "disks": [
            {
                "lun": disk.lun,
                "layers": [{"file": layer.path, "format": layer.declared} for layer in disk.layers],
            }
            for disk in machine.disks
        ],
    }
