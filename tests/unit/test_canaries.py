"""The judge of generalization must not be blind: it finds what is there, wherever it lies."""

from pathlib import Path

import pytest

from fixtures import canaries
from fixtures.canaries import BLOCK, CANARIES, scan


def test_there_are_enough_and_each_is_unique() -> None:
    values = [canary.value for canary in CANARIES]
    assert len(values) >= 30
    for value in values:
        assert sum(value in other for other in values) == 1, value


def test_each_lies_in_one_place() -> None:
    paths = [canary.path for canary in CANARIES if canary.path]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("before", [0, 1, BLOCK - 60, BLOCK - 20, BLOCK - 1, BLOCK, 2 * BLOCK - 7])
def test_found_across_block_boundaries(before: int, tmp_path: Path) -> None:
    secret, other = CANARIES[1], CANARIES[0]
    image = tmp_path / "image"
    image.write_bytes(b"c" * before + secret.value.encode() + b"\0" * 9)
    assert scan(image) == {secret.name}
    image.write_bytes(b"c" * before + other.value.encode())
    assert scan(image) == {other.name}


def test_found_behind_holes(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        for number, canary in enumerate(CANARIES):
            file.seek(number * (3 << 20) + 4090)
            file.write(canary.value.encode())
        file.truncate(1 << 30)
    assert scan(image) == {canary.name for canary in CANARIES}


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"")
    assert scan(image) == set()
    with image.open("wb") as file:
        file.truncate(1 << 30)
    assert scan(image) == set()
    image.write_bytes(CANARIES[1].value[:-1].encode() * 1000)
    assert scan(image) == set()


def test_disks_have_their_own() -> None:
    assert canaries.planted("os") | canaries.planted("data") == {c.name for c in CANARIES}
    assert not canaries.planted("os") & canaries.planted("data")
