"""What may be done with image definitions."""

from collections.abc import Iterable
from datetime import datetime

from pipeline.errors import Conflict, InvalidParameter
from pipeline.gallery.rules.resources import end_of_life
from pipeline.model import ImageDefinition, Recommended
from pipeline.model.spelling import check_identifier, region_key

# Azure's names of what a definition keeps for life; the rest may be changed.
IMMUTABLE: tuple[tuple[str, str], ...] = (
    ("osType", "os_type"),
    ("osState", "os_state"),
    ("hyperVGeneration", "hyper_v_generation"),
    ("architecture", "architecture"),
    ("eula", "eula"),
    ("privacyStatementUri", "privacy_statement_uri"),
    ("disallowed", "disallowed"),
    ("purchasePlan", "purchase_plan"),
)


def definition_put(
    new: ImageDefinition,
    old: ImageDefinition | None,
    siblings: Iterable[ImageDefinition],
    now: datetime,
    *,
    allow_update_image: bool = False,
) -> None:
    """`siblings` are definitions of the gallery, the old one among them or not; features change
    only with `allow_update_image`."""
    for part in ("publisher", "offer", "sku"):
        check_identifier(part, getattr(new.identifier, part))
    recommended(new.recommended)
    if old is None or old.end_of_life_date != new.end_of_life_date:
        end_of_life(new.end_of_life_date, now)
    if old is not None:
        _unchanged(new, old, allow_update_image=allow_update_image)
    for sibling in siblings:
        if sibling.name != new.name and sibling.identifier.key == new.identifier.key:
            triple = new.identifier
            raise Conflict(
                f"Gallery image: '{sibling.name}' identified by (publisher:{triple.publisher}, "
                f"offer:{triple.offer}, sku:{triple.sku}) already exists. Choose a different "
                "publisher, offer, sku combination.",
                plain=f"{sibling.name} has the same publisher, offer and SKU already",
                hint="choose another --publisher, --offer or --sku",
            )


def _unchanged(new: ImageDefinition, old: ImageDefinition, *, allow_update_image: bool) -> None:
    if new.name != old.name or new.created != old.created:
        raise Conflict(
            f"Changing property 'name' of '{old.name}' is not allowed.",
            code="PropertyChangeNotAllowed",
        )
    changed = [path for path, name in IMMUTABLE if getattr(new, name) != getattr(old, name)]
    for part in ("publisher", "offer", "sku"):
        if getattr(new.identifier, part) != getattr(old.identifier, part):
            changed.append(f"identifier.{part}")
    if new.features != old.features and not allow_update_image:
        changed.append("features")
    if region_key(new.location) != region_key(old.location):
        raise Conflict(
            f"The resource '{new.name}' already exists in location '{old.location}'. A resource "
            f"with the same name cannot be created in location '{new.location}'.",
            plain=f"{new.name} exists already, in region {old.location}: it can't be moved to "
            f"{new.location}",
            code="InvalidResourceLocation",
        )
    if changed:
        raise Conflict(
            f"Changing property 'galleryImage.properties.{changed[0]}' is not allowed: "
            f"'{new.name}' exists with another value.",
            plain=f"{new.name} exists already, and its {changed[0]} can't be changed",
            hint="--allow-update-image allows it"
            if changed[0] == "features"
            else "create another image definition",
            code="PropertyChangeNotAllowed",
        )


def recommended(value: Recommended) -> None:
    for name, limits in (("vCPUs", value.vcpus), ("memory", value.memory)):
        low, high = limits.min, limits.max
        for bound in (low, high):
            if bound is not None and bound < 1:
                raise InvalidParameter(
                    f"The value {bound} of parameter recommended.{name} is out "
                    "of range. The value must be at least 1.",
                    plain=f"the recommended {name} must be at least 1: {bound}",
                )
        if low is not None and high is not None and low > high:
            raise InvalidParameter(
                f"The minimum value of recommended.{name} must not be greater than the maximum "
                f"value of recommended.{name}: {low} > {high}.",
                plain=f"the minimum of the recommended {name} is above the maximum: {low} > {high}",
            )
