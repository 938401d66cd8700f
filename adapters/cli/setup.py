"""`galleria init`, `config` and `doctor`: the host, before there is a gallery."""

import os
import textwrap
from pathlib import Path
from typing import Any

import click

from adapters.cli.context import Settings
from adapters.cli.lazy import Command, Group
from adapters.config import (
    PARSERS,
    PRINCIPAL,
    Config,
    complete,
    load_config,
    load_principal,
    parse_regions,
    refuse_existing,
    state_directory,
    user_config,
    write_config,
)
from adapters.text import printable, table
from pipeline.errors import EnvironmentMissing, GalleriaError


@click.command(cls=Command)
@click.option(
    "--region",
    "regions",
    multiple=True,
    metavar="NAME=DIR[:premium][,...]",
    help="A region and its zones (repeatable). Default: one region, local, in the state directory.",
)
@click.option(
    "--source-region",
    metavar="NAME",
    help="Region where versions are made. Default: the first one.",
)
@click.option(
    "--catalog", metavar="URL", help="URL of the database. Default: SQLite in the state directory."
)
@click.option(
    "--group",
    metavar="NAME",
    help="The host's group that may read the zones and use VMs, as QEMU's. Default: none.",
)
@click.option("--force", is_flag=True, help="Replace the existing configuration.")
@click.option(
    "--adopt",
    "adopted",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Take over the zone in DIR, whatever catalog it belongs to, or make one there in place of "
    "one that is lost (repeatable).",
)
@click.pass_obj
def init(
    settings: Settings,
    *,
    regions: tuple[str, ...],
    source_region: str | None,
    catalog: str | None,
    group: str | None,
    force: bool,
    adopted: tuple[Path, ...],
) -> None:
    """Write the configuration and make the catalog and zones.

    Without --region, --source-region, --catalog, --group and --force, a configuration that exists
    stays as it is: its catalog and its zones are made where they are missing.
    """
    from adapters.app import create_zones, local_account
    from pipeline.model.access import Identity

    named = settings.config or os.environ.get("GALLERIA_CONFIG") or user_config(os.environ)
    path = Path(named).absolute()
    kept = path.exists() and not (regions or source_region or catalog or group or force)
    config = (
        load_config(path, os.environ) if kept else describe(regions, source_region, catalog, group)
    )
    if not kept:
        refuse_existing(path, force=force)
    dropped = {} if kept else _dropped(path, config)
    # of a configuration that is not there yet nobody is the principal
    identity = (
        settings.identity() if path.exists() else Identity(local_account(), settings.principal)
    )
    create_zones(config, identity, [path.absolute() for path in adopted])
    if not kept:
        write_config(config, path, force=force)  # last: what it names is there
    lines = [
        f"configuration  {path}",
        f"catalog        {without_password(config.catalog)}",
        f"work           {config.work}",
    ]
    for name, zones in config.regions.items():
        home = "  (source region)" if name == config.source_region else ""
        lines.append(f"region         {name}: {', '.join(map(str, zones))}{home}")
    for name, left in dropped.items():
        places = ",".join(left)
        lines.append(f"left out       {name}: {places}")
        lines.append(
            f"               it keeps what it holds; --region {name}={places} has it again"
        )
    lines.append("next           galleria gallery create corp")
    text = "\n".join(printable(line) for line in lines)
    settings.emit({"file": path, "config": document(config), "leftOut": dropped}, text)


def _dropped(path: Path, config: Config) -> dict[str, list[str]]:
    """Regions of the configuration that is replaced which the new one does not have, and their
    zones. A configuration that can't be read has none that could be named."""
    if not path.exists():
        return {}
    try:
        old = load_config(path, os.environ)
    except GalleriaError:
        return {}
    return {
        name: [str(zone.path) for zone in zones]
        for name, zones in old.regions.items()
        if name not in config.regions
    }


def describe(
    regions: tuple[str, ...], source_region: str | None, catalog: str | None, group: str | None
) -> Config:
    """The configuration that the arguments of `init` ask for."""
    local = f"local={state_directory(os.environ) / 'regions' / 'local'}"
    values: dict[str, Any] = {
        "regions": parse_regions(regions or (local,), "--region", Path.cwd()),
    }
    if source_region:
        values["source_region"] = source_region
    if catalog:
        values["catalog"] = PARSERS["catalog"](catalog, "--catalog", Path.cwd())
    if group:
        values["group"] = PARSERS["group"](group, "--group", Path.cwd())
    origins = {key: f"--{key.replace('_', '-')}" for key in values}
    return complete(values, origins, os.environ)


@click.group(cls=Group)
def config() -> None:
    """Show the configuration and where it comes from."""


@config.command()
@click.pass_obj
def show(settings: Settings) -> None:
    """Show every value, and the file or variable that set it."""
    loaded = settings.load()
    values = document(loaded)
    origins = {key: loaded.origins.get(key, "default") for key in values}
    values["principal"], origins["principal"] = load_principal(settings.config)
    if settings.principal is not None:
        values["principal"], origins["principal"] = settings.principal, "--as"
    rows = [(key, _text(value), origins[key]) for key, value in values.items() if key != "regions"]
    rows += [
        (f"regions.{name}", ", ".join(zones), origins["regions"])
        for name, zones in values["regions"].items()
    ]
    settings.emit({"config": values, "origins": origins}, table(("key", "value", "origin"), rows))


def document(config: Config) -> dict[str, Any]:
    """The configuration as JSON data, without the password of a database."""
    values = {key: getattr(config, key) for key in PARSERS if key != PRINCIPAL}
    values["regions"] = {name: list(map(str, zones)) for name, zones in config.regions.items()}
    values["catalog"] = without_password(config.catalog)
    return {key: str(item) if isinstance(item, Path) else item for key, item in values.items()}


def without_password(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


WIDTH = 96


@click.command(cls=Command)
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check what this host can do; exit 0 only when the main job can run."""
    from adapters import doctor

    settings = context.find_object(Settings) or Settings()
    checks = doctor.run(settings.load())
    works = doctor.can_run(checks)
    lines = []
    for check in checks:
        lines.append(_wrapped(f"{check.verdict.value:4}  {check.name}: {check.found}"))
        if check.advice:
            lines.append(_wrapped(f"      -> {check.advice}"))
    counts = {
        verdict: sum(check.verdict is verdict for check in checks) for verdict in doctor.Status
    }
    summary = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    end = "the main job can run" if works else "the main job can't run here"
    settings.emit(
        {"works": works, "checks": checks}, "\n".join([*lines, f"doctor: {summary}: {end}"])
    )
    if not works:
        context.exit(EnvironmentMissing.exit_status)


def _wrapped(line: str) -> str:
    return textwrap.fill(printable(line), WIDTH, subsequent_indent=" " * 9)
