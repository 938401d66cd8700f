"""`galleria export catalog` and `galleria serve vagrant`: boxes for those who use Vagrant."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command
from adapters.config.values import parse_size
from adapters.text import printable
from pipeline.errors import EnvironmentMissing, InvalidParameter
from pipeline.gallery.service import GalleryService
from pipeline.jobs.box import export_box
from pipeline.jobs.box_catalog import box_catalog, box_catalogs
from pipeline.model import ImageVersion
from pipeline.model.clock import utc_now
from pipeline.ports.boxes import Provider

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command("catalog", cls=Command)
@click.argument("names", nargs=-1, metavar="[GALLERY/DEFINITION[@CHANNEL]]...")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of a web server.",
)
@click.option("--url", metavar="URL", help="What DIR is called there. Default: file://DIR.")
@click.option(
    "--provider",
    "providers",
    multiple=True,
    type=click.Choice([provider.value for provider in Provider]),
    help="What boxes are made for (repeatable). Default: libvirt.",
)
@click.pass_obj
def export_catalog(
    settings: Settings,
    *,
    names: tuple[str, ...],
    out: Path,
    url: str | None,
    providers: tuple[str, ...],
) -> None:
    """Write catalogs and boxes for Vagrant as files. Default: all that may be read."""
    from adapters.vagrant.catalog import write_catalogs

    directory = out.absolute()
    with settings.session() as session:
        gallery, now = session.gallery, utc_now()
        catalogs = (
            [box_catalog(name, gallery, now) for name in names]
            if names
            else [item for item in box_catalogs(gallery, now) if item.versions]
        )

        def make(version: ImageVersion, provider: Provider, path: Path) -> None:
            export_box(version, provider, path, session.context)

        written = write_catalogs(
            catalogs,
            [Provider(name) for name in providers or (Provider.LIBVIRT.value,)],
            directory,
            url or directory.as_uri(),
            make,
        )
    settings.emit(
        {"catalogs": written},
        "\n".join(f"wrote {printable(str(path))}" for path in written)
        or "there is nothing to write",
    )


@click.command("vagrant", cls=Command)
@click.option(
    "--listen",
    default="127.0.0.1:8099",
    show_default=True,
    metavar="HOST:PORT",
    help="Address to listen on.",
)
@click.option(
    "--cache-size",
    default="64 GiB",
    show_default=True,
    metavar="SIZE",
    help="Boxes that are kept; the oldest go.",
)
@click.pass_obj
def serve_vagrant(settings: Settings, *, listen: str, cache_size: str) -> None:
    """Serve catalogs and boxes to Vagrant over HTTP; a box is made when it is first asked for."""
    host, port = _address(listen)
    limit = parse_size(cache_size)
    if limit is None:
        raise InvalidParameter(f"--cache-size: {cache_size!r} is no size", hint="such as 64 GiB")
    try:
        import uvicorn

        from adapters.vagrant.server import application
    except ImportError as error:
        raise EnvironmentMissing(
            f"the Python package {error.name} is not installed",
            hint="pip install 'galleria[server]'",
        ) from None
    from adapters.vagrant.shelf import Shelf

    @contextmanager
    def gallery(_: object) -> Iterator[GalleryService]:
        with settings.session() as session:
            yield session.gallery

    def make(version: ImageVersion, provider: Provider, path: Path) -> None:
        with settings.session() as session:
            found = session.gallery.get_version(version.name)
            export_box(found, provider, path, session.context)

    shelf = Shelf(settings.load().cache / "boxes", limit, make)
    if host not in LOOPBACK:
        click.echo(
            "galleria: warning: whoever reaches this address reads everything that you may read",
            err=True,
        )
    settings.emit({"listen": listen}, f"http://{listen}/ shows the catalogs; end it with Ctrl-C")
    uvicorn.run(application(gallery, shelf), host=host, port=port, log_level="warning")


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        raise InvalidParameter(
            f"--listen: {text!r} is not HOST:PORT", hint="such as 127.0.0.1:8099"
        )
    return host.strip("[]"), int(port)
