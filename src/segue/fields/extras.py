"""Packages that only some kinds of input need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from segue.errors import DataError


def package(name: str, extra: str, where: str) -> Any:
    """A module of a package that `extra` of this one installs.

    Raises:
        DataError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        fix = f"pip install 'segue[{extra}]'"
        raise DataError(where, f"the package {name.partition('.')[0]}", str(error), fix) from None
