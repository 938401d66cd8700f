"""The catalog's in-memory double: what `tests/contract/test_catalog.py` says, and no more."""

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.gallery import rules
from pipeline.gallery.catalog import Catalog, CatalogHealth, CatalogReader, CatalogWriter
from pipeline.gallery.latest import newest_first
from pipeline.gallery.model import Deployment, Gallery, ImageDefinition, ImageVersion
from pipeline.gallery.names import DefinitionName, GalleryName, VersionName
from tests.memory_access import AccessState, AccessView


@dataclass
class _State(AccessState):
    definitions: dict[DefinitionName, ImageDefinition] = field(default_factory=dict)
    versions: dict[VersionName, ImageVersion] = field(default_factory=dict)
    reports: dict[VersionName, Mapping[str, Any]] = field(default_factory=dict)
    steps: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    deployments: dict[tuple[str, str], Deployment] = field(default_factory=dict)


class _View(AccessView):
    def __init__(self, state: _State) -> None:
        self._state = state
        self._access = state

    def gallery(self, name: GalleryName) -> Gallery | None:
        return self._state.galleries.get(name)

    def gallery_in_subscription(self, name: GalleryName) -> Gallery | None:
        wanted = (name.subscription.lower(), name.name.lower())
        for found, gallery in self._state.galleries.items():
            if (found.subscription.lower(), found.name.lower()) == wanted:
                return gallery
        return None

    def galleries(self) -> list[Gallery]:
        return sorted(self._state.galleries.values(), key=lambda item: item.name.name.lower())

    def definition(self, name: DefinitionName) -> ImageDefinition | None:
        return self._state.definitions.get(name)

    def definitions(self, gallery: GalleryName) -> list[ImageDefinition]:
        found = [d for d in self._state.definitions.values() if d.name.gallery == gallery]
        return sorted(found, key=lambda item: item.name.name.lower())

    def version(self, name: VersionName) -> ImageVersion | None:
        return self._state.versions.get(name)

    def versions(self, definition: DefinitionName) -> Iterator[ImageVersion]:
        found = (v for v in self._state.versions.values() if v.name.definition == definition)
        return iter(newest_first(found))

    def report(self, name: VersionName) -> Mapping[str, Any] | None:
        return self._state.reports.get(name)

    def step(self, key: str) -> Mapping[str, Any] | None:
        return self._state.steps.get(key)

    def deployments(self) -> list[Deployment]:
        return sorted(
            self._state.deployments.values(), key=lambda item: (item.name, item.directory)
        )

    def put_gallery(self, gallery: Gallery) -> None:
        self._state.galleries[gallery.name] = gallery

    def delete_gallery(self, name: GalleryName) -> None:
        rules.deletable(name, self.definitions(name))
        self._state.galleries.pop(name, None)
        self.forget_access(name.arm_id)

    def put_definition(self, definition: ImageDefinition) -> None:
        rules.parent(self.gallery(definition.name.gallery), definition.name.gallery)
        self._state.definitions[definition.name] = definition

    def delete_definition(self, name: DefinitionName) -> None:
        rules.deletable(name, list(self.versions(name)))
        self._state.definitions.pop(name, None)
        self.forget_access(name.arm_id)

    def put_version(self, version: ImageVersion) -> None:
        rules.parent(self.definition(version.name.definition), version.name.definition)
        self._state.versions[version.name] = version

    def delete_version(self, name: VersionName) -> None:
        self._state.versions.pop(name, None)
        self._state.reports.pop(name, None)

    def put_report(self, name: VersionName, report: Mapping[str, Any] | None) -> None:
        self._state.reports.pop(name, None)
        if report is not None:
            rules.parent(self.version(name), name)
            self._state.reports[name] = report

    def put_step(self, key: str, output: Mapping[str, Any]) -> None:
        self._state.steps[key] = output

    def put_deployment(self, deployment: Deployment) -> None:
        self._state.deployments[deployment.name, deployment.directory] = deployment


class MemoryCatalog:
    """Transactions work on a copy, which takes the place of the original at their end."""

    def __init__(self) -> None:
        self._state = _State()
        self._writing = threading.Lock()

    @contextlib.contextmanager
    def read(self) -> Iterator[CatalogReader]:
        yield _View(self._state)

    @contextlib.contextmanager
    def write(self) -> Iterator[CatalogWriter]:
        with self._writing:
            state = _State(**{name: copy.copy(value) for name, value in vars(self._state).items()})
            yield _View(state)
            self._state = state

    def check(self) -> CatalogHealth:
        return CatalogHealth("memory", "none", "none")

    def close(self) -> None:
        self._state = _State()


_: type[Catalog] = MemoryCatalog
