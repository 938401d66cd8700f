"""All of these are of the harness `scripts/test --crash`."""

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.crash)
