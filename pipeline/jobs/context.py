"""What every job is given: the gallery, and all that it needs from outside."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from pipeline.gallery.service import GalleryService
from pipeline.gallery.service.resources import ResourceService
from pipeline.gallery.service.running import JobRuns
from pipeline.gallery.service.taken import JobRecords
from pipeline.jobs.timing import Record
from pipeline.model import ImageVersion
from pipeline.model.garbage import AT_ONCE, Collected, Keep
from pipeline.model.runs import Run
from pipeline.ports import Files, GuestHost, Images, Pins, Progress, TransferStats, Work
from pipeline.ports.boots import Boots
from pipeline.ports.boxes import Boxes
from pipeline.ports.disks import DiskDirectories
from pipeline.ports.machines import RunningMachines
from pipeline.ports.sources import Sources
from pipeline.storage.convert import Means
from pipeline.storage.placement import Zones
from pipeline.storage.soundness import RECHECK_AFTER


@dataclass(frozen=True, slots=True)
class JobContext:
    """Everything that the jobs need from outside. `gallery` and `resources` act for who asked for
    the job; `records` takes down what was made, and `runs` the job itself. `logs` is where what
    background processes and booted machines say is kept. `cpu` says what CPU seconds this process
    and what it started have used; `sleep` lets seconds pass. `leftovers` removes what is old on
    this host, by a rule such as `keep`, the configured one. `later` has a run that waits begun in
    the background; `begun` is told of a version when its rules have passed and its number is taken;
    a base that was last read longer than `recheck_after` ago is read before it is reused; `timed`
    and `moved` measure a stage that is no progress to see, and take its bytes."""

    gallery: GalleryService
    resources: ResourceService
    records: JobRecords
    runs: JobRuns
    sources: Sources
    machines: RunningMachines
    images: Images
    pins: Pins
    files: Files
    disks: DiskDirectories
    guests: GuestHost
    boots: Boots
    boxes: Boxes
    zones: Zones
    work: Work
    logs: Path
    progress: Progress
    cpu: Callable[[], float]
    sleep: Callable[[float], None]
    later: Callable[[Run], None]
    leftovers: Callable[[Keep], Sequence[Collected]]
    keep: Keep = AT_ONCE
    begun: Callable[[ImageVersion], None] = lambda _: None
    zrs_same_filesystem: bool = False
    recheck_after: timedelta = RECHECK_AFTER
    timed: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()
    moved: Callable[[str, TransferStats], None] = lambda _name, _stats: None

    def storing(
        self, stage: str, work: Path, advance: Callable[[int], None] = lambda _: None
    ) -> Means:
        """What disks are stored with in a stage, whose bytes the job's record is told."""
        return Means(
            self.images,
            self.files,
            self.progress,
            work,
            advance,
            partial(self.moved, stage),
            self.recheck_after,
        )


def recorded(context: JobContext) -> tuple[JobContext, Record]:
    """The same, with a record of where the time of one job goes."""
    record = Record(context.progress, context.cpu)
    measured = replace(context, progress=record, timed=record.timed, moved=record.moved)
    return measured, record
