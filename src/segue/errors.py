"""The exceptions of segue, drawn as a tree.

    SegueError                 anything that segue raises on purpose
    ├── InputError             what the user gave is wrong; the command line exits with code 2
    │   ├── ShapeError         a tensor has the wrong shape, dtype or device
    │   ├── SpecError          the declaration (YAML, keyword options)
    │   ├── DataError          a table, a file, a record
    │   └── RunError           a run folder: missing, damaged, or written by something else
    ├── CausalError            a model that needs the future was asked to run live
    └── TrainingError          training cannot go on (the loss is not finite)

Every message is one line of four parts: *where*: expected *this*, got *that*; *what to do*.
"""

from __future__ import annotations


class SegueError(Exception):
    """Base of all errors that segue raises on purpose."""


class InputError(SegueError, ValueError):
    """Something that the user gave is wrong.

    Args:
        where: the place of the culprit, e.g. ``"spec.yaml: outputs.co2.horizon"`` or
            ``"table.csv, row 17"``.
        expected: what would have been right.
        got: what stood there.
        fix: what to do about it.
    """

    def __init__(self, where: str, expected: str, got: str, fix: str) -> None:
        self.where, self.expected, self.got, self.fix = where, expected, got, fix
        super().__init__(f"{where}: expected {expected}, got {got}; {fix}")


class ShapeError(InputError):
    """A tensor has the wrong shape, dtype or device."""


class SpecError(InputError):
    """The declaration is wrong."""


class DataError(InputError):
    """A table, a file or a record is wrong."""


class RunError(InputError):
    """A run folder is missing, damaged, or not segue's."""


class CausalError(SegueError):
    """A model that needs the future was asked to run live."""


class TrainingError(SegueError):
    """Training cannot go on."""
