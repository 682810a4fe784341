"""What takes minutes runs when it is asked for: ``scripts/test tests/fire -m slow``."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests of this folder unless marks are named."""
    if config.option.markexpr:
        return
    slow = [one for one in items if HERE in one.path.parents and one.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [one for one in items if one not in slow]
