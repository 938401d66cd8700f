"""The Source contract, over every format, every kind of chain, and the in-memory double."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.images import QemuImages
from adapters.process.sandbox import Sandbox
from fixtures.images import VARIANTS, write_sample
from pipeline.data.extents import mask_free
from pipeline.ports import Chain, Source
from pipeline.ports.extents import Extent, Kind, Range
from tests.contract.memory import MemorySource

pytestmark = pytest.mark.system
FREE = (Range(512 * 1024, 3 * 512), Range(1 << 20, 6 << 20), Range(12 << 20, 1 << 20))


@dataclass(frozen=True, slots=True)
class Sample:
    raw: Path
    content: bytes
    chains: dict[str, Chain]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    directory = tmp_path_factory.mktemp("sample")
    raw = directory / "sample.raw"
    write_sample(raw)
    images = QemuImages(Sandbox())
    chains: dict[str, Chain] = {}
    for name, variant in VARIANTS.items():
        layer = variant.build(raw, directory, name)
        chains[name] = (layer,)
        chains[f"{name}+overlay"] = images.create_overlay((layer,), directory / f"{name}.overlay")
    return Sample(raw, raw.read_bytes(), chains)


NAMES = ["memory", *VARIANTS, *(f"{name}+overlay" for name in VARIANTS)]


@pytest.fixture(params=NAMES)
def opened(
    request: pytest.FixtureRequest, sample: Sample
) -> Callable[..., contextlib.AbstractContextManager[Source]]:
    name = request.param

    @contextlib.contextmanager
    def open(free: tuple[Range, ...] = ()) -> Iterator[Source]:
        if name == "memory":
            whole = [Extent(0, len(sample.content), Kind.DATA)]
            yield MemorySource(sample.content, list(mask_free(whole, free)))
            return
        with QemuImages(Sandbox()).open(sample.chains[name], free=free) as source:
            yield source

    return open


def read(source: Source, extent: Extent) -> bytes:
    # what was in the buffer before must not be taken for the disk's bytes
    buffer = bytearray(b"\xee" * extent.length)
    source.read_into(memoryview(buffer), extent)
    return bytes(buffer)


def test_extents_cover_the_disk_and_tell_the_truth(
    opened: Callable[..., contextlib.AbstractContextManager[Source]], sample: Sample
) -> None:
    with opened() as source:
        assert source.virtual_size == len(sample.content)
        position = 0
        for extent in source.extents():
            assert extent.start == position
            assert extent.length > 0
            want = sample.content[extent.start : extent.end]
            if extent.kind is Kind.DATA:
                assert read(source, extent) == want
            else:
                assert not any(want)
            position = extent.end
        assert position == source.virtual_size
        # iterators do not disturb each other
        for one, other in zip(source.extents(), source.extents(), strict=True):
            assert one == other


def test_parts_of_extents_are_read_from_many_threads(
    opened: Callable[..., contextlib.AbstractContextManager[Source]], sample: Sample
) -> None:
    with opened() as source:
        parts = [
            extent.part(start, min(start + 70_000, extent.end))
            for extent in source.extents()
            if extent.kind is Kind.DATA
            for start in range(extent.start, extent.end, 70_000 - 512 * 3)
        ]
        assert parts
        with ThreadPoolExecutor(12) as pool:
            for part, got in zip(parts, pool.map(lambda p: read(source, p), parts), strict=True):
                assert got == sample.content[part.start : part.end]


def test_free_space_is_never_data(
    opened: Callable[..., contextlib.AbstractContextManager[Source]], sample: Sample
) -> None:
    with opened(FREE) as source:
        position = 0
        for extent in source.extents():
            assert extent.start == position
            position = extent.end
            inside = any(f.start <= extent.start and extent.end <= f.end for f in FREE)
            apart = all(extent.end <= f.start or f.end <= extent.start for f in FREE)
            assert inside or apart
            if inside:
                assert extent.kind is not Kind.DATA
            elif extent.kind is Kind.DATA:
                assert read(source, extent) == sample.content[extent.start : extent.end]
            else:
                assert not any(sample.content[extent.start : extent.end])
        assert position == len(sample.content)


def test_a_wrong_buffer_is_an_error(
    opened: Callable[..., contextlib.AbstractContextManager[Source]],
) -> None:
    with opened() as source:
        data = next(extent for extent in source.extents() if extent.kind is Kind.DATA)
        with pytest.raises(ValueError, match="a buffer of"):
            source.read_into(memoryview(bytearray(data.length + 512)), data)


def test_the_file_is_as_it_was(sample: Sample) -> None:
    assert sample.raw.read_bytes() == sample.content
