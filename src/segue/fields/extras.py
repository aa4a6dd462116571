"""Packages that only some kinds of input need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from segue.errors import SpecError


def package(name: str, extra: str, where: str) -> Any:
    """A module of a package that `extra` of this one installs.

    Raises:
        SpecError: it is not installed; not the file's fault, so that no row is skipped for it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        fix = f"pip install 'segue[{extra}]'"
        raise SpecError(where, f"the package {name.partition('.')[0]}", str(error), fix) from None
