"""The rows of the table: what is measured against what, on which file systems, with which aim.

A row on one file system is a cell, `raw@xfs`: its contenders run in turn, and every output is
compared, outside the timed part, with what it has to be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from tests.bench import runs
from tests.bench.runs import Bench, Runs


class Measure(Enum):
    """What of the runs is compared, and how: RATIO and BYTES of galleria to the peer are at most
    the target, RATE (of galleria's bytes a second to the peer's) at least; SECONDS, CPU (seconds)
    and MEMORY (bytes) are galleria's own."""

    RATIO = "time"
    BYTES = "bytes stored"
    RATE = "rate"
    SECONDS = "seconds"
    CPU = "seconds of CPU"
    MEMORY = "resident memory"


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure that is aimed at."""

    target: float
    peer: str = ""
    measure: Measure = Measure.RATIO
    subject: str = "galleria"


@dataclass(frozen=True, slots=True)
class Row:
    """`systems`: the file systems that it is measured on, the first one with --quick. `cache` says
    what is in the page cache when the clock starts. `quick` False: minutes of an appliance's work,
    left out of --quick."""

    key: str
    table: str
    title: str
    systems: tuple[str, ...]
    limits: tuple[Limit, ...]
    run: Callable[[Bench], Runs]
    cache: str = "source warm"
    quick: bool = True


QEMU = "qemu-img"
ONE = "One image to one base, with both digests"
CLONED = "Source and zone on one reflink file system"
REGIONS = "Three regions, two replicas in each"
NEXT = "The next version"
SIZES = "Random data; a disk of 2 TiB"
READING = "Reading back; deploying; starting"

_ALL = ("xfs", "ext4", "btrfs")


def _systems(first: str) -> tuple[str, ...]:
    return (first, *(name for name in _ALL if name != first))


def _formats() -> tuple[Row, ...]:
    rows = (
        ("raw", "raw", "v1.raw", 0.50),
        ("qcow2", "qcow2", "v1.qcow2", 0.50),
        ("vhd", "dynamic VHD", "v1.vhd", 0.50),
        ("vhdx", "VHDX", "v1.vhdx", 0.50),
        ("vmdk", "VMDK", "v1.vmdk", 0.50),
        ("qcow2-zlib", "compressed qcow2, zlib", "v1.zlib.qcow2", 0.60),
        ("qcow2-zstd", "compressed qcow2, zstd", "v1.zstd.qcow2", 0.60),
        ("vmdk-stream", "streamOptimized VMDK", "v1.stream.vmdk", 0.60),
        ("overlay", "a generalized disk (overlay on raw)", "overlay.qcow2", 0.55),
    )
    return tuple(
        Row(key, ONE, title, _systems(_ALL[n % 3]), (Limit(target, QEMU),), runs.one_base(name))
        for n, (key, title, name, target) in enumerate(rows)
    )


def _clones() -> tuple[Row, ...]:
    rows = (("raw", "v1.raw"), ("qcow2", "v1.qcow2"), ("vmdk", "v1.vmdk"))
    return tuple(
        Row(
            f"clone-{key}",
            CLONED,
            f"{key}, source beside the zone",
            ("xfs", "btrfs"),
            (Limit(0.20, QEMU),),
            runs.one_base(name, beside=True),
        )
        for key, name in rows
    )


ROWS: tuple[Row, ...] = (
    *_formats(),
    *_clones(),
    Row(
        "regions",
        REGIONS,
        "on one reflink file system",
        ("xfs", "btrfs"),
        (Limit(0.80, QEMU),),
        runs.regions(1),
    ),
    Row(
        "regions-disks",
        REGIONS,
        "on three XFS of one disk",
        ("xfs",),
        (Limit(2.2, QEMU),),
        runs.regions(3),
    ),
    Row(
        "regions-ext4",
        REGIONS,
        "on ext4, without reflinks",
        ("ext4",),
        (Limit(2.5, QEMU),),
        runs.regions(1),
    ),
    Row(
        "next-3",
        NEXT,
        "3 % changed, 3 x 2, reflinks",
        ("xfs", "btrfs"),
        (Limit(0.12, "full publish"), Limit(0.05, "full publish", Measure.BYTES)),
        runs.next_version,
    ),
    Row(
        "next-3-beside",
        NEXT,
        "3 % changed, 3 x 2, reflinks, source beside the zones",
        ("xfs", "btrfs"),
        (Limit(0.20, QEMU),),
        runs.goes_on,
    ),
    Row(
        "next-3-ext4",
        NEXT,
        "3 % changed, 3 x 2, ext4 (delta bases)",
        ("ext4",),
        (Limit(0.25, "full publish"), Limit(0.06, "full publish", Measure.BYTES)),
        runs.next_version,
    ),
    Row(
        "next-15",
        NEXT,
        "15 % changed, one region",
        ("xfs", "ext4"),
        (
            *(Limit(1.0, peer) for peer in ("rsync", "casync", "borg", "restic")),
            *(Limit(1.1, peer, Measure.BYTES) for peer in ("rsync", "borg", "restic")),
        ),
        runs.against_stores,
    ),
    Row(
        "random",
        SIZES,
        "random data, raw",
        _systems("ext4"),
        (Limit(1.10, "cp"),),
        runs.random_data,
    ),
    Row(
        "sparse",
        SIZES,
        "2 TiB with the data of the ordinary disk",
        ("xfs", "ext4"),
        (Limit(1.25, "ordinary disk"),),
        runs.sparse,
    ),
    Row(
        "scrub",
        READING,
        "scrub of a base",
        _systems("xfs"),
        (Limit(0.8, "O_DIRECT read", Measure.RATE),),
        runs.scrub,
        cache="base cold",
    ),
    Row(
        "verify",
        READING,
        "verify a replica against its manifest",
        ("xfs", "btrfs"),
        (Limit(0.5, "cmp"),),
        runs.verify,
        cache="base and replica warm",
    ),
    Row(
        "deploy",
        READING,
        "deploy 100 disks, whole process",
        ("xfs",),
        (Limit(3.0, measure=Measure.SECONDS),),
        runs.deploy,
        cache="warm",
    ),
    Row(
        "deploy-ext4",
        READING,
        "deploy 100 disks, whole process",
        ("ext4",),
        (Limit(8.0, measure=Measure.SECONDS),),
        runs.deploy,
        cache="warm",
    ),
    Row(
        "startup",
        READING,
        "galleria publish, until it opens its source",
        ("xfs",),
        (Limit(0.5, measure=Measure.CPU),),
        runs.startup,
        cache="warm",
    ),
    Row(
        "generalize",
        READING,
        "generalize a guest",
        ("host",),
        (Limit(0.6, "virt-inspector, -sysprep and -sparsify"),),
        runs.generalize,
        cache="warm",
        quick=False,
    ),
)

MEMORY = Limit(96 * 2**20, measure=Measure.MEMORY)  # of galleria in every cell


def cells(*, quick: bool) -> Mapping[str, tuple[Row, str]]:
    """By name, every row on its file systems; `quick`: on one."""
    return {
        f"{row.key}@{system}": (row, system)
        for row in ROWS
        if row.quick or not quick
        for system in (row.systems[:1] if quick else row.systems)
    }


def select(names: str, *, quick: bool) -> dict[str, tuple[Row, str]]:
    """Cells by a list like `raw,qcow2@ext4`; a row alone stands for all of its cells."""
    every, chosen = cells(quick=quick), {}
    for name in names.split(","):
        all_of_it = cells(quick=False)
        found = {
            cell: all_of_it[cell]
            for cell in all_of_it
            if cell == name or (cell in every and cell.split("@")[0] == name)
        }
        if not found:
            raise SystemExit(f"there is no row {name!r}; --list shows all")
        chosen.update(found)
    return chosen
