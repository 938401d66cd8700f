"""The configuration: TOML file and `GALLERIA_*` environment -> one frozen Config.

```toml
source_region = "eu"                # where versions are made first; default: the first region
max_virtual_size = "32 TiB"

[regions]                           # a region and its zones: directories, one file system each
eu = ["/srv/eu"]
us = ["/srv/us-a", "/srv/us-b"]
```

The environment wins over the file: GALLERIA_SANDBOX=false, GALLERIA_REGIONS="eu=/a us=/b,/c".
"""

import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapters import durable
from pipeline.errors import Conflict, InvalidParameter, NotFound
from pipeline.gallery.names import check_region, region_key

UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(rf"(\d+)\s*({'|'.join(UNITS)})")

Regions = Mapping[str, tuple[Path, ...]]


class ConfigurationInvalid(InvalidParameter):
    """The configuration file, or a GALLERIA_ variable, is not what it should be."""

    code = "ConfigurationInvalid"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set. Sizes are bytes; paths are absolute."""

    regions: Regions  # by name, the directories that are its zones; empty before `galleria init`
    source_region: str
    catalog: str  # SQLAlchemy URL
    work: Path
    cache: Path
    sandbox: bool = True
    immutable: bool = True
    threads: int = 4
    max_virtual_size: int = 32 << 40
    # by key, what set it: a file or a variable; what is not in it has its default
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)


def load_config(path: Path | None = None, env: Mapping[str, str] | None = None) -> Config:
    """Read the configuration; without a file the defaults hold, and there are no regions.

    Raises NotFound when a file that was named is not there, and ConfigurationInvalid naming the
    file (or variable), the key and what is expected.
    """
    env = os.environ if env is None else env
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    file = find_config(path, env)
    if file is not None:
        for key, value in _read(file).items():
            values[key] = _parse(key, value, str(file), file.parent)
            origins[key] = str(file)
    for key in PARSERS:
        variable = f"GALLERIA_{key.upper()}"
        if variable in env:
            values[key] = _parse(key, _from_text(key, env[variable]), variable, Path.cwd())
            origins[key] = variable
    return complete(values, origins, env)


def complete(
    values: Mapping[str, Any], origins: Mapping[str, str], env: Mapping[str, str]
) -> Config:
    """Fill in the defaults that depend on the user and on other values."""
    regions: Regions = values.get("regions", {})
    state = state_directory(env)
    defaults: dict[str, Any] = {
        "regions": regions,
        "source_region": next(iter(regions), ""),
        "catalog": f"sqlite:///{state / 'catalog.db'}",
        "work": state / "work",
        "cache": _xdg(env, "XDG_CACHE_HOME", ".cache"),
    }
    config = Config(**(defaults | dict(values)), origins=origins)
    known = {region_key(name): name for name in regions}
    if region_key(config.source_region) in known:
        return replace(config, source_region=known[region_key(config.source_region)])
    if regions:
        raise ConfigurationInvalid(
            f"{origins.get('source_region', 'configuration')}: source_region is"
            f" {config.source_region!r}, expected one of the regions: {', '.join(regions)}"
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
    if path.exists() and not force:
        raise Conflict(
            f"the configuration {path} exists already",
            hint="give --force to replace it, or --config FILE to write another",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_file(path, render(config).encode(), overwrite=force)


def render(config: Config) -> str:
    """The configuration as TOML: the source region, the regions and what `origins` names."""
    scalars = [
        f"{key} = {_toml(getattr(config, key))}"
        for key in PARSERS
        if key != "regions" and (key == "source_region" or key in config.origins)
    ]
    regions = [
        f"{_toml(name)} = [{', '.join(_toml(zone) for zone in zones)}]"
        for name, zones in config.regions.items()
    ]
    return "\n".join([*scalars, "", "[regions]", *regions, ""])


def parse_regions(items: Iterable[str], where: str, base: Path) -> Regions:
    """Read `NAME=DIR[,DIR...]` items (the command line's and GALLERIA_REGIONS')."""
    table: dict[str, list[str]] = {}
    for item in items:
        name, separator, zones = item.partition("=")
        if not separator:
            raise ConfigurationInvalid(f"{where}: {item!r} is not NAME=DIRECTORY[,DIRECTORY...]")
        if name in table:
            raise ConfigurationInvalid(f"{where}: region {name!r} is there twice")
        table[name] = zones.split(",")
    return _regions(table, where, base)


def parse_size(value: object) -> int | None:
    """Bytes from an integer or a text such as "512 MiB"; None when it is neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(match[1]) * UNITS[match[2]] if match else None


def _toml(value: object) -> str:
    """A TOML scalar. JSON's strings are TOML's, but for DEL, which TOML wants escaped."""
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


def _parse(key: str, value: object, where: str, base: Path) -> object:
    if key not in PARSERS:
        raise ConfigurationInvalid(
            f"{where}: unknown key {key!r}", hint=f"the keys are {', '.join(PARSERS)}"
        )
    return PARSERS[key](value, f"{where}: {key}", base)


def _from_text(key: str, text: str) -> object:
    """What a variable's text says, in the type that the same key has in TOML."""
    parser = PARSERS[key]
    if parser is _regions:
        return parse_regions(shlex.split(text), "GALLERIA_REGIONS", Path.cwd())
    if parser is _boolean:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return int(text) if text.isdecimal() else text


def _expected(where: str, what: str, value: object) -> ConfigurationInvalid:
    return ConfigurationInvalid(f"{where} is {value!r}, expected {what}")


def _regions(value: object, where: str, base: Path) -> Regions:
    if not isinstance(value, Mapping):
        raise _expected(where, "a table of regions, each a list of directories", value)
    regions: dict[str, tuple[Path, ...]] = {}
    for written, zones in value.items():
        try:
            name = check_region(written)
        except InvalidParameter as error:
            raise ConfigurationInvalid(f"{where}: {error.message}") from None
        if region_key(name) in map(region_key, regions):
            raise ConfigurationInvalid(f"{where}: region {name!r} is there twice")
        listed = [zones] if isinstance(zones, str) else zones
        if not isinstance(listed, list | tuple) or not listed:
            raise _expected(f"{where}.{name}", "a list of directories", zones)
        regions[name] = tuple(_path(zone, f"{where}.{name}", base) for zone in listed)
    directories = [zone for zones in regions.values() for zone in zones]
    for directory in directories:
        if directories.count(directory) > 1:
            raise ConfigurationInvalid(f"{where}: the directory {directory} is two zones")
    return regions


def _path(value: object, where: str, base: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise _expected(where, "a directory", value)
    return Path(os.path.normpath(base / Path(value).expanduser()))


def _boolean(value: object, where: str, base: Path) -> bool:
    if not isinstance(value, bool):
        raise _expected(where, "true or false", value)
    return value


def _text(value: object, where: str, base: Path) -> str:
    if not isinstance(value, str) or not value:
        raise _expected(where, "a text", value)
    return value


def _url(value: object, where: str, base: Path) -> str:
    text = value if isinstance(value, str) else ""
    if "://" not in text or (text.startswith("sqlite:///") and not text.startswith("sqlite:////")):
        # the value is not repeated: a URL may hold a password
        raise ConfigurationInvalid(
            f"{where}: expected a database URL: sqlite:////absolute/path/catalog.db or"
            " postgresql+psycopg://user@host/database"
        )
    return text


def _threads(value: object, where: str, base: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 256:
        raise _expected(where, "a number from 1 to 256", value)
    return value


def _bytes(value: object, where: str, base: Path) -> int:
    parsed = parse_size(value)
    if not parsed or parsed < 0:
        raise _expected(where, 'bytes, or a text such as "2 TiB"', value)
    return parsed


PARSERS: Mapping[str, Callable[[object, str, Path], object]] = {
    "source_region": _text,
    "regions": _regions,
    "catalog": _url,
    "work": _path,
    "cache": _path,
    "sandbox": _boolean,
    "immutable": _boolean,
    "threads": _threads,
    "max_virtual_size": _bytes,
}
