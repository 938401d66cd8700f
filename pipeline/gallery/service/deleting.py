"""Delete, undelete, and what retention would remove."""

from collections.abc import Iterable
from dataclasses import replace

from pipeline.gallery import rules, transitions
from pipeline.gallery.rules.retention import Retention, RetentionDecision, judge
from pipeline.gallery.service.base import Operations
from pipeline.gallery.service.taken import TakenVersion
from pipeline.model import ImageVersion
from pipeline.model.access import Action
from pipeline.model.names import DefinitionName, VersionName


class Deleting(Operations):
    def begin_delete(
        self, name: VersionName, *, force: bool = False, permanent: bool = False
    ) -> TakenVersion:
        """Delete a version. Where the gallery's policy says so it goes to the bin, and that is all;
        else (or `permanent`) it comes back marked Deleting: from now on nobody can use it, its
        replicas are to be removed, and `finish_delete` is to be called. `force` takes it from a
        run that seems to go on: that one ends."""
        with self._access.write(Action.VERSION_DELETE, name) as (catalog, changes):
            version = rules.existing(catalog.version(name), name)
            held = None if force else self._holder(catalog, version)
            rules.not_busy(version, held, operation="Delete")
            now = self._clock()
            rules.version_deletable(version, now)
            rules.not_promoted(version, catalog.channels(name.definition))
            gallery = rules.existing(catalog.gallery(name.definition.gallery), name)
            policy = gallery.soft_delete_policy
            if not permanent and rules.to_the_bin(version, policy):
                version = replace(version, soft_deleted=rules.soft_deletion(policy, now))
            elif not permanent and version.soft_deleted is not None:
                raise rules.deleted_already(version)
            else:
                self._take(catalog, changes, version)
                version = transitions.deleting(version, self._runs.id, now)
            changes.put_version(version)
            return TakenVersion(version)

    def check_deletable(self, versions: Iterable[ImageVersion]) -> None:
        """Refuse unless all may be deleted now."""
        versions = list(versions)
        now = self._clock()
        names = [version.name for version in versions]
        with self._access.read(Action.VERSION_DELETE, *names) as catalog:
            for version in versions:
                rules.not_busy(version, self._holder(catalog, version), operation="Delete")
                rules.version_deletable(version, now)

    def check_in_the_bin(self, name: VersionName) -> None:
        """Refuse one that is not soft-deleted."""
        with self._access.read(Action.VERSION_READ, name) as catalog:
            version = rules.existing(catalog.version(name), name)
            rules.soft_deleted(version)

    def undelete(self, name: VersionName) -> ImageVersion:
        """Take a version out of the bin."""
        with self._access.write(Action.VERSION_WRITE, name) as (catalog, changes):
            version = rules.existing(catalog.version(name), name)
            rules.not_busy(version, self._holder(catalog, version), operation="Update")
            rules.in_the_bin(version, self._clock())
            version = replace(version, soft_deleted=None)
            changes.put_version(version)
            return version

    def expired(self, definition: DefinitionName) -> list[ImageVersion]:
        """Versions in the bin whose time there is over."""
        now = self._clock()
        with self._access.read(Action.VERSION_READ, definition) as catalog:
            return [
                version
                for version in catalog.versions(definition, deleted=True)
                if version.soft_deleted is not None
                and version.soft_deleted.hard_deletion_target_time <= now
            ]

    def retention(self, definition: DefinitionName, rule: Retention) -> list[RetentionDecision]:
        """What becomes of each version by a retention rule, newest first."""
        with self._access.read(Action.VERSION_READ, definition) as catalog:
            rules.existing(catalog.definition(definition), definition)
            used = {item.version_uid for item in catalog.deployments()}
            sets = [item.version for item in catalog.scale_sets()]
            needed = {
                name.number: "in a scale set" for name in sets if name.definition == definition
            }
            needed |= {item.version: "in a channel" for item in catalog.channels(definition)}
            versions = catalog.versions(definition)
            return judge(versions, rule, used, needed, self._clock())
