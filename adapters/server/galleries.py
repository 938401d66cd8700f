"""Galleries, and the image definitions in them."""

from dataclasses import replace

from adapters.server.calls import Answer, Call, deleted, page
from pipeline.errors import NotFound
from pipeline.gallery import arm
from pipeline.gallery.arm import definitions, galleries
from pipeline.model import Gallery, ImageDefinition, SharingPermissions
from pipeline.model.sharing import Sharing
from pipeline.model.spelling import region_key

# --- galleries -----------------------------------------------------------------------------------


def list_galleries(call: Call) -> Answer:
    """Of a subscription, or of one of its resource groups."""
    found = call.session.gallery.list_galleries(call.path["subscription"])
    group = call.path.get("group", "").lower()
    items = [item for item in found if group in ("", item.name.resource_group.lower())]
    return page(call, items, lambda item: item.name.key, galleries.gallery)


def get_gallery(call: Call) -> Answer:
    found = call.session.gallery.get_gallery(call.gallery)
    return Answer(galleries.gallery(found, _sharing(call, found)))


def put_gallery(call: Call) -> Answer:
    body = galleries.read_gallery(call.body)
    is_new = not _is_there(call)
    call.session.gallery.create_gallery(
        call.gallery,
        body.location,
        description=body.properties.description,
        tags=body.tags,
        soft_delete_policy=body.properties.soft_delete_policy,
        permissions=body.permissions or SharingPermissions.PRIVATE,
    )
    _share(call, body)
    return replace(get_gallery(call), status=201 if is_new else 200)


def patch_gallery(call: Call) -> Answer:
    """A PUT of what is there, changed."""

    def change(old: Gallery) -> Gallery:
        body = galleries.read_gallery(arm.merged(galleries.gallery(old), call.body))
        same_place = region_key(body.location) == region_key(old.location)
        return replace(
            old,
            location=old.location if same_place else body.location,
            description=body.properties.description,
            tags=body.tags,
            soft_delete_policy=body.properties.soft_delete_policy or old.soft_delete_policy,
        )

    changed = call.session.gallery.update_gallery(call.gallery, change)
    _share(call, galleries.read_gallery(arm.merged(galleries.gallery(changed), call.body)))
    return get_gallery(call)


def delete_gallery(call: Call) -> Answer:
    return deleted(lambda: call.session.gallery.delete_gallery(call.gallery))


def _is_there(call: Call) -> bool:
    try:
        call.session.gallery.get_gallery(call.gallery)
    except NotFound:
        return False
    return True


def _share(call: Call, body: galleries.GalleryBody) -> None:
    """Change the kind of a gallery that is there, and how it presents itself, where the body says
    something else."""
    if body.permissions is None and body.community is None:
        return
    grants, name = call.session.grants, call.gallery
    current = grants.sharing(name)
    if body.permissions not in (None, current.permissions):
        grants.set_permissions(name, body.permissions)
    told = current.community and replace(current.community, public_name="")
    if body.community not in (None, told):
        grants.describe_community(name, body.community)


def _sharing(call: Call, gallery: Gallery) -> Sharing | None:
    """What a gallery's own users see of its sharing: with whom, if they ask, and its community."""
    asked = "sharingprofile/groups" in call.query.get("$expand", "").lower()
    public = gallery.sharing_profile.permissions is SharingPermissions.COMMUNITY
    return call.session.grants.sharing(gallery.name) if asked or public else None


# --- image definitions ---------------------------------------------------------------------------


def list_definitions(call: Call) -> Answer:
    found = call.session.gallery.list_definitions(call.gallery)
    return page(call, found, lambda item: item.name.key, definitions.definition)


def get_definition(call: Call) -> Answer:
    return Answer(definitions.definition(call.session.gallery.get_definition(call.definition)))


def put_definition(call: Call) -> Answer:
    wanted = definitions.read_definition(call.definition, call.body, call.api_version)
    try:
        call.session.gallery.get_definition(call.definition)
        status = 200
    except NotFound:
        status = 201
    made = call.session.gallery.create_definition(
        wanted.definition, allow_update_image=wanted.allow_update_image
    )
    return Answer(definitions.definition(made), status)


def patch_definition(call: Call) -> Answer:
    """A PUT of what is there, changed."""

    def wanted(old: ImageDefinition) -> definitions.WantedDefinition:
        whole = arm.merged(definitions.definition(old), call.body)
        return definitions.read_definition(old.name, whole, call.api_version)

    def change(old: ImageDefinition) -> ImageDefinition:
        return replace(wanted(old).definition, created=old.created)

    gallery = call.session.gallery
    allow = wanted(gallery.get_definition(call.definition)).allow_update_image
    changed = gallery.update_definition(call.definition, change, allow_update_image=allow)
    return Answer(definitions.definition(changed))


def delete_definition(call: Call) -> Answer:
    return deleted(lambda: call.session.gallery.delete_definition(call.definition))
