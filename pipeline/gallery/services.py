"""Everything that can be asked of the gallery, by one identity."""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime

from pipeline.gallery import rules
from pipeline.gallery.access.grants import Grants
from pipeline.gallery.access.subjects import Access
from pipeline.gallery.access.views import SharedViews
from pipeline.gallery.audited import AuditedCatalog
from pipeline.gallery.rules import Limits
from pipeline.gallery.service import GalleryService
from pipeline.gallery.service.resources import ResourceService
from pipeline.gallery.service.running import JobRuns, RunTerms
from pipeline.gallery.service.runs import RunService
from pipeline.gallery.service.taken import JobRecords
from pipeline.model import Region
from pipeline.model.access import Identity
from pipeline.model.audit import Event
from pipeline.model.clock import utc_now
from pipeline.ports.catalog import Catalog
from pipeline.ports.runs import RunHost


class Services:
    """For one run or one request; the catalog is shared with others. `gallery` and `resources` are
    what is there, `grants` who may do what and `views` what is shared with the identity; `records`
    and `job_runs` are for jobs alone. `source_region` is the home of what names none;
    `noted` is told of each change of the catalog."""

    def __init__(
        self,
        catalog: Catalog,
        regions: Iterable[Region],
        identity: Identity,
        host: RunHost,
        source_region: str = "",
        clock: Callable[[], datetime] = utc_now,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        terms: RunTerms = RunTerms(),  # noqa: B008 - frozen
        noted: Callable[[Collection[Event]], None] = lambda _: None,
    ) -> None:
        audited = AuditedCatalog(catalog, identity.actor, clock, noted)
        access = Access(audited, identity)
        self.regions = regions = tuple(regions)
        self._source_region = source_region
        self.job_runs = JobRuns(audited, identity, host, terms)
        self.views = SharedViews(audited, access)
        self.gallery = GalleryService(
            access, self.views, self.job_runs, regions, source_region, clock, limits
        )
        self.resources = ResourceService(access, self.job_runs, regions, clock)
        self.grants = Grants(access, clock)
        self.records = JobRecords(
            audited,
            self.job_runs,
            # by the roles of then: `access` keeps those that it has read once
            lambda action, name: Access(audited, identity).require(action, name),
            clock,
        )
        self.runs = RunService(access)

    def region(self, name: str | None = None) -> str:
        """A region or an edge zone as the configuration spells it; without a name the source
        region, where things are made unless it is said. Raises InvalidParameter for one that is not
        there."""
        wanted = self._source_region if name is None else name
        return rules.known_region(wanted, self.regions, edge_zones=True).name
