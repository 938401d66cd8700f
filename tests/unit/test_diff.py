"""What changed between two versions, by their inventories and manifests."""

from io import BytesIO

from pipeline.data.chunks import CHUNK_SIZE, digest
from pipeline.data.manifest import ManifestReader, ManifestWriter
from pipeline.guest.sbom import bill
from pipeline.jobs.diff import Names, Upgrade, changed_bytes, names, packages
from pipeline.ports import GuestFacts, Package

FACTS = GuestFacts("linux", "fedora", "39")


def listing(*found: tuple[str, str]) -> dict[str, object]:
    return {"sbom": bill([Package(name, version, "x", "rpm") for name, version in found], FACTS)}


def test_packages() -> None:
    old = listing(("a", "1"), ("b", "1"), ("kernel", "5"), ("kernel", "6"))
    new = listing(("a", "2"), ("c", "1"), ("kernel", "6"), ("kernel", "7"), ("kernel", "8"))
    added, removed, upgraded = packages(old, new)
    assert [(item.name, item.version) for item in added] == [
        ("c", "1"),
        ("kernel", "7"),
        ("kernel", "8"),
    ]
    assert [(item.name, item.version) for item in removed] == [("b", "1"), ("kernel", "5")]
    assert upgraded == (Upgrade("a", "x", "1", "2"),)
    assert packages(old, old) == ((), (), ())


def test_names() -> None:
    assert names({"a": 1, "b": 1, "c": 1}, {"b": 1, "c": 2, "d": 1}) == Names(
        ("d",), ("a",), ("c",)
    )


def manifest(content: bytes) -> ManifestReader:
    file = BytesIO()
    writer = ManifestWriter(file, len(content))
    for start in range(0, len(content), CHUNK_SIZE):
        chunk = digest(memoryview(content)[start : start + CHUNK_SIZE])
        if chunk is None:
            writer.add_zeros(1)
        else:
            writer.add(chunk)
    writer.finish()
    return ManifestReader(file)


def test_blocks_are_compared_by_their_digests_alone() -> None:
    old = bytes(CHUNK_SIZE) + b"a" * CHUNK_SIZE + b"b" * CHUNK_SIZE + b"c" * 512
    new = b"x" + old[1 : 2 * CHUNK_SIZE] + b"B" + old[2 * CHUNK_SIZE + 1 :]
    assert changed_bytes(manifest(old), manifest(old)) == 0
    assert changed_bytes(manifest(old), manifest(new)) == 2 * CHUNK_SIZE
    longer = old + bytes(CHUNK_SIZE - 512) + b"d" * 1024
    assert changed_bytes(manifest(old), manifest(longer)) == CHUNK_SIZE + 1024
