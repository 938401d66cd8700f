"""The keys of the configuration: how each value is read, and what it must be."""

import contextlib
import grp
import ipaddress
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.filesystem.profile import Writing
from pipeline.errors import InvalidParameter
from pipeline.model.garbage import DAY, HOUR
from pipeline.model.spelling import EDGE, check_place, region_key

UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(rf"(\d+)\s*({'|'.join(UNITS)})")

DURATIONS = {"s": 1, "min": 60, "h": HOUR, "d": DAY}
_DURATION = re.compile(rf"(\d{{1,9}})\s*({'|'.join(DURATIONS)})")
FOREVER = "forever"

_LIBVIRT = re.compile(r"[a-z]+(?:\+unix)?:///[ -~]*")

PREMIUM = ":premium"  # what follows the directory of a premium zone, on a command line


@dataclass(frozen=True, slots=True)
class ZonePlace:
    """The directory of a zone. A premium one is for Premium_LRS alone; `writing` overrides what the
    zone's profile says."""

    path: Path
    premium: bool = False
    writing: Writing | None = None

    def __str__(self) -> str:
        return f"{self.path}{PREMIUM if self.premium else ''}"


Regions = Mapping[str, tuple[ZonePlace, ...]]


class ConfigurationInvalid(InvalidParameter):
    """The configuration file, or a GALLERIA_ variable, is not what it should be."""

    code = "ConfigurationInvalid"


def parse_regions(items: Iterable[str], where: str, base: Path) -> Regions:
    """Read `NAME=DIR[:premium][,DIR...]` items (the command line's and GALLERIA_REGIONS')."""
    table: dict[str, list[object]] = {}
    for item in items:
        name, separator, zones = item.partition("=")
        if not separator:
            raise ConfigurationInvalid(
                f"{where}: {item!r} is not NAME=DIRECTORY[,DIRECTORY...]",
                hint="quote a region whose name has blanks: 'UK South=/srv/uk'",
            )
        if name in table:
            raise ConfigurationInvalid(f"{where}: region {name!r} is there twice")
        table[name] = [
            {"path": zone.removesuffix(PREMIUM), "premium": True}
            if zone.endswith(PREMIUM)
            else zone
            for zone in zones.split(",")
        ]
    return _regions(table, where, base)


def parse_size(value: object) -> int | None:
    """Bytes from an integer or a text such as "512 MiB"; None when it is neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(match[1]) * UNITS[match[2]] if match else None


def parse_duration(value: object) -> int | None:
    """Seconds from a text such as "30 d"; None when it is none."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(match[1]) * DURATIONS[match[2]] if match else None


def parse_value(key: str, value: object, where: str, base: Path) -> object:
    if key not in PARSERS:
        raise ConfigurationInvalid(
            f"{where}: unknown key {key!r}", hint=f"the keys are {', '.join(PARSERS)}"
        )
    return PARSERS[key](value, f"{where}: {key}", base)


def from_text(key: str, text: str) -> object:
    """What a variable's text says, in the type that the same key has in TOML."""
    parser = PARSERS[key]
    if parser is _regions:
        try:
            items = shlex.split(text)
        except ValueError as error:
            raise ConfigurationInvalid(f"GALLERIA_REGIONS: {text!r}: {error}") from None
        return parse_regions(items, "GALLERIA_REGIONS", Path.cwd())
    if parser is _boolean:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return int(text) if text.isdecimal() else text


def _expected(where: str, what: str, value: object) -> ConfigurationInvalid:
    return ConfigurationInvalid(f"{where} is {value!r}, expected {what}")


def _regions(value: object, where: str, base: Path) -> Regions:
    if not isinstance(value, Mapping):
        raise _expected(where, "a table of regions, each a list of directories", value)
    regions: dict[str, tuple[ZonePlace, ...]] = {}
    for written, zones in value.items():
        try:
            name = check_place(written)
        except InvalidParameter as error:
            raise ConfigurationInvalid(f"{where}: {error.message}") from None
        if region_key(name) in map(region_key, regions):
            raise ConfigurationInvalid(f"{where}: region {name!r} is there twice")
        listed = [zones] if isinstance(zones, str) else zones
        if not isinstance(listed, list | tuple) or not listed:
            raise _expected(f"{where}.{name}", "a list of directories", zones)
        regions[name] = tuple(_zone(zone, f"{where}.{name}", base) for zone in listed)
    for name in regions:
        region, slash, _ = name.partition(EDGE)
        if slash and region_key(region) not in map(region_key, regions):
            raise ConfigurationInvalid(
                f"{where}: {name!r} is an edge zone of a region that is not there: {region!r}"
            )
    directories = [zone.path for zones in regions.values() for zone in zones]
    for directory in directories:
        if directories.count(directory) > 1:
            raise ConfigurationInvalid(f"{where}: the directory {directory} is two zones")
    return regions


def _zone(value: object, where: str, base: Path) -> ZonePlace:
    if isinstance(value, ZonePlace):  # a command line's or a variable's, read before
        return value
    if not isinstance(value, Mapping):
        return ZonePlace(_path(value, where, base))
    unknown = set(value) - {"path", "premium", "writing"}
    if unknown or "path" not in value:
        raise _expected(where, 'a directory, or {path = "DIRECTORY", premium = true}', dict(value))
    premium = _boolean(value.get("premium", False), f"{where}.premium", base)
    return ZonePlace(_path(value["path"], where, base), premium, _writing(value, where))


def _writing(value: Mapping[str, object], where: str) -> Writing | None:
    if "writing" not in value:
        return None
    try:
        return Writing(value["writing"])  # type: ignore[arg-type]  # what is none is told below
    except ValueError:
        raise _expected(f"{where}.writing", " or ".join(Writing), value["writing"]) from None


def _path(value: object, where: str, base: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise _expected(where, "a directory", value)
    try:
        return Path(os.path.normpath(base / Path(value).expanduser()))
    except RuntimeError:  # ~name of nobody's
        raise _expected(where, "a directory", value) from None


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
            " postgresql://user@host/database"
        )
    return text


def _bytes(value: object, where: str, base: Path) -> int:
    parsed = parse_size(value)
    if not parsed or parsed < 0:
        raise _expected(where, 'bytes, or a text such as "2 TiB"', value)
    return parsed


def _duration(value: object, where: str, base: Path) -> int | None:
    parsed = parse_duration(value)
    if parsed is None and value != FOREVER and type(value) is not int:
        raise _expected(where, f'a time such as "30 d" or "12 h", or "{FOREVER}"', value)
    return value if type(value) is int else parsed


def _seconds(value: object, where: str, base: Path) -> int:
    number = int(value) if isinstance(value, str) and value.isdigit() else value
    if not isinstance(number, int) or isinstance(number, bool) or not 3 <= number <= 86_400:
        raise _expected(where, "seconds, 3 to 86400", value)
    return number


def _networks(value: object, where: str, base: Path) -> str:
    """A list of networks, or a text of them with commas; the same in its normal spelling."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise _expected(where, 'networks such as ["10.1.0.0/16"]', value)
    try:
        texts = [str(item).strip() for item in listed]
        return ",".join(str(ipaddress.ip_network(text)) for text in texts if text)
    except ValueError:
        raise _expected(where, 'networks such as ["10.1.0.0/16"]', value) from None


def _group(value: object, where: str, base: Path) -> str:
    """The name of one of the host's groups, or nothing."""
    if isinstance(value, str):
        with contextlib.suppress(KeyError, ValueError):
            return value and grp.getgrnam(value).gr_name
    raise _expected(where, 'a group of this host, such as "kvm"', value)


def _libvirt(value: object, where: str, base: Path) -> str:
    """A connection URI of libvirt's, to this host: what another one names is not here."""
    text = value if isinstance(value, str) else ""
    if not _LIBVIRT.fullmatch(text):
        raise _expected(where, 'a libvirt of this host, such as "qemu:///system"', value)
    return text


PARSERS: Mapping[str, Callable[[object, str, Path], object]] = {
    "source_region": _text,
    "regions": _regions,
    "catalog": _url,
    "work": _path,
    "cache": _path,
    "logs": _path,
    "captures": _path,
    "sandbox": _boolean,
    "immutable": _boolean,
    "group": _group,
    "principal": _text,
    "zrs_same_filesystem": _boolean,
    "max_virtual_size": _bytes,
    "lease": _seconds,
    "allow_private_sources": _networks,
    "libvirt": _libvirt,
    "recheck_after": _duration,
    "keep_unused": _duration,
    "keep_downloads": _duration,
    "keep_cache": _duration,
    "keep_logs": _duration,
    "keep_quarantine": _duration,
    "keep_audit": _duration,
    "max_downloads": _bytes,
    "max_logs": _bytes,
    "max_quarantine": _bytes,
}

# What each key means: the guide's table.
MEANINGS: Mapping[str, str] = {
    "regions": "A table: a region and the list of its zones. A zone is a directory, or"
    ' `{path = "/d", premium = true, writing = "direct"}`. `"region/zone"` is an edge zone.',
    "source_region": "Where versions are made first. Default: the first region.",
    "catalog": "The database, as an SQLAlchemy URL. Default: SQLite in the state directory.",
    "work": "Files of running jobs, in `galleria` below it. Default: the state directory's `work`.",
    "cache": "The libguestfs appliance and downloads. Default: the cache directory.",
    "logs": "What background jobs and booted machines say. Default: the state directory's `logs`.",
    "captures": "Files of captures of running machines, while they are made.",
    "principal": "Who asks, without `--as`. Default: the local operator, who owns everything.",
    "allow_private_sources": "Networks that URLs may point into, beside the public ones.",
    "zrs_same_filesystem": "For a lab: zones of one file system count as independent.",
    "libvirt": "Which libvirt of this host knows the machines of `--vm NAME`.",
    "sandbox": "Run qemu and libguestfs confined.",
    "immutable": "`chattr +i` on bases, replicas, records and their names, where rights allow.",
    "group": "The group that may read zones and use VMs: QEMU's. Default: none.",
    "max_virtual_size": "Larger images are refused.",
    "lease": "Seconds that a job which is not heard of keeps what it works on. Default: 30.",
    "recheck_after": "A base that was last read from its disk longer ago is read before it is"
    " reused. Default: `7 d`.",
    "keep_unused": "`galleria gc` leaves bases that are younger. Default: `1 h`.",
    "keep_downloads": "Downloads and boxes that nobody asked for since then go. Default: `7 d`.",
    "keep_cache": "Unused appliances and fixtures. Default: `30 d`.",
    "keep_logs": "Logs that nobody wrote to since then go. Default: `90 d`.",
    "keep_quarantine": "Damaged bases that were replaced. Default: `30 d`.",
    "keep_audit": "Entries of the audit record that are older go with `galleria gc`. Default:"
    " `forever`.",
    "max_downloads": "Of all downloads the oldest go first. Default: `64 GiB`.",
    "max_logs": "Of all logs the oldest go first. Default: `1 GiB`.",
    "max_quarantine": "Of each zone's quarantine the oldest go first. Default: `64 GiB`.",
}
