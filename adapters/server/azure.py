"""The operations of Azure's REST API that are answered: method, path, and the function that does
it. Paths are those of Azure's specification; they compare without regard to case."""

from starlette.routing import BaseRoute

from adapters.server import scopes
from adapters.server.callers import Callers
from adapters.server.calls import AzureRoute, Operation

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = SUBSCRIPTION + "/resourceGroups/{group}"

OPERATIONS: tuple[tuple[str, str, Operation], ...] = (
    ("GET", "/tenants", scopes.list_tenants),
    ("GET", "/subscriptions", scopes.list_subscriptions),
    ("GET", SUBSCRIPTION, scopes.get_subscription),
    ("GET", SUBSCRIPTION + "/locations", scopes.list_locations),
)


def routes(callers: Callers) -> list[BaseRoute]:
    return [AzureRoute(method, path, act, callers) for method, path, act in OPERATIONS]
