"""The configuration: TOML file and `GALLERIA_*` environment -> one frozen Config.

```toml
source_region = "eu"                # where versions are made first; default: the first region
max_virtual_size = "32 TiB"

[regions]                           # a region and its zones: directories, one file system each
eu = ["/srv/eu"]
us = ["/srv/us-a", "/srv/us-b", "/srv/us-c", {path = "/srv/us-fast", premium = true}]
"eu/paris" = ["/srv/paris"]         # an edge zone of eu: takes replicas, is nobody's home
```

Three zones make Standard_ZRS possible, a premium one Premium_LRS. The environment wins over the
file: GALLERIA_SANDBOX=false, GALLERIA_REGIONS="eu=/a us=/b,/c,/d,/e:premium".
"""

import grp
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapters.config.values import (
    FOREVER,
    PARSERS,
    ConfigurationInvalid,
    Regions,
    ZonePlace,
    from_text,
    parse_regions,
    parse_value,
)
from adapters.filesystem import durable, modes
from pipeline.errors import Conflict, NotFound
from pipeline.model.garbage import DAY, HOUR, Keep
from pipeline.model.spelling import EDGE, region_key

__all__ = [
    "PARSERS",
    "Config",
    "ConfigurationInvalid",
    "ZonePlace",
    "complete",
    "load_config",
    "load_principal",
    "parse_regions",
    "refuse_existing",
    "state_directory",
    "user_config",
    "write_config",
]


PRINCIPAL = "principal"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set, but who asks. Sizes are bytes; paths are absolute."""

    regions: Regions  # by name, the directories that are its zones; empty before `galleria init`
    source_region: str
    catalog: str  # SQLAlchemy URL
    work: Path  # scratch of running jobs, in a directory `galleria` below it
    cache: Path
    logs: Path  # what background jobs and booted machines say
    captures: Path  # the files of captures of running machines, while they are made
    sandbox: bool = True
    immutable: bool = True
    group: str = ""  # who may read zones and use VMs beside the user: a hypervisor's
    # seconds after which a base is read from its disk before it is reused; None: never again
    recheck_after: int | None = 7 * DAY
    zrs_same_filesystem: bool = False  # zones of one file system as if each had its own
    max_virtual_size: int = 32 << 40
    lease: int = 30  # seconds that a run which is not heard of keeps what it works on
    # networks that downloads may reach beside the public ones, separated by commas
    allow_private_sources: str = ""
    libvirt: str = "qemu:///system"  # which libvirt knows the machines that are named
    # seconds and bytes of what nobody needs any more (`Keep`); None: for ever
    keep_unused: int | None = HOUR
    keep_downloads: int | None = 7 * DAY
    keep_cache: int | None = 30 * DAY
    keep_logs: int | None = 90 * DAY
    keep_quarantine: int | None = 30 * DAY
    keep_audit: int | None = None
    max_downloads: int = 64 << 30
    max_logs: int = 1 << 30
    max_quarantine: int = 64 << 30
    file: Path | None = field(default=None, compare=False)  # what was read
    # by key, what set it: a file or a variable; what is not in it has its default
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def group_id(self) -> int | None:
        """The number of `group`."""
        return grp.getgrnam(self.group).gr_gid if self.group else None

    @property
    def keep(self) -> Keep:
        """What `galleria gc` leaves."""
        return Keep(
            self.keep_unused,
            self.keep_downloads,
            self.keep_cache,
            self.keep_logs,
            self.keep_quarantine,
            self.keep_audit,
            self.max_downloads,
            self.max_logs,
            self.max_quarantine,
        )


def load_config(path: Path | None = None, env: Mapping[str, str] | None = None) -> Config:
    """Read the configuration; without a file the defaults hold, and there are no regions.

    Raises NotFound when a file that was named is not there, and ConfigurationInvalid naming the
    file (or variable), the key and what is expected.
    """
    env = os.environ if env is None else env
    values, origins, file = _values(path, env)
    return replace(complete(values, origins, env), file=file)


def load_principal(path: Path | None, env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """For whom the command line acts unless it is told, and what set that; empty: the local
    operator. It is a key like the others, but no part of the Config: that is everyone's."""
    values, origins, _ = _values(path, os.environ if env is None else env)
    return values.get(PRINCIPAL, ""), origins.get(PRINCIPAL, "default")


def _values(
    path: Path | None, env: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str], Path | None]:
    """What is set, by key; what set it; and the file that was read."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    file = find_config(path, env)
    if file is not None:
        for key, value in _read(file).items():
            values[key] = parse_value(key, value, str(file), file.parent)
            origins[key] = str(file)
    for key in PARSERS:
        variable = f"GALLERIA_{key.upper()}"
        if variable in env:
            values[key] = parse_value(key, from_text(key, env[variable]), variable, Path.cwd())
            origins[key] = variable
    return values, origins, file


def complete(
    values: Mapping[str, Any], origins: Mapping[str, str], env: Mapping[str, str]
) -> Config:
    """Fill in the defaults that depend on the user and on other values."""
    regions: Regions = values.get("regions", {})
    state = state_directory(env)
    defaults: dict[str, Any] = {
        "regions": regions,
        "source_region": next((name for name in regions if EDGE not in name), ""),
        "catalog": f"sqlite:///{state / 'catalog.db'}",
        "work": state / "work",
        "cache": _xdg(env, "XDG_CACHE_HOME", ".cache"),
        "logs": state / "logs",
        "captures": state / "captures",
    }
    values = {key: value for key, value in values.items() if key != PRINCIPAL}
    origins = {key: origin for key, origin in origins.items() if key != PRINCIPAL}
    config = Config(**(defaults | values), origins=origins)
    known = {region_key(name): name for name in regions if EDGE not in name}
    if region_key(config.source_region) in known:
        return replace(config, source_region=known[region_key(config.source_region)])
    if regions:
        raise ConfigurationInvalid(
            f"{origins.get('source_region', 'configuration')}: source_region is"
            f" {config.source_region!r}, expected one of the regions: {', '.join(known.values())}"
        )
    return config


def find_config(path: Path | None, env: Mapping[str, str]) -> Path | None:
    """The file that is read: named on the command line or by $GALLERIA_CONFIG, or found."""
    named = path or (Path(env["GALLERIA_CONFIG"]) if env.get("GALLERIA_CONFIG") else None)
    if named is not None:
        return named.absolute()
    for candidate in (user_config(env), Path("/etc/galleria/config.toml")):
        if candidate.exists():
            return candidate
    return None


def user_config(env: Mapping[str, str]) -> Path:
    """Where the user's own configuration lies (XDG base directories)."""
    return _xdg(env, "XDG_CONFIG_HOME", ".config") / "config.toml"


def state_directory(env: Mapping[str, str]) -> Path:
    """Where the catalog and unfinished work lie unless configured otherwise."""
    return _xdg(env, "XDG_STATE_HOME", ".local/state")


def write_config(config: Config, path: Path, *, force: bool = False) -> None:
    """Write, durably, the regions and what is not at its default.

    Raises Conflict when the file exists and not `force`.
    """
    refuse_existing(path, force=force)
    with modes.callers():
        path.parent.mkdir(parents=True, exist_ok=True)
    # the catalog's URL may hold a password
    mode = 0o600 if "@" in config.catalog else modes.plain()
    durable.write_file(path, render(config).encode(), mode=mode, overwrite=force)


def refuse_existing(path: Path, *, force: bool) -> None:
    """What `write_config` would refuse, before anything else is done."""
    if path.exists() and not force:
        raise Conflict(
            f"the configuration {path} exists already",
            hint="give --force to replace it, or --config FILE to write another; a region that is"
            " added to the file itself is made by galleria init alone",
        )


def render(config: Config) -> str:
    """The configuration as TOML: the source region, the regions and what `origins` names."""
    scalars = [
        f"{key} = {_toml(getattr(config, key))}"
        for key in PARSERS
        if key != "regions" and (key == "source_region" or key in config.origins)
    ]
    regions = [
        f"{_toml(name)} = [{', '.join(map(_zone, zones))}]"
        for name, zones in config.regions.items()
    ]
    return "\n".join([*scalars, "", "[regions]", *regions, ""])


def _zone(zone: ZonePlace) -> str:
    path = _toml(zone.path)
    more = [", premium = true"] * zone.premium
    more += [f", writing = {json.dumps(zone.writing)}"] * (zone.writing is not None)
    return f"{{path = {path}{''.join(more)}}}" if more else path


def _toml(value: object) -> str:
    """A TOML scalar. JSON's strings are TOML's, but for DEL, which TOML wants escaped."""
    if value is None:
        return json.dumps(FOREVER)
    if isinstance(value, bool | int):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _xdg(env: Mapping[str, str], variable: str, default: str) -> Path:
    # the XDG specification: a relative value is invalid and must be ignored
    value = env.get(variable, "")
    home = Path(value) if value.startswith("/") else Path(env.get("HOME") or Path.home()) / default
    return home / "galleria"


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "galleria init writes one"
        raise NotFound(f"there is no configuration file {file}", hint=hint) from None
    except OSError as error:
        raise ConfigurationInvalid(f"{file}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(f"{file}: not TOML: {error}") from error
