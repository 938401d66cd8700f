"""Which version `latest` is.

Azure's rule: the highest number, compared as integers and never by date or as text, among the
versions that are not excluded (globally or in that region), not deleted and Completed in that
region. End of life never changes it.
"""

from collections.abc import Iterable, Iterator

from pipeline.model import ImageVersion, ProvisioningState


def newest_first(versions: Iterable[ImageVersion]) -> list[ImageVersion]:
    """The order in which catalogs give versions."""
    return sorted(versions, key=lambda version: version.number, reverse=True)


def latest(versions: Iterable[ImageVersion], region: str | None = None) -> ImageVersion | None:
    """The latest of versions that come newest first; reads no more of them than it needs.

    Without a region, one that is Completed in any region in which it is not excluded.
    """
    return next(candidates(versions, region), None)


def usable(version: ImageVersion, region: str | None = None) -> bool:
    """Whether disks can be made from it: Completed there, and not being deleted."""
    if version.provisioning_state is ProvisioningState.DELETING:
        return False
    return bool(version.completed_regions) if region is None else version.is_completed_in(region)


def candidates(
    versions: Iterable[ImageVersion], region: str | None = None
) -> Iterator[ImageVersion]:
    """Those that could be the latest, in the order given."""
    for version in versions:
        if version.exclude_from_latest or version.soft_deleted or not usable(version, region):
            continue
        places = version.completed_regions if region is None else (region,)
        targets = [version.target(place) for place in places]
        if any(target is not None and not target.exclude_from_latest for target in targets):
            yield version
