"""Galleries."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from pipeline.gallery import rules
from pipeline.gallery.access import sharing
from pipeline.gallery.service.base import Operations
from pipeline.gallery.service.scopes import check_scope
from pipeline.model import Gallery, SharingPermissions, SharingProfile, SoftDeletePolicy
from pipeline.model.access import Action
from pipeline.model.names import GalleryName


class Galleries(Operations):
    def create_gallery(
        self,
        name: GalleryName,
        location: str | None = None,
        *,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        soft_delete_policy: SoftDeletePolicy | None = None,
        permissions: SharingPermissions = SharingPermissions.PRIVATE,
    ) -> Gallery:
        """Make a gallery, or change description, tags and (if given) soft delete of the one that is
        there. Without a location a new one is in the source region; `permissions` is its kind."""
        around = f"/subscriptions/{name.subscription}"
        with (
            self._access.unnamed(around),
            self._access.write(Action.GALLERY_WRITE, name) as (catalog, changes),
        ):
            region = rules.known_region(location or self._source_region, self._regions)
            check_scope(catalog, name)
            old = catalog.gallery_in_subscription(name)
            gallery = Gallery(
                name,
                region.name,
                self._clock(),
                description,
                tags or {},
                SharingProfile(permissions),
                soft_delete_policy or SoftDeletePolicy(),
            )
            rules.gallery_put(gallery, old)
            if old is None:
                count = catalog.counts(name.subscription, region.name).galleries
                limit = self._limits.galleries
                rules.quota("galleries", count, limit, name.subscription, region.name)
            else:
                gallery = replace(
                    old,
                    description=description,
                    tags=tags or {},
                    soft_delete_policy=soft_delete_policy or old.soft_delete_policy,
                )
            changes.put_gallery(gallery)
            return gallery

    def update_gallery(self, name: GalleryName, change: Callable[[Gallery], Gallery]) -> Gallery:
        """Change description, tags and soft delete; what else `change` changes is refused."""
        with self._access.write(Action.GALLERY_WRITE, name) as (catalog, changes):
            old = rules.existing(catalog.gallery(name), name)
            gallery = change(old)
            rules.gallery_update(gallery, old)
            changes.put_gallery(gallery)
            return gallery

    def get_gallery(self, name: GalleryName) -> Gallery:
        with self._access.read(Action.GALLERY_READ, name) as catalog:
            return rules.existing(catalog.gallery(name), name)

    def list_galleries(self, subscription: str | None = None) -> list[Gallery]:
        """Of one subscription, or of all. One that the caller may see a part of alone is there
        without its properties."""
        found = self._access.visible(
            Action.GALLERY_READ,
            lambda catalog: catalog.galleries(subscription),
            lambda item: item.name,
            parts=True,
        )
        return [
            item
            if self._access.allows(Action.GALLERY_READ, item.name)
            else Gallery(item.name, item.location, item.created)
            for item in found
        ]

    def check_gallery_deletable(self, name: GalleryName) -> None:
        """Refuse unless it may be deleted once it is empty."""
        with self._access.read(Action.GALLERY_DELETE, name) as catalog:
            sharing.deletable(catalog.sharing(name))

    def delete_gallery(self, name: GalleryName) -> None:
        with self._access.write(Action.GALLERY_DELETE, name) as (catalog, changes):
            rules.existing(catalog.gallery(name), name)
            rules.deletable(name, [d.name for d in catalog.definitions(name)])
            sharing.deletable(catalog.sharing(name))
            changes.delete_gallery(name)
