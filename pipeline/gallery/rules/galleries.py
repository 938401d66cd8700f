"""What may be done with galleries."""

from pipeline.errors import Conflict, InvalidParameter
from pipeline.model import Gallery, SoftDeletePolicy
from pipeline.model.spelling import region_key


def gallery_put(new: Gallery, old: Gallery | None) -> None:
    """`old` is the gallery of that name in the subscription."""
    soft_delete_policy(new.soft_delete_policy)
    if old is None:
        return
    if old.name != new.name:
        raise Conflict(
            f"The gallery name '{new.name.name}' is not unique within the subscription "
            f"'{new.name.subscription}'. Please pick another gallery name.",
            plain=f"there is a gallery {old.name.name} already, in resource group "
            f"{old.name.resource_group}",
            hint="choose another name: a gallery's name is unique in its subscription",
        )
    if region_key(old.location) != region_key(new.location):
        raise Conflict(
            f"The resource '{new.name}' already exists in location '{old.location}' in resource "
            f"group '{old.name.resource_group}'. A resource with the same name cannot be created "
            f"in location '{new.location}'.",
            plain=f"the gallery {new.name} exists already, in region {old.location}: it can't be "
            f"moved to {new.location}",
            code="InvalidResourceLocation",
        )


def gallery_update(new: Gallery, old: Gallery) -> None:
    """Description, tags and soft delete may be changed here; sharing has its own operations."""
    soft_delete_policy(new.soft_delete_policy)
    for path, changed in (
        ("name", new.name != old.name),
        ("location", region_key(new.location) != region_key(old.location)),
        ("properties.sharingProfile", new.sharing_profile != old.sharing_profile),
        ("created", new.created != old.created),
    ):
        if changed:
            raise Conflict(
                f"Changing property 'gallery.{path}' is not allowed.",
                plain=f"{path.removeprefix('properties.')} of a gallery can't be changed here",
                hint="galleria share changes with whom it is shared" * ("sharing" in path),
                code="PropertyChangeNotAllowed",
            )


MAX_DAYS = 3650


def soft_delete_policy(policy: SoftDeletePolicy) -> None:
    for name, days, least in (
        ("retentionPeriodInDays", policy.retention_period_in_days, 1),
        ("gracePeriodInDays", policy.grace_period_in_days, 0),
    ):
        if not least <= days <= MAX_DAYS:
            raise InvalidParameter(
                f"The value {days} of parameter softDeletePolicy.{name} is out of range. The value "
                f"must be between {least} and {MAX_DAYS}, inclusive.",
                plain=f"{name} must be between {least} and {MAX_DAYS} days: {days}",
            )
