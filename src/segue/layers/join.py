"""How the features of several inputs become those of one step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segue.layers.linear import Linear
from segue.ragged import Ragged


class GatedSum(nn.Module):
    """The gated multimodal unit of Arevalo et al., 2017 (arXiv:1702.01992), over n inputs::

        h_i = tanh(W_i x_i + b_i)
        z_i = sigmoid(U_i [x_1, ..., x_n] + c_i)
        y = z_1 * h_1 + ... + z_n * h_n

    Args:
        widths: F_i of each input.
        outputs: O.
    """

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.values = nn.ModuleList(Linear(width, outputs) for width in widths)
        self.gates = Linear(sum(widths), len(widths) * outputs)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """``n x [N, F_i] -> [N, O]``."""
        gates = torch.sigmoid(self.gates(torch.cat(list(parts), dim=1)))
        values = [torch.tanh(value(part)) for value, part in zip(self.values, parts, strict=True)]
        return (gates * torch.cat(values, dim=1)).reshape(-1, len(parts), self.outputs).sum(1)


class CrossAttention(nn.Module):
    """Every step looks at all steps of another sequence of its row (scaled dot product, Vaswani et
    al., 2017, arXiv:1706.03762)::

        q_n = W_q x_n,   k_m = W_k m_m,   v_m = W_v m_m
        y_n = sum_m softmax_m(q_n . k_m / sqrt(O)) v_m

    A row whose other sequence has no steps reads 0.

    Args:
        inputs: I of a step.
        memory: M of a step of the other sequence.
        outputs: O.
    """

    def __init__(self, inputs: int, memory: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.query = Linear(inputs, outputs)
        self.key_value = Linear(memory, 2 * outputs)

    def forward(self, x: Ragged, memory: Ragged) -> Tensor:
        """x ``[N, I]`` and memory ``[L, M]``, both of B sequences, to ``[N, O]``."""
        query = x.with_values(self.query(x.values)).to_padded()
        padded = memory.with_values(self.key_value(memory.values)).to_padded()
        keys, values = torch.split(padded, self.outputs, 2)
        scores = query @ keys.transpose(1, 2) / math.sqrt(self.outputs)
        past = torch.arange(keys.shape[1], device="cpu") >= memory.lengths[:, None]
        past = past[:, None].to(keys.device)
        shares = torch.softmax(scores.masked_fill(past, -1e30), dim=2).masked_fill(past, 0.0)
        return Ragged.from_padded(shares @ values, x.lengths).values
