"""Tenants, subscriptions, regions and resource groups."""

from adapters.server.calls import Answer, Call
from pipeline.gallery import arm


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
