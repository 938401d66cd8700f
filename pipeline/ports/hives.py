"""The port to a registry hive of a Windows guest; `Guest.hive` opens one."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RegistryValue:
    """`kind` is Windows's number of the type: 1 REG_SZ, 3 REG_BINARY, 4 REG_DWORD, 7 REG_MULTI_SZ
    (winnt.h)."""

    kind: int
    data: bytes


class Hive(Protocol):
    """One registry hive. Keys are paths from its root, parts separated by backslashes; the names
    of keys and values are looked up without regard to case."""

    def has(self, key: str) -> bool: ...
    def keys(self, key: str) -> list[str]:
        """Names of the keys below; empty when the key is absent."""
        ...

    def values(self, key: str) -> list[str]:
        """Names of the values in a key; empty when it is absent."""
        ...

    def get(self, key: str, name: str) -> RegistryValue | None: ...
    def set(self, key: str, name: str, value: RegistryValue) -> None:
        """Make or replace a value, and the keys on the way to it."""
        ...

    def delete(self, key: str, name: str) -> None:
        """Remove a value, and its data from the file; nothing to do when it is absent."""
        ...
