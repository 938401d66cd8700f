"""Partition tables that count in sectors of 4096 bytes are seen as such."""

import struct

import pytest

from pipeline.errors import Refused
from pipeline.sources.ingest import refuse_large_sectors
from pipeline.sources.partitions import ESP, read_partitions
from tests.contract.memory import MemorySource

SIZE = 1 << 20


def gpt_disk(sector: int) -> bytes:
    """A protective MBR, a GPT header and one EFI system partition."""
    disk = bytearray(SIZE)
    disk[446:462] = struct.pack("<B3xB3xII", 0, 0xEE, 1, SIZE // sector - 1)
    disk[510:512] = b"\x55\xaa"
    disk[sector : sector + 8] = b"EFI PART"
    struct.pack_into("<QII", disk, sector + 72, 2, 4, 128)
    disk[2 * sector : 2 * sector + 16] = ESP.bytes_le
    struct.pack_into("<QQ", disk, 2 * sector + 32, 8, 15)
    return bytes(disk)


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_gpt_tells_its_sectors(sector: int) -> None:
    table = read_partitions(MemorySource(gpt_disk(sector)))
    assert (table.scheme, table.generation, table.sector_size) == ("gpt", "V2", sector)
    (partition,) = table.partitions
    assert (partition.start, partition.length) == (8 * sector, 8 * sector)


def test_a_table_that_is_gone_says_nothing() -> None:
    damaged = gpt_disk(512).replace(b"EFI PART", b"EFI LOST")
    table = read_partitions(MemorySource(damaged))
    assert (table.scheme, table.generation, table.sector_size) == ("gpt", "unknown", 512)


def test_large_sectors_are_refused_and_small_ones_are_not() -> None:
    refuse_large_sectors("disk", 512)
    with pytest.raises(Refused, match="4096"):
        refuse_large_sectors("disk", 4096)
