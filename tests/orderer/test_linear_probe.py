"""Linear probes: what is linear is read in full, what is chance has no score."""

import pytest
import torch

from orderer.evaluation.linear_probe import (
    RIDGES,
    balanced_scores,
    best_ridges,
    fit_linear,
    readable,
    readable_from,
    with_bias,
)


def separable(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around two corners, and which corner each belongs to."""
    answers = torch.arange(number) % 2 == 0
    features = torch.randn(number, 3) * 0.1
    features[:, 1] += answers * 4.0 + 3.0
    return features, answers[:, None]


def test_what_a_plane_parts_is_read_without_error() -> None:
    features, answers = separable(200)
    assert balanced_scores(fit_linear(features, answers, 1e-3), features, answers).tolist() == [1.0]


def test_answers_that_have_nothing_to_do_with_the_features_score_about_chance() -> None:
    features, answers = torch.randn(4_000, 5), torch.rand(4_000, 2) < 0.3
    linear = fit_linear(features[:2_000], answers[:2_000], 1e-3)
    assert balanced_scores(linear, features[2_000:], answers[2_000:]).abs().max() < 0.08


def test_always_saying_the_commoner_answer_scores_chance() -> None:
    answers = torch.tensor([[True], [False], [False], [False]])
    never = torch.tensor([[0.0], [-1.0]], dtype=torch.float64)
    assert balanced_scores(never, torch.zeros(4, 1), answers).tolist() == [0.0]


def test_it_is_the_minimum_that_scipy_finds() -> None:
    from scipy.optimize import minimize

    features = torch.randn(300, 2)
    answers = (features[:, :1] + 0.5 * torch.randn(300, 1)) > 0.4
    x, y = with_bias(features).numpy(), answers[:, 0].numpy()
    share = y.mean()

    def loss(w: object) -> float:
        import numpy as np

        logits = x @ np.asarray(w)
        errors = np.logaddexp(0, -np.where(y, logits, -logits))
        weights = np.where(y, 0.5 / share, 0.5 / (1 - share))
        return float((weights * errors).mean() + 1e-3 * np.square(np.asarray(w)[:-1]).sum())

    expected = torch.from_numpy(minimize(loss, [0.0, 0.0, 0.0], tol=1e-10).x)
    torch.testing.assert_close(
        fit_linear(features, answers, 1e-3)[:, 0], expected, atol=1e-3, rtol=0
    )


def test_a_factor_is_readable_from_the_token_that_holds_it() -> None:
    _, answers = separable(600)
    tokens = torch.randn(600, 4, 3)
    tokens[:, 2, 0] += 6.0 * answers[:, 0]
    scores = readable(
        tokens[:400], {"it": answers[:400]}, tokens[400:], {"it": answers[400:]}, (1, 2, 4)
    )["it"]
    assert scores[1] < 0.25 and scores[2] < 0.25 and scores[4] > 0.95
    assert 2 < readable_from(scores) < 4


def test_tokens_that_say_nothing_hardly_hide_what_the_first_one_says() -> None:
    answers = torch.rand(2_000, 4) < 0.4
    tokens = torch.randn(2_000, 32, 16)
    tokens[:, 0, :4] += 1.5 * answers
    of_train, of_test = {"it": answers[:1_000]}, {"it": answers[1_000:]}
    scores = readable(tokens[:1_000], of_train, tokens[1_000:], of_test, (1, 32))["it"]
    train, test = (some.flatten(1) for some in (tokens[:1_000], tokens[1_000:]))
    weak = balanced_scores(fit_linear(train, answers[:1_000], 1e-3), test, answers[1_000:])
    assert scores[1] > 0.45 and scores[32] > 1.05 * weak.mean()


def test_the_weight_is_small_where_all_can_be_known_and_large_where_nothing_can() -> None:
    features, answers = separable(200)
    assert best_ridges(features, {"it": answers}) == {"it": min(RIDGES)}
    chance = best_ridges(torch.randn(2_000, 50), {"it": torch.rand(2_000, 1) < 0.5})
    assert chance["it"] > 0.05


def test_every_factor_has_the_weight_that_it_has_alone() -> None:
    features = torch.randn(2_000, 50)
    blur = torch.randn(2_000, 1)
    answers = {str(far): features[:, :2] + far * blur > 0 for far in (0.0, 1.0, 30.0)}
    together = best_ridges(features, answers)
    assert len(set(together.values())) > 1
    assert together == {
        factor: best_ridges(features, {factor: each})[factor] for factor, each in answers.items()
    }
    one = readable(features[:, None], answers, features[:, None], answers, [1])["1.0"]
    assert one == pytest.approx(
        readable(features[:, None], {"1.0": answers["1.0"]}, features[:, None], answers, [1])[
            "1.0"
        ],
        abs=2e-3,
    )


def test_a_question_that_only_one_image_answers_otherwise_does_not_choose() -> None:
    features, answers = separable(200)
    rare = torch.zeros(200, 1, dtype=torch.bool)
    rare[0] = True  # among those that choose
    both = best_ridges(features, {"it": torch.cat([rare, answers], dim=1)})
    assert both == best_ridges(features, {"it": answers})
    with pytest.raises(ValueError, match="all images answer every question of it alike"):
        best_ridges(features, {"it": rare})
    with pytest.raises(ValueError, match="at least 10 images to fit on, got 9"):
        best_ridges(features[:9], {"it": answers[:9]})


@pytest.mark.parametrize(
    ("scores", "length"),
    [
        ({1: 0.5, 2: 0.9}, 1.0),
        ({1: 1.0, 2: 1.0}, 0.5),  # the more the first token tells, the earlier
        ({1: 0.0, 2: 0.4, 8: 0.6}, 4.0),  # half-way between 2 and 8, in log2
        ({1: 0.1, 16: 0.4}, 32.0),  # never
    ],
)
def test_readable_is_half_way_from_chance_to_certainty(
    scores: dict[int, float], length: float
) -> None:
    assert readable_from(scores) == pytest.approx(length)


def test_a_question_that_all_answer_alike_is_refused() -> None:
    with pytest.raises(ValueError, match="all images answer question 1 alike"):
        fit_linear(torch.randn(4, 2), torch.tensor([[True, True], [False, True]] * 2), 1e-3)


def test_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="features must be finite"):
        fit_linear(torch.full((4, 2), float("nan")), torch.tensor([[True], [False]] * 2), 1e-3)
