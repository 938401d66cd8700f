"""The operations of a session and the actions that they take, as the code has them."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping

from pipeline.gallery.access import views
from pipeline.gallery.access.grants import Grants
from pipeline.gallery.access.subjects import Access
from pipeline.gallery.access.views import SharedViews
from pipeline.gallery.service import GalleryService
from pipeline.gallery.service import resources as resource_service
from pipeline.gallery.service.resources import ResourceService
from pipeline.gallery.service.runs import RunService
from pipeline.model.access import Action

SERVICES = (GalleryService, ResourceService, RunService, Grants, SharedViews)

# What decides, by name: the first argument of each is the action.
GUARDS = {"read", "write", "visible", "one", "require", "_require", "_require_host", "decide"}
# The tables by which one operation takes another action for each kind of resource or share.
TABLES: Mapping[str, Mapping[object, Action]] = {
    name: getattr(module, name)
    for module, names in (
        (resource_service, ("READ", "USE", "WRITE", "DELETE")),
        (views, ("_GALLERY", "_DEFINITION", "_VERSION")),
    )
    for name in names
}


def operations() -> dict[str, Callable[..., object]]:
    """Every public method of the services, by the name of its service and its own."""
    return {
        f"{service.__name__}.{name}": method
        for service in SERVICES
        for name, method in inspect.getmembers(service, inspect.isfunction)
        if not name.startswith("_")
    }


def actions() -> dict[str, set[Action]]:
    """By operation, the actions that its code asks for before it can reach the catalog; empty where
    it asks for none."""
    services = {service.__name__: service for service in SERVICES}
    return {
        name: set(_actions(services[name.partition(".")[0]], method, set()))
        for name, method in operations().items()
    }


def _actions(service: type, method: Callable[..., object], seen: set[str]) -> Iterator[Action]:
    """Those of a method and of what it calls of its own service."""
    if method.__name__ in seen:
        return
    seen.add(method.__name__)
    tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if not isinstance(call.func, ast.Attribute):
            continue
        name, of = call.func.attr, ast.unparse(call.func.value)
        if name in GUARDS and of in ("self._access", "self") and call.args:
            yield from _named(call.args[0])
        own = getattr(service, name, None)
        if of == "self" and inspect.isfunction(own):
            yield from _actions(service, own, seen)
        if of == "self._views":
            yield from _actions(SharedViews, getattr(SharedViews, name), set())


def _named(argument: ast.expr) -> Iterator[Action]:
    match argument:
        case ast.Attribute(value=ast.Name(id="Action"), attr=name):
            yield Action[name]
        case ast.Subscript(value=ast.Name(id=table)):
            yield from TABLES[table].values()


assert {name for name in GUARDS if not name.startswith("_")} <= set(dir(Access))
