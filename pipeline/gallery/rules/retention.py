"""Which versions of a definition retention removes."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.errors import InvalidParameter
from pipeline.gallery.latest import usable
from pipeline.gallery.rules.deletion import blocked
from pipeline.model import ImageVersion
from pipeline.model.names import VersionNumber


@dataclass(frozen=True, slots=True)
class Retention:
    """Keep the `keep_last` newest by number, and what is younger than `older_than`. With both, only
    what neither keeps is removed."""

    keep_last: int | None = None
    older_than: timedelta | None = None

    def __post_init__(self) -> None:
        if self.keep_last is None and self.older_than is None:
            raise InvalidParameter("Retention needs a rule: keep the last N, or older than an age.")
        if self.keep_last is not None and self.keep_last < 1:
            raise InvalidParameter(
                f"The value {self.keep_last} of parameter keepLast is out of range. The value must "
                "be at least 1.",
                hint="the last usable version is never removed",
            )


@dataclass(frozen=True, slots=True)
class RetentionDecision:
    """`reason` is why a version stays; empty: it goes."""

    version: ImageVersion
    reason: str


def judge(
    versions: Iterable[ImageVersion],
    rule: Retention,
    used: Collection[str],
    needed: Mapping[VersionNumber, str],
    now: datetime,
) -> list[RetentionDecision]:
    """Every version with what becomes of it, newest first, as they come. `used` are the uids of
    versions that deployed disks were made from; `needed` says why some numbers have to stay."""
    verdicts = []
    usable_seen = 0
    for version in versions:
        usable_seen += usable(version)
        rank = usable_seen if usable(version) else 0
        verdicts.append(RetentionDecision(version, _kept(version, rule, used, needed, now, rank)))
    return verdicts


def _kept(
    version: ImageVersion,
    rule: Retention,
    used: Collection[str],
    needed: Mapping[VersionNumber, str],
    now: datetime,
    rank: int,
) -> str:
    """`rank` counts usable versions from the newest; 0 for one that is not usable."""
    if rank == 1:
        return "the last usable one"
    if version.owner is not None:
        return "being worked on"
    if version.uid in used:
        return "in use by deployed disks"
    if version.number in needed:
        return needed[version.number]
    if rule.keep_last is not None and 0 < rank <= rule.keep_last:
        return f"among the last {rule.keep_last}"
    age = now - (version.published_date or version.created)
    if rule.older_than is not None and age <= rule.older_than:
        return f"{age.days} days old"
    return "blocked until its end of life" if blocked(version, now) else ""
