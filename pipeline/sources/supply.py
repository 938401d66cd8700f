"""What a version is made from: each kind of source, and the one thing that they all come down to.

    a kind of source          is opened into
    DiskSource                itself: a file, and the files below it as they were declared
    UrlSource                 one DiskSource: the downloaded file
    VmSource, ArchiveSource   a DiskSource for every disk, and what the description says of the VM
    QemuSource                a DiskSource for every disk, captured while the machine runs
    StoredDiskSource          a DiskSource: the files of one of galleria's own disks
    SnapshotSource, ManagedImageSource, VersionSource
                              a DiskSource for every disk, and the digests of what a zone holds

A kind is a frozen record of what the user named. `Sources` opens it; nothing of it is trusted
before `ingest` has inspected every layer of every disk.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.errors import InvalidParameter
from pipeline.gallery import rules
from pipeline.model.descriptions import Description
from pipeline.model.sources import (
    AnySource,
    DiskKinds,
    DiskSource,
    UrlSource,
    WholeKinds,
    public_url,
)
from pipeline.ports.sources import Sources, Supply

# --- the kinds -----------------------------------------------------------------------------------


# --- what they come down to ----------------------------------------------------------------------


@contextmanager
def supplied(wanted: Sequence[AnySource], work: Path, sources: Sources) -> Iterator[Supply]:
    """All disks of a version. Raises InvalidParameter when they do not make one."""
    check_combination(wanted)
    with ExitStack() as stack:
        opened = [stack.enter_context(sources.open(source, work)) for source in wanted]
        disks = tuple(disk for supply in opened for disk in supply.disks)
        yield Supply(
            disks,
            _description(opened),
            {lun: origin for supply in opened for lun, origin in supply.origins.items()},
            all(supply.generalized for supply in opened),
            opened[0].report if len(opened) == 1 else {},
            all(supply.lasting for supply in opened),
        )


def _description(opened: Sequence[Supply]) -> Description:
    """Of several sources only the plan is known: it goes with whatever is made from any of them."""
    if len(opened) == 1:
        return opened[0].description
    plans = (supply.description.purchase_plan for supply in opened)
    return Description(purchase_plan=next(filter(None, plans), None))


def check_combination(wanted: Sequence[AnySource]) -> None:
    """One whole source, or one source per disk; never both (Azure: storageProfile.source and
    osDiskImage exclude each other)."""
    whole = [source for source in wanted if isinstance(source, WholeKinds)]
    if len(whole) > 1 or (whole and len(wanted) > 1):
        raise rules.one_kind_of_source()
    if not whole:
        single = [source for source in wanted if not isinstance(source, WholeKinds)]
        check_luns([source.lun for source in single])
        rules.distinct_sources([(item.lun, replace(item, lun=0), _named(item)) for item in single])


def _named(source: DiskKinds) -> str:
    """As the user named it."""
    if isinstance(source, DiskSource):
        return str(source.path)
    return public_url(source.url) if isinstance(source, UrlSource) else source.id


def check_luns(luns: Sequence[int | None]) -> None:
    """One OS disk, and each data disk at a LUN of its own."""
    if luns.count(None) != 1:
        raise InvalidParameter("a version has exactly one OS disk", code="OSDiskRequired")
    rules.distinct_luns([lun for lun in luns if lun is not None])


def data_luns(wanted: Sequence[AnySource]) -> tuple[int, ...]:
    """The LUNs that are known before a source is opened."""
    single = [source for source in wanted if not isinstance(source, WholeKinds)]
    return tuple(source.lun for source in single if source.lun is not None)
