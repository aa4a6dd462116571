"""Pictures of a run: one HTML file that needs no network.

`digest` takes what the pictures need out of an evaluation while the data are at hand. It is kept in
the run folder, so that `html` can draw the same report again at any time without them.
"""

from __future__ import annotations

from segue.report.gather import digest
from segue.report.page import html

__all__ = ["digest", "html"]
