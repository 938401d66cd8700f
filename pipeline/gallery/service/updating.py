"""Change what may be changed of published versions."""

from dataclasses import replace

from pipeline.gallery import rules, transitions
from pipeline.gallery.rules import VersionChange
from pipeline.gallery.service.base import Operations
from pipeline.model import ImageVersion
from pipeline.model.names import VersionName


class Updating(Operations):
    def begin_update(self, name: VersionName, change: VersionChange) -> ImageVersion:
        """Record a change. When regions are to be added, removed or given other counts, the version
        that comes back is owned: that is to be done, and ended with `finish_version`."""
        now = self._clock()
        with self._catalog.write() as catalog:
            old = rules.existing(catalog.version(name), name)
            rules.not_busy(old, owner_alive=self._busy(old), operation="Update")
            rules.not_deleted(old)
            version = rules.changed_properties(old, change, now)
            targets = rules.changed_targets(version, change, self._regions)
            if transitions.regions_differ(old, replace(version, target_regions=targets)):
                rules.has_source(version)
                version = transitions.updating(version, targets, self._owners.current(), now)
            else:
                version = replace(version, target_regions=targets)
            catalog.put_version(version)
            return version

    def region_left(self, version: ImageVersion, region: str) -> ImageVersion:
        """Nothing of a removed region is left in its zones."""
        return self._change(
            version,
            lambda current: replace(
                current, leaving=tuple(name for name in current.leaving if name != region)
            ),
        )
