"""The file systems of the system tests."""

from tests.system.conftest import mount

__all__ = ["mount"]
