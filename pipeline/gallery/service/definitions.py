"""Image definitions."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from pipeline.gallery import rules
from pipeline.gallery.access import sharing
from pipeline.gallery.audited import Changes
from pipeline.gallery.rules import features
from pipeline.gallery.service.base import Operations
from pipeline.model import Gallery, ImageDefinition
from pipeline.model.access import Action
from pipeline.model.names import DefinitionName, GalleryName
from pipeline.ports.catalog import CatalogReader


class Definitions(Operations):
    def create_definition(
        self, definition: ImageDefinition, *, allow_update_image: bool = False
    ) -> ImageDefinition:
        """Make a definition, or change what may be changed of the one that is there. Without a
        location it is in its gallery's; when it was created is told, not asked."""
        name = definition.name
        with (
            self._access.unnamed(name.gallery.arm_id),
            self._access.write(Action.DEFINITION_WRITE, name) as (catalog, changes),
        ):
            gallery = rules.parent(catalog.gallery(name.gallery), name.gallery)
            home = definition.location or gallery.location
            region = rules.known_region(home, self._regions, kind="galleries/images")
            old = catalog.definition(name)
            if old is None:
                count = catalog.counts(name.gallery.subscription, region.name).definitions
                subscription, limit = name.gallery.subscription, self._limits.definitions
                rules.quota("image definitions", count, limit, subscription, region.name)
            definition = replace(
                definition,
                name=old.name if old else name,
                location=region.name,
                created=old.created if old else self._clock(),
            )
            return self._put(
                catalog, changes, gallery, definition, old, allow_update_image=allow_update_image
            )

    def update_definition(
        self,
        name: DefinitionName,
        change: Callable[[ImageDefinition], ImageDefinition],
        *,
        allow_update_image: bool = False,
    ) -> ImageDefinition:
        """Change what may be changed; features only with `allow_update_image`."""
        with (
            self._access.unnamed(name.gallery.arm_id),
            self._access.write(Action.DEFINITION_WRITE, name) as (catalog, changes),
        ):
            old = rules.existing(catalog.definition(name), name)
            gallery = rules.parent(catalog.gallery(name.gallery), name.gallery)
            return self._put(
                catalog, changes, gallery, change(old), old, allow_update_image=allow_update_image
            )

    def _put(
        self,
        catalog: CatalogReader,
        changes: Changes,
        gallery: Gallery,
        definition: ImageDefinition,
        old: ImageDefinition | None,
        *,
        allow_update_image: bool,
    ) -> ImageDefinition:
        completed = features.completed(
            definition.features,
            definition.hyper_v_generation,
            gallery.sharing_profile.permissions,
        )
        definition = replace(definition, features=completed)
        twin = catalog.definition_identified(gallery.name, definition.identifier)
        rules.definition_put(
            definition,
            old,
            [twin] if twin else [],
            self._clock(),
            allow_update_image=allow_update_image,
        )
        permissions = gallery.sharing_profile.permissions
        sharing.may_hold_definition(permissions, gallery, definition)
        changes.put_definition(definition)
        return definition

    def get_definition(self, name: DefinitionName) -> ImageDefinition:
        with self._access.read(Action.DEFINITION_READ, name) as catalog:
            return rules.existing(catalog.definition(name), name)

    def list_definitions(self, gallery: GalleryName) -> list[ImageDefinition]:
        """Those that the caller may read, of a gallery of which it may see a part."""
        if not self._access.sees(gallery.arm_id):
            self._access.require(Action.GALLERY_READ, gallery)

        def find(catalog: CatalogReader) -> list[ImageDefinition]:
            rules.existing(catalog.gallery(gallery), gallery)
            return catalog.definitions(gallery)

        return list(self._access.visible(Action.DEFINITION_READ, find, lambda item: item.name))

    def delete_definition(self, name: DefinitionName) -> None:
        """One that has no versions, soft-deleted ones counted; its channels go with it."""
        with self._access.write(Action.DEFINITION_DELETE, name) as (catalog, changes):
            rules.existing(catalog.definition(name), name)
            nested = [v.name for v in islice(catalog.versions(name, deleted=None), 5)]
            rules.deletable(name, nested)
            changes.delete_definition(name)
