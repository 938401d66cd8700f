"""`galleria metrics`: numbers for Prometheus."""

from pathlib import Path

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.text import printable


@click.command(cls=Command)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the text to a file, in one step: for node_exporter's textfile collector.",
)
@click.pass_obj
def metrics(settings: Settings, *, out: Path | None) -> None:
    """Print what there is, as metrics in Prometheus's text format."""
    from adapters.filesystem import durable, modes
    from pipeline.gallery.metrics import text

    with settings.session() as session:
        found = session.metrics()
    shown = text(found)
    if out is not None:
        # another user's collector reads it
        durable.write_file(out.absolute(), shown.encode(), mode=modes.plain(), overwrite=True)
    document = {
        "metrics": [
            {
                "name": item.name,
                "help": item.help,
                "samples": [
                    {"labels": [{"name": k, "value": v} for k, v in labels.items()], "value": value}
                    for labels, value in item.samples
                ],
            }
            for item in found
        ],
        "file": out,
    }
    settings.emit(document, f"metrics  {printable(str(out))}" if out else shown.rstrip())
