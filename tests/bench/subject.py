"""galleria in a process of its own, so that its time, processor time and memory are its own.

Run by `galleria.Galleria` as `python -m tests.bench.subject`: a JSON line on standard input is one
job, a JSON line on standard output its result. What runs is the product's own `publish` with the
product's own adapters, wired by `adapters.app`. Only the look into the guest, an appliance's work,
is left out: what is measured here is the path of the bytes. The clock runs from the start of the
stage `ingest` to the end of the stage `replicate`, with everything between them but that look, and
until all of it is on the disks.
"""

import contextlib
import gc
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Never

from adapters.app import Session, create_zones, local_account, open_app
from adapters.cli import GARBAGE
from adapters.config import load_config
from adapters.progress import Mode, open_progress
from pipeline import publish as publishing
from pipeline.errors import EnvironmentMissing
from pipeline.jobs import prepare as preparing
from pipeline.jobs.prepare import PublishRequest
from pipeline.jobs.verify import verify_version
from pipeline.model import (
    HyperVGeneration,
    Identifier,
    ImageDefinition,
    ImageVersion,
    OsState,
    OsType,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.access import Identity
from pipeline.model.names import parse_definition, parse_gallery, parse_version
from pipeline.model.sources import Backing, DiskSource
from pipeline.ports import Chain, ImageFormat, Layer
from pipeline.ports.extents import Range
from pipeline.sources.ingest import Disk
from pipeline.storage.convert import hash_disk
from tests.bench.disks import flush

DEFINITION = "corp/disk"
# in the order of a publication, with the modules that call them by these names
STAGES = {
    "ingest": preparing,
    "check_room": preparing,
    "treated": preparing,
    "store": publishing,
    "replicate": publishing,
}
LOOK, LAST = "treated", "replicate"  # the first readies the guest for an appliance


class Usage:
    """What this process has used, and what a piece of work adds to it."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins here
        self._wall = time.monotonic()
        self._times = os.times()
        self._io = io_counts()

    def since(self) -> dict[str, Any]:
        """Seconds, bytes through read and write calls, and the peak of resident memory in bytes."""
        now, counts = os.times(), io_counts()
        return {
            "wall": time.monotonic() - self._wall,
            "cpu": now.user + now.system - self._times.user - self._times.system,
            "cpu_children": (
                now.children_user
                + now.children_system
                - self._times.children_user
                - self._times.children_system
            ),
            "io": {name: counts[name] - self._io[name] for name in counts},
            "peak": memory("VmHWM"),
        }


def io_counts() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def memory(field: str) -> int:
    """Bytes, of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


class StageClock:
    """Measures the stages of one publication where the job calls them.

    `prepared`: what `store` is given instead of the disks as they came, an overlay and free
    ranges, as if generalization had just left them.
    """

    def __init__(self, places: Sequence[Path], prepared: Mapping[str, Any] | None) -> None:
        self._places = places
        self._prepared = prepared
        self._usage: Usage | None = None
        self.result: dict[str, Any] = {}
        self.stages: dict[str, dict[str, float]] = {}

    def _wrap(self, name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if name == "store" and self._prepared is not None:
                material, *rest = args
                (disk,) = material.disks
                args = (replace(material, disks=(_prepared(disk, self._prepared),)), *rest)
            if self._usage is None:
                self._usage = Usage()
            wall, cpu = time.monotonic(), time.process_time()
            done = stage(*args, **kwargs)
            if name == LAST:
                for place in self._places:
                    flush(place)
                self.result = self._usage.since()
                for name_of, amount in self.stages.get(LOOK, {}).items():
                    self.result[name_of] -= amount
            spent = self.stages.setdefault(name, {"wall": 0.0, "cpu": 0.0})
            spent["wall"] += time.monotonic() - wall
            spent["cpu"] += time.process_time() - cpu
            return done

        return timed

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name, module in STAGES.items():
                stage = getattr(module, name)
                stack.enter_context(replaced(module, name, self._wrap(name, stage)))
            yield


@contextlib.contextmanager
def replaced(module: ModuleType, name: str, function: Callable[..., Any]) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, original)


class NoAppliance:
    """A host on which no appliance can be had: the product then publishes a guest unseen."""

    def session(self, *_args: object, **_options: object) -> Never:
        raise EnvironmentMissing("the benchmark starts no appliance")


def _prepared(disk: Disk, given: Mapping[str, Any]) -> Disk:
    chain = _chain(given["chain"])
    free = tuple(Range(start, length) for start, length in given["free"])
    return replace(disk, chain=chain, free=free)


def _chain(layers: Iterable[Sequence[str]]) -> Chain:
    return tuple(Layer(Path(path), ImageFormat(kind)) for path, kind in layers)


class Subject:
    """The jobs."""

    def __init__(self, app: Session) -> None:
        self._app = app

    def begin(self) -> dict[str, Any]:
        """Make the gallery; what starting has cost."""
        location = self._app.config.source_region
        self._app.gallery.create_gallery(parse_gallery("corp"), location)
        self._app.gallery.create_definition(
            ImageDefinition(
                parse_definition(DEFINITION),
                location,
                OsType.LINUX,
                Identifier("Contoso", "disk", "plain"),
                os_state=OsState.SPECIALIZED,
                hyper_v_generation=HyperVGeneration.V1,
            )
        )
        times = os.times()
        return {"startup_cpu": times.user + times.system, "resident": memory("VmRSS")}

    def publish(
        self,
        number: str,
        layers: list[str],
        counts: dict[str, int],
        prepared: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Publish a disk (its files, top first) with so many replicas in each region."""
        targets = tuple(TargetRegion(name, count) for name, count in counts.items())
        wanted = VersionRequest(parse_version(f"{DEFINITION}/{number}"), "", target_regions=targets)
        below = tuple(Backing(Path(path)) for path in layers[1:])
        source = DiskSource(None, Path(layers[0]), backing=below)
        request = PublishRequest(wanted, (source,), None)
        places = [zone.path for name in counts for zone in self._app.zones[name]]
        resident = memory("VmRSS")
        context = replace(self._app.context, guests=NoAppliance())
        clock = StageClock(places, prepared)
        whole = Usage()
        with clock.watching():
            version = publishing.publish(request, context)
        return {
            **clock.result,
            "whole": whole.since()["wall"],
            "resident": resident,
            "stages": clock.stages,
            **self._made(version),
        }

    def _made(self, version: ImageVersion) -> dict[str, Any]:
        """The files of a version: bases and replicas as lists of (path, format), top first."""
        (disk,) = version.disks
        bases = []
        for status in version.regions:
            for zone in self._app.zones[status.region]:
                base = zone.find_base(disk.digest)
                if base is not None:
                    bases.append([(str(one.path), one.format.value) for one in base.chain])
        results = [status.result for status in version.regions]
        return {
            "digest": disk.digest,
            "bases": bases,
            "replicas": [
                [(one["path"], one["format"]) for one in replica["disks"]]
                for result in results
                for replica in result.replicas
            ],
            "methods": [method for result in results for method in result.methods],
            "bytes": {
                "read": results[0].bytes_read,
                "written": sum(result.bytes_written for result in results),
                "shared": sum(result.bytes_shared for result in results),
            },
        }

    def hash(self, chain: list[tuple[str, str]]) -> dict[str, Any]:
        """Read a disk (its files, top first, and their formats) and compute its digests."""
        disk = Disk(None, _chain(chain), 0)
        resident, usage = memory("VmRSS"), Usage()
        context = self._app.context
        with context.work.directory() as work:
            hash_disk(disk, work / "manifest", context.storing("hash", work))
        return {**usage.since(), "resident": resident}

    def verify(self, number: str, subject: str, *, scrub: bool) -> dict[str, Any]:
        """Read one base or replica of a version and compare every chunk with the manifest."""
        version = self._app.gallery.get_version(parse_version(f"{DEFINITION}/{number}"))
        zones = [zone for places in self._app.zones.values() for zone in places]
        resident = memory("VmRSS")
        context = self._app.context
        verdicts = verify_version(version, zones, context, scrub=scrub)
        while True:
            usage = Usage()
            verdict = next(verdicts)  # reads as it goes
            if verdict.subject == subject:
                return {**usage.since(), "sound": verdict.sound, "resident": resident}


def main() -> None:
    gc.set_threshold(GARBAGE)  # as galleria's own `main` does
    # whatever prints, only results go to the one who asked
    answers = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), line_buffering=True)
    os.dup2(2, 1)
    config = load_config()
    identity = Identity(local_account())
    create_zones(config, identity)
    with open_app(config, open_progress(Mode.NONE)) as app:
        subject = Subject(app.session(identity))
        for line in sys.stdin:
            job = json.loads(line)
            result = getattr(subject, job.pop("job"))(**job)
            answers.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
