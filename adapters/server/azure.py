"""The operations of Azure's REST API that are answered: method, path, and the function that does
it. Paths are those of Azure's specification; they compare without regard to case."""

from collections.abc import Iterator

from starlette.routing import BaseRoute

from adapters.server import galleries, operations, resources, scopes, shared, versions
from adapters.server.callers import Callers
from adapters.server.calls import AzureRoute, Operation
from pipeline.model import SharingPermissions
from pipeline.model.resource_names import ResourceKind

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = SUBSCRIPTION + "/resourceGroups/{group}"
COMPUTE = GROUP + "/providers/Microsoft.Compute"
GALLERIES = COMPUTE + "/galleries"
GALLERY = GALLERIES + "/{gallery}"
DEFINITIONS = GALLERY + "/images"
DEFINITION = DEFINITIONS + "/{definition}"
VERSIONS = DEFINITION + "/versions"
VERSION = VERSIONS + "/{version}"
BIN = GALLERY + "/softDeletedArtifactTypes/Images/artifacts/{definition}/versions"
LOCATION = SUBSCRIPTION + "/providers/Microsoft.Compute/locations/{location}"
OPERATION = LOCATION + "/capsOperations/{operation}"

OPERATIONS: tuple[tuple[str, str, Operation], ...] = (
    ("GET", "/tenants", scopes.list_tenants),
    ("GET", "/subscriptions", scopes.list_subscriptions),
    ("GET", SUBSCRIPTION, scopes.get_subscription),
    ("GET", SUBSCRIPTION + "/locations", scopes.list_locations),
    ("GET", SUBSCRIPTION + "/resourceGroups", scopes.list_groups),
    ("HEAD", GROUP, scopes.has_group),
    ("GET", GROUP, scopes.get_group),
    ("PUT", GROUP, scopes.put_group),
    ("PATCH", GROUP, scopes.patch_group),
    ("DELETE", GROUP, scopes.delete_group),
    ("GET", SUBSCRIPTION + "/providers/Microsoft.Compute/galleries", galleries.list_galleries),
    ("GET", GALLERIES, galleries.list_galleries),
    ("GET", GALLERY, galleries.get_gallery),
    ("PUT", GALLERY, galleries.put_gallery),
    ("PATCH", GALLERY, galleries.patch_gallery),
    ("DELETE", GALLERY, galleries.delete_gallery),
    ("POST", GALLERY + "/share", shared.share),
    ("GET", DEFINITIONS, galleries.list_definitions),
    ("GET", DEFINITION, galleries.get_definition),
    ("PUT", DEFINITION, galleries.put_definition),
    ("PATCH", DEFINITION, galleries.patch_definition),
    ("DELETE", DEFINITION, galleries.delete_definition),
    ("GET", VERSIONS, versions.list_versions),
    ("GET", VERSION, versions.get_version),
    ("PUT", VERSION, versions.put_version),
    ("PATCH", VERSION, versions.patch_version),
    ("DELETE", VERSION, versions.delete_version),
    ("GET", BIN, versions.list_soft_deleted),
    ("GET", OPERATION, operations.get_operation),
    ("GET", LOCATION + "/sharedGalleries", shared.list_shared),
    ("POST", "/providers/Microsoft.ResourceGraph/resources", shared.query),
)


RESOURCES = (
    ("disks", ResourceKind.DISK),
    ("snapshots", ResourceKind.SNAPSHOT),
    ("images", ResourceKind.IMAGE),
)


def _resources() -> Iterator[tuple[str, str, Operation]]:
    """Those of disks, snapshots and managed images, which are alike."""
    for name, kind in RESOURCES:
        act = resources.operations(kind)
        yield "GET", f"{SUBSCRIPTION}/providers/Microsoft.Compute/{name}", act["list"]
        yield "GET", f"{COMPUTE}/{name}", act["list"]
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            yield method, f"{COMPUTE}/{name}/{{name}}", act[method.lower()]


def _views() -> Iterator[tuple[str, str, Operation]]:
    """Galleries as others see them."""
    for name, kind in (
        ("sharedGalleries", SharingPermissions.GROUPS),
        ("communityGalleries", SharingPermissions.COMMUNITY),
    ):
        for below, act in shared.views(kind).items():
            yield "GET", f"{LOCATION}/{name}/{{name}}{below}", act


def routes(callers: Callers) -> list[BaseRoute]:
    everything = (*OPERATIONS, *_resources(), *_views())
    return [AzureRoute(method, path, act, callers) for method, path, act in everything]
