"""Verify: read what is stored again, and say whether it is what was published."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.data.digest import digest
from pipeline.errors import GalleriaError
from pipeline.jobs.context import JobContext
from pipeline.model import ImageVersion
from pipeline.model.clock import utc_now
from pipeline.model.disks import disk_name
from pipeline.model.scrubs import ByteRange, ScrubRecord, base_subject
from pipeline.ports import (
    Chain,
    ImageFormat,
    Layer,
    Pins,
    Replica,
    ReplicaDisk,
    StoredBase,
    Zone,
)
from pipeline.ports.extents import Range
from pipeline.storage.soundness import read_again, said

KEPT_RANGES = 100  # of what is bad in one base, in the catalog


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What reading one base or replica disk showed. `bad` ranges differ from the manifest;
    `problem` is why it could not be read or compared at all."""

    region: str
    subject: str  # "base os", "replica 0 data-1"
    path: Path
    digest: str
    bad: tuple[Range, ...] = ()
    problem: str = ""

    @property
    def sound(self) -> bool:
        return not self.bad and not self.problem

    def document(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "sound": self.sound,
            "region": self.region,
            "subject": self.subject,
            "path": str(self.path),
            "digest": self.digest,
            "bad": [{"start": area.start, "length": area.length} for area in self.bad],
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading a version showed; `missing` are regions of which no zone here holds it."""

    results: tuple[VerifyResult, ...]
    missing: tuple[str, ...]

    @property
    def bad(self) -> tuple[VerifyResult, ...]:
        return tuple(result for result in self.results if not result.sound)

    @property
    def sound(self) -> bool:
        return bool(self.results) and not self.bad and not self.missing


def verify_all(
    version: ImageVersion, region: str | None, context: JobContext, *, scrub: bool = False
) -> Verification:
    """Verify all that is kept of a version, in one region or where it is Completed: bases and
    replicas, the sources of a shallow one, and its report."""
    regions = version.completed_regions if region is None else (region,)
    zones = [zone for name in regions for zone in context.zones.get(name, ())]
    results = [
        *verify_version(version, zones, context, scrub=scrub),
        *verify_sources(version, context.pins),
    ]
    missing = [name for name in regions if not any(item.region == name for item in results)]
    results += verify_report(version, context.gallery.report(version.name), zones)
    return Verification(tuple(results), tuple(missing))


def verify_sources(version: ImageVersion, pins: Pins) -> Iterator[VerifyResult]:
    """Of a shallow version nothing was read: its sources are compared with what they were."""
    for disk in version.disks:
        for file in disk.source.files:
            problem = ", ".join(pins.changes(file))
            subject = f"source {disk_name(disk.lun)}"
            yield VerifyResult(version.location, subject, Path(file.path), "", problem=problem)


def verify_version(
    version: ImageVersion,
    zones: Sequence[Zone],
    context: JobContext,
    *,
    scrub: bool = False,
) -> Iterator[VerifyResult]:
    """Read every base and replica of a version in these zones, and compare both digests of every
    chunk with the manifest, and the manifest with the digest that the catalog names. `scrub` reads
    the medium, and not what memory still holds of it."""
    check = Check(context, scrub=scrub)
    for zone in zones:
        try:
            replicas = zone.find_version(version.zone_key)
        except (OSError, GalleriaError) as error:
            path = zone.version_directory(version.zone_key)
            yield VerifyResult(zone.region, "record", path, "", problem=str(error))
            replicas = ()
        if replicas is not None:
            for disk in version.disks:
                if disk.digest:
                    result, base = check.base(zone, disk.digest, f"base {disk_name(disk.lun)}")
                    yield result
                    if base is not None:
                        yield from check.replicas(zone, replicas, {disk.lun: base})


@dataclass(frozen=True, slots=True)
class Check:
    """Reads what zones hold, and lets the catalog know of bases. `scrub` reads the medium, and not
    what memory still holds of it; `paced` is told the bytes, and may wait."""

    context: JobContext
    scrub: bool = False
    paced: Callable[[int], None] = lambda _: None

    def base(self, zone: Zone, digest: str, subject: str) -> tuple[VerifyResult, StoredBase | None]:
        """Read a base; the base itself if it can be found. What comes of it is noted."""
        try:
            base = zone.find_base(digest)
            problem = "base missing from the zone"
        except (OSError, GalleriaError) as error:
            base, problem = None, str(error)
        if base is None:
            place = zone.base_manifest(digest).parent
            result = VerifyResult(zone.region, subject, place, digest, problem=problem)
            remember(zone, base_subject(digest), result, self.context)
            return result, None
        result = self._read(zone, subject, base, base.chain)
        if result.sound and (problem := self._file_problem(zone, base)):
            result = replace(result, problem=problem)
            zone.remember_base(base, problem, read=self.scrub)
        elif not result.problem:
            zone.remember_base(base, said(result.bad), read=self.scrub)
        if self.scrub or not result.sound:  # what memory holds says nothing good of the medium
            remember(zone, base_subject(digest), result, self.context)
        return result, base

    def _file_problem(self, zone: Zone, base: StoredBase) -> str:
        try:
            return zone.base_problem(base, cached=not self.scrub)
        except (OSError, GalleriaError) as error:
            return str(error)

    def replicas(
        self,
        zone: Zone,
        replicas: Sequence[Replica],
        bases: Mapping[int | None, StoredBase],
        read: Container[str] | None = None,
    ) -> Iterator[VerifyResult]:
        """Read what replicas have of these bases. An overlay has nothing of its own, so the digest
        of its file says it all; a clone is read, if its base's digest is in `read` (None: all)."""
        for replica in replicas:
            for child in replica.disks:
                base = bases.get(child.lun)
                if base is None:
                    continue
                subject = f"replica {replica.index} {disk_name(child.lun)}"
                if problem := _replica_problem(zone, child, base):
                    yield VerifyResult(
                        zone.region, subject, child.path, base.digest, problem=problem
                    )
                elif child.file_digest or (read is not None and base.digest not in read):
                    yield VerifyResult(zone.region, subject, child.path, base.digest)
                else:
                    yield self._read(zone, subject, base, replica_chain(child, base))

    def _read(self, zone: Zone, subject: str, base: StoredBase, chain: Chain) -> VerifyResult:
        path, label = chain[0].path, f"verify {zone.region} {subject}"
        try:
            bad = read_again(
                base, chain, label, self.context, cached=not self.scrub, paced=self.paced
            )
        except (GalleriaError, OSError) as error:
            return VerifyResult(zone.region, subject, path, base.digest, problem=str(error))
        return VerifyResult(zone.region, subject, path, base.digest, bad)


def remember(zone: Zone, subject: str, result: VerifyResult, context: JobContext) -> None:
    """Let the catalog know what reading something has shown."""
    bad = tuple(ByteRange(area.start, area.length) for area in result.bad[:KEPT_RANGES])
    record = ScrubRecord(str(zone.path), subject, zone.region, utc_now(), said_of(result), bad)
    context.records.record_scrubs([record])


def said_of(result: VerifyResult) -> str:
    """Why something is not sound, for people; empty when it is."""
    if result.problem or not result.bad:
        return result.problem
    return f"{sum(area.length for area in result.bad)} bytes of its content differ"


def _replica_problem(zone: Zone, disk: ReplicaDisk, base: StoredBase) -> str:
    try:
        return zone.replica_problem(disk, base)
    except (OSError, GalleriaError) as error:
        return str(error)


def verify_report(
    version: ImageVersion, report: Mapping[str, Any] | None, zones: Sequence[Zone]
) -> Iterator[VerifyResult]:
    """Compare the report in the catalog (`report`), and those that zones keep, with the digest that
    is part of the version's record. A version from before there was one has nothing to compare."""
    wanted = version.report_digest
    if not wanted:
        return
    yield VerifyResult("", "report", Path(), wanted, problem=_report_problem(report, wanted))
    for zone in zones:
        try:
            document = zone.find_document(version.zone_key)
        except (OSError, GalleriaError):  # `verify_version` tells of it
            continue
        if document is None:
            continue
        record = document.get("version", {})
        problem = _report_problem(document.get("report"), wanted)
        if record.get("reportDigest") != wanted:
            problem = "the zone's record of the version names another report"
        yield VerifyResult(zone.region, "report", zone.path, wanted, problem=problem)


def _report_problem(report: Mapping[str, Any] | None, wanted: str) -> str:
    if report is None:
        return "there is no report"
    found = digest(report)
    return "" if found == wanted else f"its digest is {found}"


def replica_chain(disk: ReplicaDisk, base: StoredBase) -> Chain:
    """The layers that a replica's disk is read from: an overlay depends on its base, a clone does
    not."""
    layer = Layer(disk.path, disk.format)
    return (layer,) if disk.format is ImageFormat.RAW else (layer, *base.chain)
