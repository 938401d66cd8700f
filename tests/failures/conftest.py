"""All of these are of the harness `scripts/test --faults`; they mount file systems of their own."""

import pytest

from tests.system.conftest import mount

__all__ = ["mount"]


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.faults)
