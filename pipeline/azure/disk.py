"""Checks of the OS disk itself: the file's footer, sizes, the partition table."""

from collections.abc import Iterator, Sequence

from pipeline.guest.checks import Evidence
from pipeline.guest.findings import Finding, Severity, verdict
from pipeline.model import HyperVGeneration, OsState
from pipeline.ports import GuestFacts, ImageFacts, ImageFormat
from pipeline.sources.partitions import PartitionTable

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
# page blobs, footer included: what "Information for non-endorsed distributions" and the REST
# interface's own errors name
SMALLEST, LARGEST = 20_972_032, 35_183_298_347_520
LINUX_OS_DISK, OS_DISK_V1, OS_DISK_V2 = 1023 * GIB, 2 * TIB, 4095 * GIB


def disk_findings(
    virtual_size: int, table: PartitionTable, facts: GuestFacts, wanted: HyperVGeneration | None
) -> Iterator[Finding]:
    """Of the disk as the guest sees it. `wanted` is the generation of the image definition."""
    upload = virtual_size + -virtual_size % MIB + 512
    fits = SMALLEST <= upload <= LARGEST
    yield Finding(
        "upload size",
        Severity.FAIL,
        fits,
        f"{upload} bytes as a fixed VHD; Azure takes {SMALLEST} to {LARGEST}",
        "" if fits else "make the disk larger or smaller",
    )
    whole = virtual_size % MIB == 0
    yield Finding(
        "whole MiB",
        Severity.INFO,
        whole,
        f"{virtual_size} bytes",
        "" if whole else "galleria export --format vhd and convert --to vhd pad it",
    )
    yield _os_disk(virtual_size, table, facts)
    yield _generation(table, wanted)
    beyond = [part for part in table.partitions if part.start + part.length > 2 * TIB]
    yield verdict(
        "MBR limit",
        Severity.FAIL,
        ["partitions end beyond 2 TiB"] if table.scheme == "mbr" and beyond else [],
        "use a GPT",
        table.scheme,
    )
    yield verdict(
        "alignment",
        Severity.WARN,
        (
            f"partition {part.number} starts at {part.start}"
            for part in table.partitions
            if part.start % MIB
        ),
        "start partitions at whole MiB: others are slower on Azure's storage",
        "every partition starts at a whole MiB",
    )


def file_findings(facts: ImageFacts, problems: Sequence[str]) -> Iterator[Finding]:
    """Of a file as it would be uploaded. `problems` are those of its VHD footer."""
    convert = "galleria convert FILE --to vhd --out FILE.vhd writes a fixed VHD that Azure takes"
    if facts.format is not ImageFormat.VHD:
        yield Finding("fixed VHD", Severity.FAIL, False, f"it is {facts.format.value}", convert)
        return
    yield verdict("fixed VHD", Severity.FAIL, problems, convert, "the footer is sound")


def state_finding(declared: OsState | None, evidence: Evidence) -> Finding:
    """Declared and detected state; nothing is declared of a file."""
    found = f"{evidence.verdict}: {'; '.join(evidence.reasons)}"
    generalized = evidence.verdict == "generalized"
    if declared is None:
        fix = "" if generalized else "galleria generalize, or use it as a specialized image"
        return Finding("OS state", Severity.INFO, generalized, found, fix)
    if evidence.verdict == "unknown":
        return Finding("OS state", Severity.FAIL, None, found)
    holds = generalized is (declared is OsState.GENERALIZED)
    fix = "" if holds else f"publish it into a definition that is not {declared.value}"
    return Finding("OS state", Severity.FAIL, holds, f"declared {declared.value}; {found}", fix)


def _os_disk(virtual_size: int, table: PartitionTable, facts: GuestFacts) -> Finding:
    largest = OS_DISK_V2 if table.scheme == "gpt" else OS_DISK_V1
    if facts.os_type == "linux":
        largest = min(largest, LINUX_OS_DISK)
    fits = virtual_size <= largest
    found = f"{virtual_size} bytes; Azure's pages name {largest} for such an OS disk"
    return Finding("OS disk size", Severity.WARN, fits, found, "" if fits else "move data away")


def _generation(table: PartitionTable, wanted: HyperVGeneration | None) -> Finding:
    found = table.generation
    if found == "unknown":
        fix = "an OS disk needs BIOS boot code (generation 1) or an EFI system partition (2)"
        return Finding("generation", Severity.FAIL, False, f"{table.scheme}, no boot code", fix)
    holds = wanted is None or wanted.value == found
    said = f"{table.scheme}, {found}" + (f"; declared {wanted.value}" if wanted else "")
    fix = "" if holds else f"publish it into a definition of generation {found}"
    return Finding("generation", Severity.FAIL, holds, said, fix)
