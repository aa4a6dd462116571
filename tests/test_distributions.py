"""A law's quantiles, probabilities and loss say the same, and hold for values drawn from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from segue.tasks.beta import log_gamma, regularised_beta
from segue.tasks.distributions import (
    DISTRIBUTIONS,
    Distribution,
    Gaussian,
    NegativeBinomial,
    Quantiles,
    StudentT,
)

LEVELS = torch.tensor([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99], dtype=torch.float64)
LAWS = sorted(DISTRIBUTIONS)
CONTINUOUS = ["gaussian", "student_t"]


def some_output(law: Distribution, count: int = 200, seed: int = 0) -> Tensor:
    """What a network might say of `count` values."""
    generator = torch.Generator().manual_seed(seed)
    change = torch.randn(count, law.parameters, generator=generator) * 2
    scale = torch.rand(count, generator=generator).double() * 20 + 0.1
    level = torch.randn(count, generator=generator).double() * 100
    return law.linked(change, level * law.shifts, scale)


# The beta function --------------------------------------------------------------------------------


def test_the_beta_integral_by_the_sum_of_its_integrand() -> None:
    middle = (np.arange(200_000) + 0.5) / 200_000
    for a, b in ((1.5, 2.5), (7.0, 1.2), (40.0, 60.0)):
        shares = middle ** (a - 1) * (1 - middle) ** (b - 1)
        whole = shares.sum()
        for x in (0.1, 0.4, 0.5, 0.9):
            (found,) = regularised_beta(np.array([a]), np.array([b]), np.array([x]))
            assert found == pytest.approx(shares[middle < x].sum() / whole, abs=1e-5)


def test_the_beta_integral_mirrors() -> None:
    rng = np.random.default_rng(0)
    a, b = np.exp(rng.uniform(-3, 10, (2, 1000)))
    x = rng.random(1000)
    both = regularised_beta(a, b, x) + regularised_beta(b, a, 1 - x)
    assert np.abs(both - 1).max() < 1e-9


def test_the_beta_integral_of_whole_numbers_is_a_binomial_sum() -> None:
    n, x = 12, 0.3
    terms = [math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(n + 1)]
    for a in range(1, n + 1):
        found = regularised_beta(np.array([a * 1.0]), np.array([n - a + 1.0]), np.array([x]))
        assert found[0] == pytest.approx(sum(terms[a:]), rel=1e-12)


def test_the_gamma_function_is_that_of_the_standard_library() -> None:
    z = np.exp(np.random.default_rng(0).uniform(-12, 14, 1000))
    expected = [math.lgamma(one) for one in z]
    np.testing.assert_allclose(log_gamma(z), expected, rtol=1e-13, atol=1e-13)


# Quantiles and probabilities ----------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_probability_of_a_quantile_is_its_level(name: str) -> None:
    law = DISTRIBUTIONS[name]()
    output = some_output(law)
    values = law.quantile(output, LEVELS)
    below, upto = law.reached(output[:, None].expand(-1, len(LEVELS), -1), values)
    assert torch.equal(below, upto)
    assert float((below - LEVELS).abs().max()) < 1e-6


def test_a_count_is_the_least_that_reaches_its_level() -> None:
    law = NegativeBinomial()
    output = some_output(law, 300)
    values = law.quantile(output, LEVELS)
    below, upto = law.reached(output[:, None].expand(-1, len(LEVELS), -1), values)
    assert bool((upto >= LEVELS).all()) and bool((below < LEVELS).all())
    assert bool((values % 1 == 0).all()) and bool((values >= 0).all())


@pytest.mark.parametrize("name", LAWS)
def test_quantiles_rise_with_their_level(name: str) -> None:
    law = DISTRIBUTIONS[name]()
    assert bool((law.quantile(some_output(law), LEVELS).diff(dim=-1) >= 0).all())


@pytest.mark.parametrize("name", LAWS)
def test_values_drawn_from_a_law_fall_below_its_quantiles_as_often_as_they_should(
    name: str,
) -> None:
    law, rng, count = DISTRIBUTIONS[name](), np.random.default_rng(0), 20_000
    mean, spread, freedom, dispersion = 30.0, 4.0, 3.5, 0.4
    numbers = {
        "gaussian": (mean, spread),
        "student_t": (mean, spread, freedom),
        "negative_binomial": (mean, dispersion),
    }[name]
    drawn = {
        "gaussian": lambda: mean + spread * rng.normal(size=count),
        "student_t": lambda: mean + spread * rng.standard_t(freedom, count),
        "negative_binomial": lambda: rng.negative_binomial(
            1 / dispersion, 1 / (1 + dispersion * mean), count
        ),
    }[name]()
    output = torch.tensor(numbers, dtype=torch.float64)
    found = law.quantile(output, LEVELS).numpy()
    upto = (drawn[:, None] <= found).mean(0)
    below = (drawn[:, None] < found).mean(0)
    assert (upto >= LEVELS.numpy() - 0.01).all() and (below <= LEVELS.numpy() + 0.01).all()


def test_student_t_by_its_closed_form() -> None:
    # With two degrees of freedom t_q = (2 q - 1) / sqrt(2 q (1 - q)).
    output = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    expected = (2 * LEVELS - 1) / (2 * LEVELS * (1 - LEVELS)).sqrt()
    torch.testing.assert_close(StudentT().quantile(output, LEVELS), expected, rtol=1e-9, atol=1e-12)


def test_student_t_of_many_degrees_of_freedom_is_normal() -> None:
    many = torch.tensor([3.0, 2.0, 1e7], dtype=torch.float64)
    found, normal = StudentT().quantile(many, LEVELS), Gaussian().quantile(many[:2], LEVELS)
    torch.testing.assert_close(found, normal, rtol=1e-5, atol=1e-5)


# The loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_loss_is_the_logarithm_of_the_density(name: str) -> None:
    law = DISTRIBUTIONS[name]()
    output = some_output(law, 50)
    values = law.quantile(output, torch.tensor([0.2], dtype=torch.float64))[:, 0]
    step = 1e-4 * output[:, 1]
    above, below = (law.reached(output, values + side)[0] for side in (step, -step))
    density = (above - below) / (2 * step)
    loss = law.losses(output, values, torch.ones(50, dtype=torch.float64)).double()
    torch.testing.assert_close(loss, -density.log(), rtol=1e-4, atol=1e-4)


def test_the_probabilities_of_counts_sum_to_their_distribution() -> None:
    law, counts = NegativeBinomial(), torch.arange(400, dtype=torch.float64)
    for mean, dispersion in ((0.2, 0.5), (7.0, 1e-6), (20.0, 1.5)):
        output = torch.tensor([mean, dispersion], dtype=torch.float64).expand(400, 2)
        each = (-law.losses(output, counts, torch.ones(400)).double()).exp()
        torch.testing.assert_close(
            each.cumsum(0), law.reached(output, counts)[1], rtol=0, atol=1e-5
        )
        assert float((each * counts).sum()) == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("name", ["gaussian", "student_t"])
def test_the_loss_in_another_unit_differs_by_its_logarithm(name: str) -> None:
    law = DISTRIBUTIONS[name]()
    output = some_output(law)
    values = output[:, 0] + output[:, 1]
    one = law.losses(output, values, torch.ones(200, dtype=torch.float64))
    ten = law.losses(output, values, torch.full((200,), 10.0, dtype=torch.float64))
    torch.testing.assert_close(one - ten, torch.full((200,), math.log(10)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", LAWS)
def test_the_gradient_of_the_loss_is_its_slope(name: str) -> None:
    law = DISTRIBUTIONS[name]()
    generator = torch.Generator().manual_seed(1)
    change = torch.randn(8, law.parameters, generator=generator, dtype=torch.float64)
    level, scale = torch.full((8,), 5.0 * law.shifts).double(), torch.full((8,), 3.0).double()
    values = torch.arange(8).double()

    def loss(numbers: Tensor) -> Tensor:
        return law.losses(law.linked(numbers, level, scale), values, scale).double().sum()

    change.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(change), change)
    with torch.no_grad():
        for place in np.ndindex(8, law.parameters):
            step = torch.zeros_like(change)
            step[place] = 1e-2
            slope = float(loss(change + step) - loss(change - step)) / 2e-2
            assert float(gradient[place]) == pytest.approx(slope, abs=3e-3, rel=3e-3)


def test_quantiles_leave_the_network_in_order() -> None:
    law = Quantiles((0.1, 0.5, 0.9))
    crossed = torch.tensor([[3.0, 1.0, 2.0]])
    crossed = crossed[None, None]
    scale, none = torch.full((1, 1), 2.0), torch.zeros(1, 3)
    assert law.settled(crossed, scale, none).tolist() == [[[[1.0, 2.0, 3.0]]]]
    # Moved, the outer ones stop at the median.
    for shift, expected in (([-1.0, 0.0, 1.0], [-1.0, 2.0, 5.0]), ([3.0, 0.0, -3.0], [2.0] * 3)):
        moved = law.settled(crossed, scale, torch.tensor([shift]))
        assert moved.tolist() == [[[expected]]]
    assert law.quantile(crossed, LEVELS) is crossed


# Company ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAWS)
def test_an_answer_has_the_same_bits_alone_and_in_company(name: str) -> None:
    law = DISTRIBUTIONS[name]()
    generator = torch.Generator().manual_seed(2)
    change = torch.randn(60, law.parameters, generator=generator)
    scale = torch.rand(60, generator=generator).double() + 0.5
    whole = law.quantile(law.linked(change, scale * law.shifts, scale), LEVELS)
    for row in range(60):
        own = slice(row, row + 1)
        output = law.linked(
            change[own].clone(), (scale * law.shifts)[own].clone(), scale[own].clone()
        )
        assert torch.equal(law.quantile(output, LEVELS), whole[own])


@pytest.mark.parametrize("name", LAWS)
def test_nothing_is_said_before_a_value_came(name: str) -> None:
    law = DISTRIBUTIONS[name]()
    output = torch.full((1, law.parameters), torch.nan, dtype=torch.float64)
    assert bool(law.quantile(output, LEVELS).isnan().all())
    below, upto = law.reached(output, torch.zeros(1, dtype=torch.float64))
    assert bool(below.isnan().all()) and bool(upto.isnan().all())
