"""`galleria runs`: the record of every job."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from adapters.cli.context import Settings, short_id
from adapters.cli.lazy import Group
from adapters.text import bytes_text, fields, printable, seconds_text, table
from pipeline.errors import NotFound
from pipeline.gallery.documents import encode
from pipeline.model.runs import Run, RunState

RUN = click.argument("id", metavar="RUN")
SECONDS = 0.5


@click.group(cls=Group)
def runs() -> None:
    """List jobs, follow one, cancel or resume it, or read its log."""


@runs.command("list")
@click.option("--all", "ended", is_flag=True, help="Those that have ended, too.")
@click.pass_obj
def list_runs(settings: Settings, *, ended: bool) -> None:
    """List what runs, newest first."""
    with settings.session() as session:
        found = session.runs.list_runs(ended=ended)
    header = ("RUN", "KIND", "STATE", "STARTED", "STEP", "DONE", "HOST", "OBJECT")
    settings.emit({"runs": encode(found)}, table(header, [_row(run) for run in found]))


@runs.command()
@RUN
@click.option("--watch", "watching", is_flag=True, help="Follow it until it has ended.")
@click.pass_context
def show(context: click.Context, *, id: str, watching: bool) -> None:
    """Show a run: what it does, how far it is, how it ended.

    With --watch the exit status is 1 when the run failed.
    """
    settings = context.ensure_object(Settings)
    with settings.session() as session:
        run = session.runs.get_run(id)
        shown = ""
        while watching and not run.ended:
            shown = _told(settings, run, shown)
            time.sleep(SECONDS)
            run = session.runs.get_run(run.id)
    settings.emit({"run": encode(run)}, _text(run))
    if watching and run.state is not RunState.SUCCEEDED:
        context.exit(1)


@runs.command()
@RUN
@click.pass_obj
def cancel(settings: Settings, *, id: str) -> None:
    """Cancel a run: its process undoes what it began, and ends."""
    with settings.session() as session:
        run = session.runs.cancel_run(id)
    settings.emit({"run": encode(run)}, _cancelled(run))


@runs.command()
@RUN
@click.pass_obj
def resume(settings: Settings, *, id: str) -> None:
    """Go on with a run that waits, or whose process ended.

    A replication, a deletion, and the regions that a publish has not made are gone on with by what
    the run's record says. For other runs the same command does that.
    """
    from pipeline.publish import publish
    from pipeline.resume import resume as go_on

    with settings.session() as session:
        run = session.runs.resumable(id)
        go_on(run, session.context, publish)
        run = session.runs.get_run(run.id)
    settings.emit({"run": encode(run)}, f"run {run.id}: {run.state.value}")


@runs.command()
@RUN
@click.pass_obj
def logs(settings: Settings, *, id: str) -> None:
    """Print the log of a run: its steps and warnings."""
    with settings.session() as session:
        run = session.runs.get_run(id)
    try:
        lines = Path(run.log).read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    except OSError as error:
        raise NotFound(
            f"the log of run {run.id} is not there: {run.log}: {error.strerror}",
            hint=f"it is on the host {run.host}, as long as logs are kept",
        ) from None
    text = "\n".join(printable(line) for line in lines)
    settings.emit({"run": encode(run), "lines": lines}, text)


def _cancelled(run: Run) -> str:
    return f"run {run.id} " + ("is cancelled" if run.ended else "is asked to end")


def _row(run: Run) -> tuple[object, ...]:
    return (
        run.id,
        run.kind.value,
        _state(run),
        f"{run.started:%Y-%m-%d %H:%M}Z",
        run.step,
        _done(run),
        run.host,
        short_id(run.object),
    )


def _state(run: Run) -> str:
    if run.state is RunState.RUNNING and run.lease is not None and run.lease < datetime.now(UTC):
        return "Silent"  # nobody prolongs its lease: it can be taken over
    return "Cancelling" if run.cancelling and not run.ended else run.state.value


def _done(run: Run) -> str:
    if run.ended or not run.done:
        return ""
    return f"{100 * run.done // run.total} %" if run.total else bytes_text(run.done)


def _text(run: Run) -> str:
    last = run.finished or datetime.now(UTC)
    rows: list[tuple[str, Any]] = [
        ("run", run.id),
        ("kind", run.kind.value),
        ("object", short_id(run.object)),
        ("state", _state(run)),
        ("step", run.step),
        ("done", f"{bytes_text(run.done)} of {bytes_text(run.total)}" if run.total else ""),
        ("asked by", run.actor),
        ("host", f"{run.host}, process {run.pid}"),
        ("started", f"{run.started:%Y-%m-%d %H:%M:%S}Z"),
        ("took", seconds_text((last - run.started).total_seconds())),
        ("heard of", f"{run.heartbeat:%Y-%m-%d %H:%M:%S}Z" if run.heartbeat else ""),
        ("log", run.log),
        ("left", run.remains),
    ]
    if run.error is not None:
        rows += [("error", f"{run.error.message} ({run.error.code})"), ("hint", run.error.hint)]
    return fields(rows)


def _told(settings: Settings, run: Run, shown: str) -> str:
    """Say how far a run is, if that is not what was said last."""
    line = " ".join(part for part in (_state(run), run.step, _done(run)) if part)
    if line != shown and not settings.json:
        print(printable(line))
        sys.stdout.flush()
    return line
