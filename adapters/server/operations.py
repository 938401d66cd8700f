"""Long-running operations: where an answer says that the rest is, and how far it is."""

from adapters.server.calls import Answer, Call
from pipeline.errors import NotFound
from pipeline.gallery.arm import operations, resources, versions
from pipeline.model import ImageVersion
from pipeline.model.names import parse_version
from pipeline.model.resource_names import resource_of
from pipeline.model.resources import Resource
from pipeline.model.runs import Run, RunKind, RunState
from pipeline.model.spelling import region_key

RETRY_AFTER = 1  # second: what a client waits before it asks again


def begun(call: Call, run: Run, location: str, answer: Answer) -> Answer:
    """The first answer of an operation: with the addresses at which it is followed."""
    subscription = call.path["subscription"]
    place = f"/subscriptions/{subscription}/providers/Microsoft.Compute/locations"
    url = f"{call.base}{place}/{region_key(location)}/capsOperations/{run.id}"
    version = f"api-version={call.api_version}"
    headers = {
        "Azure-AsyncOperation": f"{url}?{version}",
        "Location": f"{url}?monitor=true&{version}",
        "Retry-After": str(RETRY_AFTER),
    }
    return Answer(answer.document, answer.status, {**answer.headers, **headers})


def get_operation(call: Call) -> Answer:
    """How far an operation is; with `monitor`, its result when it has one."""
    run = call.session.runs.find_run(call.path["operation"])
    if call.query.get("monitor", "").lower() == "true":
        return _result(call, run)
    headers = {} if run.ended else {"Retry-After": str(RETRY_AFTER)}
    return Answer(operations.operation(run, _object(call, run)), headers=headers)


def _result(call: Call, run: Run) -> Answer:
    if not run.ended:
        return begun(call, run, call.path["location"], Answer(status=202))
    if run.state is not RunState.SUCCEEDED:
        return Answer(operations.error(run), status=409)
    found = _object(call, run)
    if run.kind is RunKind.DELETE or found is None:
        return Answer(status=204)
    if isinstance(found, ImageVersion):
        return Answer(versions.version(found))
    return Answer(resources.resource(found))


def _object(call: Call, run: Run) -> ImageVersion | Resource | None:
    """What a run works on."""
    try:
        if (name := resource_of(run.object)) is not None:
            return call.session.resources.get(name)
        return call.session.gallery.get_version(parse_version(run.object))
    except NotFound:
        return None
