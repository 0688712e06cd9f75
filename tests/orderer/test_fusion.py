"""Fusion: words see the prefix and what was said before, and nothing that was cut."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from orderer import Objectives, Orderer, OrdererConfig, OrdererProcessor, Stage1
from orderer.pieces import END_PIECE, START_PIECE, UNKNOWN

SIZES = {
    "image_size": 16,
    "patch_size": 4,
    "tokens": 4,
    "token_dim": 6,
    "width": 16,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "readout_layers": 1,
    "text_width": 16,
    "text_heads": 2,
    "text_layers": 1,
    "embed_dim": 8,
    "context_length": 12,
}
CAPTIONS = [["a red ring"], ["a blue moon at left"], ["a green cross"], ["a red moon"]]


@pytest.fixture
def processor() -> OrdererProcessor:
    return OrdererProcessor(image_size=16, context_length=12)


@pytest.fixture
def writer(processor: OrdererProcessor) -> Orderer:
    pieces = processor.pieces(CAPTIONS)
    return Orderer(OrdererConfig(**SIZES, fusion_layers=2, caption_pieces=pieces)).eval()


@pytest.fixture
def text(processor: OrdererProcessor) -> Tensor:
    return processor.text([of_one[0] for of_one in CAPTIONS])


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(4, 4, 6)


CUT = torch.tensor([[True, True, False, False]]).expand(4, -1)


def test_later_words_change_nothing_that_is_said_before(
    writer: Orderer, tokens: Tensor, text: Tensor
) -> None:
    keep = torch.ones(4, 4, dtype=torch.bool)
    other = torch.cat([text[:, :3], text[:, 3:].flip(0)], dim=1)
    first = writer.fusion.write(tokens, keep, writer.text.words(text))
    second = writer.fusion.write(tokens, keep, writer.text.words(other))
    assert torch.equal(first[:, :3], second[:, :3])
    assert not torch.equal(first[:, 3:], second[:, 3:])


def test_a_cut_token_changes_neither_words_nor_match(
    writer: Orderer, tokens: Tensor, text: Tensor
) -> None:
    words, spoken = writer.embed_words(text)
    other = torch.cat([tokens[:, :2], 9 * torch.randn(4, 2, 6)], dim=1)
    for use in (
        lambda z: writer.fusion.write(z, CUT, words),
        lambda z: writer.fusion.match(z, CUT, words, spoken),
    ):
        assert torch.equal(use(tokens), use(other))


def test_cutting_is_not_giving(writer: Orderer, tokens: Tensor, text: Tensor) -> None:
    words, spoken = writer.embed_words(text)
    torch.testing.assert_close(
        writer.match(tokens[:, :2], text), writer.fusion.match(tokens, CUT, words, spoken)
    )
    cut = writer.fusion.write(tokens[:, :2], CUT[:, :2], words)
    torch.testing.assert_close(cut, writer.fusion.write(tokens, CUT, words))


def test_gradients_reach_the_kept_tokens_and_no_other(
    writer: Orderer, tokens: Tensor, text: Tensor
) -> None:
    tokens = tokens.requires_grad_()
    words, spoken = writer.embed_words(text)
    for out in (
        writer.fusion.write(tokens, CUT, words),
        writer.fusion.match(tokens, CUT, words, spoken),
    ):
        (gradient,) = torch.autograd.grad(out.square().sum(), tokens, retain_graph=True)
        assert torch.equal(gradient.abs().sum(dim=-1) > 0, CUT)


def test_padding_changes_neither_likelihood_nor_match(
    writer: Orderer, tokens: Tensor, text: Tensor
) -> None:
    padded = torch.nn.functional.pad(text, (0, 3))
    for use in (writer.match, writer.caption_likelihood):
        torch.testing.assert_close(use(tokens, padded), use(tokens, text))


def test_in_matching_every_word_has_its_say(writer: Orderer, tokens: Tensor, text: Tensor) -> None:
    words, spoken = writer.embed_words(text)
    words = words.detach().requires_grad_()
    logits = writer.fusion.match(tokens, CUT, words, spoken)
    (gradient,) = torch.autograd.grad(logits.sum(), words)
    assert torch.equal(gradient.abs().sum(dim=-1) > 0, spoken)


def test_a_likelihood_is_the_sum_of_its_steps(
    writer: Orderer, tokens: Tensor, text: Tensor
) -> None:
    at_once = writer.caption_likelihood(tokens[:, :3], text)
    assert torch.equal(writer.caption_likelihood(tokens[:, :3], text.int()), at_once)
    pieces = writer.config.caption_pieces
    for row, caption in enumerate(text.tolist()):
        total = 0.0
        for place in range(1, caption.index(END_PIECE) + 1):
            so_far = text[row : row + 1, :place]
            logits = writer.fusion.write(
                tokens[row : row + 1, :3],
                torch.ones(1, 3, dtype=torch.bool),
                writer.text.words(so_far),
            )
            total += logits[0, -1].log_softmax(dim=0)[pieces.index(caption[place])].item()
        assert at_once[row].item() == pytest.approx(total, abs=1e-4)


def test_a_piece_that_cannot_be_written_is_no_target(
    writer: Orderer, processor: OrdererProcessor
) -> None:
    text = processor.text(["a purple ring", "a red ring at left"])
    pieces = writer.config.caption_pieces
    targets = writer.fusion.targets(text)
    assert targets.shape == (2, text.shape[1] - 1)
    a, _, ring, end = (pieces.index(p) if p in pieces else None for p in text[0, 1:5].tolist())
    assert targets[0, :4].tolist() == [a, UNKNOWN, ring, end]
    assert (targets[0, 4:] == UNKNOWN).all()
    assert (targets[1] >= 0).all()


def test_the_whole_vocabulary_can_be_written(processor: OrdererProcessor, text: Tensor) -> None:
    writer = Orderer(OrdererConfig(**SIZES, fusion_layers=1)).eval()
    assert writer.fusion.to_piece.out_features == writer.config.vocabulary
    targets = writer.fusion.targets(text)
    assert torch.equal(targets[1], text[1, 1:])


def test_pieces_become_words_again(processor: OrdererProcessor, text: Tensor) -> None:
    assert processor.words(text) == [of_one[0] for of_one in CAPTIONS]


def test_what_is_written_starts_and_ends_as_a_text(writer: Orderer, tokens: Tensor) -> None:
    written = writer.caption_tokens(tokens)
    assert written.shape[1] <= writer.config.context_length
    assert (written[:, 0] == START_PIECE).all()
    assert ((written == END_PIECE).sum(dim=1) == 1).all()
    ended = (written == END_PIECE).cumsum(dim=1) > 0
    assert (written[ended & (written != END_PIECE)] == 0).all()


def test_captions_are_drawn_as_the_generator_says(writer: Orderer, tokens: Tensor) -> None:
    def drawn(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return writer.caption_tokens(tokens, 1.0, generator).tolist()

    assert drawn(0) == drawn(0) != drawn(1)


def test_what_is_learned_by_heart_is_written_again(
    writer: Orderer, processor: OrdererProcessor
) -> None:
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    stage = Stage1(writer.train(), Objectives(captioning=1.0, matching=1.0))
    said = processor.said([of_one * 3 for of_one in CAPTIONS])
    optimizer = torch.optim.AdamW(writer.parameters(), lr=1e-2)
    first, last = {}, {}
    for _ in range(50):
        terms = stage(images, said, ("captioning", "matching"))
        last = {name: value.item() for name, value in terms.values.items()}
        first = first or last
        optimizer.zero_grad()
        terms.total({"captioning": 1.0, "matching": 1.0}).backward()
        optimizer.step()
    assert last["captioning"] < 0.1 * first["captioning"]
    assert last["matching"] < 0.7 * first["matching"]
    written = processor.words(writer.eval().caption(images))
    assert written == [of_one[0] for of_one in CAPTIONS]
    one = writer.caption(images, prefix=1)
    assert torch.equal(one, writer.caption_tokens(writer.encode(images)[:, :1]))


def test_detail_is_written_from_the_prefix_it_goes_with(
    writer: Orderer, processor: OrdererProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage1(writer, Objectives(captioning=1.0))
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    growing = {1: "a red", 2: "a red moon", 4: "a red moon at left"}
    said = processor.said([list(growing.values())] * 8)
    kept, wanted = [], []
    write, targets = writer.fusion.write, writer.fusion.targets

    def heard(tokens: Tensor, keep: Tensor, words: Tensor) -> Tensor:
        kept.extend(keep.sum(dim=1).tolist())
        return write(tokens, keep, words)

    def asked(text: Tensor) -> Tensor:
        wanted.extend(processor.words(text))
        return targets(text)

    monkeypatch.setattr(writer.fusion, "write", heard)
    monkeypatch.setattr(writer.fusion, "targets", asked)
    stage(images, said, ("captioning",))
    assert set(kept) == {1, 2, 4}
    assert wanted == [growing[k] for k in kept]


def test_saved_and_loaded_it_writes_the_same(
    writer: Orderer, tokens: Tensor, text: Tensor, tmp_path: Path
) -> None:
    writer.save_pretrained(tmp_path)
    again = Orderer.from_pretrained(tmp_path)
    assert torch.equal(
        again.caption_likelihood(tokens, text), writer.caption_likelihood(tokens, text)
    )
    assert torch.equal(again.match(tokens, text), writer.match(tokens, text))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"caption_pieces": [END_PIECE]}, "caption_pieces need fusion_layers"),
        ({"fusion_layers": 1, "caption_pieces": [7, 5, END_PIECE]}, "caption_pieces must rise"),
        ({"fusion_layers": 1, "caption_pieces": [5]}, "must hold the end of a text"),
        ({"fusion_layers": 1, "caption_pieces": [-1, END_PIECE]}, "caption_pieces must lie in"),
        ({"fusion_layers": 0}, "fusion_layers must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        OrdererConfig(**settings)


def test_without_fusion_nothing_is_written(tiny_orderer: Orderer, text: Tensor) -> None:
    tokens = torch.randn(4, 4, 6)
    for use in (
        lambda: tiny_orderer.caption_tokens(tokens),
        lambda: tiny_orderer.match(tokens, text),
        lambda: tiny_orderer.caption_likelihood(tokens, text),
    ):
        with pytest.raises(ValueError, match="an orderer with fusion_layers, got null"):
            use()
    for name in ("captioning", "matching"):
        with pytest.raises(ValueError, match=f"{name} of weight 0.5 needs a model with"):
            Stage1(tiny_orderer, Objectives(**{name: 0.5}))


def test_a_negative_temperature_is_refused(writer: Orderer, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="temperature must be at least 0, got -1"):
        writer.caption_tokens(tokens, -1.0)
