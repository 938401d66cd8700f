"""FORMAT.md of manifests and of zones: the examples are what is written, the program reads it."""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import xxhash
from blake3 import blake3

from pipeline.data.chunks import CHUNK_SIZE, ChunkDigest
from pipeline.data.manifest import ManifestWriter
from tests.home import Session, furnished

ROOT = Path(__file__).parents[2]
MANIFESTS = (ROOT / "pipeline" / "data" / "FORMAT.md").read_text()
ZONES = (ROOT / "adapters" / "zones" / "FORMAT.md").read_text()


def manifest(virtual_size: int, chunks: list[bytes]) -> tuple[bytes, str]:
    """A manifest as galleria writes it, and its root."""
    file = io.BytesIO()
    writer = ManifestWriter(file, virtual_size)
    for chunk in chunks:
        writer.add(ChunkDigest(xxhash.xxh3_128_digest(chunk), blake3(chunk).digest()))
    root = writer.finish()
    return file.getvalue(), root


def dump(content: bytes) -> str:
    return "".join(
        f"{place:04x}  {content[place : place + 16].hex(' ')}\n"
        for place in range(0, len(content), 16)
    )


def test_the_example_is_what_is_written() -> None:
    written, _ = manifest(3 * CHUNK_SIZE, [b"A" * CHUNK_SIZE, bytes(CHUNK_SIZE), bytes(CHUNK_SIZE)])
    assert len(written) == 155
    assert f"<!-- example -->\n```\n{dump(written)}```\n" in MANIFESTS, dump(written)


@pytest.mark.parametrize(
    ("virtual_size", "chunks"),
    [
        (0, []),
        (512, [b"x" * 512]),
        (3 * CHUNK_SIZE, [b"A" * CHUNK_SIZE, bytes(CHUNK_SIZE), bytes(CHUNK_SIZE)]),
        (2 * CHUNK_SIZE + 7, [bytes(CHUNK_SIZE), b"B" * CHUNK_SIZE, b"1234567"]),
        (5 * CHUNK_SIZE, [bytes([number]) * CHUNK_SIZE for number in range(5)]),
    ],
)
def test_the_program_reads_what_is_written(virtual_size: int, chunks: list[bytes]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", MANIFESTS, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)  # noqa: S102 - the page's own
    written, root = manifest(virtual_size, chunks)
    assert names["root_of"](written) == root


def shape(value: Any, name: str = "") -> Iterator[str]:
    """The names in a document, by their ways; below `document` those of the first level."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{name}.{key}"
            if name != ".document":
                yield from shape(item, f"{name}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from shape(item, f"{name}[]")


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory, require: Callable[..., None]) -> Iterator[Path]:
    """A zone in which a small disk was published."""
    require("qemu-img", "bwrap")
    place = tmp_path_factory.mktemp("home")
    with Session.begun(place, GALLERIA_IMMUTABLE="false") as session:
        furnished(session)
        session.run("--quiet", "publish", "corp/web/1.0.0", "--os-disk", "small.raw")
        yield place / "eu"


RECORDS = re.findall(r"<!-- record: (\S+) -->\n```json\n(.*?)```", ZONES, flags=re.DOTALL)


@pytest.mark.parametrize(("pattern", "shown"), RECORDS, ids=[name for name, _ in RECORDS])
def test_records_are_as_shown(zone: Path, pattern: str, shown: str) -> None:
    (path,) = zone.glob(pattern)
    assert set(shape(json.loads(shown))) == set(shape(json.loads(path.read_text())))


def test_a_zone_holds_what_is_drawn(zone: Path) -> None:
    (drawn,) = re.findall(r"```\n(galleria-zone.json.*?)```", ZONES, flags=re.DOTALL)
    for path in zone.iterdir():
        assert path.name in drawn
    for kind in ("bases/*", "versions/*"):
        for path in zone.glob(f"{kind}/*"):
            assert path.name.partition("-")[0].partition(".")[0] in drawn
