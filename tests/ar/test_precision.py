"""Models of another precision, and packed ones, do what they can and refuse the rest."""

from typing import Any

import pytest
import torch

from ar import ARConfig, ARModel, Sampling
from ar.heads import HEADS
from orderer.packed import pack

SIZES: dict[str, Any] = {
    "tokens": 3, "token_dim": 4, "condition": "class", "class_names": ["one", "two"], "width": 16,
    "heads": 2, "layers": 1, "mlp_width": 16, "head_width": 16, "head_layers": 1, "codes": 4,
}  # fmt: skip


def make(head: str, **settings: Any) -> ARModel:
    return ARModel(ARConfig(**{**SIZES, "head": head, **settings})).eval()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("modulation", ["time", "token"])
@pytest.mark.parametrize("head", HEADS)
def test_a_model_of_another_precision_learns_and_generates(
    head: str, modulation: str, dtype: torch.dtype
) -> None:
    model = make(head, modulation=modulation, tokens=2, token_dim=2).to(dtype)
    condition = model.conditioned_on_class(torch.tensor([0, 1]))
    for scale in (1.0, 2.0):
        sampling = Sampling(guidance_scale=scale, steps=2)
        tokens = model.generate(condition, sampling=sampling, seeds=[1, 2])
        assert tokens.shape == (2, 2, 2) and bool(tokens.isfinite().all())
    loss = model.loss(torch.randn(2, 2, 2), condition).sum()
    loss.backward()
    assert bool(loss.isfinite())
    if model.head.has_likelihood:
        found = model.log_prob(torch.randn(2, 2, 2), condition)
        assert bool(found.isfinite().all())


@pytest.mark.parametrize("head", ["flow", "diffusion", "in_trunk", "mixture"])
def test_a_packed_model_gives_no_likelihood(head: str) -> None:
    model = pack(make(head))
    with pytest.raises(ValueError, match="only generates: take likelihood from what was packed"):
        model.log_prob(torch.randn(2, 3, 4), model.conditioned_on_class(torch.tensor([0, 1])))


def test_a_model_in_train_mode_does_not_generate() -> None:
    model = make("flow").train()
    with pytest.raises(ValueError, match="draws and scores in eval mode, it is in train mode"):
        model.generate(model.conditioned_on_class(torch.tensor([0])))
    with pytest.raises(ValueError, match="draws and scores in eval mode, it is in train mode"):
        model.log_prob(torch.randn(1, 3, 4), model.conditioned_on_class(torch.tensor([0])))


def test_tokens_that_cannot_be_are_refused() -> None:
    model = make("flow")
    condition = model.conditioned_on_class(torch.tensor([0, 1]))
    broken = torch.randn(2, 3, 4)
    broken[1, 2, 3] = float("nan")
    for call in (model.loss, model.log_prob):
        with pytest.raises(ValueError, match="tokens must be finite"):
            call(broken, condition)
        with pytest.raises(ValueError, match=r"tokens must be \[B, k, 4\]"):
            call(torch.randn(2, 3, 5), condition)
        with pytest.raises(ValueError, match="3 sequences need as many conditions, got 2"):
            call(torch.randn(3, 3, 4), condition)
    with pytest.raises(ValueError, match="tokens must be finite"):
        model.check_statistics(broken)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got 5"):
        model.conditioned_on_class(torch.tensor([0, 5]))


def test_statistics_of_other_tokens_are_refused() -> None:
    model, tokens = make("flow"), torch.randn(500, 3, 4)
    model.set_statistics(tokens.mean(dim=0), tokens.std(dim=0))
    model.check_statistics(tokens)
    with pytest.raises(ValueError, match=r"their mean is (1\.9|2\.0). away from 0"):
        model.check_statistics(tokens + 2)
    with pytest.raises(ValueError, match=r"their deviation 0\.50"):
        model.check_statistics(tokens / 2)
