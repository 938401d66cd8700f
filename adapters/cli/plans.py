"""What a publish would do, in words and as a document."""

from typing import Any

from adapters.text import bytes_text, fields, table
from pipeline.jobs.plan import Action, Preview
from pipeline.jobs.request import PublishRequest

_ACTIONS = {
    Action.PUBLISH: "publish a new version",
    Action.CONTINUE: "finish what an earlier run began",
    Action.NOTHING: "nothing: it is there already, from the same sources",
}


def plan_document(request: PublishRequest, item: Preview) -> dict[str, Any]:
    return {
        "version": item.name.arm_id,
        "action": item.action.value,
        "generalized": item.generalized,
        "operations": _operations(request, item),
        "disks": item.disks,
        "regions": item.regions,
    }


def plan_text(request: PublishRequest, item: Preview) -> str:
    names = _operations(request, item)
    about = fields(
        [
            ("version", item.name),
            ("action", _ACTIONS[item.action]),
            ("generalize", f"{len(names)} operations" if names else "no"),
        ]
    )
    disks = table(
        ("DISK", "FORMAT", "VIRTUAL SIZE", "DATA", "FILE"),
        [
            (
                disk.name,
                disk.format.value,
                bytes_text(disk.virtual_size),
                bytes_text(disk.data_bytes),
                disk.path,
            )
            for disk in item.disks
        ],
    )
    regions = table(
        ("REGION", "STATE", "REPLICAS", "MADE BY", "STARTS FROM", "FREE", "ZONE"),
        [
            (
                region.region,
                "there" if region.done else "to make",
                region.replicas,
                "reflink" if region.reflink else "overlay",
                "" if region.done else "older version" if region.starts_from else "nothing",
                bytes_text(region.free_bytes),
                ", ".join(map(str, region.zones)),
            )
            for region in item.regions
        ],
    )
    return "\n\n".join([about, disks, regions])


def _operations(request: PublishRequest, item: Preview) -> list[str]:
    if request.plan is None or not item.generalized:
        return []
    return [operation.name for operation in request.plan.operations]
