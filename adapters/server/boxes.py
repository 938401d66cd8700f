"""Vagrant's catalogs and boxes, for the same callers: a secret of theirs is Vagrant's token."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.requests import Request
from starlette.types import ASGIApp

from adapters.app import App, local_account
from adapters.server.callers import Callers
from adapters.vagrant.server import application
from adapters.vagrant.shelf import Shelf
from pipeline.gallery.service import GalleryService
from pipeline.jobs.box import export_box
from pipeline.model import ImageVersion
from pipeline.model.access import Identity
from pipeline.ports.boxes import Provider

SHELF = 64 << 30  # bytes of boxes that are kept


def boxes(app: App, callers: Callers) -> ASGIApp:
    @contextmanager
    def gallery(request: Request) -> Iterator[GalleryService]:
        with callers.session(request) as session:
            yield session.gallery

    def make(version: ImageVersion, provider: Provider, path: Path) -> None:
        # whoever asked may read the version, and the box is the same for all who may
        with app.again() as now:
            session = now.session(Identity(local_account()))
            export_box(version, provider, path, session.context)

    return application(gallery, Shelf(app.config.cache / "boxes", SHELF, make))
