"""The checksum of VHDX: CRC-32C (Castagnoli), which the standard library does not have."""


def _table() -> tuple[int, ...]:
    """Reflected polynomial 0x82F63B78, a byte at a time."""
    values = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        values.append(value)
    return tuple(values)


_CRC = _table()


def crc32c(data: bytes) -> int:
    """Of a VHDX header or region table: over all of it, with its own checksum field (bytes 4 to 8)
    as zeros."""
    crc = 0xFFFFFFFF
    for byte in data[:4] + bytes(4) + data[8:]:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
