"""Resume: go on with a run that waits, or whose process ended, by what its record says."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pipeline.errors import Conflict
from pipeline.gallery.arm.versions import read_version
from pipeline.gallery.documents import decode
from pipeline.gallery.rules import VersionChange
from pipeline.jobs.begin import publish_request
from pipeline.jobs.context import JobContext
from pipeline.jobs.delete import delete_cascade, delete_version, plan_cascade
from pipeline.jobs.prepare import PublishRequest
from pipeline.jobs.replicate import replicate_version
from pipeline.jobs.running import going_on
from pipeline.jobs.update import update_version
from pipeline.model import ImageVersion, TargetRegion
from pipeline.model.names import parse_definition, parse_gallery, parse_version
from pipeline.model.resource_names import named_resource
from pipeline.model.runs import Run, RunKind
from pipeline.resources.begin import make_resource, remove_resource

Act = Callable[[Mapping[str, Any], JobContext], None]


def resume(
    run: Run,
    context: JobContext,
    publish: Callable[[PublishRequest, JobContext], ImageVersion],
) -> None:
    """Do what is left of a run, in this process; `publish` is the main job. Raises Conflict for one
    that needs what its record does not hold: the same command goes on with that."""
    acts: Mapping[RunKind, Act] = {**_ACTS, RunKind.PUBLISH: partial(_publish, publish)}
    act = acts.get(run.kind)
    wanted = dict(run.request)
    if act is None or not wanted:
        raise Conflict(
            f"the run {run.id} ({run.kind.value}) can't be resumed by its record alone",
            hint="give the same command again: it goes on with what the run has left",
        )
    with going_on(context, run) as resumed:
        act(wanted, resumed)


def _replicate(wanted: Mapping[str, Any], context: JobContext) -> None:
    targets = tuple(decode(TargetRegion, item) for item in wanted.get("targetRegions", ()))
    retry = bool(wanted.get("retry"))
    replicate_version(parse_version(wanted["version"]), targets, context, retry=retry)


def _publish(
    publish: Callable[[PublishRequest, JobContext], ImageVersion],
    wanted: Mapping[str, Any],
    context: JobContext,
) -> None:
    """All of it, where the record says what was asked and no region is done yet. Else the regions
    that are missing, from one that is there: the sources are not needed for that."""
    name = parse_version(wanted["version"])
    if "document" in wanted and not context.gallery.get_version(name).completed_regions:
        publish(publish_request(name, read_version(wanted["document"])), context)
    else:
        replicate_version(name, (), context, retry=True)


def _update(wanted: Mapping[str, Any], context: JobContext) -> None:
    """What is to be done in the zones: the version says it."""
    update_version(parse_version(wanted["version"]), VersionChange(), context)


def _resource(wanted: Mapping[str, Any], context: JobContext) -> None:
    make_resource(named_resource(wanted["resource"]), wanted["document"], context)


def _delete(wanted: Mapping[str, Any], context: JobContext) -> None:
    if "resource" in wanted:
        remove_resource(named_resource(wanted["resource"]), context)
    elif "version" in wanted:
        permanent = bool(wanted.get("permanent"))
        delete_version(parse_version(wanted["version"]), context, permanent=permanent)
    elif "gallery" in wanted:
        delete_cascade(plan_cascade(context, parse_gallery(wanted["gallery"])), context)
    else:
        delete_cascade(plan_cascade(context, parse_definition(wanted["definition"])), context)


_ACTS: Mapping[RunKind, Act] = {
    RunKind.REPLICATE: _replicate,
    RunKind.UPDATE: _update,
    RunKind.DELETE: _delete,
    RunKind.DISK: _resource,
    RunKind.SNAPSHOT: _resource,
    RunKind.IMAGE: _resource,
}
