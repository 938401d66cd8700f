"""The main job over every format and file system, judged by qemu-img, sha256sum and the kernel."""

import hashlib
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.app import Session, create_zones
from adapters.config import Config, ZonePlace
from fixtures.images import SNAPSHOT, VARIANTS, write_sample
from pipeline.errors import EnvironmentMissing, NoSpace, PartiallyReplicated, SourceChanged
from pipeline.jobs.delete import delete_version
from pipeline.jobs.files import hash_file
from pipeline.jobs.prepare import PublishRequest, Wait
from pipeline.jobs.replicate import replicate_version
from pipeline.model import (
    Identifier,
    ImageDefinition,
    ImageVersion,
    OsState,
    OsType,
    ProvisioningState,
    ReplicationState,
    TargetRegion,
    VersionRequest,
)
from pipeline.model.access import Identity
from pipeline.model.names import parse_definition, parse_gallery, parse_version
from pipeline.model.sources import DiskSource
from pipeline.publish import publish
from tests.application import open_session
from tests.contract.storing import pattern
from tests.system.conftest import used

pytestmark = pytest.mark.system

MIB = 1 << 20


class Lab:
    """A gallery over given zone directories, with its state beside them."""

    def __init__(self, home: Path, regions: dict[str, Path]) -> None:
        self.config = Config(
            regions={name: (ZonePlace(path),) for name, path in regions.items()},
            source_region=next(iter(regions)),
            catalog=f"sqlite:///{home / 'catalog.db'}",
            work=home / "work",
            cache=home / "cache",
            logs=home / "logs",
            captures=home / "captures",
            immutable=False,
        )
        create_zones(self.config, Identity("root@host"))
        with self.app() as app:
            app.gallery.create_gallery(parse_gallery("corp"), self.config.source_region)
            app.gallery.create_definition(
                ImageDefinition(
                    parse_definition("corp/disk"),
                    self.config.source_region,
                    OsType.LINUX,
                    Identifier("Contoso", "disk", "plain"),
                    os_state=OsState.SPECIALIZED,
                )
            )

    @contextmanager
    def app(self) -> Iterator[Session]:
        with open_session(self.config) as app:
            yield app

    def request(self, number: str, source: DiskSource, **counts: int) -> PublishRequest:
        targets = tuple(TargetRegion(name, count) for name, count in counts.items())
        wanted = VersionRequest(parse_version(f"corp/disk/{number}"), "", target_regions=targets)
        return PublishRequest(wanted, (source,), None)

    def publish(self, number: str, source: DiskSource, **counts: int) -> ImageVersion:
        with self.app() as app:
            return publish(self.request(number, source, **counts), app.context)

    def version(self, number: str) -> ImageVersion:
        with self.app() as app:
            return app.gallery.get_version(parse_version(f"corp/disk/{number}"))


def replicas(version: ImageVersion) -> list[tuple[Path, str]]:
    return [
        (Path(disk["path"]), str(disk["format"]))
        for status in version.regions
        for replica in status.result.replicas
        for disk in replica["disks"]
    ]


def compare(one: Path, format: str, other: Path, other_format: str) -> None:
    """Equal in length and in every byte.

    `qemu-img compare -s` of the two as they are would also compare which sectors are allocated, and
    calls even a disk and qemu-img's own conversion of it different; so both are flattened first.
    """
    with tempfile.TemporaryDirectory(dir=one.parent) as directory:
        flat = [Path(directory, name) for name in ("one", "other")]
        for path, kind, target in zip((one, other), (format, other_format), flat, strict=True):
            qemu_img("convert", "-f", kind, "-O", "raw", path, target)
        qemu_img("compare", "-s", "-f", "raw", "-F", "raw", *flat)


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, stdout=subprocess.DEVNULL)


def random_disk(path: Path, data_mib: int, size_mib: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
        for number in range(data_mib):
            file.write(pattern(number, MIB))
    return path


def state(path: Path) -> tuple[Any, ...]:
    """What must not change of a source: content and metadata (atime aside)."""
    found = path.stat()
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return content, found.st_mtime_ns, found.st_ctime_ns, found.st_mode, found.st_size


@pytest.mark.timeout(300)
def test_every_format_is_published_unchanged(
    tmp_path: Path, filesystem: Callable[..., Path]
) -> None:
    """Replicas equal the disk that every source was made from; one content has one root."""
    raw = tmp_path / "sample.raw"
    write_sample(raw)
    zone = filesystem(size_mib=1024)
    lab = Lab(tmp_path, {"eu": zone / "eu"})
    digests = set()
    for index, (name, variant) in enumerate(VARIANTS.items()):
        layer = variant.build(raw, tmp_path, name)
        before = state(layer.path)
        source = DiskSource(None, layer.path, layer.internal_snapshot)
        version = lab.publish(f"1.0.{index}", source, eu=1)
        for path, format in replicas(version):
            compare(raw, "raw", path, format)
        with lab.app() as app, hash_file(source, app.context) as (result, _):
            assert result.root == version.disks[0].digest, name
        digests.add(version.disks[0].digest)
        assert state(layer.path) == before, name
    assert len(digests) == 1
    assert VARIANTS["qcow2-snapshot"].snapshot == SNAPSHOT


@pytest.mark.timeout(300)
def test_a_next_version_costs_what_changed(tmp_path: Path, filesystem: Callable[..., Path]) -> None:
    source = random_disk(tmp_path / "disk.raw", 200, 400)
    zone = filesystem(size_mib=1024)
    lab = Lab(tmp_path, {"eu": zone / "eu"})
    first = lab.publish("1.0.0", DiskSource(None, source), eu=1)
    one_replica = used(zone)
    changed = 0
    with source.open("r+b") as file:
        for position in range(3, 200, 25):  # 8 chunks of 256 KiB: 1 %
            file.seek(position * MIB + MIB // 4)
            file.write(pattern(1000 + position, MIB // 4))
            changed += MIB // 4
    second = lab.publish("1.0.1", DiskSource(None, source), eu=4)
    added = used(zone) - one_replica
    # what a version costs besides its bytes: records, manifests, inodes and qcow2 tables
    assert added <= changed * 1.02 + 4 * MIB
    assert second.regions[0].result.bytes_written == changed
    assert first.disks[0].digest != second.disks[0].digest
    for path, format in replicas(second):
        compare(source, "raw", path, format)


@pytest.mark.timeout(300)
def test_four_replicas_cost_less_than_one_per_cent(
    tmp_path: Path, filesystem: Callable[..., Path]
) -> None:
    source = random_disk(tmp_path / "disk.raw", 300, 400)
    sizes = []
    for count in (1, 4):
        place = filesystem(size_mib=1024)
        home = tmp_path / str(count)
        home.mkdir()
        empty = used(place)
        Lab(home, {"eu": place / "eu"}).publish("1.0.0", DiskSource(None, source), eu=count)
        sizes.append(used(place) - empty)
    assert sizes[1] < sizes[0] * 1.01


@pytest.mark.timeout(300)
def test_a_full_region_fails_alone_and_is_retried_from_the_source_region(
    tmp_path: Path, mount: Callable[..., Path]
) -> None:
    source = random_disk(tmp_path / "disk.raw", 150, 200)
    small = mount("ext4", size_mib=128)
    lab = Lab(tmp_path, {"eu": tmp_path / "eu", "us": small / "us", "asia": tmp_path / "asia"})
    request = lab.request("1.0.0", DiskSource(None, source), eu=2, us=1, asia=1)
    (tmp_path / "alone").mkdir()
    alone = Lab(tmp_path / "alone", {"us": small / "alone"})
    with alone.app() as app, pytest.raises(NoSpace, match=re.escape(str(small))):
        # preflight: nothing was written
        publish(alone.request("1.0.0", DiskSource(None, source), us=1), app.context)
    assert not any((small / "alone" / "bases").iterdir())
    early = r"failed in us: .* are needed"
    with lab.app() as app, pytest.raises(PartiallyReplicated, match=early):
        publish(lab.request("1.0.1", DiskSource(None, source), eu=1, us=1), app.context)
    with lab.app() as app, pytest.raises(PartiallyReplicated, match=r"failed in us: .* is full"):
        publish(replace(request, preflight=False), app.context)
    for number, regions in (("1.0.0", ["asia", "eu"]), ("1.0.1", ["eu"])):
        assert sorted(lab.version(number).completed_regions) == regions
    zone = small / "us"
    left = [*(zone / "bases").iterdir(), *(zone / "versions").iterdir()]
    assert left + list((zone / "staging").iterdir()) == [], "debris in the full region"

    source.unlink()  # a retry must not need it
    bigger = mount("xfs", size_mib=512) / "us"
    lab.config = replace(lab.config, regions={**lab.config.regions, "us": (ZonePlace(bigger),)})
    create_zones(lab.config, Identity("root@host"))
    with lab.app() as app:
        version = replicate_version(parse_version("corp/disk/1.0.0"), (), app.context)
    assert version.provisioning_state is ProvisioningState.SUCCEEDED
    donor = next(path for path, _ in replicas(version) if "asia" in str(path))
    formats = {path: format for path, format in replicas(version)}
    for path, format in formats.items():
        compare(donor, formats[donor], path, format)


def test_a_zone_that_is_read_only_fails_alone_and_is_told_before_anything_is_done(
    tmp_path: Path, mount: Callable[..., Path]
) -> None:
    source = random_disk(tmp_path / "disk.raw", 2, 2)
    place = mount("ext4", size_mib=128)
    lab = Lab(tmp_path, {"eu": place / "eu", "us": tmp_path / "us"})
    request = lab.request("1.0.0", DiskSource(None, source), eu=1, us=1)
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    for preflight in (True, False):
        asked = replace(only(request, "eu"), preflight=preflight)
        with lab.app() as app, pytest.raises(EnvironmentMissing, match=re.escape(str(place))):
            publish(asked, app.context)
        with lab.app() as app:
            assert app.gallery.list_versions(parse_definition("corp/disk")) == []
        with lab.app() as app, pytest.raises(PartiallyReplicated, match="failed in eu: "):
            publish(replace(request, preflight=preflight), app.context)
        version = lab.version("1.0.0")
        assert version.completed_regions == ("us",)
        with lab.app() as app:
            delete_version(version.name, app.context)
    subprocess.run(["mount", "-o", "remount,rw", place], check=True)
    lab.publish("1.0.0", DiskSource(None, source), eu=1, us=1)


def only(request: PublishRequest, region: str) -> PublishRequest:
    return replace(
        request, version=replace(request.version, target_regions=(TargetRegion(region, 1),))
    )


def test_a_source_that_changes_fails_the_version(tmp_path: Path) -> None:
    source = random_disk(tmp_path / "disk.raw", 8, 8)
    lab = Lab(tmp_path, {"eu": tmp_path / "eu"})
    with lab.app() as app:
        images = app.context.images
        original = images.open

        @contextmanager
        def meddling(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with original(*args, **kwargs) as opened:
                yield opened
            with source.open("r+b", buffering=0) as file:
                file.write(b"changed")

        images.open = meddling  # type: ignore[method-assign]
        with pytest.raises(SourceChanged, match=r"disk\.raw"):
            publish(lab.request("1.0.0", DiskSource(None, source), eu=1), app.context)
        assert app.gallery.list_versions(parse_definition("corp/disk")) == []
    assert list((tmp_path / "eu" / "bases").iterdir()) == []


@pytest.mark.timeout(240)
def test_wait_first_leaves_the_rest_to_the_background(tmp_path: Path) -> None:
    source = random_disk(tmp_path / "disk.raw", 8, 8)
    lab = Lab(tmp_path, {"eu": tmp_path / "eu", "us": tmp_path / "us"})
    config = tmp_path / "config.toml"
    config.write_text(
        f'source_region = "eu"\ncatalog = "{lab.config.catalog}"\nwork = "{lab.config.work}"\n'
        f'cache = "{lab.config.cache}"\nimmutable = false\n'
        f'[regions]\neu = ["{tmp_path}/eu"]\nus = ["{tmp_path}/us"]\n'
    )
    lab.config = replace(lab.config, file=config)
    request = lab.request("1.0.0", DiskSource(None, source), eu=1, us=2)
    with lab.app() as app:
        version = publish(replace(request, wait=Wait.FIRST), app.context)
    assert version.completed_regions == ("eu",)
    deadline = time.monotonic() + 180
    while lab.version("1.0.0").provisioning_state is not ProvisioningState.SUCCEEDED:
        assert time.monotonic() < deadline, lab.version("1.0.0")
        time.sleep(0.2)
    status = lab.version("1.0.0").status("us")
    assert status is not None
    assert (status.state, len(status.result.replicas)) == (ReplicationState.COMPLETED, 2)
    for path, format in replicas(lab.version("1.0.0")):
        compare(source, "raw", path, format)
