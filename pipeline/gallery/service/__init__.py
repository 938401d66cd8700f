"""The operations on galleries and what is in them: a module for each kind of resource and of work.

Rules are in `rules`, changes of a version's state in `transitions`.
"""

from pipeline.gallery.service.channels import Channels
from pipeline.gallery.service.definitions import Definitions
from pipeline.gallery.service.deleting import Deleting
from pipeline.gallery.service.galleries import Galleries
from pipeline.gallery.service.lookup import PARENTS, Lookup
from pipeline.gallery.service.publishing import Publishing
from pipeline.gallery.service.records import Records
from pipeline.gallery.service.scopes import Scopes
from pipeline.gallery.service.updating import Updating

__all__ = ["PARENTS", "GalleryService"]


class GalleryService(
    Scopes, Galleries, Definitions, Lookup, Publishing, Updating, Deleting, Channels, Records
):
    """All that is asked of the catalog. Safe to call from many threads and processes at once."""
