"""How much a subscription may hold in one region (Azure's limits; a site may set its own)."""

from dataclasses import dataclass

from pipeline.errors import Conflict


@dataclass(frozen=True, slots=True)
class Limits:
    """Of each subscription, in each region."""

    galleries: int = 100
    definitions: int = 1_000
    versions: int = 10_000


def quota(kind: str, count: int, limit: int, subscription: str, region: str) -> None:
    """`count` are there already, before one more is made."""
    if count >= limit:
        raise Conflict(
            f"Operation could not be completed as it results in exceeding the approved quota of "
            f"{kind}: the subscription '{subscription}' has {count} of {limit} in region "
            f"'{region}'.",
            plain=f"the subscription {subscription} has {count} {kind} in region {region}: no more "
            f"than {limit} are allowed",
            hint="delete what is not needed; galleria retention apply removes old versions",
            code="QuotaExceeded",
        )
