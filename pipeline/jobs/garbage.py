"""Garbage collection: what nobody needs goes, and what can't be told stays.

Who needs a base is asked of the catalog and of the zones' own records, while nobody writes to the
zone. What is removed was not needed then, and whoever wants to need it takes the zone first: a run
that is killed leaves garbage, and never something that depends on what is gone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pipeline.errors import Conflict, GalleriaError
from pipeline.jobs.context import JobContext
from pipeline.jobs.shallow import needed_files
from pipeline.model.garbage import AT_ONCE, Collected, Freed, Garbage, Keep, Kept
from pipeline.ports import Zone

FEW = 64  # things that are removed from a directory of this host beside other work


def garbage_collect(
    zones: Mapping[str, Zone],
    context: JobContext,
    also: Iterable[str] = (),
    *,
    quiet: bool = False,
) -> None:
    """Remove the bases that nobody needs; those in `also` stay. Where it can't be told what is
    needed, all stay, and unless `quiet` that is said."""
    also = frozenset(also)
    for zone in zones.values():
        try:
            collect_bases(zone, context, AT_ONCE, also)
        except Conflict:  # another job writes to the zone: the next run collects
            continue
        except (OSError, GalleriaError) as error:
            if not quiet:
                context.progress.warn(f"{zone.path}: bases that nobody needs stay: {error}")


def collect_bases(
    zone: Zone,
    context: JobContext,
    keep: Keep,
    also: Iterable[str] = (),
    *,
    unfinished: bool = False,
) -> Collected:
    """Remove the bases of one zone that nobody needs."""

    def needed(digests: Sequence[str]) -> Mapping[str, str]:
        running = dict.fromkeys(also, "this command")
        return running | context.records.base_users(zone.region, digests, unfinished=unfinished)

    return zone.garbage_collect(needed, needed_files(context.zones, strict=True), keep)


def collect_all(context: JobContext, keep: Keep) -> list[Collected]:
    """Remove whatever nobody needs in the zones and on this host; says of each place what went, and
    what stays and why."""
    found = [
        collect_zone(zone, context, keep) for zones in context.zones.values() for zone in zones
    ]
    found += context.leftovers(keep)
    if keep.audit is not None:
        count = context.records.cut_audit(keep.audit, dry_run=keep.dry_run)
        freed = (Freed(Garbage.AUDIT, f"{count} entries", 0),) if count else ()
        found.append(Collected("audit record", freed))
    return found


def collect_zone(zone: Zone, context: JobContext, keep: Keep) -> Collected:
    """Remove what nobody needs in one zone. What fails there is said, and costs nothing else."""
    bases, rest = Collected(str(zone.path)), Collected(str(zone.path))
    try:
        bases = collect_bases(zone, context, keep, unfinished=True)
    except Conflict as error:
        bases = replace(bases, kept=(Kept(Garbage.BASE, "all", str(error)),))
    except (OSError, GalleriaError) as error:
        why = f"it can't be told what is needed: {error}"
        bases = replace(bases, kept=(Kept(Garbage.BASE, "all", why),))
    try:
        rest = zone.collect_rest(keep)
    except (OSError, GalleriaError) as error:
        rest = replace(rest, kept=(Kept(Garbage.STAGING, "all", str(error)),))
    return Collected(
        str(zone.path), (*bases.freed, *rest.freed), (*bases.kept, *rest.kept), zone.region
    )


def collect_removed(zones: Mapping[str, Zone], context: JobContext) -> None:
    """After something was removed: the bases that only it needed go, and a few of the oldest things
    of this host."""
    garbage_collect(zones, context)
    context.leftovers(replace(context.keep, limit=FEW))
