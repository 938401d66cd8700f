"""How a file is compressed, by its first bytes."""

from pathlib import Path

HEAD = 4096
MAGICS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
SKIPPABLE = b"\x2a\x4d\x18"  # after one byte: a zstd frame without content, as pzstd begins with


def head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def compression_of(head: bytes) -> str:
    """The name of the compression; empty when there is none."""
    if head[1:4] == SKIPPABLE and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return next((name for magic, name in MAGICS if head.startswith(magic)), "")
