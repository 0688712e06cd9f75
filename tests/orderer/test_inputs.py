"""What a user hands in by mistake is refused in a sentence, also where no test checks shapes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orderer import Orderer, OrdererConfig, OrdererProcessor
from orderer.inputs import check_colours, check_prefix, check_text, check_tokens, in_range


@pytest.fixture
def processor() -> OrdererProcessor:
    return OrdererProcessor(image_size=16, context_length=8)


def picture() -> Image.Image:
    return Image.fromarray(np.zeros((20, 30, 3), np.uint8))


def test_a_list_of_pictures_becomes_embeddings(
    tiny_orderer: Orderer, processor: OrdererProcessor
) -> None:
    pixels = processor.pixels([picture(), picture().convert("L")])
    assert tiny_orderer.embed_images(pixels, prefix=2).shape == (2, 8)
    assert processor.images(tiny_orderer.decode(tiny_orderer.encode(pixels)))[0].size == (16, 16)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (picture(), "images must be a list, got a lone Image"),
        ([], "images must be at least one, got none"),
        ([picture(), "cat.jpg"], r"must be a list of Image, number 1 \(from 0\) is str"),
        ([np.zeros((4, 4, 3))], r"must be a list of Image, number 0 \(from 0\) is ndarray"),
    ],
)
def test_what_is_no_list_of_pictures_is_refused(
    processor: OrdererProcessor, images: Any, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        OrdererProcessor.pixels.__wrapped__(processor, images)


@pytest.mark.parametrize(
    ("captions", "sentence"),
    [
        ("a cat", "captions must be a list, got a lone str"),
        ([], "captions must be at least one, got none"),
        (["a cat", ""], r"caption 1 \(from 0\) has no word, got ''"),
        (["a cat", "a dog", " \n\t "], r"caption 2 \(from 0\) has no word, got ' \\n\\t '"),
        (["a cat", None], r"captions must be a list of str, number 1 \(from 0\) is NoneType"),
    ],
)
def test_what_is_no_list_of_captions_is_refused(
    processor: OrdererProcessor, captions: Any, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        OrdererProcessor.text.__wrapped__(processor, captions)


def test_a_caption_without_a_word_does_not_fit(processor: OrdererProcessor) -> None:
    assert not processor.fits("") and not processor.fits("  ") and processor.fits("cat")


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), "got torch.int64"),
        (torch.full((1, 3, 4, 4), torch.nan), "pixels must be finite, got NaN or infinity"),
        (torch.full((1, 3, 4, 4), torch.inf), "pixels must be finite, got NaN or infinity"),
        (torch.full((1, 3, 4, 4), 255.0), r"in \[-1, 1\] \(levels .* as uint8\), got 255\.\.255"),
    ],
)
def test_pixels_that_are_none_are_refused(pixels: torch.Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        in_range(pixels)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([picture()], "as OrdererProcessor.pixels makes them, got list"),
        (torch.zeros(3, 4, 4), r"3 colours, \[B, 3, H, W\], got \[3, 4, 4\]"),
        (torch.zeros(1, 1, 4, 4), r"3 colours, \[B, 3, H, W\], got \[1, 1, 4, 4\]"),
        (torch.zeros(1, 4, 4, 3), r"3 colours, \[B, 3, H, W\], got \[1, 4, 4, 3\]"),
    ],
)
def test_images_of_another_kind_are_refused(images: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_colours(images)


@pytest.mark.parametrize("size", [(15, 16), (16, 18), (2, 16), (0, 16)])
def test_images_that_patches_do_not_tile_are_refused(
    tiny_orderer: Orderer, size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=f"multiples of the patch.* got {size[0]} x {size[1]}"):
        tiny_orderer.encode(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("prefix", [0, -1, 5, 2.5, True, "3"])
def test_a_prefix_outside_is_refused(prefix: Any) -> None:
    with pytest.raises(ValueError, match=rf"prefix must lie in 1\.\.4, got {prefix!r}"):
        check_prefix(prefix, 4)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((1, 2, 5), r"tokens must be \[B, k, 6\], got \[1, 2, 5\]"),
        ((2, 6), r"tokens must be \[B, k, 6\], got \[2, 6\]"),
        ((1, 5, 6), r"prefix must lie in 1\.\.4, got 5"),
        ((1, 0, 6), r"prefix must lie in 1\.\.4, got 0"),
    ],
)
def test_tokens_of_another_orderer_are_refused(shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_tokens(torch.zeros(shape), 4, 6)


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (torch.full((1, 2, 6), torch.nan), "tokens must be finite, got NaN or infinity"),
        (torch.zeros(1, 2, 6, dtype=torch.long), "tokens must be floats, got torch.int64"),
    ],
)
def test_tokens_that_are_no_numbers_are_refused(tokens: torch.Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_tokens(tokens, 4, 6)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (["a cat"], r"must be tokenised by OrdererProcessor\.text .*, got list"),
        (torch.zeros(5, dtype=torch.long), r"L in 1\.\.8, got \[5\]"),
        (torch.zeros(1, 9, dtype=torch.long), r"L in 1\.\.8, got \[1, 9\]"),
        (torch.zeros(1, 4), "must be whole numbers, got torch.float32"),
        (torch.tensor([[3, 50]]), r"word pieces must lie in 0\.\.49, got 50"),
        (torch.tensor([[3, -1]]), r"word pieces must lie in 0\.\.49, got -1"),
    ],
)
def test_captions_that_nobody_tokenised_are_refused(text: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_text(text, 8, 50)


WRONG_TEXT = torch.tensor([[49406, 320, 60_000]])
ASK: dict[str, Callable[[Orderer], object]] = {
    "tokens to decode": lambda o: o.decode(torch.full((1, 2, 6), torch.nan)),
    "tokens to embed": lambda o: o.embed_tokens(torch.full((1, 2, 6), torch.nan)),
    "tokens to describe": lambda o: o.caption_tokens(torch.zeros(1, 2, 5)),
    "tokens to match": lambda o: o.match(torch.zeros(1, 2, 5), torch.tensor([[49406, 49407]])),
    "text to embed": lambda o: o.embed_texts(WRONG_TEXT),
    "words": lambda o: o.embed_words(WRONG_TEXT),
    "text to match": lambda o: o.match(torch.zeros(1, 2, 6), WRONG_TEXT),
    "text to score": lambda o: o.caption_likelihood(
        torch.zeros(1, 2, 6), torch.full((1, 41), 49407)
    ),
    "pixels": lambda o: o.encode(torch.full((1, 3, 16, 16), 200.0)),
}


@pytest.mark.parametrize("what", ASK)
def test_every_public_call_refuses_what_is_none_of_its_own(
    tiny_orderer: Orderer, what: str
) -> None:
    config = OrdererConfig(**{**tiny_orderer.config.own(), "fusion_layers": 1})
    wrong = {"tokens": "^tokens must", "text": "^(word pieces|tokenised)", "words": "^word pieces"}
    sentence = wrong.get(what.partition(" ")[0], r"^floats must lie in \[-1, 1\]")
    with pytest.raises(ValueError, match=sentence):
        ASK[what](Orderer(config))
