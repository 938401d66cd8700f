"""Managed images: where they are stored, how their disks are cached, how large those may be."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import InvalidParameter, Refused
from pipeline.gallery import answers, rules
from pipeline.gallery.documents import decode, encode
from pipeline.model import HostCaching, OsType, Region, StorageAccountType
from pipeline.model import Origin as From
from pipeline.model.resource_names import ResourceKind, parse_resource
from pipeline.model.resources import Content, ManagedImage
from pipeline.model.sources import DiskSource
from pipeline.ports.sources import Supply
from pipeline.resources.images import Storage
from pipeline.resources.opening import described
from tests.samples import NOW, services

LRS, ZRS = StorageAccountType.STANDARD_LRS, StorageAccountType.STANDARD_ZRS
PREMIUM = StorageAccountType.PREMIUM_LRS
NONE, READ, WRITE = HostCaching.NONE, HostCaching.READ_ONLY, HostCaching.READ_WRITE
GIB = 1 << 30
DISK = DiskSource(None, Path("os"))
IMAGE = ManagedImage(
    parse_resource("gold", ResourceKind.IMAGE).arm_id,
    "eu",
    NOW,
    "u",
    contents=(
        Content(None, "aa", 30 * GIB + 1, From("vhd", "os"), READ),
        Content(4, "bb", GIB, From("vhd", "data"), WRITE),
    ),
    os_type=OsType.LINUX,
    zone_resilient=True,
)


@pytest.mark.parametrize(
    ("storage", "found"),
    [
        (Storage(), (NONE, NONE, NONE)),
        (Storage(PREMIUM), (READ, READ, READ)),
        (Storage(PREMIUM, os_caching=WRITE), (WRITE, READ, READ)),
        (Storage(data_caching=READ, data_caching_by_lun={4: WRITE}), (NONE, READ, WRITE)),
    ],
)
def test_disks_are_cached_as_suits_their_storage(
    storage: Storage, found: tuple[HostCaching, ...]
) -> None:
    assert tuple(storage.caching((None, 0, 4)).values()) == found


def test_caching_of_a_disk_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="no data disk with LUN 7"):
        Storage(data_caching_by_lun={7: READ}).caching((None, 0))


def test_zone_resilient_is_zone_redundant_storage() -> None:
    assert [Storage().kind, Storage(PREMIUM).kind] == [LRS, PREMIUM]
    assert Storage(zone_resilient=True).kind is ZRS
    assert (IMAGE.storage, replace(IMAGE, zone_resilient=False).storage) == (ZRS, LRS)
    rules.image_storage(ZRS, zone_resilient=True)
    for kind, resilient in ((ZRS, False), (LRS, True), (PREMIUM, True)):
        with pytest.raises(InvalidParameter, match="contradict each other"):
            rules.image_storage(kind, zone_resilient=resilient)


def test_a_region_has_to_have_the_storage() -> None:
    regions = (Region("eu", (LRS, ZRS)), Region("us", (LRS,)))
    resources = services(regions=regions).resources
    resources.check_storage(IMAGE.name, "EU", ZRS)
    with pytest.raises(InvalidParameter, match="ZRS storage account type is not supported in this"):
        resources.check_storage(IMAGE.name, "us", ZRS)


def test_a_disk_of_an_image_has_at_most_1023_gib() -> None:
    rules.image_disk_limit(1023 * GIB, "os")
    with pytest.raises(Refused, match="value 1024 of parameter diskSizeGB is out of range"):
        rules.image_disk_limit(1023 * GIB + 512, "os")


def test_a_version_of_an_image_is_cached_as_the_image() -> None:
    assert described(Supply((DISK,)), IMAGE).description.host_caching == {None: READ, 4: WRITE}


def test_an_image_is_shown_as_azure_shows_it() -> None:
    assert decode(ManagedImage, encode(IMAGE)) == IMAGE
    assert answers.resource(IMAGE)["storageProfile"] == {
        "osDisk": {
            "osType": "Linux",
            "osState": "Generalized",
            "diskSizeGB": 31,
            "storageAccountType": "Standard_ZRS",
            "caching": "ReadOnly",
        },
        "dataDisks": [
            {
                "lun": 4,
                "diskSizeGB": 1,
                "storageAccountType": "Standard_ZRS",
                "caching": "ReadWrite",
            }
        ],
        "zoneResilient": True,
    }
