"""`galleria catalog`: the catalog as a whole."""

from pathlib import Path

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Group
from adapters.cli.setup import without_password
from adapters.text import fields, printable
from pipeline.errors import GalleriaError

FILE = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


@click.group(cls=Group)
def catalog() -> None:
    """Check the catalog, make a backup, restore or rebuild it."""


@catalog.command()
@FILE
@click.pass_obj
def backup(settings: Settings, *, file: Path) -> None:
    """Write the catalog to a new file, while galleria runs too.

    The file is of one moment, complete and checked, and its user alone may read it. It is for a
    catalog in SQLite; PostgreSQL has pg_dump.
    """
    from adapters.catalog.copies import place_of

    place_of(settings.load().catalog, "pg_dump")  # told first, whether the server runs or not
    with settings.session() as session:
        session.back_up_catalog(file.absolute())
    size = file.stat().st_size
    settings.emit({"file": file, "fileSize": size}, f"backup  {printable(str(file))}")


@catalog.command()
@FILE
@click.option(
    "--force",
    is_flag=True,
    help="Restore while jobs run, too, and a backup whose audit record is broken.",
)
@click.pass_obj
def restore(settings: Settings, *, file: Path, force: bool) -> None:
    """Put a backup in the place of the catalog, which is kept beside it.

    The backup is checked first, and brought up to date. Versions in the zones of which it does not
    know are named: nothing shows or removes them.
    """
    from adapters.app import restore_catalog, unknown_versions

    config = settings.load()
    kept = restore_catalog(config, settings.identity(), file.absolute(), force=force)
    unknown = unknown_versions(config)
    lines = [("catalog", without_password(config.catalog)), ("before", kept or "")]
    lines += [(f"unknown in {item['region']}", item["version"]) for item in unknown]
    document = {"catalog": without_password(config.catalog), "kept": kept, "unknown": unknown}
    settings.emit(document, fields(lines))


@catalog.command()
@click.pass_obj
def rebuild(settings: Settings) -> None:
    """Make a lost catalog again from what the zones say of it.

    Zones that are not mounted are passed over, and what could not be recovered is named. A catalog
    that has content is left alone.
    """
    from adapters.app import rebuild_catalog

    config = settings.load()
    found = rebuild_catalog(config, settings.identity())
    made = found.rebuilt
    lines: list[tuple[str, object]] = [("catalog", without_password(config.catalog))]
    lines += [(f"zone of {region}", path) for region, path in found.zones]
    lines += [(kind, count) for kind, count in made.counts.items()]
    lines += [("not recorded", name) for name in made.recovered]
    lines += [("problem", problem) for problem in made.problems]
    record = "lost: it begins anew" if found.record is None else f"goes on after {found.record}"
    lines.append(("audit record", record))
    document = {
        "catalog": without_password(config.catalog),
        "zones": [{"region": region, "zone": path} for region, path in found.zones],
        "counts": [{"kind": kind, "count": count} for kind, count in made.counts.items()],
        "recovered": made.recovered,
        "problems": made.problems,
        "auditHead": None if found.record is None else str(found.record),
    }
    settings.emit(document, fields(lines))


@catalog.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Read the whole catalog and look for damage; exit 1 when there is some.

    Looked at are the database's structure, what refers to what, its schema and the chain of the
    audit record.
    """
    settings = context.find_object(Settings) or Settings()
    with settings.session() as session:
        found, where = session.check_catalog(), without_password(session.config.catalog)
    document = {
        "catalog": where,
        "engine": found.engine,
        "schema": found.schema,
        "whole": not found.problems,
        "problems": found.problems,
    }
    lines: list[tuple[str, object]] = [
        ("catalog", where),
        ("engine", f"{found.engine}, {found.journal}"),
        ("schema", found.schema),
        *(("problem", problem) for problem in found.problems),
        ("verdict", "damaged: galleria catalog restore" if found.problems else "whole"),
    ]
    settings.emit(document, fields(lines))
    if found.problems:
        context.exit(GalleriaError.exit_status)
