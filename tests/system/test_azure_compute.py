"""Azure's own client, azure-mgmt-compute, against `galleria serve`: unchanged, over TLS."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.core.rest import HttpRequest
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient, models

from adapters.catalog import open_catalog
from pipeline.model.names import VersionName, VersionNumber, parse_version
from pipeline.model.runs import RunState
from tests.azure import SUBSCRIPTION, TENANT, Server, misfits, serving
from tests.home import Home, deletable

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

GROUP = "galleria"
MIB = 1 << 20
COMPUTE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Compute"
WEB: dict[str, Any] = {
    "location": "eu",
    "properties": {
        "osType": "Linux",
        "osState": "Specialized",
        "hyperVGeneration": "V1",
        "identifier": {"publisher": "p", "offer": "o", "sku": "web"},
    },
}


def a_disk(path: Path, seed: int, data: int = 1) -> Path:
    """A disk of 4 MiB and some content."""
    path.write_bytes((bytes([seed]) * 4095 + b"x") * (data * MIB // 4096) + bytes(3 * MIB))
    return path


def secret_of(home: Home, name: str, role: str, scope: str) -> str:
    home.run("principal", "create", name, "--type", "ServicePrincipal")
    home.run("role", "assign", "--assignee", name, "--role", role, "--scope", scope)
    return str(home.json("principal", "credential", "reset", name)["password"])


@contextmanager
def client_of(server: Server, name: str, secret: str) -> Iterator[Any]:
    with (
        ClientSecretCredential(
            "adfs", name, secret, authority=server.url, connection_verify=server.authority
        ) as credential,
        ComputeManagementClient(
            credential,
            SUBSCRIPTION,
            base_url=server.url,
            credential_scopes=[f"{server.url}/.default"],
            connection_verify=server.authority,
        ) as client,
    ):
        yield client


def furnished(home: Home) -> None:
    home.run("init", "--region", f"eu={home.path}/eu", "--region", f"UK South={home.path}/uk")
    home.run("snapshot", "create", "-n", "s1", str(a_disk(home.path / "a.raw", 1)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("home"))
    furnished(made)
    yield made
    deletable(made.path)


@pytest.fixture(scope="module")
def server(home: Home) -> Iterator[Server]:
    with serving(home) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: Server, home: Home) -> Iterator[Any]:
    with client_of(server, "ci", secret_of(home, "ci", "Owner", "/")) as made:
        yield made


def fits(model: type, found: Any) -> Any:
    """What an answer is, if it is what the SDK's model says."""
    assert list(misfits(model, found.as_dict())) == []
    return found


@pytest.fixture(scope="module")
def corp(client: Any) -> str:
    """A gallery with a definition."""
    client.galleries.begin_create_or_update(GROUP, "corp", {"location": "eu"}).result()
    client.gallery_images.begin_create_or_update(GROUP, "corp", "web", WEB).result()
    return "corp"


def version_of(source: str, **publishing: Any) -> dict[str, Any]:
    return {
        "location": "eu",
        "properties": {
            "storageProfile": {"osDiskImage": {"source": {"id": source}}},
            "publishingProfile": publishing,
        },
    }


SNAPSHOT = f"{COMPUTE}/snapshots/s1"


# --- galleries and definitions --------------------------------------------------------------------


def test_the_life_of_a_gallery(client: Any) -> None:
    galleries = client.galleries
    body: dict[str, Any] = {
        "location": "eu",
        "tags": {"a": "b"},
        "properties": {"description": "first"},
    }
    made = fits(models.Gallery, galleries.begin_create_or_update(GROUP, "Life", body).result())
    assert (made.id, made.location, made.tags) == (f"{COMPUTE}/galleries/Life", "eu", {"a": "b"})
    assert made.properties.provisioning_state == "Succeeded"
    assert made.properties.identifier.unique_name == f"{SUBSCRIPTION}-LIFE"
    # a client sends back what it got
    whole = made.as_dict()
    whole["properties"]["description"] = "second"
    again = galleries.begin_create_or_update(GROUP, "life", whole).result()
    assert (again.name, again.properties.description) == ("Life", "second")
    patch = {"tags": {"c": "d"}, "properties": {"softDeletePolicy": {"isSoftDeleteEnabled": True}}}
    changed = galleries.begin_update(GROUP, "Life", patch).result()
    assert (changed.tags, changed.properties.description) == ({"c": "d"}, "second")
    assert changed.properties.soft_delete_policy.is_soft_delete_enabled
    found = fits(models.Gallery, galleries.get("GALLERIA", "LIFE"))
    assert found.as_dict() == changed.as_dict()
    assert "Life" in [item.name for item in galleries.list()]
    assert "Life" in [item.name for item in galleries.list_by_resource_group(GROUP)]
    galleries.begin_delete(GROUP, "Life").result()
    with pytest.raises(ResourceNotFoundError) as caught:
        galleries.get(GROUP, "Life")
    assert caught.value.error is not None
    assert caught.value.error.code == "ResourceNotFound"
    galleries.begin_delete(GROUP, "Life").result()  # as often as one likes


def test_the_life_of_a_definition(client: Any, corp: str) -> None:
    images = client.gallery_images
    properties = {
        **WEB["properties"],
        "osType": "linux",
        "osState": "generalized",
        "hyperVGeneration": "v2",
        "identifier": {"publisher": "p", "offer": "o", "sku": "life"},
        "recommended": {"vCPUs": {"min": 1, "max": 4}, "memory": {"min": 1024, "max": None}},
        "endOfLifeDate": "2040-01-01T00:00:00Z",
        "disallowed": {"diskTypes": ["Standard_LRS"]},
        "description": None,
    }
    body = {"location": "EU", "properties": properties}
    made = fits(
        models.GalleryImage, images.begin_create_or_update(GROUP, corp, "life", body).result()
    )
    told = made.as_dict()["properties"]
    assert (told["osType"], told["osState"], told["hyperVGeneration"]) == (
        *("Linux", "Generalized"),
        "V2",
    )
    assert told["endOfLifeDate"] == "2040-01-01T00:00:00+00:00"
    assert told["features"] == [{"name": "SecurityType", "value": "TrustedLaunchSupported"}]
    again = images.begin_create_or_update(GROUP, corp, "life", made.as_dict()).result()
    assert again.as_dict() == made.as_dict()
    changed = images.begin_update(
        GROUP, corp, "life", {"properties": {"description": "d", "recommended": {"memory": {}}}}
    ).result()
    assert changed.properties.description == "d"
    assert changed.properties.recommended.v_cp_us.max == 4
    assert {item.name for item in images.list_by_gallery(GROUP, corp)} >= {"web", "life"}
    with pytest.raises(ResourceExistsError, match="Changing property") as caught:
        images.begin_update(GROUP, corp, "life", {"properties": {"osType": "Windows"}})
    assert caught.value.error is not None
    assert caught.value.error.code == "PropertyChangeNotAllowed"
    images.begin_delete(GROUP, corp, "life").result()
    with pytest.raises(ResourceNotFoundError):
        images.get(GROUP, corp, "life")


def test_defaults_are_those_of_the_api_version(client: Any, corp: str) -> None:
    for version, generation in (("2021-10-01", "V1"), ("2025-03-03", "V2")):
        body = json.loads(json.dumps(WEB))
        del body["properties"]["hyperVGeneration"]
        name = f"d{version}"
        body["properties"]["identifier"]["sku"] = name
        made = client.gallery_images.begin_create_or_update(
            GROUP, corp, name, body, api_version=version
        ).result()
        assert made.properties.hyper_v_generation == generation


REFUSED: list[tuple[str, dict[str, Any], type[HttpResponseError], str, str]] = [
    ("x", {}, HttpResponseError, "LocationRequired", "location property is required"),
    ("x", {"location": "mars"}, HttpResponseError, "LocationNotAvailableForResourceType", "mars"),
    ("a-b", {"location": "eu"}, HttpResponseError, "InvalidParameter", "Gallery name is invalid"),
    (
        "x",
        {"location": "eu", "properties": {"colour": "red"}},
        HttpResponseError,
        "InvalidParameter",
        "Could not find member 'colour' on object of type 'GalleryProperties'",
    ),
    (
        "x",
        {"location": "eu", "properties": {"description": 1}},
        HttpResponseError,
        "InvalidParameter",
        "is not a string",
    ),
]


@pytest.mark.parametrize(("name", "body", "kind", "code", "said"), REFUSED)
def test_what_is_refused(
    client: Any,
    name: str,
    body: dict[str, Any],
    kind: type[HttpResponseError],
    code: str,
    said: str,
) -> None:
    with pytest.raises(kind, match=said) as caught:
        client.galleries.begin_create_or_update(GROUP, name, body)
    assert caught.value.status_code == 400
    assert caught.value.error is not None
    assert caught.value.error.code == code


# --- versions -------------------------------------------------------------------------------------


def test_the_life_of_a_version(client: Any, corp: str) -> None:
    versions = client.gallery_image_versions
    where = (GROUP, corp, "web")
    body = version_of(SNAPSHOT, targetRegions=[{"name": "eu"}, {"name": "uksouth"}])
    begun = versions.begin_create_or_update(*where, "1.0.0", body)
    taken = versions.get(*where, "1.0.0")  # its number is taken at once
    assert taken.properties.provisioning_state in ("Creating", "Succeeded")
    made = fits(models.GalleryImageVersion, begun.result())
    assert made.properties.provisioning_state == "Succeeded"
    assert made.properties.storage_profile.os_disk_image.source.id == SNAPSHOT
    regions = made.properties.publishing_profile.target_regions
    assert [item.name for item in regions] == ["eu", "UK South"]
    expanded = fits(
        models.GalleryImageVersion, versions.get(*where, "1.0.0", expand="ReplicationStatus")
    )
    status = expanded.properties.replication_status
    assert status.aggregated_state == "Completed"
    assert {item.region: item.progress for item in status.summary} == {"eu": 100, "UK South": 100}
    # an equal PUT changes nothing; what it got may be sent back
    again = versions.begin_create_or_update(*where, "1.0.0", made.as_dict()).result()
    assert again.as_dict() == made.as_dict()
    patch = {
        "tags": {"a": "b"},
        "properties": {
            "publishingProfile": {"targetRegions": [{"name": "eu", "regionalReplicaCount": 2}]},
            "safetyProfile": {"allowDeletionOfReplicatedLocations": True},
        },
    }
    changed = versions.begin_update(*where, "1.0.0", patch).result()
    assert changed.tags == {"a": "b"}
    targets = changed.properties.publishing_profile.target_regions
    assert [(item.name, item.regional_replica_count) for item in targets] == [("eu", 2)]
    with pytest.raises(ResourceExistsError) as caught:
        client.gallery_images.begin_delete(*where)
    assert caught.value.error is not None
    assert caught.value.error.code == "CannotDeleteResource"
    versions.begin_delete(*where, "1.0.0").result()
    with pytest.raises(ResourceNotFoundError):
        versions.get(*where, "1.0.0")
    versions.begin_delete(*where, "1.0.0").result()


def test_what_a_version_keeps_for_life(client: Any, corp: str) -> None:
    versions = client.gallery_image_versions
    where = (GROUP, corp, "web", "2.0.0")
    versions.begin_create_or_update(*where, version_of(SNAPSHOT)).result()
    for change, code in (
        ({"storageProfile": {"osDiskImage": {"source": {"id": SNAPSHOT + "0"}}}}, "Property"),
        ({"storageProfile": {"dataDiskImages": [{"lun": 1}]}}, "Property"),
        ({"publishingProfile": {"replicationMode": "Shallow"}}, "Property"),
        ({"publishingProfile": {"storageAccountType": "Standard_ZRS"}}, "Property"),
    ):
        with pytest.raises(HttpResponseError) as caught:
            versions.begin_update(*where, {"properties": change})
        assert caught.value.error is not None
        assert str(caught.value.error.code).startswith(code), change
    # a new version of a version, and of a definition by its latest
    source = f"{COMPUTE}/galleries/{corp}/images/web/versions/2.0.0"
    body = {"location": "eu", "properties": {"storageProfile": {"source": {"id": source}}}}
    copy = versions.begin_create_or_update(GROUP, corp, "web", "2.0.1", body).result()
    assert copy.properties.storage_profile.source.id == source
    listed = [item.name for item in versions.list_by_gallery_image(GROUP, corp, "web")]
    assert [name for name in listed if name.startswith("2.")] == ["2.0.1", "2.0.0"]


def refused(call: Callable[[], Any]) -> tuple[int | None, str]:
    with pytest.raises(HttpResponseError) as caught:
        call()
    error = caught.value.error
    return caught.value.status_code, str(error.code) if error else ""


def test_versions_that_are_refused(client: Any, corp: str) -> None:
    """At once, by the answer to the PUT: no operation begins."""
    put = client.gallery_image_versions.begin_create_or_update
    where = (GROUP, corp, "web")
    good = version_of(SNAPSHOT)
    twice = json.loads(json.dumps(good))
    twice["properties"]["storageProfile"]["source"] = {"id": f"{COMPUTE}/images/i"}
    uri = json.loads(json.dumps(good))
    uri["properties"]["storageProfile"]["osDiskImage"]["source"] = {"uri": "https://x/os.vhd"}
    sets = [{"name": "eu", "encryption": {"osDiskImage": {"diskEncryptionSetId": "/x"}}}]
    for number, body, expected in (
        ("1.0", good, (400, "InvalidParameter")),
        ("v1.0.0", good, (400, "InvalidParameter")),
        ("9.0.0", {"location": "eu", "properties": {}}, (400, "InvalidSource")),
        ("9.0.0", twice, (400, "InvalidSource")),
        ("9.0.0", uri, (400, "InvalidSource")),
        ("9.0.0", version_of(f"{SNAPSHOT}0"), (404, "ResourceNotFound")),
        ("9.0.0", version_of("/etc/passwd"), (400, "InvalidParameter")),
        ("9.0.0", version_of(f"{COMPUTE}/images/i"), (400, "InvalidParameter")),
        ("9.0.0", version_of(SNAPSHOT, targetRegions=[{"name": "uksouth"}]), (400, "")),
        ("9.0.0", version_of(SNAPSHOT, targetRegions=sets), (400, "DiskEncryptionSetNotFound")),
        ("9.0.0", version_of(SNAPSHOT, colour="red"), (400, "InvalidParameter")),
    ):
        status, code = refused(partial(put, *where, number, body))
        assert (status, code if expected[1] else "") == expected, (body, code)
    assert refused(lambda: put(GROUP, corp, "none", "1.0.0", good)) == (
        404,
        "ParentResourceNotFound",
    )
    runs = client.gallery_image_versions.list_by_gallery_image(GROUP, corp, "web")
    assert "9.0.0" not in [item.name for item in runs]


def test_soft_deletion(client: Any) -> None:
    body = {
        "location": "eu",
        "properties": {"softDeletePolicy": {"isSoftDeleteEnabled": True}},
    }
    client.galleries.begin_create_or_update(GROUP, "bin", body).result()
    client.gallery_images.begin_create_or_update(GROUP, "bin", "web", WEB).result()
    versions, where = client.gallery_image_versions, (GROUP, "bin", "web", "1.0.0")
    versions.begin_create_or_update(*where, version_of(SNAPSHOT)).result()
    versions.begin_delete(*where).result()
    with pytest.raises(ResourceNotFoundError):
        versions.get(*where)
    gone = client.soft_deleted_resource.list_by_artifact_name(GROUP, "bin", "images", "web")
    (item,) = gone
    assert item.properties.resource_arm_id.endswith("/versions/1.0.0")
    # as `az sig image-version undelete` does it
    back = versions.begin_create_or_update(*where, {"location": "eu", "tags": {}}).result()
    assert back.properties.provisioning_state == "Succeeded"
    versions.begin_delete(*where).result()
    restore = {"properties": {"restore": True, "storageProfile": {}}}
    versions.begin_update(*where, restore).result()
    assert versions.get(*where).name == "1.0.0"


def test_pages(client: Any, home: Home, corp: str) -> None:
    """More versions than an answer has: their records are copies of one."""
    body = json.loads(json.dumps(WEB))
    body["properties"]["identifier"]["sku"] = "many"
    client.gallery_images.begin_create_or_update(GROUP, corp, "many", body).result()
    versions = client.gallery_image_versions
    made = versions.begin_create_or_update(GROUP, corp, "many", "0.0.0", version_of(SNAPSHOT))
    made.result()
    name = parse_version(f"{corp}/many/0.0.0")
    catalog = open_catalog(f"sqlite:///{home.path}/state/galleria/catalog.db")
    with catalog.write() as writer:
        first = writer.version(name)
        assert first is not None
        for patch in range(1, 250):
            number = VersionName(name.definition, VersionNumber(0, 0, patch))
            writer.put_version(replace(first, name=number, uid=f"{patch:032x}"))
    catalog.close()
    pages = versions.list_by_gallery_image(GROUP, corp, "many").by_page()
    listed = [[item.name for item in page] for page in pages]
    assert [len(page) for page in listed] == [100, 100, 50]
    expected = [f"0.0.{patch}" for patch in range(249, -1, -1)]
    assert [name for page in listed for name in page] == expected


# --- what versions are made from ------------------------------------------------------------------


def test_disks_snapshots_and_images(client: Any, corp: str) -> None:
    """A disk from a snapshot, a snapshot of it, an image of that, a version of the image; then a
    disk from the version."""
    disks, snapshots, images = client.disks, client.snapshots, client.images
    copy = {"location": "eu", "properties": {"creationData": {"createOption": "Copy"}}}

    def copied(source: str, **more: Any) -> dict[str, Any]:
        data = {"createOption": "Copy", "sourceResourceId": source}
        return {**copy, "properties": {"creationData": data, **more}, "tags": {"a": "b"}}

    body = copied(SNAPSHOT, osType="Linux", hyperVGeneration="V1")
    disk = fits(models.Disk, disks.begin_create_or_update(GROUP, "d1", body).result())
    assert (disk.provisioning_state, disk.disk_size_bytes) == ("Succeeded", 4 * MIB)
    assert disk.creation_data.source_resource_id == SNAPSHOT
    again = disks.begin_create_or_update(GROUP, "d1", body | {"tags": {}}).result()
    assert (again.tags, again.unique_id) == ({}, disk.unique_id)
    body = copied(disk.id, incremental=True)
    snapshot = fits(models.Snapshot, snapshots.begin_create_or_update(GROUP, "s2", body).result())
    assert snapshot.incremental
    profile = {"osDisk": {"osType": "Linux", "osState": "Generalized"}}
    profile["osDisk"]["snapshot"] = {"id": snapshot.id}  # type: ignore[assignment]
    wanted = {
        "location": "eu",
        "properties": {"storageProfile": profile, "hyperVGeneration": "V1"},
    }
    image = fits(models.Image, images.begin_create_or_update(GROUP, "i1", wanted).result())
    assert image.storage_profile.os_disk.snapshot.id == snapshot.id
    assert [item.name for item in images.list()] == ["i1"]
    source = {"storageProfile": {"source": {"id": image.id}}}
    versions = client.gallery_image_versions
    body = {"location": "eu", "properties": source}
    generalized = json.loads(json.dumps(WEB))
    generalized["properties"] |= {"osState": "Generalized"}
    generalized["properties"]["identifier"]["sku"] = "generalized"
    client.gallery_images.begin_create_or_update(GROUP, corp, "gen", generalized).result()
    version = versions.begin_create_or_update(GROUP, corp, "gen", "1.0.0", body).result()
    assert version.properties.storage_profile.source.id == image.id
    data = {"createOption": "FromImage", "galleryImageReference": {"id": version.id}}
    body = {"location": "eu", "properties": {"creationData": data}}
    last = disks.begin_create_or_update(GROUP, "d2", body).result()
    assert last.creation_data.gallery_image_reference.id == version.id
    changed = disks.begin_update(GROUP, "d2", {"tags": {"x": "y"}}).result()
    assert changed.tags == {"x": "y"}
    assert {"d1", "d2"} <= {item.name for item in disks.list_by_resource_group(GROUP)}
    going = [disks.begin_delete(GROUP, "d2"), images.begin_delete(GROUP, "i1")]
    going += [snapshots.begin_delete(GROUP, "s2"), disks.begin_delete(GROUP, "d1")]
    for poller in going:
        poller.result()
    with pytest.raises(ResourceNotFoundError):
        disks.get(GROUP, "d1")


def test_resources_that_are_refused(client: Any) -> None:
    put = client.disks.begin_create_or_update
    for data, code in (
        ({"createOption": "Copy", "sourceResourceId": "/etc/passwd"}, "InvalidParameter"),
        ({"createOption": "Import", "sourceUri": "/etc/passwd"}, "InvalidParameter"),
        ({"createOption": "Upload", "uploadSizeBytes": 1 << 30}, "InvalidParameter"),
        ({"createOption": "Copy", "sourceResourceId": f"{SNAPSHOT}0"}, "ResourceNotFound"),
        ({"createOption": "Empty"}, "InvalidParameter"),
    ):
        body = {"location": "eu", "properties": {"creationData": data}}
        assert refused(partial(put, GROUP, "bad", body))[1] == code, data


# --- who may do what ------------------------------------------------------------------------------


def test_what_may_not_be_seen_is_not_there(
    client: Any, server: Server, home: Home, corp: str
) -> None:
    made = client.gallery_image_versions.begin_create_or_update(
        GROUP, corp, "web", "8.0.0", version_of(SNAPSHOT)
    )
    made.result()
    headers = made._polling_method._initial_response.http_response.headers
    home.run("principal", "create", "stranger", "--type", "ServicePrincipal")
    secret = home.json("principal", "credential", "reset", "stranger")["password"]
    with client_of(server, "stranger", secret) as stranger:
        assert list(stranger.galleries.list()) == []
        for call in (
            partial(stranger.galleries.get, GROUP, corp),
            partial(stranger.galleries.get, GROUP, "nowhere"),
            partial(stranger.gallery_images.get, GROUP, corp, "web"),
            partial(stranger.gallery_image_versions.get, GROUP, corp, "web", "8.0.0"),
            partial(stranger.snapshots.get, GROUP, "s1"),
            partial(stranger.galleries.begin_create_or_update, GROUP, "mine", {"location": "eu"}),
        ):
            assert refused(call) == (404, "ResourceNotFound")
        asked = HttpRequest("GET", headers["Azure-AsyncOperation"])
        assert stranger._client.send_request(asked).status_code == 404
    home.run("role", "assign", "--assignee", "stranger", "--role", "Reader", "--scope", corp)
    with client_of(server, "stranger", secret) as reader:
        assert reader.gallery_image_versions.get(GROUP, corp, "web", "8.0.0").name == "8.0.0"
        call = partial(reader.galleries.begin_update, GROUP, corp, {"tags": {}})
        assert refused(call) == (403, "AuthorizationFailed")
        call = partial(reader.gallery_image_versions.begin_delete, GROUP, corp, "web", "8.0.0")
        assert refused(call) == (403, "AuthorizationFailed")
    denied = home.json("audit", "list", "--denied", "--actor", "stranger")["entries"]
    assert {entry["address"] for entry in denied} == {"127.0.0.1"}
    numbers = {line["request"] for line in server.lines()}
    assert {entry["request"] for entry in denied} <= numbers


# --- sharing --------------------------------------------------------------------------------------


def test_sharing(client: Any, server: Server, home: Home) -> None:
    """Directly with a tenant, and with everyone: who has no role sees what is meant for it, under
    its shared name, and can use it."""
    info = {
        "publisherUri": "https://x.example",
        "publisherContact": "a@x.example",
        "eula": "eula",
        "publicNamePrefix": "pub",
    }
    for name, profile in (
        ("direct", {"permissions": "Groups"}),
        ("public", {"permissions": "Community", "communityGalleryInfo": info}),
    ):
        body = {"location": "eu", "properties": {"sharingProfile": profile}}
        made = client.galleries.begin_create_or_update(GROUP, name, body).result()
        fits(models.Gallery, made)
        client.galleries.begin_create_or_update(GROUP, name, made.as_dict()).result()
        client.gallery_images.begin_create_or_update(GROUP, name, "web", WEB).result()
    versions = client.gallery_image_versions
    begun = [
        versions.begin_create_or_update(GROUP, name, "web", "1.0.0", version_of(SNAPSHOT))
        for name in ("direct", "public")
    ]
    assert [poller.result().name for poller in begun] == ["1.0.0"] * 2
    share = client.gallery_sharing_profile.begin_update
    groups = [{"type": "AADTenants", "ids": [TENANT]}]
    share(GROUP, "direct", {"operationType": "Add", "groups": groups}).result()
    share(GROUP, "public", {"operationType": "EnableCommunity"}).result()
    expanded = fits(
        models.Gallery, client.galleries.get(GROUP, "direct", expand="SharingProfile/Groups")
    )
    assert [item.ids for item in expanded.properties.sharing_profile.groups] == [[TENANT]]
    told = fits(models.Gallery, client.galleries.get(GROUP, "public"))
    (public,) = told.properties.sharing_profile.community_gallery_info.public_names
    home.run("principal", "create", "guest", "--type", "ServicePrincipal")
    secret = home.json("principal", "credential", "reset", "guest")["password"]
    with client_of(server, "guest", secret) as guest:
        (seen,) = guest.shared_galleries.list("eu", shared_to="tenant")
        fits(models.SharedGallery, seen)
        unique = seen.name
        assert unique == f"{SUBSCRIPTION}-DIRECT"
        (image,) = guest.shared_gallery_images.list("eu", unique)
        fits(models.SharedGalleryImage, image)
        (item,) = guest.shared_gallery_image_versions.list("eu", unique, "web")
        fits(models.SharedGalleryImageVersion, item)
        assert item.identifier.unique_id.endswith(f"/{unique}/Images/web/Versions/1.0.0")
        assert item.properties.storage_profile.os_disk_image.disk_size_gb == 1
        fits(models.CommunityGallery, guest.community_galleries.get("eu", public))
        (image,) = guest.community_gallery_images.list("eu", public)
        fits(models.CommunityGalleryImage, image)
        one = guest.community_gallery_image_versions.get("eu", public, "web", "1.0.0")
        fits(models.CommunityGalleryImageVersion, one)
        assert refused(partial(guest.community_galleries.get, "uksouth", public))[0] == 404
        assert refused(partial(guest.galleries.get, GROUP, "public"))[0] == 404
        assert refused(partial(guest.shared_galleries.get, "eu", f"{SUBSCRIPTION}-X"))[0] == 404
        query = "communitygalleryresources| where type == '{}' | where location == 'eu' ".format(
            "microsoft.compute/locations/communitygalleries"
        )
        rows = graph(guest, server, {"query": query, "options": {"$top": 30}})
        assert [row["name"] for row in rows["data"]] == [public]
        assert "error" in graph(guest, server, {"query": "resources | project name"})
        # what is shared can be used: a disk in a group of its own
        group = f"{COMPUTE.rpartition('/providers')[0].rpartition('/')[0]}/guests"
        client._client.send_request(
            HttpRequest(
                "PUT", f"{server.url}{group}?api-version=2024-11-01", json={"location": "eu"}
            )
        ).raise_for_status()
        home.run("role", "assign", "--assignee", "guest", "--role", "Contributor", "--scope", group)
    with client_of(server, "guest", secret) as guest:
        reference = f"/CommunityGalleries/{public}/Images/web/Versions/latest"
        data = {
            "createOption": "FromImage",
            "galleryImageReference": {"communityGalleryImageId": reference},
        }
        disk = {"location": "eu", "properties": {"creationData": data}}
        made = fits(
            models.Disk, guest.disks.begin_create_or_update("guests", "mine", disk).result()
        )
        assert made.creation_data.gallery_image_reference.id.startswith("/CommunityGalleries/")
        guest.disks.begin_delete("guests", "mine").result()
    for name in ("direct", "public"):
        share(GROUP, name, {"operationType": "Reset"}).result()
    with client_of(server, "guest", secret) as guest:
        assert list(guest.shared_galleries.list("eu", shared_to="tenant")) == []
        assert refused(partial(guest.community_galleries.get, "eu", public))[0] == 404


def graph(client: Any, server: Server, body: dict[str, Any]) -> dict[str, Any]:
    url = f"{server.url}/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01"
    found = client._client.send_request(HttpRequest("POST", url, json=body)).json()
    assert isinstance(found, dict)
    return found


# --- regions that fail, processes that die --------------------------------------------------------


def test_a_region_that_fails(client: Any, home: Home, corp: str) -> None:
    """The operation fails, and names the region; what is Completed can be used; an update that
    asks for it again makes it."""
    versions, where = client.gallery_image_versions, (GROUP, corp, "web", "3.0.0")
    place, away = home.path / "uk", home.path / "uk.away"
    place.rename(away)
    try:
        regions = [{"name": "eu"}, {"name": "UK South"}]
        begun = versions.begin_create_or_update(*where, version_of(SNAPSHOT, targetRegions=regions))
        with pytest.raises(HttpResponseError, match="UK South"):
            begun.result()
    finally:
        with suppress(FileNotFoundError):
            place.rmdir()
        away.rename(place)
    found = versions.get(*where, expand="ReplicationStatus").properties
    assert found.provisioning_state == "Failed"
    states = {item.region: item.state for item in found.replication_status.summary}
    assert states == {"eu": "Completed", "UK South": "Failed"}
    again = versions.begin_update(*where, {"tags": {"again": "yes"}}).result()
    assert again.properties.provisioning_state == "Succeeded"


def test_an_operation_survives_its_server_and_its_process(tmp_path: Path) -> None:
    """Both are killed in the middle of a PUT: the operation's URL goes on to Succeeded."""
    home = Home(tmp_path)
    furnished(home)
    secret = secret_of(home, "ci", "Owner", "/")
    (home.path / "large.raw").write_bytes(os.urandom(48 * MIB))
    home.run("snapshot", "create", "-n", "large", str(home.path / "large.raw"))
    with serving(home) as server, client_of(server, "ci", secret) as client:
        port = server.port
        client.galleries.begin_create_or_update(GROUP, "corp", {"location": "eu"}).result()
        client.gallery_images.begin_create_or_update(GROUP, "corp", "web", WEB).result()
        begun = client.gallery_image_versions.begin_create_or_update(
            *(GROUP, "corp", "web", "1.0.0"),
            version_of(f"{COMPUTE}/snapshots/large"),
            polling=False,
        )
        headers = begun._polling_method._initial_response.http_response.headers
        url = headers["Azure-AsyncOperation"]
        server.stop(signal.SIGKILL)
        killed = kill_worker(home)
    with serving(home, port=port) as server, client_of(server, "ci", secret) as client:
        assert url.startswith(server.url)
        deadline = time.monotonic() + 60
        status = ""
        while status != "Succeeded" and time.monotonic() < deadline:
            answer = client._client.send_request(HttpRequest("GET", url))
            status = answer.json()["status"]
            assert status in ("InProgress", "Succeeded"), answer.text()
            time.sleep(0.2)
        assert status == "Succeeded"
        made = client.gallery_image_versions.get(GROUP, "corp", "web", "1.0.0")
        assert made.properties.provisioning_state == "Succeeded"
    assert killed
    deletable(home.path)


def kill_worker(home: Home) -> bool:
    """Kill the process that works on the newest publish, as soon as there is one."""
    catalog = open_catalog(f"sqlite:///{home.path}/state/galleria/catalog.db")
    try:
        for _ in range(1000):
            with catalog.read() as reader:
                (run,) = (run for run in reader.runs(ended=True) if run.kind.value == "publish")
            if run.state is not RunState.WAITING:
                break
            time.sleep(0.005)
        assert run.state is RunState.RUNNING, run
        os.kill(run.pid, signal.SIGKILL)
    finally:
        catalog.close()
    return True
