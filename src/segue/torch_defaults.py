"""Declared models run on the CPU and in float32, whatever torch's defaults are at the time."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class _Float32:
    """float32 as the default of the process while anybody is inside; then the user's again.

    The default device belongs to a thread, but the default dtype to the process. So the first to
    come in keeps the user's, and the last to leave sets it again.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._users: torch.dtype | None = None

    @property
    def is_usual(self) -> bool:
        """Whether float32 is the user's own default."""
        return self._users is None and torch.get_default_dtype() == torch.float32

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._users = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._users is not None:
                torch.set_default_dtype(self._users)
                self._users = None


_FLOAT32 = _Float32()


def with_torch_defaults(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, run on the CPU and in float32 whatever torch's defaults are."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # A live step takes tens of microseconds, so what is usual must cost few.
        if _FLOAT32.is_usual and torch.empty(0).is_cpu:
            return function(*args, **kwargs)
        with _FLOAT32, torch.device("cpu"):
            return function(*args, **kwargs)

    return call
