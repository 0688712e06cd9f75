"""Sampling: every image is a function of its seed and condition, however it is drawn."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ar import ARModel, Condition, Sampling
from ar.evaluation import deviations, drifting
from ar.heads.timesteps import noises
from ar.sampling import row_noise


@pytest.fixture
def condition(tiny_ar: ARModel) -> Condition:
    return tiny_ar.conditioned_on_text(torch.randn(3, 5, 16), torch.ones(3, 5, dtype=torch.bool))


def row(condition: Condition, index: int) -> Condition:
    return condition.rows(torch.tensor([index]))


SOLVERS = pytest.mark.parametrize("solver", ["euler", "heun", "multistep", "sde"])


@SOLVERS
def test_a_row_does_not_change_with_the_batch(
    tiny_ar: ARModel, condition: Condition, solver: Any
) -> None:
    sampling = Sampling(solver=solver, steps=3)
    together = tiny_ar.generate(condition, sampling=sampling, seeds=[7, 8, 9])
    for i, seed in enumerate((7, 8, 9)):
        alone = tiny_ar.generate(row(condition, i), sampling=sampling, seeds=[seed])
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=0)
    assert torch.equal(row_noise([8], (4, 2), torch.device("cpu"))[0],
                       row_noise([7, 8], (4, 2), torch.device("cpu"))[1])  # fmt: skip


@SOLVERS
def test_a_shorter_prefix_is_the_beginning_of_a_longer_one(
    tiny_ar: ARModel, condition: Condition, solver: Any
) -> None:
    sampling = Sampling(solver=solver, steps=3, last_steps=1, guidance="ramp")
    whole = tiny_ar.generate(condition, sampling=sampling, seeds=[1, 2, 3])
    part = tiny_ar.generate(condition, sampling=sampling, seeds=[1, 2, 3], prefix=2)
    torch.testing.assert_close(part, whole[:, :2], atol=1e-5, rtol=0)


def test_going_on_from_a_prefix_is_not_stopping_there(
    tiny_ar: ARModel, condition: Condition
) -> None:
    tiny_ar.set_statistics(torch.randn(4, 6), 1 + torch.rand(4, 6))
    tiny_ar.config.context_drop = 0.1
    sampling = Sampling(context_scale=2.0)
    whole = tiny_ar.generate(condition, sampling=sampling, seeds=[1, 2, 3])
    resumed = tiny_ar.generate(condition, sampling=sampling, seeds=[1, 2, 3], first=whole[:, :3])
    torch.testing.assert_close(resumed, whole, atol=1e-4, rtol=1e-4)


def test_annealed_steps_go_from_the_first_to_the_last_token() -> None:
    sampling = Sampling(steps=20, last_steps=5)
    assert [sampling.steps_at(k, 4) for k in range(4)] == [20, 15, 10, 5]
    assert [Sampling(steps=9).steps_at(k, 4) for k in range(4)] == [9] * 4
    assert sampling.steps_at(0, 1) == 20
    assert noises(Sampling(solver="sde", steps=5, last_steps=9)) == 9


def test_ramped_guidance_has_its_whole_scales_at_the_last_token() -> None:
    sampling = Sampling(guidance_scale=3.0, context_scale=5.0, guidance="ramp")
    assert [sampling.scales_at(k, 4) for k in range(4)] == [(1.5, 2), (2, 3), (2.5, 4), (3, 5)]
    assert Sampling(guidance_scale=3.0).scales_at(0, 4) == (3.0,)
    assert Sampling(guidance_scale=1.0, context_scale=2.0).scales_at(0, 4) == (2.0,)


def test_a_temperature_of_zero_knows_no_seed(tiny_ar: ARModel, condition: Condition) -> None:
    def drawn(temperature: float, seed: int) -> torch.Tensor:
        sampling = Sampling(temperature=temperature, steps=3)
        return tiny_ar.generate(condition, sampling=sampling, seeds=[seed] * 3)

    assert torch.equal(drawn(0.0, 1), drawn(0.0, 2))
    assert not torch.allclose(drawn(1.0, 1), drawn(1.0, 2))


def test_without_seeds_every_call_draws_anew(tiny_ar: ARModel, condition: Condition) -> None:
    assert not torch.equal(tiny_ar.generate(condition), tiny_ar.generate(condition))


def test_deviations_of_generated_tokens_are_those_over_the_data_s(tiny_ar: ARModel) -> None:
    std = 1 + torch.rand(4, 6)
    tiny_ar.set_statistics(torch.randn(4, 6), std)
    scale = torch.tensor([1.0, 0.5, 2.0, 1.05])
    tokens = tiny_ar.mean + std * scale[:, None] * torch.randn(4_000, 4, 6)
    found = deviations(tiny_ar.standardise(tokens))
    torch.testing.assert_close(found, scale, atol=0.05, rtol=0)
    assert drifting(found.tolist()) == [2, 3]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1, a whole number, got 0"),
        ({"steps": 2.5}, r"steps must be at least 1, a whole number, got 2\.5"),
        ({"solver": "heum"}, "solver must be one of euler, heun, multistep, sde, got 'heum'"),
        ({"guidance": "ramped"}, "guidance must be one of constant, ramp, got 'ramped'"),
        ({"cache": "statik"}, "cache must be one of dynamic, static, got 'statik'"),
        ({"last_steps": 0}, "last_steps must be at least 1, a whole number, got 0"),
        ({"guidance_scale": -0.5}, "guidance_scale must be at least 0, got -0.5"),
        ({"context_scale": -0.5}, "context_scale must be at least 0, got -0.5"),
        ({"shift": 1e-17}, "shift must lie in 0.001..1000, got 1e-17"),
        ({"temperature": float("nan")}, "temperature must be at least 0, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], sentence: str) -> None:
    unchecked: Any = SimpleNamespace(**{**vars(Sampling()), **settings})  # of types, in tests
    with pytest.raises(ValueError, match=sentence):
        Sampling.__post_init__(unchecked)


def test_calls_that_make_no_sense_are_refused(tiny_ar: ARModel, condition: Condition) -> None:
    with pytest.raises(ValueError, match="each of the 3 rows needs a seed, got 2"):
        tiny_ar.generate(condition, seeds=[1, 2])
    with pytest.raises(ValueError, match="prefix must be above the 3 tokens given, got 3"):
        tiny_ar.generate(condition, first=torch.zeros(3, 3, 6), prefix=3)
    with pytest.raises(ValueError, match="each of the 3 rows needs first tokens, got 2"):
        tiny_ar.generate(condition, first=torch.zeros(2, 1, 6))
    with pytest.raises(ValueError, match=r"learned some images without it .* context_scale 2\.5"):
        tiny_ar.generate(condition, sampling=Sampling(context_scale=2.5))
    with pytest.raises(ValueError, match="tokens must be finite"):
        tiny_ar.generate(condition, first=torch.full((3, 1, 6), float("nan")))
