"""Arguments in the spellings of `az sig`: tags, features, target regions, dates."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

import click

from pipeline.gallery.documents import parse_date
from pipeline.gallery.properties import with_property
from pipeline.model import (
    AdditionalReplicaSet,
    Feature,
    HostCaching,
    PurchasePlan,
    StorageAccountType,
    TargetRegion,
)
from pipeline.model.names import parse_number
from pipeline.model.spelling import EDGE, did_you_mean, region_key

ALL_SUBSCRIPTIONS = click.option(
    "--all-subscriptions",
    is_flag=True,
    help="List all subscriptions, not only the default one (or --subscription).",
)
PLAN = click.option(
    "--plan",
    metavar="PUBLISHER/PRODUCT/NAME",
    help="Purchase plan of the marketplace image that it was made from.",
)
VERSION = "GALLERY/DEFINITION[/VERSION]"
REFERENCE = click.argument("reference", metavar=VERSION)
SET = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="PROPERTY=VALUE",
    help='Change a property by its Azure name: "recommended.vCPUs.min=2"; null removes it.',
)
TAGS = click.option("--tags", multiple=True, metavar="NAME=VALUE...", help="Tags (repeatable).")


_DAYS = {"d": 1, "w": 7, "m": 30, "y": 365}

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def options(*listed: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several options as one decorator, in the order of the help."""

    def decorate(command: F) -> F:
        for option in reversed(listed):
            command = option(command)
        return command

    return decorate


def repeated(*names: str, metavar: str, help: str) -> Callable[[Any], Any]:
    """An option that may be given several times."""
    return click.option(*names, multiple=True, metavar=metavar, help=help)


class _Choice(click.Choice[str]):
    """A choice whose help keeps the case that the values have."""

    def get_metavar(self, *args: Any, **kwargs: Any) -> str:
        return f"[{'|'.join(self.choices)}]"

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        close = did_you_mean(str(value), self.choices)
        return f"{value!r} is not one of {', '.join(self.choices)}{close}"

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        return f"It is one of {', '.join(self.choices)}"


def enum_choice(kind: type[Enum]) -> click.Choice[str]:
    """The values of an enum, without regard to case."""
    return _Choice([str(member.value) for member in kind], case_sensitive=False)


def as_date(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> datetime | None:
    """The callback of an option that takes an ISO 8601 date (UTC unless it says otherwise)."""
    return None if value is None else parse_date(value, parameter.opts[0])


def age(text: str | None, option: str) -> timedelta | None:
    """How long ago: 90d, 12w, 6m (30 days each), 1y."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})([dwmy])", text)
    if match is None:
        raise click.UsageError(f"{option}: {text!r} is not a number and one of d, w, m, y: 90d")
    return timedelta(days=int(match[1]) * _DAYS[match[2]])


def pairs(values: Iterable[str], option: str) -> Mapping[str, str]:
    """`A=b` items; each value may hold several, separated by blanks, as `az` takes them."""
    found: dict[str, str] = {}
    for item in _items(values, option):
        name, separator, value = item.partition("=")
        if not separator or not name:
            raise click.UsageError(f"{option}: {item!r} is not NAME=VALUE")
        if name in found:
            raise click.UsageError(f"{option}: {name!r} is given twice")
        found[name] = value
    return found


def assigned(value: T, assignments: Iterable[str]) -> T:
    """The resource with the properties of `--set` changed."""
    for item in assignments:
        name, separator, text = item.partition("=")
        if not separator or not name:
            raise click.UsageError(f"--set: {item!r} is not PROPERTY=VALUE")
        value = with_property(value, name, text)
    return value


def features(values: Iterable[str]) -> tuple[Feature, ...]:
    """`--features "A=b C=d"`; `A=b@1.2.0` is a feature that versions have from that one on."""
    return tuple(_feature(name, value) for name, value in pairs(values, "--features").items())


def _feature(name: str, text: str) -> Feature:
    value, at, number = text.partition("@")
    return Feature(name, value, parse_number(number) if at else None)


def target_regions(
    values: Iterable[str], known: Iterable[str], option: str = "--target-region"
) -> tuple[TargetRegion, ...]:
    """`REGION[=REPLICAS][=SKU]` items, several in one value or each in its own.

    Two parts: replicas or SKU; three: replicas, then SKU (the grammar of `az sig`). `known` are the
    configured regions: names with blanks are told by them from several names.
    """
    keys = frozenset(map(region_key, known))
    return tuple(
        _target(item, option)
        for value in values
        for item in _region_items(_items([value], option), keys)
    )


EDGE_ZONES = click.option(
    "--target-edge-zones",
    "edges",
    multiple=True,
    metavar="REGION=ZONE[=REPLICAS][=SKU]...",
    help="Edge zones to replicate to as well (repeatable); none removes all.",
)


def edge_zones(values: Iterable[str], known: Iterable[str]) -> tuple[TargetRegion, ...] | None:
    """`REGION=ZONE[=REPLICAS][=SKU]` items; None when there are none, and nothing for `none`."""
    option = "--target-edge-zones"
    keys = frozenset(map(region_key, known))
    items = [item for value in values for item in _region_items(_items([value], option), keys)]
    if [item.lower() for item in items] == ["none"]:
        return ()
    found = []
    for item in items:
        region, _, rest = item.partition("=")
        zone = _target(rest, option)
        found.append(replace(zone, name=f"{region}{EDGE}{zone.name}"))
    return tuple(found) or None


def _region_items(words: Sequence[str], known: frozenset[str]) -> Iterator[str]:
    """Words put together again where they are the name of one region: `UK South=2`."""
    while words:
        longest = next(
            (
                count
                for count in range(len(words), 1, -1)
                if "=" not in "".join(words[: count - 1])
                and region_key("".join(words[:count]).partition("=")[0]) in known
            ),
            1,
        )
        yield " ".join(words[:longest])
        words = words[longest:]


def _target(item: str, option: str) -> TargetRegion:
    name, *rest = item.split("=")
    count: int | None = None
    kind: StorageAccountType | None = None
    if rest and rest[0].isascii() and rest[0].isdecimal():
        count = int(rest.pop(0))
    if rest:
        where = f"{option}: {item!r}" if count is not None else f"{option}: no number in {item!r}"
        kind = enum_value(StorageAccountType, rest.pop(0), where)
    if rest or not name.strip():
        raise click.UsageError(f"{option}: {item!r} is not REGION[=REPLICAS][=SKU]")
    return TargetRegion(name, count, kind)


ADDITIONAL = click.option(
    "--additional-replicas",
    "additional",
    multiple=True,
    metavar="REGION=REPLICAS=SKU",
    help="More replicas in one of the target regions, in another type of storage (repeatable).",
)


def with_additional(
    targets: Sequence[TargetRegion], values: Iterable[str], known: Iterable[str]
) -> tuple[TargetRegion, ...]:
    """Regions with what `--additional-replicas` adds to them."""
    option = "--additional-replicas"
    found: dict[str, list[AdditionalReplicaSet]] = {}
    for item in target_regions(values, known, option):
        if item.storage_account_type is None or item.regional_replica_count is None:
            raise click.UsageError(f"{option}: {item.name!r} is not REGION=REPLICAS=SKU")
        added = AdditionalReplicaSet(item.storage_account_type, item.regional_replica_count)
        found.setdefault(item.key, []).append(added)
    among(found, targets, option)
    return tuple(
        replace(item, additional_replica_sets=tuple(found.get(item.key, ()))) for item in targets
    )


def among(keys: Iterable[str], targets: Iterable[TargetRegion], option: str) -> None:
    """Whether what an option says is of regions that are named with it."""
    strange = set(keys) - {target.key for target in targets}
    if strange:
        raise click.UsageError(f"{option}: {min(strange)!r} is not among the target regions")


E = TypeVar("E", bound=Enum)


def enum_value(kind: type[E], text: str, where: str) -> E:
    """The member of that value, without regard to case."""
    for member in kind:
        if str(member.value).lower() == text.lower():
            return member
    known = ", ".join(str(member.value) for member in kind)
    raise click.UsageError(f"{where}: {text!r} is not one of {known}")


def lun_files(values: Iterable[str], option: str = "--data-disk") -> Mapping[int, str]:
    """`LUN=FILE` items of `--data-disk`, `LUN=URL` of `--data-vhd-uri`."""
    found: dict[int, str] = {}
    for item in values:
        lun, separator, file = item.partition("=")
        if not separator or not file or not (lun.isascii() and lun.isdecimal()):
            raise click.UsageError(f"{option}: {item!r} is not LUN=FILE, such as 0=data.vhd")
        if int(lun) in found:
            raise click.UsageError(f"{option}: LUN {int(lun)} is given twice")
        found[int(lun)] = file
    return found


def of_disks(values: Iterable[str], option: str) -> Mapping[int | None, Sequence[str]]:
    """`[LUN=]VALUE` items, in the order given; without a LUN the OS disk's."""
    found: dict[int | None, list[str]] = {}
    for item in values:
        number, separator, rest = item.partition("=")
        of_data_disk = bool(separator) and number.isascii() and number.isdecimal()
        lun, value = (int(number), rest) if of_data_disk else (None, item)
        if not value:
            raise click.UsageError(f"{option}: {item!r} says nothing")
        found.setdefault(lun, []).append(value)
    return found


def disk_option(lun: int | None) -> str:
    """A disk in a message."""
    return "the OS disk" if lun is None else f"the data disk at LUN {lun}"


def caching(values: Iterable[str], option: str) -> dict[int | None, HostCaching]:
    """`[LUN=]None|ReadOnly|ReadWrite` items, by LUN; None is what stands without one."""
    found: dict[int | None, HostCaching] = {}
    for lun, texts in of_disks(values, option).items():
        if len(texts) > 1:
            disk = "a disk" if lun is None else f"LUN {lun}"
            raise click.UsageError(f"{option}: {disk} has it twice")
        found[lun] = enum_value(HostCaching, texts[0], option)
    return found


def plan(text: str | None, option: str) -> PurchasePlan | None:
    """`PUBLISHER/PRODUCT/NAME`."""
    if text is None:
        return None
    parts = text.split("/")
    if len(parts) != 3 or not all(parts):
        raise click.UsageError(f"{option}: {text!r} is not PUBLISHER/PRODUCT/NAME")
    publisher, product, name = parts
    return PurchasePlan(name, publisher, product)


def words(values: Iterable[str]) -> tuple[str, ...]:
    """Words separated by blanks, in one or several values."""
    return tuple(word for value in values for word in value.split())


def names(values: Iterable[str]) -> tuple[str, ...]:
    """Names separated by commas or blanks, in one or several values."""
    return tuple(name for value in values for name in value.replace(",", " ").split())


def _items(values: Iterable[str], option: str) -> list[str]:
    try:
        return [item for value in values for item in shlex.split(value)]
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None
