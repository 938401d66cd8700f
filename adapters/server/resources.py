"""Disks, snapshots and managed images."""

from functools import partial

from adapters.server.calls import Answer, Call, Operation, deleted, page
from adapters.server.operations import begun
from pipeline.gallery.arm import resources
from pipeline.model.resource_names import ResourceKind, ResourceName
from pipeline.resources import begin

# What the first answer to a PUT of a new one is.
ACCEPTED = {ResourceKind.DISK: 202, ResourceKind.SNAPSHOT: 202, ResourceKind.IMAGE: 201}


def operations(kind: ResourceKind) -> dict[str, Operation]:
    """What can be done with resources of a kind."""
    return {
        name: partial(operation, kind)
        for name, operation in (
            ("list", _list),
            ("get", _get),
            ("put", _put),
            ("patch", _patch),
            ("delete", _delete),
        )
    }


def _name(kind: ResourceKind, call: Call) -> ResourceName:
    return ResourceName(kind, call.path["name"], call.path["subscription"], call.path["group"])


def _list(kind: ResourceKind, call: Call) -> Answer:
    """Of a subscription, or of one of its resource groups."""
    subscription = call.session.gallery.get_subscription(call.path["subscription"]).id
    group = call.path.get("group", "").lower()
    found = [
        item
        for item in call.session.resources.of_kind(kind)
        if item.name.subscription.lower() == subscription
        and group in ("", item.name.resource_group.lower())
    ]
    items = sorted(found, key=lambda item: item.name.key)
    return page(call, items, lambda item: item.name.key, resources.resource)


def _get(kind: ResourceKind, call: Call) -> Answer:
    return Answer(resources.resource(call.session.resources.get(_name(kind, call))))


def _put(kind: ResourceKind, call: Call) -> Answer:
    made = begin.put_resource(_name(kind, call), call.body, call.session.context)
    answer = Answer(resources.resource(made.resource), ACCEPTED[kind] if made.run else 200)
    return answer if made.run is None else begun(call, made.run, made.resource.location, answer)


def _patch(kind: ResourceKind, call: Call) -> Answer:
    name, tags = _name(kind, call), resources.read_tags(call.body)
    if tags is None:
        return _get(kind, call)
    return Answer(resources.resource(call.session.resources.set_tags(name, tags)))


def _delete(kind: ResourceKind, call: Call) -> Answer:
    def delete() -> Answer:
        made = begin.begin_delete(_name(kind, call), call.session.context)
        assert made.run is not None  # noqa: S101 - there is always something to remove
        return begun(call, made.run, made.resource.location, Answer(status=202))

    return deleted(delete)
