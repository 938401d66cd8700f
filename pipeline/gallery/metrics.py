"""What there is, as numbers: for Prometheus, in its text format."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.model.resource_names import ResourceKind
from pipeline.model.scrubs import ScrubRecord
from pipeline.ports.catalog import CatalogReader

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """A gauge or a counter, and its value by labels."""

    name: str
    help: str
    samples: tuple[tuple[Labels, float], ...]
    kind: str = "gauge"


def text(metrics: Iterable[Metric]) -> str:
    """The metrics in Prometheus's text format (0.0.4)."""
    lines = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in metric.samples:
            inside = ",".join(f'{name}="{_escaped(said)}"' for name, said in labels.items())
            shown = f"{{{inside}}}" if inside else ""
            lines.append(f"{metric.name}{shown} {value:.17g}")
    return "\n".join([*lines, ""])


def _escaped(value: str) -> str:
    """A label's value; what is no Unicode text (a path may be none) is shown by its escapes."""
    plain = value.encode("utf-8", "backslashreplace").decode()
    return plain.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def of_catalog(reader: CatalogReader) -> list[Metric]:
    """What the catalog knows."""
    galleries = reader.galleries()
    definitions = [item for found in galleries for item in reader.definitions(found.name)]
    versions = [item for found in definitions for item in reader.versions(found.name, deleted=None)]
    states = Counter(item.provisioning_state.value for item in versions if not item.soft_deleted)
    regions = Counter(
        (status.region, status.state.value)
        for item in versions
        if not item.soft_deleted
        for status in item.regions
    )
    runs = Counter((item.kind.value, item.state.value) for item in reader.runs(ended=True))
    vms = reader.deployments()
    return [
        _one("galleria_galleries", "Galleries.", len(galleries)),
        _one("galleria_definitions", "Image definitions.", len(definitions)),
        _by("galleria_versions", "Image versions, by state.", ("state",), states),
        _one(
            "galleria_versions_deleted",
            "Image versions in the bin.",
            sum(item.soft_deleted is not None for item in versions),
        ),
        _by(
            "galleria_version_regions",
            "Regions of image versions, by how far they are.",
            ("region", "state"),
            regions,
        ),
        _by(
            "galleria_resources",
            "Disks, snapshots and managed images.",
            ("kind",),
            {kind.noun: len(reader.resources(kind)) for kind in ResourceKind},
        ),
        _by(
            "galleria_deployed_vms",
            "VMs that were made from versions.",
            ("region",),
            Counter(item.region for item in vms),
        ),
        _one(
            "galleria_deployed_vms_unfinished",
            "VMs whose deployment was not ended.",
            sum(item.making is not None for item in vms),
        ),
        _by("galleria_runs", "Recorded jobs, by state.", ("kind", "state"), runs),
        _one("galleria_audit_entries", "Number of the last audit entry.", reader.audit_head().seq),
        *_of_scrubs(reader.scrubs()),
    ]


def _of_scrubs(scrubs: Sequence[ScrubRecord]) -> list[Metric]:
    by_zone: dict[tuple[str, str], list[ScrubRecord]] = {}
    for item in scrubs:
        by_zone.setdefault((item.region, item.zone), []).append(item)
    names = ("region", "zone")

    def of(name: str, help: str, values: Mapping[tuple[str, str], float]) -> Metric:
        return _by(name, help, names, values)

    times = {key: [item.read.timestamp() for item in found] for key, found in by_zone.items()}
    return [
        of(
            "galleria_scrub_last_timestamp_seconds",
            "When something of a zone was last read by a scrub.",
            {key: max(found) for key, found in times.items()},
        ),
        of(
            "galleria_scrub_oldest_timestamp_seconds",
            "When that was last read which was not read for longest.",
            {key: min(found) for key, found in times.items()},
        ),
        of(
            "galleria_scrub_problems",
            "Things of a zone that the last scrub found bad.",
            {key: sum(bool(item.problem) for item in found) for key, found in by_zone.items()},
        ),
    ]


def _one(name: str, help: str, value: float) -> Metric:
    return Metric(name, help, (({}, value),))


def _by(
    name: str,
    help: str,
    labels: Sequence[str],
    values: Mapping[str, float] | Mapping[tuple[str, str], float],
) -> Metric:
    samples = (
        (dict(zip(labels, (key,) if isinstance(key, str) else key, strict=True)), value)
        for key, value in sorted(values.items())
    )
    return Metric(name, help, tuple(samples))
