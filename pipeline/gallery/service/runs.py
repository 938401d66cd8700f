"""What is asked of runs: which there are, one of them, and to cancel one."""

from dataclasses import replace

from pipeline.errors import Conflict, NotFound
from pipeline.gallery.access.subjects import Access, Made
from pipeline.model.access import ROOT, Action
from pipeline.model.runs import Run, RunState


class RunService:
    """The runs that one identity may see: its own, and those on what it may look after."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def list_runs(self, *, ended: bool = False) -> list[Run]:
        """Those that wait or run, or (`ended`) all, newest first."""
        return list(
            self._access.visible(
                Action.RUN_READ, lambda catalog: catalog.runs(ended=ended), _object_of
            )
        )

    def get_run(self, id: str) -> Run:
        """A run, by its id or how that begins."""
        id = id.lower()
        found = [run for run in self.list_runs(ended=True) if run.id.startswith(id)]
        found = [run for run in found if run.id == id] or found
        if not id or not found:
            raise NotFound(f"there is no run {id!r}", hint="galleria runs list --all")
        if len(found) > 1:
            raise Conflict(
                f"{len(found)} runs begin with {id!r}: {', '.join(run.id for run in found[:5])}",
                hint="give more of the id",
            )
        return found[0]

    def find_run(self, id: str) -> Run:
        """A run, by its whole id."""
        found = self._access.one(Action.RUN_READ, lambda catalog: catalog.run(id), _object_of)
        if found is None:
            raise NotFound(f"there is no run {id!r}", code="ResourceNotFound")
        return found

    def resumable(self, id: str) -> Run:
        """A run that the caller may go on with."""
        run = self.get_run(id)
        self._access.require(Action.RUN_WRITE, _object_of(run))
        return run

    def cancel_run(self, id: str) -> Run:
        """Ask the process that works on a run to end it; what it began is undone there. One that
        nobody works on yet ends at once."""
        run = self.get_run(id)
        with self._access.write(Action.RUN_WRITE, _object_of(run)) as (catalog, changes):
            current = catalog.run(run.id)
            if current is None or current.ended:
                raise Conflict(f"the run {run.id} has ended: {run.state.value}")
            if current.state is RunState.WAITING:
                current = replace(current, state=RunState.CANCELLED, finished=catalog.now())
            else:
                current = replace(current, cancelling=True)
            changes.put_run(current)
            return current


def _object_of(run: Run) -> Made:
    """Whose it is, and what it is on: who may look after that may see the run."""
    return Made(run.id, run.principal, run.object if run.object.startswith("/") else ROOT)
