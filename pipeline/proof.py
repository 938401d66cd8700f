"""Prove: what a disk or a version is, and what a job would do to it, with nothing changed."""

from collections.abc import Sequence
from typing import Any

from pipeline.gallery.model import ImageVersion
from pipeline.guest.profiles import Plan
from pipeline.preview import Preview, preview
from pipeline.publish import Ports, PublishRequest, clean, find_donor
from pipeline.single import pinned
from pipeline.sources import DiskSource, supplied
from pipeline.stages.ingest import Disk, ingest, recognise
from pipeline.stages.look import Look, admit, look
from pipeline.stages.replicate import donated
from pipeline.stages.snapshot import snapshot


def file_disks(source: DiskSource, ports: Ports) -> list[Disk]:
    return [recognise(source, ports.images)]


def version_disks(version: ImageVersion, ports: Ports) -> list[Disk]:
    """A version's disks, OS disk first, as a zone holds them."""
    return list(donated(version, find_donor(version, ports.zones)))


def check(disks: Sequence[Disk], ports: Ports) -> Look:
    """Whether the guest on these disks is generalized, with the evidence; they are only read."""
    with ports.work.directory() as work:
        return look(ports.guests, ports.images, disks, work, ports.progress)


def try_generalize(source: DiskSource, plan: Plan, ports: Ports) -> dict[str, Any]:
    """The report of generalizing a disk: it is done, on an overlay that is thrown away."""
    with pinned(source, ports) as (disk, work):
        _, report = clean((disk,), plan, work, ports)
    return dict(report)


def try_publish(request: PublishRequest, ports: Ports) -> tuple[Preview, dict[str, Any]]:
    """What publishing would do, and the report that the version would have: every rule is checked,
    the guest is generalized on overlays that are thrown away; no number is taken."""
    found = preview(request, ports)
    with (
        ports.work.directory() as work,
        supplied(request.sources, work, ports.sources) as supply,
        snapshot(ingest(supply.disks, ports.images), work, ports.pins) as (disks, pin),
    ):
        _, report = clean(disks, request.plan if found.generalized else None, work, ports)
        pin.verify()
    definition = ports.gallery.get_definition(request.version.name.definition)
    return found, admit(report, definition.os_state, ports.progress, force=request.force)
