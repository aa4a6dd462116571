"""`Joined`: the features of all inputs as those of one step, also where inputs are absent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from segue.errors import SpecError
from segue.layers.join import CrossAttention, GatedSum
from segue.ragged import Ragged
from segue.schema import Model


class Joined(nn.Module):
    """Features of inputs to features of steps::

        concat      [x_1, ..., x_n, y_1, ..., y_m]
        gated       a gated sum of the same, H wide                          `GatedSum`
        attention   concat, and what each step finds in each of the inputs apart   `CrossAttention`

    x are the features of inputs by step and of static ones, y what is known at the end of the
    inputs apart. While it is trained, each input of a sequence is taken away at the rate
    `input_dropout`, but never all of them. In place of what is away, or was never there, stands a
    vector that is learnt.

    Args:
        widths: F of each input by step or static.
        apart: O of each input apart, and the width of its steps.
        spec: the model section.
        absent: inputs of which a step may be missing as a whole.
        size: the extents of maps; features without any are the same everywhere on a map.

    Attributes:
        features: F after joining.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        apart: Mapping[str, tuple[int, int]],
        spec: Model,
        absent: Iterable[str],
        size: tuple[int, ...],
    ) -> None:
        super().__init__()
        all_widths = {**widths, **{name: width for name, (width, _) in apart.items()}}
        self._names, self._apart, self._size = tuple(all_widths), tuple(apart), size
        self._rate = spec.input_dropout
        replaced = {*all_widths} if self._rate else {*apart, *absent}
        self._replaced = tuple(name for name in self._names if name in replaced)
        self.absent = nn.ParameterList(torch.zeros(all_widths[name]) for name in self._replaced)
        self.features = sum(all_widths.values())
        self.gated: GatedSum | None = None
        self.attention = nn.ModuleList()
        if spec.join == "gated":
            if size:
                got, fix = "maps", "use concat"
                raise SpecError("model.join", "features that are vectors for gated", got, fix)
            self.gated = GatedSum(list(all_widths.values()), spec.hidden or 64)
            self.features = self.gated.outputs
        if spec.join == "attention":
            if not apart or size:
                got, fix = "no input of role apart", "declare one, or use concat"
                got = "maps" if size else got
                raise SpecError("model.join", "an input to attend to for attention", got, fix)
            width = sum(all_widths.values())
            self.attention.extend(CrossAttention(width, each, each) for _, each in apart.values())
            self.features += sum(each for _, each in apart.values())

    @property
    def obstacle(self) -> str | None:
        """What there is besides features side by side, in words; None where there is nothing."""
        found = {
            "an input apart": self._apart,
            "maps": self._size,
            "a gated join": self.gated,
            "inputs that may be absent": self._replaced,
        }
        return next((name for name, there in found.items() if there), None)

    def forward(
        self,
        steps: Ragged,
        parts: Mapping[str, Tensor],
        apart: Mapping[str, tuple[Tensor, Ragged]],
        absent: Mapping[str, Tensor],
    ) -> Tensor:
        """The features of n steps of P sequences, ``[n, F, ...]``.

        Args:
            steps: any values.
            parts: features ``[n, F, ...]`` of inputs by step and static.
            apart: of each input apart what is known at its end ``[P, O]``, and its steps.
            absent: flags ``[n]``, whether an input is not there.
        """
        rows = steps.rows()
        found = dict(parts)
        absent = dict(absent)
        for name, (end, memory) in apart.items():
            found[name] = end[rows]
            absent[name] = (memory.lengths == 0)[rows]
        taken = self._taken(steps) if self.training and self._rate else None
        for index, name in enumerate(self._names):
            if name not in self._replaced:
                continue
            gone = absent[name] if taken is None else absent[name] | taken[:, index]
            own = self.absent[self._replaced.index(name)]
            shape = (-1, *[1] * (found[name].dim() - 1))
            place = own.view(1, -1, *[1] * (found[name].dim() - 2)).to(found[name].dtype)
            found[name] = torch.where(gone.view(shape), place, found[name])
        values = [self._as_maps(found[name]) for name in self._names]
        if self.gated is not None:
            joined: Tensor = self.gated(values)
            return joined
        both = torch.cat([torch.zeros(steps.total, 0, *self._size), *values], dim=1)
        if not self.attention:
            return both
        queries = steps.with_values(both)
        read = [
            attend(queries, apart[name][1])
            for attend, name in zip(self.attention, self._apart, strict=True)
        ]
        return torch.cat([both, *read], dim=1)

    def _as_maps(self, values: Tensor) -> Tensor:
        """Vectors ``[n, F]`` as maps that are the same everywhere, where there are maps."""
        if not self._size or values.dim() > 2:
            return values
        return values.view(*values.shape, *[1] * len(self._size)).expand(-1, -1, *self._size)

    def _taken(self, steps: Ragged) -> Tensor:
        """Which inputs are taken away, ``[n, inputs]``: the same at all steps of a sequence."""
        draws = torch.rand(steps.batch, len(self._names))
        taken = draws < self._rate
        # Where all would be gone, the one with the highest draw stays.
        kept = torch.zeros_like(taken).scatter(1, draws.argmax(1, keepdim=True), True)
        return (taken & ~(taken.all(1, keepdim=True) & kept))[steps.rows()]
