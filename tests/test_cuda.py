"""Every layer of the catalogue on a CUDA device against itself on the CPU; skipped without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from catalogue import ROWS, Row, cells
from torch import Tensor

from segue.cells import GRU
from segue.layers import Attend, Decoder, unroll
from segue.ops import leaves, map_state
from segue.ragged import Ragged

DEVICE = "cuda"
LENGTHS = [7, 0, 12, 1, 5, 12, 0, 2, 9]
INPUTS, HIDDEN = 19, 40

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def by_name(*given: Row) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", given, ids=[row.name for row in given])


def batch(lengths: list[int]) -> Ragged:
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(sum(lengths), INPUTS, generator=generator, dtype=torch.float64)
    return Ragged(values, torch.tensor(lengths))


def both(row: Row, dtype: torch.dtype) -> list[tuple[Any, str]]:
    """The layer on the CPU and on the device, with the same weights."""
    return [(row.build(INPUTS, HIDDEN, dtype).to(device), device) for device in ("cpu", DEVICE)]


def hold_close(found: list[list[Tensor]], dtype: torch.dtype) -> None:
    # cuDNN may multiply in TF32, which has ten bits.
    tolerance = 2e-3 if dtype == torch.float32 else 1e-10
    for on_cpu, on_device in zip(*found, strict=True):
        scale = max(1.0, float(on_cpu.detach().abs().max()) if on_cpu.numel() else 0.0)
        assert on_cpu.shape == on_device.shape
        torch.testing.assert_close(on_device.cpu(), on_cpu, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("lengths", [LENGTHS, [6, 6, 6]], ids=["ragged", "equal"])
@by_name(*ROWS)
def test_answers_states_and_gradients_are_those_of_the_cpu(
    row: Row, lengths: list[int], dtype: torch.dtype
) -> None:
    found = []
    for layer, device in both(row, dtype):
        x = batch(lengths).to(dtype).to(device)
        x.values.requires_grad_()
        y, state = unroll(layer, x)
        weights = [weight for weight in layer.parameters() if weight.requires_grad]
        total = y.values.sin().sum() + sum(leaf.cos().sum() for leaf in leaves(state))
        gradients = torch.autograd.grad(total, [x.values, *weights], materialize_grads=True)
        assert y.values.device.type == torch.device(device).type
        found.append([y.values, *leaves(state), *gradients])
    hold_close(found, dtype)


@by_name(*cells())
def test_steps_and_resets_are_those_of_the_cpu(row: Row) -> None:
    found = []
    for layer, device in both(row, torch.float64):
        x = batch([6, 6, 6]).to(device)
        flags = torch.zeros(3, 6, dtype=torch.bool, device=device)
        flags[1, 3] = flags[2, 0] = flags[2, 5] = True
        reset, after = unroll(layer, x.to_padded(), reset=flags)
        state, outputs = layer.initial_state(3), []
        for inputs in x.to_padded().unbind(1):
            y, state = layer.step(inputs, state)
            outputs.append(y)
        whole, _ = unroll(layer, x.to_padded())
        torch.testing.assert_close(torch.stack(outputs, 1), whole, rtol=0, atol=1e-10)
        found.append([reset, *leaves(after), *leaves(map_state(torch.clone, state))])
    hold_close(found, torch.float64)


@pytest.mark.parametrize("copying", [False, True], ids=["", "copying"])
def test_a_decoder_learns_and_writes_as_on_the_cpu(copying: bool) -> None:
    found, written = [], []
    for device in ("cpu", DEVICE):
        torch.manual_seed(0)
        cell, attend = GRU(16, HIDDEN), Attend(HIDDEN, INPUTS, score="additive")
        decoder = Decoder(cell, attend, 9, copying=copying).double().to(device)
        memory = batch([5, 1, 3]).to(device)
        labels = Ragged(torch.tensor([4, 2, 3, 8, 2]), torch.tensor([3, 0, 2])).to(device)
        copied = torch.tensor([2, 9, 5, 9, 10, 4, 4, 2, 2], device=device) if copying else None
        losses = decoder.losses(memory, labels, copied)
        gradients = torch.autograd.grad(losses.sum(), list(decoder.parameters()))
        found.append([losses, *gradients])
        assert decoder.losses(memory, labels, copied, sampling=0.5).isfinite().all()
        codes = decoder.search(memory, copied, longest=6, beam=3)
        written.append([one.tolist() for one in codes])
    hold_close(found, torch.float64)
    assert written[0] == written[1]


def test_a_default_device_changes_no_answer() -> None:
    """A user's torch.set_default_device: what is made on the way lies where it must."""
    x = batch(LENGTHS)
    layer = GRU(INPUTS, HIDDEN).double()
    expected, _ = unroll(layer, x)
    with torch.device(DEVICE):
        here, _ = unroll(layer, x)
        there, _ = unroll(layer.to(DEVICE), x.to(DEVICE))
    torch.testing.assert_close(here.values, expected.values, rtol=0, atol=0)
    torch.testing.assert_close(there.values.cpu(), expected.values, rtol=0, atol=1e-10)
