"""Words of the AR model's own: what it reads before the tokens, and writes after them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ar import ARConfig, ARModel, Sampling
from ar.speaking import speaker
from orderer.pieces import END_PIECE, START_PIECE

PIECES = [10, 20, 30, 40, END_PIECE]
SMALL = {
    "tokens": 4,
    "token_dim": 6,
    "width": 16,
    "heads": 2,
    "layers": 2,
    "mlp_width": 32,
    "head_width": 16,
    "head_layers": 2,
    "context_length": 8,
}
ROUNDING = {"atol": 1e-5, "rtol": 0.0}


def made(**settings: Any) -> ARModel:
    words = {"condition": "none", "writes": True, "caption_pieces": PIECES}
    return awake(ARModel(ARConfig(**{**SMALL, **words, **settings})))


def awake(model: ARModel) -> ARModel:
    """Give weights to the layers of the head that start at zero, where its output is always 0."""
    for layer in model.head.modules():
        if isinstance(layer, torch.nn.Linear) and not layer.weight.any():
            torch.nn.init.normal_(layer.weight, std=0.3)
    return model.eval()


def text(*captions: list[int]) -> Tensor:
    pieces = [[START_PIECE, *words, END_PIECE] for words in captions]
    longest = max(map(len, pieces))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in pieces])


@torch.no_grad()
def test_padding_a_caption_changes_nothing() -> None:
    model, tokens, short = made(condition="words"), torch.randn(1, 3, 6), text([10, 20])
    padded = torch.nn.functional.pad(short, (0, 3))
    whole = torch.randn(1, 4, 6)
    torch.testing.assert_close(
        model.caption_likelihood(tokens, padded), model.caption_likelihood(tokens, short)
    )
    torch.testing.assert_close(
        model.caption_loss(tokens, padded), model.caption_loss(tokens, short)
    )
    torch.testing.assert_close(
        model(whole, model.conditioned_on_words(padded)),
        model(whole, model.conditioned_on_words(short)),
        **ROUNDING,
    )


def test_a_word_s_score_never_sees_that_word_or_later_ones() -> None:
    model, tokens = made(), torch.randn(1, 3, 6)
    said = text([10, 20, 30])
    words = model.own_words(said).detach().requires_grad_()
    model.own_words.forward = lambda _: words  # type: ignore[method-assign]
    scores = model._written(tokens, said)
    for place in range(said.shape[1]):
        (gradient,) = torch.autograd.grad(scores[0, place].sum(), words, retain_graph=True)
        reached = gradient[0].abs().sum(dim=-1).gt(0).tolist()
        assert reached == [other <= place for other in range(said.shape[1])]


def test_a_caption_after_k_tokens_sees_these_and_nothing_else() -> None:
    model, said = made(condition="words"), text([10, 20])
    tokens = torch.randn(2, 4, 6).requires_grad_()
    likelihood = model.caption_likelihood(tokens[:, :2], said.expand(2, -1))
    (gradient,) = torch.autograd.grad(likelihood[0], tokens)
    reached = gradient.abs().sum(dim=-1).gt(0).tolist()
    assert reached == [[True, True, False, False], [False] * 4]


@torch.no_grad()
def test_the_likelihood_of_a_caption_is_the_sum_of_the_scores_of_its_words() -> None:
    model, tokens, words = made(), torch.randn(1, 2, 6), [10, 40, 40]
    said = text(words)
    expected = torch.tensor(0.0)
    for place, piece in enumerate([*words, END_PIECE]):
        scores = model._written(tokens, said[:, : place + 1])[
            0, -1
        ]  # what comes later is not there
        expected = expected + scores.log_softmax(dim=0)[PIECES.index(piece)]
    likelihood = model.caption_likelihood(tokens, said)
    torch.testing.assert_close(likelihood[0], expected, **ROUNDING)
    torch.testing.assert_close(model.caption_loss(tokens, said), -likelihood[0] / 4, **ROUNDING)


@torch.no_grad()
def test_an_unknown_piece_is_read_as_any_other_and_never_scored() -> None:
    model, tokens = made(condition="words"), torch.randn(1, 2, 6)
    one, other, known = text([10, 11]), text([10, 12]), text([10, 20])
    assert torch.equal(
        model.caption_likelihood(tokens, one), model.caption_likelihood(tokens, other)
    )
    states = [model.conditioned_on_words(said).states for said in (one, other, known)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert model.own_words.targets(one).tolist() == [[0, -100, 4]]


def test_fifty_steps_learn_which_caption_belongs_to_which_tokens() -> None:
    model, tokens = made().train(), torch.randn(3, 4, 6)
    said = text([10, 20], [30], [20, 20, 40])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(50):
        loss = model.caption_loss(tokens[:, : 1 + step % 4], said)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    for k in range(1, 5):
        assert torch.equal(model.caption(tokens[:, :k]), said)
        own = model.caption_likelihood(tokens[:, :k], said)
        assert (own > model.caption_likelihood(tokens[:, :k], said.roll(1, 0))).all()


@torch.no_grad()
def test_reading_each_place_once_says_the_same_as_reading_all_again() -> None:
    model, tokens, said = made(), torch.randn(3, 2, 6), text([10, 20, 30, 40])
    said = said.expand(3, -1)
    speak = speaker(model.trunk, model.own_words, model.unconditioned(3), model.standardise(tokens))
    for length in range(1, said.shape[1] + 1):
        again = model._written(tokens, said[:, :length])[:, -1]
        torch.testing.assert_close(speak(said[:, :length]), again, **ROUNDING)


@torch.no_grad()
def test_a_caption_begins_and_ends_within_the_context() -> None:
    written = made().caption(torch.randn(5, 1, 6), temperature=1.0)
    assert written.shape[1] <= SMALL["context_length"]
    assert (written[:, 0] == START_PIECE).all()
    assert ((written == END_PIECE).sum(dim=1) == 1).all()
    assert set(written.flatten().tolist()) <= {0, START_PIECE, *PIECES}


@torch.no_grad()
@pytest.mark.parametrize("head", ["flow", "in_trunk", "mixture"])
def test_a_model_generates_from_words_of_its_own(head: str) -> None:
    model = made(condition="words", writes=False, head=head)
    condition = model.conditioned_on_words(text([10, 20], [30]))
    tokens = model.generate(condition, sampling=Sampling(steps=2), seeds=[0, 0])
    assert tokens.shape == (2, 4, 6) and bool(tokens.isfinite().all())
    assert not torch.allclose(tokens[0], tokens[1])  # one seed, two captions


def test_both_losses_together_reach_every_parameter() -> None:
    model, tokens, said = made(condition="words"), torch.randn(2, 4, 6), text([10, 11], [30, 20])
    condition = model.drop(model.conditioned_on_words(said), torch.tensor([True, False]))
    loss = model.loss(tokens, condition).sum() + model.caption_loss(tokens, said)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_a_saved_model_writes_the_same_captions(tmp_path: Path) -> None:
    model, tokens = made(), torch.randn(4, 2, 6)
    model.set_statistics(torch.randn(4, 6), 1 + torch.rand(4, 6))
    model.save_pretrained(tmp_path)
    again = ARModel.from_pretrained(tmp_path)
    said = model.caption(tokens)
    assert torch.equal(again.caption(tokens), said)
    assert torch.equal(
        again.caption_likelihood(tokens, said), model.caption_likelihood(tokens, said)
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"caption_pieces": []}, "needs caption_pieces, got none"),
        ({"caption_pieces": [], "writes": False, "condition": "words"}, "needs caption_pieces"),
        ({"caption_pieces": [20, 10, END_PIECE]}, "caption_pieces must rise"),
        ({"caption_pieces": [10, 10, END_PIECE]}, "caption_pieces must rise"),
        ({"caption_pieces": [10, 20]}, f"must hold the end of a text, {END_PIECE}"),
        ({"caption_pieces": [-1, END_PIECE]}, r"must lie in 0\.\.49407, got -1\.\.49407"),
        ({"writes": False}, "caption_pieces belong to an AR model with words of its own"),
    ],
)
def test_pieces_that_make_no_sense_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(**settings)


def test_a_model_that_does_not_write_says_so() -> None:
    tokens, said = torch.randn(1, 2, 6), text([10])
    silent = made(writes=False, condition="words")
    for call in (silent.caption, lambda z: silent.caption_loss(z, said)):
        with pytest.raises(ValueError, match="by an AR model with `writes`, got false"):
            call(tokens)


def test_a_text_longer_than_the_context_is_refused() -> None:
    model, tokens = made(condition="words"), torch.randn(1, 2, 6)
    fits, long = text([10] * 6), text([10] * 7)
    model.caption_likelihood(tokens, fits)
    model.conditioned_on_words(fits)
    for call in (
        lambda: model.caption_loss(tokens, long),
        lambda: model.caption_likelihood(tokens, long),
        lambda: model.conditioned_on_words(long),
    ):
        with pytest.raises(ValueError, match="reads 8 word pieces, got 9"):
            call()


def test_captions_of_other_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prefix must lie in 1\.\.4, got 0"):
        made().caption(torch.randn(1, 0, 6))
    with pytest.raises(ValueError, match=r"tokens must be \[B, k, 6\], got \[1, 2, 5\]"):
        made().caption(torch.randn(1, 2, 5))
    with pytest.raises(ValueError, match=r"temperature must be at least 0, got -1\.0"):
        made().caption(torch.randn(1, 2, 6), temperature=-1.0)
