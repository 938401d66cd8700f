"""Long-running operations as Azure's REST API has them: runs."""

from typing import Any

from pipeline.gallery.arm import moment
from pipeline.gallery.arm.versions import progress
from pipeline.model import ImageVersion
from pipeline.model.resources import Resource
from pipeline.model.runs import Run, RunState

STATES = {
    RunState.WAITING: "InProgress",
    RunState.RUNNING: "InProgress",
    RunState.SUCCEEDED: "Succeeded",
    RunState.FAILED: "Failed",
    RunState.CANCELLED: "Canceled",
}


def operation(run: Run, about: ImageVersion | Resource | None) -> dict[str, Any]:
    """How far a run is; `about` is what it works on, if that is there."""
    found: dict[str, Any] = {
        "name": run.id,
        "status": STATES[run.state],
        "startTime": moment(run.started),
    }
    if run.finished is not None:
        found["endTime"] = moment(run.finished)
    if run.state is RunState.SUCCEEDED:
        found["percentComplete"] = 100.0
    elif not run.ended:
        found["percentComplete"] = _percent(run, about)
    if run.error is not None:
        found["error"] = error(run)["error"]
    return found


def error(run: Run) -> dict[str, Any]:
    """Why a run failed."""
    if run.error is None:
        return {"error": {"code": STATES[run.state], "message": f"The operation {run.id} ended."}}
    told: dict[str, Any] = {"code": run.error.code, "message": run.error.message}
    if run.error.hint:
        told["additionalInfo"] = [{"type": "Hint", "info": {"hint": run.error.hint}}]
    return {"error": told}


def _percent(run: Run, about: ImageVersion | Resource | None) -> float:
    if about is not None and about.owner == run.id:
        if isinstance(about, ImageVersion):
            return progress(about)
        return float(about.completion_percent)
    return min(99.0, 100.0 * run.done / run.total) if run.total else 0.0
