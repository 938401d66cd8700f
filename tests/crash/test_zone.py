"""The process ends at every durable call of storing and publishing, in turn: what is visible is
complete, and doing it again converges."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.filesystem import durable
from adapters.process.sandbox import Sandbox
from adapters.zones import DirectoryZone, create_zone, open_zone
from pipeline.data.chunks import CHUNK_SIZE
from pipeline.data.manifest import ManifestReader
from pipeline.ports import VersionRecord
from tests.contract.storing import changed, collect, files, pattern, store
from tests.crash.world import DURABLE
from tests.system.conftest import mounted

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

CRASHED = 86
FIRST = pattern(1, 5 * CHUNK_SIZE)
SECOND = changed(FIRST, 2)
RECORD = VersionRecord("corp-web-1.0.1", {"version": "1.0.1"})


def crash_at(number: int, *, after: bool) -> None:
    """From now on the process ends before, or after, its durable call `number`."""
    left = [number]

    def patched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not after:
                os._exit(CRASHED)
            result = real(*args, **kwargs)
            if left[0] == 0:
                os._exit(CRASHED)
            return result

        return call

    for name in DURABLE:
        setattr(durable, name, patched(getattr(durable, name)))


def in_child(job: Callable[[], None], number: int, *, after: bool) -> bool:
    """Run the job in a fork that crashes; False if it came to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            crash_at(number, after=after)
            job()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, CRASHED)
    return status == CRASHED


def publish(path: Path, work: Path) -> None:
    zone = open_zone(path, sandbox=Sandbox())
    first, _ = store(zone, FIRST, work)
    second, _ = store(zone, SECOND, work, [first.digest])
    zone.publish(RECORD, {None: second.digest}, 2)


def retire(path: Path) -> None:
    zone = open_zone(path, sandbox=Sandbox())
    if zone.find_version(RECORD.key) is not None:
        zone.set_replicas(RECORD.key, 3)
        zone.set_replicas(RECORD.key, 1)
    zone.remove_version(RECORD.key)
    collect(zone)


def examine(zone: DirectoryZone) -> None:
    """Everything visible is complete and reads back as its name says."""
    for digest in zone.digests():
        base = zone.find_base(digest)
        assert base is not None
        with base.manifest.open("rb") as file:
            ManifestReader(file).verify(digest)
        if len(base.chain) == 1:
            assert base.chain[0].path.read_bytes() in (FIRST, SECOND)
    for _, replicas in zone.records():
        assert len(replicas) in (1, 2, 3)
        for replica in replicas:
            for disk in replica.disks:
                assert zone.find_base(disk.digest) is not None
                assert disk.path.stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "after"), [("xfs", False), ("ext4", True)])
def test_a_crash_at_any_durable_call_is_mended_by_the_next_run(
    kind: str, after: bool, tmp_path: Path, require: Callable[..., None]
) -> None:
    require(f"mkfs.{kind}")
    work = tmp_path / "work"
    with mounted(kind, tmp_path / "image", tmp_path / "mount", 300) as directory:
        number = 0
        crashed = True
        while crashed:
            number += 1
            path = directory / f"zone-{number}"
            create_zone(path, name="z", region="eu", sandbox=Sandbox())
            crashed = in_child(partial(publish, path, work), number, after=after)
            zone = open_zone(path, sandbox=Sandbox())
            examine(zone)
            publish(path, work)
            examine(zone)
            assert len(zone.digests()) == 2
            assert zone.find_version(RECORD.key) is not None
            assert files(path / "staging") == []
            # and what it made can be taken away, again with a crash somewhere
            in_child(partial(retire, path), 1 + number % 30, after=after)
            examine(open_zone(path, sandbox=Sandbox()))
            retire(path)
            zone.sweep()
            assert files(path) == ["bases", "galleria-zone.json", "staging", "versions"]
        assert number > 20
