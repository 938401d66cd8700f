"""Image definitions."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from pipeline.gallery import rules
from pipeline.gallery.access import sharing
from pipeline.gallery.rules import features
from pipeline.gallery.service.base import Operations
from pipeline.model import Gallery, ImageDefinition
from pipeline.model.names import DefinitionName, GalleryName
from pipeline.ports.catalog import CatalogWriter


class Definitions(Operations):
    def create_definition(
        self, definition: ImageDefinition, *, allow_update_image: bool = False
    ) -> ImageDefinition:
        """Make a definition, or change what may be changed of the one that is there. `created` of
        an existing one stays."""
        region = rules.known_region(definition.location, self._regions, kind="galleries/images")
        name = definition.name
        with self._catalog.write() as catalog:
            gallery = rules.parent(catalog.gallery(name.gallery), name.gallery)
            old = catalog.definition(name)
            if old is None:
                count = catalog.counts(name.gallery.subscription, region.name).definitions
                subscription, limit = name.gallery.subscription, self._limits.definitions
                rules.quota("image definitions", count, limit, subscription, region.name)
            else:
                definition = replace(definition, name=old.name, created=old.created)
            definition = replace(definition, location=region.name)
            return self._put(
                catalog, gallery, definition, old, allow_update_image=allow_update_image
            )

    def update_definition(
        self,
        name: DefinitionName,
        change: Callable[[ImageDefinition], ImageDefinition],
        *,
        allow_update_image: bool = False,
    ) -> ImageDefinition:
        """Change what may be changed; features only with `allow_update_image`."""
        with self._catalog.write() as catalog:
            old = rules.existing(catalog.definition(name), name)
            gallery = rules.parent(catalog.gallery(name.gallery), name.gallery)
            return self._put(
                catalog, gallery, change(old), old, allow_update_image=allow_update_image
            )

    def _put(
        self,
        catalog: CatalogWriter,
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
        catalog.put_definition(definition)
        return definition

    def get_definition(self, name: DefinitionName) -> ImageDefinition:
        with self._catalog.read() as catalog:
            return rules.existing(catalog.definition(name), name)

    def list_definitions(self, gallery: GalleryName) -> list[ImageDefinition]:
        with self._catalog.read() as catalog:
            rules.existing(catalog.gallery(gallery), gallery)
            return catalog.definitions(gallery)

    def delete_definition(self, name: DefinitionName) -> None:
        """One that has no versions, soft-deleted ones counted; its channels go with it."""
        with self._catalog.write() as catalog:
            rules.existing(catalog.definition(name), name)
            nested = [v.name for v in islice(catalog.versions(name, deleted=None), 5)]
            rules.deletable(name, nested)
            catalog.delete_definition(name)
