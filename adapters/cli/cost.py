"""`galleria cost`: what a gallery occupies, and what sharing saved."""

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.text import bytes_text, table
from pipeline.jobs.cost import cost
from pipeline.model.names import parse_gallery


@click.command("cost", cls=Command)
@click.argument("name", metavar="GALLERY")
@click.pass_obj
def cost_command(settings: Settings, *, name: str) -> None:
    """Show the bytes that a gallery stores and sent, by region, and what sharing saved."""
    with settings.app() as app:
        gallery = app.gallery.get_gallery(parse_gallery(name)).name
        versions = [
            version
            for definition in app.gallery.list_definitions(gallery)
            for deleted in (False, True)
            for version in app.gallery.list_versions(definition.name, deleted=deleted)
        ]
        found = cost(versions, app.context.zones)
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
    documents = [
        {
            "region": item.region,
            "versions": item.versions,
            "replicas": item.replicas,
            "storedLogicalBytes": item.stored_logical,
            "storedRealBytes": item.stored_real,
            "savedBytes": item.saved,
            "sentLogicalBytes": item.sent_logical,
            "sentRealBytes": item.sent_real,
        }
        for item in found
    ]
    settings.emit({"gallery": gallery.arm_id, "regions": documents}, table(header, rows))
