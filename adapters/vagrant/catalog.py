"""Catalogs as Vagrant reads them (https://developer.hashicorp.com/vagrant/docs/boxes/format), and
as files for a web server."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from adapters.filesystem import durable, modes
from adapters.vagrant import ARCHITECTURES
from pipeline.jobs.box_catalog import BoxCatalog
from pipeline.model import ImageVersion
from pipeline.ports.boxes import Provider

Make = Callable[[ImageVersion, Provider, Path], None]


def document(
    catalog: BoxCatalog,
    providers: Sequence[Provider],
    url: Callable[[ImageVersion, Provider], str],
    checksum: Callable[[ImageVersion, Provider], str | None],
) -> dict[str, Any]:
    """The JSON of a catalog. A box that was not made yet has no checksum."""
    architecture = ARCHITECTURES[catalog.architecture]
    versions = []
    for version in catalog.versions:
        offers = []
        for provider in providers:
            offer: dict[str, Any] = {
                "name": provider.value,
                "url": url(version, provider),
                "architecture": architecture,
                "default_architecture": True,
            }
            found = checksum(version, provider)
            if found is not None:
                offer |= {"checksum_type": "sha256", "checksum": found}
            offers.append(offer)
        versions.append({"version": str(version.number), "status": "active", "providers": offers})
    return {"name": catalog.name, "description": catalog.description, "versions": versions}


def write_catalogs(
    catalogs: Iterable[BoxCatalog],
    providers: Sequence[Provider],
    directory: Path,
    base_url: str,
    make: Make,
) -> list[Path]:
    """Write catalogs and boxes below a directory that a web server shows under `base_url`; returns
    the catalogs' files. Boxes that are there stay; a box is there whole before its catalog says
    so."""
    written = []
    for catalog in catalogs:
        sums = {
            (version.uid, provider): _box(directory, version, provider, make)
            for version in catalog.versions
            for provider in providers
        }

        def url(version: ImageVersion, provider: Provider) -> str:
            return f"{base_url.rstrip('/')}/{box_place(version, provider)}"

        def checksum(
            version: ImageVersion, provider: Provider, sums: dict[Any, str] = sums
        ) -> str | None:
            return sums[version.uid, provider]

        text = json.dumps(document(catalog, providers, url, checksum), indent=2) + "\n"
        path = directory / f"{catalog.name}.json"
        _make_parents(path)
        durable.write_file(path, text.encode(), mode=modes.plain(), overwrite=True)
        written.append(path)
    return written


def box_place(version: ImageVersion, provider: Provider) -> str:
    """Where a box is below the directory: another one when the version was made anew."""
    return f"{version.name}/{provider.value}-{version.uid}.box"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _box(directory: Path, version: ImageVersion, provider: Provider, make: Make) -> str:
    path = directory / box_place(version, provider)
    _make_parents(path)
    if not path.exists():
        make(version, provider, path)
    return sha256(path)


def _make_parents(path: Path) -> None:
    with modes.callers():
        path.parent.mkdir(parents=True, exist_ok=True)
