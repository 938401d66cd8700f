"""What stands between whoever asks and the gallery: every operation is decided here, once.

An operation that the table does not name is for the owner of the whole catalog alone.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from pipeline.errors import Conflict, GalleriaError
from pipeline.gallery import rules
from pipeline.gallery.access.shared_ids import is_shared_reference
from pipeline.gallery.access.subjects import Access
from pipeline.gallery.access.views import SharedViews
from pipeline.gallery.service import GalleryService
from pipeline.model import Deployment, Gallery, ScaleSet
from pipeline.model.access import ROOT, Action
from pipeline.model.names import DefinitionName, Reference, VersionName, parse_reference

_OWN = object()  # on a version that only the process which took it, by another row, has in hand
_MADE = object()  # VMs, which are given up by who made them, or who may delete their disks
_SET = object()  # scale sets: of who made them, or who may write and delete such
_MEMBER = object()  # a tenant, which those who belong to it know
_SHOWN = object()  # a list, of which each sees what it may see


@dataclass(frozen=True, slots=True)
class _On:
    """An action on what the arguments name, if that is not simply the first of them."""

    action: Action
    id: Callable[..., str]


def _subscription(identity: str, *_: object, **__: object) -> str:
    return f"/subscriptions/{identity}"


def _group(subscription: str, name: str, *_: object, **__: object) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{name}"


def _root(*_: object, **__: object) -> str:
    return ROOT


# Each operation of the service, and the action that it is on what its first argument names.
OPERATIONS: Mapping[str, object] = {
    "create_tenant": _On(Action.TENANT_WRITE, _root),
    "get_tenant": _MEMBER,
    "list_tenants": _SHOWN,
    "delete_tenant": _On(Action.TENANT_WRITE, _root),
    "get_subscription": _On(Action.SUBSCRIPTION_READ, _subscription),
    "create_subscription": _On(Action.SUBSCRIPTION_WRITE, _root),
    "list_subscriptions": _SHOWN,
    "delete_subscription": _On(Action.SUBSCRIPTION_WRITE, _root),
    "create_resource_group": _On(Action.GROUP_WRITE, _group),
    "list_resource_groups": _On(Action.GROUP_READ, _subscription),
    "delete_resource_group": _On(Action.GROUP_DELETE, _group),
    "create_gallery": Action.GALLERY_WRITE,
    "update_gallery": Action.GALLERY_WRITE,
    "get_gallery": Action.GALLERY_READ,
    "list_galleries": _SHOWN,
    "check_gallery_deletable": Action.GALLERY_DELETE,
    "delete_gallery": Action.GALLERY_DELETE,
    "create_definition": Action.DEFINITION_WRITE,
    "update_definition": Action.DEFINITION_WRITE,
    "get_definition": Action.DEFINITION_READ,
    "list_definitions": _SHOWN,
    "delete_definition": Action.DEFINITION_DELETE,
    "list_channels": Action.VERSION_READ,
    "remove_channel": Action.VERSION_WRITE,
    "promote": Action.VERSION_WRITE,
    "get_version": Action.VERSION_READ,
    "list_versions": Action.VERSION_READ,
    "count_versions": Action.VERSION_READ,
    "latest_version": Action.VERSION_READ,
    "retention": Action.VERSION_READ,
    "expired": Action.VERSION_READ,
    "cautions": Action.VERSION_READ,
    "report": Action.VERSION_READ,
    "parents_of": Action.VERSION_READ,
    "resolve": Action.VERSION_READ,
    "begin_version": Action.VERSION_WRITE,
    "try_version": Action.VERSION_WRITE,
    "begin_replication": Action.VERSION_WRITE,
    "begin_update": Action.VERSION_WRITE,
    "undelete": Action.VERSION_WRITE,
    "check_in_the_bin": Action.VERSION_READ,
    "begin_delete": Action.VERSION_DELETE,
    "record_deployments": Action.VERSION_READ,
    "forget_deployments": _MADE,
    "list_deployments": _SHOWN,
    "put_scale_set": _SET,
    "list_scale_sets": _SHOWN,
    "delete_scale_set": _SET,
    "is_interrupted": _OWN,
    "check_disk": _OWN,
    "check_source": _OWN,
    "check_deletable": _OWN,
    "region_left": _OWN,
    "set_regions": _OWN,
    "record_contents": _OWN,
    "finish_version": _OWN,
    "hand_over": _OWN,
    "abandon_version": _OWN,
    "finish_delete": _OWN,
}

# What may be done with what was resolved by its shared name.
_VIEWED = frozenset({Action.DEFINITION_READ, Action.VERSION_READ})

# What stands in a conflict with something that the subject can't see must not name it.
_VEILED = frozenset({"create_gallery", "create_definition", "update_definition"})


class GuardedGallery:
    """The service, for one subject."""

    def __init__(
        self, gallery: GalleryService, access: Access, views: SharedViews, *, whole: bool
    ) -> None:
        self._gallery = gallery
        self._access = access
        self._views = views
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._gallery, name)
        if name.startswith("_") or not callable(method):
            raise AttributeError(name)
        return partial(self._call, name, method)

    def _call(self, name: str, method: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        rule = OPERATIONS.get(name)
        if rule is _SHOWN:
            return self._shown(name, method, *args, **options)
        first = args[0]
        if name == "resolve" and isinstance(first, str) and is_shared_reference(first):
            return self._views.resolve(first, lambda real: method(real, *args[1:], **options))
        if isinstance(rule, Action):
            self._check(rule, first)
        elif isinstance(rule, _On):
            self._access.require(rule.action, rule.id(*args, **options))
        elif rule is _MADE:
            self._check_made(args[1])
        elif rule is _SET:
            args = (first, self._checked_set(name, first, args[1]))
        elif rule is _MEMBER:
            self._check_member(first)
        elif rule is not _OWN:
            self._access.require(Action.SUBSCRIPTION_WRITE, ROOT, name)
        if name == "record_deployments":
            maker = self._access.principal
            args = (first, [replace(item, deployed_by=maker) for item in args[1]])
        if name not in _VEILED:
            return method(*args, **options)
        try:
            return method(*args, **options)
        except Conflict as error:
            raise self._veiled(error, first) from None

    def _check(self, action: Action, subject: object) -> None:
        named = _named(subject)
        if action not in _VIEWED or not self._views.granted(named.arm_id):
            self._access.require(action, named.arm_id, named)

    def _check_made(self, deployments: Iterable[Deployment]) -> None:
        for item in deployments:
            if not self._made(item):
                self._access.require(Action.DISK_DELETE, item.version.arm_id, item.name)

    def _made(self, item: Deployment | ScaleSet) -> bool:
        maker = item.deployed_by if isinstance(item, Deployment) else item.created_by
        return bool(maker) and maker == self._access.principal

    def _checked_set(self, name: str, version: VersionName, item: ScaleSet) -> ScaleSet:
        """A scale set that may be made, changed or deleted, as its maker's."""
        putting = name == "put_scale_set"
        known = {found.name: found for found in self._gallery.list_scale_sets()}
        old = known.get(item.name)
        if old is not None and not self._made(old):
            action = Action.SCALE_SET_WRITE if putting else Action.SCALE_SET_DELETE
            self._access.require(action, old.version.arm_id, old.name)
        if putting:
            self._check(Action.VERSION_READ, version)
        return replace(item, created_by=old.created_by if old else self._access.principal)

    def _member(self, identity: str) -> bool:
        access = self._access
        return identity.lower() in access.subject.tenants or access.may(Action.TENANT_READ, ROOT)

    def _check_member(self, identity: str) -> None:
        if not self._member(identity):
            id = f"/tenants/{identity}"
            self._access.record(Action.TENANT_READ, id, "belongs to another tenant")
            rules.existing(None, id)

    def _shown(self, name: str, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What of a list the subject may see. A gallery that it only has a part of is there
        without its properties."""
        access = self._access
        if name == "list_definitions":
            gallery = _named(args[0])
            if not access.sees(gallery.arm_id):
                access.require(Action.GALLERY_READ, gallery.arm_id, gallery)
        found = method(*args, **options)
        if name == "list_definitions":
            return [item for item in found if access.may(Action.DEFINITION_READ, item.name.arm_id)]
        if name == "list_tenants":
            return [item for item in found if self._member(item.id)]
        if name == "list_subscriptions":
            return [item for item in found if access.sees(_subscription(item.id))]
        if name == "list_galleries":
            return [self._gallery_shown(item) for item in found if access.sees(item.name.arm_id)]
        if self._whole:
            return found
        return [
            item
            for item in found
            if self._made(item) or access.may(Action.VERSION_READ, item.version.arm_id)
        ]

    def _gallery_shown(self, gallery: Gallery) -> Gallery:
        if self._access.may(Action.GALLERY_READ, gallery.name.arm_id):
            return gallery
        return Gallery(gallery.name, gallery.location, gallery.created)

    def _veiled(self, error: Conflict, subject: object) -> GalleriaError:
        named = _named(subject)
        gallery = named.gallery if isinstance(named, DefinitionName) else None
        around = gallery.arm_id if gallery else _subscription(named.subscription)
        if self._access.may(Action.GALLERY_READ, around):
            return error
        return Conflict(
            "The request conflicts with a resource that exists already.", code=error.reason
        )


def guarded(
    gallery: GalleryService, access: Access, views: SharedViews, *, whole: bool = False
) -> GalleryService:
    """The service as `access` allows it. `whole` is for the jobs: to know which bases are in use
    they need all deployments, whoever's they are."""
    return cast(GalleryService, GuardedGallery(gallery, access, views, whole=whole))


def _named(subject: Any) -> Any:
    """The name of the resource that an argument names or is."""
    if isinstance(subject, str):
        subject = parse_reference(subject)
    if isinstance(subject, Reference):
        if subject.number is None:
            return subject.definition
        return VersionName(subject.definition, subject.number)
    if isinstance(subject, Deployment):
        return subject.version
    return subject.name if not hasattr(subject, "arm_id") else subject
