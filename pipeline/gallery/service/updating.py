"""Change what may be changed of published versions."""

from dataclasses import replace

from pipeline.gallery import rules, transitions
from pipeline.gallery.rules import VersionChange
from pipeline.gallery.service.base import Operations
from pipeline.gallery.service.taken import TakenVersion
from pipeline.model.access import Action
from pipeline.model.names import VersionName


class Updating(Operations):
    def begin_update(self, name: VersionName, change: VersionChange) -> TakenVersion:
        """Record a change. When regions are to be added, removed or given other counts, the version
        that comes back is owned: that is to be done, and ended with `finish_version`."""
        now = self._clock()
        with self._access.write(Action.VERSION_WRITE, name) as (catalog, changes):
            old = rules.existing(catalog.version(name), name)
            rules.not_busy(old, self._holder(catalog, old), operation="Update")
            rules.not_deleted(old)
            version = rules.changed_properties(old, change, now)
            targets = rules.changed_targets(version, change, self._regions)
            if transitions.regions_differ(old, replace(version, target_regions=targets)):
                rules.has_source(version)
                self._take(catalog, changes, old)
                version = transitions.updating(version, targets, self._runs.id, now)
            else:
                version = replace(version, target_regions=targets)
            changes.put_version(version)
            return TakenVersion(version)
