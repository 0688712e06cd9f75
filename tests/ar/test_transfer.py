"""What is learned at some positions, asked for at others."""

import pytest
import torch
from torch import Tensor

from ar import ARConfig, ARModel, Condition
from ar.evaluation import Schooling, Sequences, Transfer, transfer
from ar.evaluation.sequences import fresh, learn
from ar.evaluation.transfer import _forget_positions, _positions, _share, _told_the_one_before

SHORT = Schooling(steps=30, batch_size=32, learning_rate=5e-3)
LONGER = Schooling(steps=150, batch_size=32, learning_rate=5e-3)


def make(**settings: object) -> ARModel:
    sizes = {"tokens": 6, "token_dim": 2, "condition": "none", "width": 16, "heads": 2, "layers": 1}
    small = {"mlp_width": 32, "head": "regression", "head_width": 16, "head_layers": 1}
    return ARModel(ARConfig(**{**sizes, **small, **settings}))


def following(number: int, signs: tuple[int, ...]) -> Sequences:
    """Each token is nearly the one before it, or its opposite."""
    tokens = [torch.randn(number, 2)]
    for sign in signs:
        tokens.append(0.95 * sign * tokens[-1] + 0.3 * torch.randn(number, 2))
    return Sequences(tokens=torch.stack(tokens, dim=1))


def of(*signs: int, schooling: Schooling = SHORT) -> Transfer:
    return transfer(make, following(500, signs), following(200, signs), bins=2, schooling=schooling)


def test_one_rule_serves_where_it_was_not_learned_and_its_opposite_does_not() -> None:
    alike, opposed = of(1, 1, 1, 1, 1), of(1, 1, -1, -1, -1)
    assert alike.shares[1] is not None and alike.shares[1] > 0.8
    assert opposed.shares[1] is not None and opposed.shares[1] < 0
    assert alike.mean is not None and opposed.mean is not None and alike.mean > opposed.mean


def test_one_position_off_costs_little_by_one_rule_and_all_by_rules_that_take_turns() -> None:
    alike, in_turn = of(1, 1, 1, 1, 1), of(1, -1, 1, -1, 1, schooling=LONGER)
    assert alike.shifted is not None and alike.shifted < 0.2
    assert in_turn.shifted is not None and in_turn.shifted > 1


@pytest.mark.parametrize("head", ["flow", "in_trunk"])
def test_one_position_off_is_the_model_whose_rows_were_moved(head: str) -> None:
    model = make(head=head)
    misled = _told_the_one_before(model)
    for moved, table in zip(_positions(misled), _positions(model), strict=True):
        assert torch.equal(moved[1:], table[:-1]) and torch.equal(moved[0], table[-1])
    assert len(_positions(model)) == {"flow": 1, "in_trunk": 2}[head]


def test_where_nothing_is_to_be_gained_nothing_is_shared() -> None:
    alone = [Sequences(tokens=torch.randn(number, 6, 2)) for number in (200, 100)]
    found = transfer(make, *alone, bins=3, schooling=Schooling(steps=5))
    assert list(found.shares) == [None] * 3
    assert found.without_positions is None and found.shifted is None and found.mean is None


def test_a_share_is_of_what_can_be_gained_where_surely_something_can() -> None:
    most = torch.full((16, 2), 2.0).double()
    assert _share(most / 4, most) == pytest.approx(0.25)
    assert _share(most, -most) is None
    gained = most / 4
    most[:, 1], gained[:, 1] = torch.randn(16) - 1, -50.0  # nothing to be gained, much to be lost
    assert _share(gained, most) == pytest.approx(0.25)


def test_the_mean_takes_what_misleads_for_nothing() -> None:
    shares = [-3.0, 1.2, None, 0.5]
    found = Transfer(gains=torch.ones(16, 4), shares=shares, without_positions=0.0, shifted=0.0)
    assert found.mean == pytest.approx(0.5)


@pytest.mark.parametrize("head", ["flow", "in_trunk"])
def test_a_model_that_is_told_no_position_stays_so(head: str) -> None:
    train = following(40, (1, 1, 1, 1, 1))
    model = fresh(lambda: make(head=head), train, seed=0)
    _forget_positions(model)
    learn(model, train, steps=3, batch_size=8, learning_rate=1e-2, seed=0)
    tables = [each for name, each in model.named_parameters() if name.endswith("positions")]
    assert len(tables) == {"flow": 1, "in_trunk": 2}[head]
    assert not any(table.any() for table in tables)


def test_a_blind_model_sees_neither_tokens_nor_condition() -> None:
    def unseen(model: ARModel, chosen: Tensor) -> Condition:
        raise AssertionError("a blind model asked for a condition")

    train = Sequences(tokens=following(40, (1, 1, 1, 1, 1)).tokens, condition=unseen)
    models = []
    for tokens in (train.tokens, train.tokens.clone()):
        tokens[:, 0] = tokens[:, 0] if not models else tokens[torch.randperm(40), 0]
        model = fresh(make, train, seed=0)
        seen = Sequences(tokens=tokens, condition=unseen)
        at = torch.arange(6) > 0
        learn(model, seen, steps=3, batch_size=8, learning_rate=1e-2, seed=0, at=at, blind=True)
        models.append(model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_too_few_test_images_are_refused() -> None:
    few = following(8, (1, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="at least 16 test images, got 8"):
        transfer(make, few, few)
