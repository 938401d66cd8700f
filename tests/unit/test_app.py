"""One application, for whoever asks: sessions share the catalog and the zones, and no rights."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from adapters import zones
from adapters.app import App, Session, create_zones, open_app
from adapters.config import Config, ZonePlace
from adapters.progress import Mode, open_progress
from pipeline.errors import NotFound
from pipeline.model.access import Identity, Principal, Role
from pipeline.model.names import parse_gallery

CORP = parse_gallery("corp")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "eu").mkdir()
    made = Config(
        regions={"eu": (ZonePlace(tmp_path / "eu"),)},
        source_region="eu",
        catalog=f"sqlite:///{tmp_path / 'catalog.db'}",
        work=tmp_path / "work",
        cache=tmp_path / "cache",
        logs=tmp_path / "logs",
        captures=tmp_path / "captures",
        sandbox=False,
        immutable=False,
    )
    create_zones(made, Identity("root@host"))
    return made


def session(app: App, principal: str) -> Session:
    return app.session(Identity("root@host", principal))


def test_each_request_has_the_rights_of_who_asks(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Mock(wraps=zones.open_zone)
    monkeypatch.setattr(zones, "open_zone", opened)
    with open_app(config, open_progress(Mode.NONE)) as app:
        owner, alice = app.session(Identity("root@host")), session(app, "alice")
        owner.gallery.create_gallery(CORP, "eu")
        owner.grants.put_principal(Principal("alice"))
        assert owner.gallery.get_gallery(CORP) == owner.context.gallery.get_gallery(CORP)
        for gallery in (alice.gallery, alice.context.gallery):
            with pytest.raises(NotFound):
                gallery.get_gallery(CORP)
        owner.grants.assign("alice", Role.READER, "corp")
        with pytest.raises(NotFound):  # a request keeps the rights that it began with
            alice.gallery.get_gallery(CORP)
        assert session(app, "alice").gallery.get_gallery(CORP).name == CORP
        with pytest.raises(NotFound, match="no user or service principal 'nobody'"):
            session(app, "nobody").gallery.list_galleries()

        assert alice.zones.keys() == owner.zones.keys() == app.zones.keys() == {"eu"}
        opened.assert_called_once()  # for all of them
        assert alice.pins is owner.pins
        entries = [entry.content for entry in owner.grants.audit()]
        assert {(item["actor"], item["allowed"]) for item in entries} == {
            ("root@host", True),
            ("alice", False),
        }
        assert {item["operator"] for item in entries} == {"root@host"}
        assert len({item["request"] for item in entries}) == 2  # reading is not recorded
