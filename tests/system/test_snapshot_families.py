"""Ten incremental snapshots of a disk with 1 % changed each, on XFS, btrfs and ext4."""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.app import create_zones
from adapters.config import Config, ZonePlace
from pipeline.data.chunks import CHUNK_SIZE
from pipeline.model.access import Identity
from pipeline.model.resource_names import ResourceKind, ResourceName
from pipeline.model.sources import DiskSource
from pipeline.resources.snapshots import Properties, create_snapshot, delete_resource
from tests.application import open_session
from tests.system.conftest import used

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

VIRTUAL_SIZE = 2 << 30
DATA = 256  # leaves that hold data
CHANGED = VIRTUAL_SIZE // 100 // CHUNK_SIZE  # 1 %


def named(name: str) -> ResourceName:
    return ResourceName(ResourceKind.SNAPSHOT, name)


def write(disk: Path, chunks: list[int], random_bytes: Callable[[int], bytes]) -> None:
    with disk.open("r+b") as file:
        for chunk in chunks:
            file.seek(chunk * CHUNK_SIZE)
            file.write(random_bytes(CHUNK_SIZE))


def test_ten_snapshots_store_what_changed(
    filesystem: Callable[..., Path], tmp_path: Path, require: Callable[..., None]
) -> None:
    require("qemu-img", "bwrap")
    mountpoint = filesystem(size_mib=640)
    config = Config(
        regions={"eu": (ZonePlace(mountpoint / "zone"),)},
        source_region="eu",
        catalog=f"sqlite:///{tmp_path}/catalog.db",
        work=tmp_path / "work",
        cache=tmp_path / "cache",
        logs=tmp_path / "logs",
        captures=tmp_path / "captures",
        immutable=False,
    )
    create_zones(config, Identity("root@host"))
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(VIRTUAL_SIZE)
    dice = random.Random(7)  # noqa: S311 - which leaves change, and into what
    write(disk, list(range(DATA)), dice.randbytes)
    growth = []
    with open_session(config) as app:
        for number in range(11):
            if number:
                write(disk, dice.sample(range(DATA), CHANGED), dice.randbytes)
            before = used(mountpoint)
            made = create_snapshot(
                named(f"s{number}"),
                DiskSource(None, disk),
                Properties("eu"),
                app.context,
                incremental=True,
            )
            growth.append(used(mountpoint) - before)
            assert number == 0 or made.bytes_written == CHANGED * CHUNK_SIZE
        assert max(growth[1:]) <= 1.1 * CHANGED * CHUNK_SIZE, growth
        family = {item.incremental_snapshot_family_id for item in app.context.records.snapshots()}
        assert len(family) == 1
        # the last is whole without the names of those before it, and what they leave is collected
        for number in range(10):
            delete_resource(named(f"s{number}"), app.context)
        (last,) = app.context.records.snapshots()
        base = app.zones["eu"][0].find_base(last.contents[0].digest)
        assert base is not None
        top = base.chain[0]
        argv = ["qemu-img", "compare", "-f", top.format.value, "-F", "raw", top.path, disk]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        delete_resource(last.name, app.context)
        assert app.context.records.snapshots() == []
        assert not any((mountpoint / "zone" / "bases").iterdir())
