"""Fixtures for several test files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The kernels first: theirs are the longest tests, and others can run beside them."""
    items.sort(key=lambda item: item.path.name != "test_kernels.py")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets.

    It is at ``SEGUE_DATA``, or beside the repository. Where it is absent the test is skipped, or
    fails when ``SEGUE_REQUIRE_DATA=1``.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEGUE_DATA") or beside)
    if not folder.is_dir():
        reason = f"no real data at {folder}: set SEGUE_DATA to the folder that holds ts_classics"
        if os.environ.get("SEGUE_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tests of many small calls, in which more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
