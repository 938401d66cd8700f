"""Arguments in the spellings of `az sig`: tags, features, target regions, dates."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

import click

from pipeline.gallery.documents import parse_date
from pipeline.gallery.model import Feature, StorageAccountType, TargetRegion
from pipeline.gallery.names import parse_number

ALL_SUBSCRIPTIONS = click.option(
    "--all-subscriptions",
    is_flag=True,
    help="Those of every subscription, not of the default one (or --subscription) alone.",
)
TAGS = click.option("--tags", multiple=True, metavar="NAME=VALUE...", help="Tags (repeatable).")


class _Choice(click.Choice[str]):
    """A choice whose help keeps the case that the values have."""

    def get_metavar(self, *args: Any, **kwargs: Any) -> str:
        return f"[{'|'.join(self.choices)}]"


def enum_choice(kind: type[Enum]) -> click.Choice[str]:
    """The values of an enum, without regard to case."""
    return _Choice([str(member.value) for member in kind], case_sensitive=False)


def as_date(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> datetime | None:
    """The callback of an option that takes an ISO 8601 date (UTC unless it says otherwise)."""
    return None if value is None else parse_date(value, parameter.opts[0])


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


def features(values: Iterable[str]) -> tuple[Feature, ...]:
    """`--features "A=b C=d"`; `A=b@1.2.0` is a feature that versions have from that one on."""
    return tuple(_feature(name, value) for name, value in pairs(values, "--features").items())


def _feature(name: str, text: str) -> Feature:
    value, at, number = text.partition("@")
    return Feature(name, value, parse_number(number) if at else None)


def target_regions(values: Iterable[str]) -> tuple[TargetRegion, ...]:
    """`REGION[=REPLICAS][=SKU]` items, of `--target-region` and `--target-regions`.

    Two parts: replicas or SKU; three: replicas, then SKU (the grammar of `az sig`).
    """
    return tuple(_target(item) for item in _items(values, "--target-region"))


def _target(item: str) -> TargetRegion:
    name, *rest = item.split("=")
    count: int | None = None
    kind: StorageAccountType | None = None
    if rest and rest[0].isascii() and rest[0].isdecimal():
        count = int(rest.pop(0))
    if rest:
        kind = _storage(rest.pop(0), item)
    if rest or not name.strip():
        raise click.UsageError(f"--target-region: {item!r} is not REGION[=REPLICAS][=SKU]")
    return TargetRegion(name, count, kind)


def _storage(text: str, item: str) -> StorageAccountType:
    for kind in StorageAccountType:
        if kind.value.lower() == text.lower():
            return kind
    known = ", ".join(kind.value for kind in StorageAccountType)
    raise click.UsageError(
        f"--target-region: {text!r} in {item!r} is neither a number of replicas nor one of {known}"
    )


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


def names(values: Iterable[str]) -> tuple[str, ...]:
    """Names separated by commas or blanks, in one or several values."""
    return tuple(name for value in values for name in value.replace(",", " ").split())


def _items(values: Iterable[str], option: str) -> list[str]:
    try:
        return [item for value in values for item in shlex.split(value)]
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None
