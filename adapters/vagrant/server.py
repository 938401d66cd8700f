"""Catalogs and boxes over HTTP, for `vagrant box add`.

    GET /                                   names of all catalogs
    GET /GALLERY/DEFINITION[@CHANNEL]       a catalog; also with .json, and where Vagrant looks for
                                            it when VAGRANT_SERVER_URL is this server
    GET /GALLERY/DEFINITION[@CHANNEL]/VERSION/PROVIDER.box    made when it is first asked for

An application on its own, or mounted in another one. Who asks is for `gallery` to tell: it opens
the catalog for a request, with the rights of its caller.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from adapters.vagrant.catalog import document
from adapters.vagrant.shelf import Shelf
from pipeline.errors import (
    Busy,
    EnvironmentMissing,
    GalleriaError,
    InvalidParameter,
    NoSpace,
    NotFound,
    Refused,
    Unauthenticated,
)
from pipeline.gallery.service import GalleryService
from pipeline.jobs.box_catalog import BoxCatalog, box_catalog, box_catalogs, offered
from pipeline.model import ImageVersion
from pipeline.model.clock import utc_now
from pipeline.ports.boxes import Provider

OpenGallery = Callable[[Request], AbstractContextManager[GalleryService]]
STATUSES: tuple[tuple[type[GalleriaError], int], ...] = (
    (NotFound, 404),
    (InvalidParameter, 400),
    (Unauthenticated, 401),
    (Refused, 403),
    (Busy, 503),
    (EnvironmentMissing, 503),
    (NoSpace, 507),
)


def application(gallery: OpenGallery, shelf: Shelf) -> Starlette:
    """The server of all catalogs, and of boxes that `shelf` makes."""
    place = "{gallery}/{definition}"

    def names(request: Request) -> Response:
        with gallery(request) as service:
            found = box_catalogs(service, utc_now())
        base = _base(request)
        return JSONResponse({item.name: f"{base}{item.name}" for item in found if item.versions})

    def catalog(request: Request) -> Response:
        with gallery(request) as service:
            found = _catalog(request, service)
        base = f"{_base(request)}{found.name}"

        def url(version: ImageVersion, provider: Provider) -> str:
            return f"{base}/{version.number}/{provider.value}.box"

        return JSONResponse(document(found, list(Provider), url, shelf.checksum))

    def box(request: Request) -> Response:
        with gallery(request) as service:
            version = offered(_catalog(request, service), request.path_params["version"])
        path, digest = shelf.box(version, _provider(request.path_params["provider"]))
        # what continues a download learns from it whether it is still the same box
        tag = {"ETag": f'"{digest}"'}
        return FileResponse(path, headers=tag, media_type="application/vnd.vagrant.box")

    return Starlette(
        routes=[
            Route("/", names),
            Route(f"/{place}", catalog),
            Route(f"/api/v2/vagrant/{place}", catalog),
            Route(f"/{place}/{{version}}/{{provider}}.box", box),
        ],
        exception_handlers={GalleriaError: _refusal},
    )


def _base(request: Request) -> str:
    """Where this application is, for who asks (`base_url` is where the outermost one is)."""
    return str(request.url.replace(path=f"{request.scope['root_path']}/", query=""))


def _catalog(request: Request, service: GalleryService) -> BoxCatalog:
    definition = request.path_params["definition"].removesuffix(".json")
    return box_catalog(f"{request.path_params['gallery']}/{definition}", service, utc_now())


def _provider(name: str) -> Provider:
    try:
        return Provider(name)
    except ValueError:
        known = ", ".join(provider.value for provider in Provider)
        raise NotFound(f"there is no provider {name!r}: {known}") from None


async def _refusal(request: Request, error: Exception) -> Response:
    if not isinstance(error, GalleriaError):
        raise error
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
    return JSONResponse({"error": error.plain, "hint": error.hint}, status)
