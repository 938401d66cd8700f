"""Which process works on a version."""

from typing import Protocol

from pipeline.model import OwnerToken


class Owners(Protocol):
    """Which process works on a version, and whether it still can."""

    def current(self) -> OwnerToken: ...
    def alive(self, token: OwnerToken) -> bool:
        """False only when that process certainly has ended; True for one that can't be seen from
        here (another host)."""
        ...
