"""Which older bases a new one may start from."""

from pathlib import Path
from typing import Any, cast

import pytest

from adapters.filesystem.files import HostFiles
from pipeline.data import copying
from pipeline.data.chunks import CHUNK_SIZE
from pipeline.data.manifest import ManifestWriter
from pipeline.ports import StoredBase, Zone
from pipeline.storage.parents import related
from tests.contract.memory import MemorySource
from tests.contract.storing import changed, pattern

CONTENT = pattern(1, 40 * CHUNK_SIZE)


class Shelf:
    """A zone, as far as finding bases goes."""

    def __init__(self, *bases: StoredBase) -> None:
        self._bases = {base.digest: base for base in bases}

    def find_base(self, digest: str) -> StoredBase | None:
        return self._bases.get(digest)

    def base_changes(self, base: StoredBase) -> str:
        return ""


def base(content: bytes, path: Path) -> StoredBase:
    with path.open("wb") as out:
        writer = ManifestWriter(out, len(content))
        root = copying.copy(MemorySource(content), [], writer).root
    return StoredBase(root, len(content), (), path, "copy", None)


def asked(content: bytes, parents: list[StoredBase], *shelves: Shelf) -> list[StoredBase]:
    zones = cast(list[Zone], list(shelves))
    found = related(MemorySource(content), [one.digest for one in parents], zones, HostFiles())
    return [one for one in parents if one.digest in found]


def test_the_first_that_a_zone_holds_counts_if_it_has_something_in_common(tmp_path: Path) -> None:
    near = base(changed(CONTENT, *range(20)), tmp_path / "near")
    far = base(pattern(2, 40 * CHUNK_SIZE), tmp_path / "far")
    both, one = Shelf(near, far), Shelf(far)
    assert asked(CONTENT, [near, far], both) == [near]
    assert asked(CONTENT, [near, far], one) == []
    assert asked(CONTENT, [near, far], both, one) == [near]
    assert asked(CONTENT, [far, near], both) == []
    assert asked(CONTENT, [near], Shelf()) == []


def test_content_counts_only_in_its_place(tmp_path: Path) -> None:
    moved = base(CONTENT[CHUNK_SIZE:] + CONTENT[:CHUNK_SIZE], tmp_path / "moved")
    assert asked(CONTENT, [moved], Shelf(moved)) == []


def test_a_disk_of_zeros_may_start_from_anything(tmp_path: Path) -> None:
    parent = base(CONTENT, tmp_path / "parent")
    assert asked(bytes(8 * CHUNK_SIZE), [parent], Shelf(parent)) == [parent]


@pytest.mark.parametrize("damage", ["gone", "cut", "altered"])
def test_nothing_starts_from_a_base_with_a_damaged_manifest(damage: str, tmp_path: Path) -> None:
    parent = base(pattern(3, 40 * CHUNK_SIZE), tmp_path / "parent")
    content: Any = bytearray(parent.manifest.read_bytes())
    parent.manifest.unlink()
    if damage == "cut":
        parent.manifest.write_bytes(content[:30])
    elif damage == "altered":
        content[24] ^= 1
        parent.manifest.write_bytes(content)
    assert asked(CONTENT, [parent], Shelf(parent)) == []
