"""Whoever knows an image by its shared name is told no other, in errors either."""

from dataclasses import replace
from typing import cast

import pytest

from pipeline.deploying import profile
from pipeline.deploying.deploy import find_replicas
from pipeline.errors import GalleriaError, InvalidParameter
from pipeline.jobs.shallow import check_sources
from pipeline.model import OsProfile, OsState, SourceFile
from pipeline.ports import Pins
from tests.memory_catalog import MemoryCatalog
from tests.samples import definition, disk, gallery, services, version

SHARED = (
    "/CommunityGalleries/contoso-4979811e-1652-49de-962c-cc1797647534/Images/web/Versions/1.0.0"
)
FILE = SourceFile("/srv/secret/web.vhd", "vpc", 1, 1, 1, 1)
SHALLOW = version(disks=(replace(disk(), source=replace(disk().source, files=(FILE,))),))


class ChangedPins:
    def changes(self, _file: SourceFile) -> list[str]:
        return ["length"]


PINS = cast(Pins, ChangedPins())


def told(error: GalleriaError) -> str:
    return f"{error.message} {error.hint}"


def test_a_region_without_it_and_a_changed_source_name_the_shared_name_alone() -> None:
    for name, secret in ((SHARED, False), ("", True)):
        with pytest.raises(GalleriaError) as nowhere:
            find_replicas(SHALLOW, "us", (), name)
        with pytest.raises(GalleriaError) as changed:
            check_sources(SHALLOW, PINS, name)
        assert (SHARED in told(nowhere.value)) is (SHARED in told(changed.value)) is not secret
        assert ("corp/web" in told(nowhere.value)) is ("corp/web" in told(changed.value)) is secret
        assert ("/srv/secret" in told(changed.value)) is secret


@pytest.mark.parametrize(
    ("state", "given"), [(OsState.SPECIALIZED, OsProfile("web1")), (OsState.GENERALIZED, None)]
)
def test_a_wrong_profile_names_no_definition(state: OsState, given: OsProfile | None) -> None:
    with pytest.raises(InvalidParameter, match="osProfile") as caught:
        profile.check(definition(os_state=state), given)
    assert "corp" not in told(caught.value)


def test_what_is_for_owners_takes_no_shared_name() -> None:
    catalog = MemoryCatalog()
    with catalog.write() as writer:
        writer.put_gallery(gallery())
        writer.put_definition(definition())
        writer.put_version(SHALLOW)
    ask = services(catalog=catalog)
    assert ask.gallery.own_version("corp/web") == SHALLOW
    with pytest.raises(InvalidParameter, match="is shared with you"):
        ask.gallery.own_version(SHARED)
