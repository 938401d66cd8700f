"""What may be done with subscriptions and resource groups."""

from pipeline.errors import Conflict, NotFound
from pipeline.model import ResourceGroup, Subscription, Tenant
from pipeline.model.spelling import region_key


def subscription_put(new: Subscription, old: Subscription | None) -> None:
    if old is not None and old.tenant != new.tenant:
        raise Conflict(
            f"The subscription '{new.id}' is in tenant '{old.tenant}': a subscription stays in its "
            "tenant.",
            code="PropertyChangeNotAllowed",
        )


def resource_group_put(new: ResourceGroup, old: ResourceGroup | None) -> None:
    if old is not None and region_key(old.location) != region_key(new.location):
        raise Conflict(
            f"Invalid resource group location '{new.location}'. The Resource group already exists "
            f"in location '{old.location}'.",
            code="InvalidResourceGroupLocation",
        )


def known_subscription(found: Subscription | None, identity: str) -> Subscription:
    if found is None:
        raise NotFound(
            f"The subscription '{identity}' could not be found.",
            hint="galleria subscription list shows those that are there",
            code="SubscriptionNotFound",
        )
    return found


def known_tenant(found: Tenant | None, identity: str) -> Tenant:
    if found is None:
        raise NotFound(
            f"Tenant '{identity}' not found.",
            hint="galleria tenant create makes one; galleria tenant list shows them",
            code="TenantNotFound",
        )
    return found


def known_resource_group(found: ResourceGroup | None, name: str) -> ResourceGroup:
    if found is None:
        raise NotFound(
            f"Resource group '{name}' could not be found.",
            hint="galleria group create makes one; without --resource-group the default is used",
            code="ResourceGroupNotFound",
        )
    return found
