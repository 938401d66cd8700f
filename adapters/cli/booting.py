"""`galleria boot-check`."""

from collections.abc import Mapping
from typing import Any

import click

from adapters.cli.context import Settings, cased, configured_region, own_version
from adapters.cli.lazy import Command
from adapters.text import fields, printable, seconds_text
from pipeline.guest.boot import SECONDS
from pipeline.jobs.boot_check import boot_version, console_log


@click.command("boot-check", cls=Command)
@click.argument("reference", metavar="GALLERY/DEFINITION[/VERSION]")
@click.option("--region", metavar="NAME", help="Whose replica. Default: the source region's.")
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(min=1),
    default=SECONDS,
    show_default=True,
    help="Seconds until it has to ask for a login.",
)
@click.pass_obj
def boot_check(settings: Settings, *, reference: str, region: str | None, seconds: float) -> None:
    """Boot a throw-away clone of a version, without network, and say who it is."""
    with settings.app() as app:
        place = None if region is None else configured_region(app, region)
        version = own_version(app, reference, place)
        booted = boot_version(version, place, app.context, seconds=seconds)
        log = console_log(version, app.context)
    document = booted.document()
    text = f"{version.name} boots\n{boot_fields(document)}\nconsole  {printable(str(log))}"
    settings.emit({"version": version.name.arm_id, "boot": cased(document), "console": log}, text)


def boot_fields(boot: Mapping[str, Any]) -> str:
    """What a boot check saw."""
    return fields(
        [
            ("up by", f"{boot['by']}, after {seconds_text(boot['seconds'])}"),
            ("hostname", boot["hostname"]),
            ("machine id", "made at this boot" if boot["first_boot"] else "not seen to be made"),
            *(("host key", key) for key in boot["host_keys"]),
            *(("failed", unit) for unit in boot["failed"]),
        ]
    )
