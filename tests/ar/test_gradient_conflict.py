"""Gradients of bins of positions: alike where the task is one, opposed where targets are."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ar import ARConfig, ARModel
from ar.evaluation import conflict, gradient_conflict, gradient_cosines
from ar.evaluation.fitting import fit
from ar.evaluation.gradient_conflict import position_bins


def following(number: int, signs: Tensor) -> Tensor:
    """Each token is nearly the one before it, or its opposite."""
    tokens = [torch.randn(number, 2)]
    for sign in signs:
        tokens.append(0.9 * sign * tokens[-1] + 0.44 * torch.randn(number, 2))
    return torch.stack(tokens, dim=1)


def early(tokens: Tensor, **settings: object) -> ARModel:
    """A model that has seen a little of them."""
    sizes = {"tokens": tokens.shape[1], "token_dim": 2, "width": 16, "heads": 2, "layers": 1}
    small = {"mlp_width": 32, "head_width": 16, "head_layers": 1, "head": "regression"}
    model = ARModel(ARConfig(**{**sizes, **small, "condition": "none", **settings}))
    fit(
        model,
        lambda some: model.loss(tokens[some], model.unconditioned(len(some))).mean(),
        examples=len(tokens),
        steps=20,
        batch_size=64,
        learning_rate=3e-3,
        seed=0,
    )
    return model


def cosines(tokens: Tensor, bins: int) -> Tensor:
    model = early(tokens)
    return gradient_cosines(model, tokens, model.unconditioned(len(tokens)), bins=bins)


def test_bins_that_share_one_task_pull_together() -> None:
    found = cosines(following(1_000, torch.ones(8)), bins=3)
    assert found[1, 2] > 0.9  # the first holds a token that nothing is known of


def test_bins_of_opposed_targets_pull_apart() -> None:
    signs = torch.tensor([1.0, 1, 1, 1, -1, -1, -1, -1])
    assert cosines(following(1_000, signs), bins=3)[0, 2] < 0


def test_projected_gradients_have_nearly_the_same_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = following(1_000, torch.ones(8))
    exact = cosines(tokens, bins=3)
    torch.manual_seed(0)
    tokens = following(1_000, torch.ones(8))
    monkeypatch.setattr(gradient_conflict, "LARGE", 0)
    torch.testing.assert_close(cosines(tokens, bins=3), exact, atol=0.1, rtol=0)


def test_the_position_table_has_no_part() -> None:
    tokens = following(8, torch.ones(3))
    model = early(tokens)
    matrices = gradient_conflict._matrices(model.trunk)
    assert all(each is not model.trunk.positions for each in matrices)
    assert any(each is model.trunk.embed.weight for each in matrices)


def test_noise_between_halves_is_corrected_for() -> None:
    true = torch.randn(2, 500)
    true[1] = 0.6 * true[0] + 0.8 * true[1]
    halves = [[true + 2 * torch.randn(2, 500) for _ in range(2)] for _ in range(50)]
    expected = F.cosine_similarity(true[0], true[1], dim=0).item()
    plain = [F.cosine_similarity(a[0], b[1], dim=0).item() for a, b in halves]
    corrected = [gradient_conflict._corrected(a, b)[0, 1].item() for a, b in halves]
    assert sum(plain) / 50 < expected / 2
    assert sum(corrected) / 50 == pytest.approx(expected, abs=0.1)


def test_bins_whose_halves_disagree_have_no_cosine() -> None:
    first, second = torch.randn(3, 1_000), torch.randn(3, 1_000)
    second[:2] = first[:2] + 0.1 * second[:2]
    second[2] = -first[2]
    found = gradient_conflict._corrected(first, second)
    assert found[2, :2].isnan().all() and not found[:2, :2].isnan().any()
    assert conflict(found)["known"] == pytest.approx(1 / 3)


def test_cosines_are_summed_up() -> None:
    found = torch.eye(3)
    found[0, 1], found[0, 2], found[1, 2] = 0.5, -0.3, 0.1
    expected = {"mean": 0.1, "below_zero": 1 / 3, "least": -0.3, "known": 1.0}
    assert conflict(found) == pytest.approx(expected)


def test_positions_are_cut_into_bins_that_hold_each_once() -> None:
    for tokens, bins in ((16, 8), (10, 4), (3, 8)):
        parts = position_bins(tokens, bins)
        assert [k for part in parts for k in range(tokens)[part]] == list(range(tokens))
        assert len(parts) == min(tokens, bins)


def test_a_single_bin_is_refused_and_unknown_cosines_have_no_mean() -> None:
    with pytest.raises(ValueError, match="at least 2 bins to be compared, got 1"):
        position_bins(1, 8)
    found = conflict(torch.full((2, 2), torch.nan))
    assert found == {"mean": None, "below_zero": None, "least": None, "known": 0.0}
