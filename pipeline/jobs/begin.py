"""Begin: for callers who do not wait. Every rule is checked and what is to be worked on is taken,
for a run that another process does (`pipeline.resume`). What is refused is refused here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import NotFound
from pipeline.gallery import rules
from pipeline.gallery.arm.versions import VersionBody, change_of, request_of, sources_of
from pipeline.guest.profiles import select
from pipeline.jobs.context import JobContext
from pipeline.jobs.prepare import PublishRequest, fingerprinted
from pipeline.jobs.shallow import refuse_needed_key
from pipeline.model import ImageVersion, ProvisioningState
from pipeline.model.names import VersionName
from pipeline.model.runs import Run, RunKind


@dataclass(frozen=True, slots=True)
class Begun:
    """A version as it is from now on, and the run that does the rest; None when nothing is left to
    do. `made`: it was not there before."""

    version: ImageVersion
    run: Run | None = None
    made: bool = False


def put_version(
    name: VersionName, body: VersionBody, document: Mapping[str, Any], context: JobContext
) -> Begun:
    """Publish a version; or change one that is there, or take it out of the bin. `document` is what
    `body` was read from."""
    try:
        old = context.gallery.get_version(name)
    except NotFound:
        return _publish(name, body, document, context)
    if old.soft_deleted is not None and body.restores:
        return Begun(context.gallery.undelete(name))
    if old.provisioning_state is ProvisioningState.CREATING and not old.completed_regions:
        return _publish(name, body, document, context)
    return _change(old, body, context)


def patch_version(name: VersionName, body: VersionBody, context: JobContext) -> Begun:
    """Change a version that is there, or take it out of the bin."""
    old = context.gallery.get_version(name)
    if body.properties is not None and body.properties.restore:
        return Begun(context.gallery.undelete(name))
    return _change(rules.existing(old if old.soft_deleted is None else None, name), body, context)


def delete_version(name: VersionName, context: JobContext, *, permanent: bool = False) -> Begun:
    """Delete a version: into the bin at once, where there is one."""
    key = context.gallery.get_version(name).zone_key
    refuse_needed_key(key, context.zones, f"The image version '{name}'")
    wanted = {"version": name.arm_id, "permanent": permanent}
    with context.runs.reserved(RunKind.DELETE, name.arm_id, wanted) as run:
        version = context.gallery.begin_delete(name, permanent=permanent)
    return _left(version, run, context)


def publish_request(name: VersionName, body: VersionBody) -> PublishRequest:
    """What a PUT of a new version asks for. A guest is generalized as the definition says, as by
    the default options of a publish."""
    return PublishRequest(request_of(name, body), sources_of(body), select())


def _publish(
    name: VersionName, body: VersionBody, document: Mapping[str, Any], context: JobContext
) -> Begun:
    """Take the number. The run's record keeps what was asked."""
    asked = fingerprinted(publish_request(name, body), context.sources)
    wanted = {"version": name.arm_id, "document": document}
    runs = context.runs
    with runs.reserved(RunKind.PUBLISH, name.arm_id, wanted, asked.fingerprint) as run:
        version = context.gallery.begin_version(asked)
    context.later(run)
    return Begun(version, run, made=True)


def _change(old: ImageVersion, body: VersionBody, context: JobContext) -> Begun:
    """Change what may be changed. Regions that failed are made again."""
    name, change = old.name, change_of(old, body)
    wanted = {"version": name.arm_id}
    with context.runs.reserved(RunKind.UPDATE, name.arm_id, wanted) as run:
        version = context.gallery.begin_update(name, change)
        if version.owner != run.id and version.provisioning_state is ProvisioningState.FAILED:
            version = context.gallery.begin_replication(name)
    return _left(version, run, context)


def _left(version: ImageVersion, run: Run, context: JobContext) -> Begun:
    """What is left to do, if anything is, another process does."""
    if version.owner != run.id:
        context.runs.unneeded(run)
        return Begun(version)
    context.later(run)
    return Begun(version, run)
