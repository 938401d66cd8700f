"""Tenants, subscriptions, regions and resource groups."""

from adapters.server.calls import Answer, Call, page
from pipeline.errors import NotFound
from pipeline.gallery import arm
from pipeline.model.names import DEFAULT_RESOURCE_GROUP


def list_tenants(call: Call) -> Answer:
    return Answer({"value": [arm.tenant(item) for item in call.session.gallery.list_tenants()]})


def list_subscriptions(call: Call) -> Answer:
    found = call.session.gallery.list_subscriptions()
    return Answer({"value": [arm.subscription(item) for item in found]})


def get_subscription(call: Call) -> Answer:
    return Answer(
        arm.subscription(call.session.gallery.get_subscription(call.path["subscription"]))
    )


def list_locations(call: Call) -> Answer:
    """The regions of this installation, which are those of each subscription."""
    found = call.session.gallery.get_subscription(call.path["subscription"])
    regions = (region for region in call.session.regions if not region.is_edge_zone)
    return Answer({"value": [arm.location(found, region) for region in regions]})


# --- resource groups -----------------------------------------------------------------------------


def list_groups(call: Call) -> Answer:
    """The default one is there without being made."""
    subscription = call.path["subscription"]
    found = call.session.gallery.list_resource_groups(subscription)
    if all(item.name.lower() != DEFAULT_RESOURCE_GROUP for item in found):
        default = call.session.gallery.get_resource_group(subscription, DEFAULT_RESOURCE_GROUP)
        found = [*found, default]
    found = sorted(found, key=lambda item: item.name.lower())
    return page(call, found, lambda item: item.name.lower(), arm.resource_group)


def get_group(call: Call) -> Answer:
    return Answer(arm.resource_group(call.session.gallery.get_resource_group(*_group(call))))


def has_group(call: Call) -> Answer:
    get_group(call)
    return Answer(status=204)


def put_group(call: Call) -> Answer:
    body = arm.read_group(call.body)
    try:
        call.session.gallery.get_resource_group(*_group(call))
        status = 200
    except NotFound:
        status = 201
    made = call.session.gallery.create_resource_group(*_group(call), body.location, body.tags)
    return Answer(arm.resource_group(made), status)


def patch_group(call: Call) -> Answer:
    old = call.session.gallery.get_resource_group(*_group(call))
    body = arm.read_group(arm.merged(arm.resource_group(old), call.body))
    made = call.session.gallery.create_resource_group(*_group(call), body.location, body.tags)
    return Answer(arm.resource_group(made))


def delete_group(call: Call) -> Answer:
    """One that is empty; one that is not there is an error, as Azure has it."""
    call.session.gallery.delete_resource_group(*_group(call))
    return Answer()


def _group(call: Call) -> tuple[str, str]:
    return call.path["subscription"], call.path["group"]
