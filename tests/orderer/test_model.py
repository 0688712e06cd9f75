"""The orderer: every prefix stands by itself, and nothing looks ahead."""

import pytest
import torch
from torch import Tensor

from orderer import Objectives, Orderer, OrdererConfig, OrdererProcessor, Said, Stage1
from orderer.patches import unpatchify

ROUNDING = {"atol": 2e-6, "rtol": 0.0}


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)


@pytest.fixture
def text() -> Tensor:
    return torch.tensor([[49406, 320, 736, 49407, 0], [49406, 320, 1125, 3989, 49407]])


WEIGHTS = {"reconstruction": 1.0, "contrastive": 1.0}


@pytest.fixture
def said() -> Said:
    """A caption for each of two images, the same at the prefixes 1, 2 and 4."""
    processor = OrdererProcessor(image_size=16, context_length=40)
    return processor.said([["a red ring"] * 3, ["a blue moon"] * 3])


def reach(output: Tensor, source: Tensor) -> list[bool]:
    """Which places of [1, K, D] `source` have a gradient from `output`."""
    (gradient,) = torch.autograd.grad(output.sum(), source, retain_graph=True)
    return gradient[0].abs().sum(dim=-1).gt(0).tolist()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_encoding_a_prefix_is_the_prefix_of_the_encoding(
    tiny_orderer: Orderer, images: Tensor, k: int
) -> None:
    torch.testing.assert_close(
        tiny_orderer.encode(images, prefix=k), tiny_orderer.encode(images)[:, :k], **ROUNDING
    )


def test_patches_never_see_queries(tiny_orderer: Orderer, images: Tensor) -> None:
    before = tiny_orderer.encode(images)
    with torch.no_grad():
        tiny_orderer.encoder.queries[2] = torch.randn(16)
    after = tiny_orderer.encode(images)
    torch.testing.assert_close(after[:, :2], before[:, :2], **ROUNDING)
    assert not torch.allclose(after[:, 2:], before[:, 2:], atol=1e-3)


def test_a_query_sees_the_ones_before_it_and_none_after(
    tiny_orderer: Orderer, images: Tensor
) -> None:
    tokens = tiny_orderer.encode(images[:1])
    queries = tiny_orderer.encoder.queries
    for k in range(4):
        (gradient,) = torch.autograd.grad(tokens[0, k, 0], queries, retain_graph=True)
        assert gradient.abs().sum(dim=-1).gt(0).tolist() == [i <= k for i in range(4)]


def test_every_token_sees_the_whole_image(tiny_orderer: Orderer) -> None:
    image = torch.randn(1, 3, 16, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(tiny_orderer.encode(image)[0, 0, 0], image)
    assert gradient.abs().gt(0).all()


def test_integer_pixels_and_floats_mean_the_same(tiny_orderer: Orderer, images: Tensor) -> None:
    floats = images / 127.5 - 1
    torch.testing.assert_close(tiny_orderer.encode(floats), tiny_orderer.encode(images), **ROUNDING)


def test_an_embedding_of_a_prefix_never_sees_later_tokens(tiny_orderer: Orderer) -> None:
    tokens = torch.randn(1, 4, 6).requires_grad_()
    embeddings = tiny_orderer.embed_tokens(tokens)
    for k in range(4):
        assert reach(embeddings[0, k, 0], tokens) == [i <= k for i in range(4)]


def test_embedding_a_prefix_is_the_prefix_of_the_embeddings(
    tiny_orderer: Orderer, images: Tensor
) -> None:
    at_every_prefix = tiny_orderer.embed_tokens(tiny_orderer.encode(images))
    for k in range(1, 5):
        torch.testing.assert_close(
            tiny_orderer.embed_images(images, prefix=k), at_every_prefix[:, k - 1], **ROUNDING
        )


def test_embeddings_have_unit_length(tiny_orderer: Orderer, images: Tensor, text: Tensor) -> None:
    for embeddings in (tiny_orderer.embed_images(images), tiny_orderer.embed_texts(text)):
        torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(2))


def test_decoding_ignores_what_was_cut(tiny_orderer: Orderer) -> None:
    tokens, keep = torch.randn(1, 4, 6), torch.tensor([[True, True, False, False]])
    other = torch.cat([tokens[:, :2], torch.randn(1, 2, 6)], dim=1)
    assert torch.equal(tiny_orderer.decoder(tokens, keep)[0], tiny_orderer.decoder(other, keep)[0])


def test_decoding_a_cut_sequence_is_decoding_with_the_rest_masked(tiny_orderer: Orderer) -> None:
    tokens, keep = torch.randn(1, 4, 6), torch.tensor([[True, True, False, False]])
    masked = unpatchify(tiny_orderer.decoder(tokens, keep)[0], 4, rows=4).clamp(-1, 1)
    assert torch.equal(tiny_orderer.decode(tokens[:, :2]), masked)


def test_no_gradient_reaches_a_cut_token_through_the_decoder(tiny_orderer: Orderer) -> None:
    tokens = torch.randn(1, 4, 6).requires_grad_()
    patches, _ = tiny_orderer.decoder(tokens, torch.tensor([[True, True, False, False]]))
    assert reach(patches, tokens) == [True, True, False, False]


def test_decoded_pixels_lie_in_their_range(tiny_orderer: Orderer) -> None:
    pixels = tiny_orderer.decode(100 * torch.randn(2, 3, 6))
    assert pixels.shape == (2, 3, 16, 16) and pixels.abs().max() <= 1


def test_padding_a_caption_changes_nothing(tiny_orderer: Orderer, text: Tensor) -> None:
    short = text[:1, :4]
    padded = torch.nn.functional.pad(short, (0, 6))
    torch.testing.assert_close(
        tiny_orderer.embed_texts(padded), tiny_orderer.embed_texts(short), **ROUNDING
    )


def test_a_caption_is_kept_up_to_its_end(tiny_orderer: Orderer, text: Tensor) -> None:
    words, keep = tiny_orderer.embed_words(text)
    assert words.shape == (2, 5, 16)
    assert keep.tolist() == [[True, True, True, True, False], [True] * 5]


def test_a_word_is_the_same_wherever_it_stands(tiny_orderer: Orderer, text: Tensor) -> None:
    turned = text.flip(1)
    words, other = tiny_orderer.embed_words(text)[0], tiny_orderer.embed_words(turned)[0]
    assert torch.equal(other, words.flip(1))
    assert not torch.equal(tiny_orderer.embed_texts(text), tiny_orderer.embed_texts(turned))


def test_the_loss_reaches_every_parameter(
    tiny_orderer: Orderer, images: Tensor, said: Said
) -> None:
    with torch.no_grad():
        tiny_orderer.decoder.null.normal_()
    stage = Stage1(tiny_orderer, Objectives(full_share=0.0))
    stage(images, said, WEIGHTS).total(WEIGHTS).backward()
    for name, parameter in stage.named_parameters():
        assert parameter.grad is not None, name


def test_the_loss_is_a_function_of_its_generator(
    tiny_orderer: Orderer, images: Tensor, said: Said
) -> None:
    stage = Stage1(tiny_orderer, Objectives(full_share=0.5))

    def terms(seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        values = stage(images, said, WEIGHTS, generator).values
        return values["reconstruction"], values["contrastive"]

    torch.testing.assert_close(terms(1), terms(1), atol=0, rtol=0)
    assert not torch.equal(terms(1)[0], terms(2)[0])


@pytest.mark.parametrize("prefix", [0, 5])
def test_a_prefix_outside_the_sequence_is_refused(
    tiny_orderer: Orderer, images: Tensor, prefix: int
) -> None:
    with pytest.raises(ValueError, match=rf"prefix must lie in 1..4, got {prefix}"):
        tiny_orderer.encode(images, prefix=prefix)


def test_tokens_beyond_the_sequence_are_refused(tiny_orderer: Orderer) -> None:
    with pytest.raises(ValueError, match=r"prefix must lie in 1..4, got 5"):
        tiny_orderer.decode(torch.randn(1, 5, 6))


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((1, 3, 16, 18), "multiples of the patch, 4 pixels, got 16 x 18"),
        ((1, 3, 0, 16), "multiples of the patch, 4 pixels, got 0 x 16"),
        ((1, 1, 16, 16), r"images of 3 colours, \[B, 3, H, W\], got \[1, 1, 16, 16\]"),
    ],
)
def test_what_is_no_image_is_refused(
    tiny_orderer: Orderer, shape: tuple[int, ...], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        tiny_orderer.encode(torch.zeros(shape))


def test_pixels_that_are_no_numbers_are_refused(tiny_orderer: Orderer) -> None:
    with pytest.raises(ValueError, match="pixels must be finite, got NaN or infinity"):
        tiny_orderer.encode(torch.full((1, 3, 16, 16), float("nan")))


@pytest.mark.parametrize("size", [(16, 24), (8, 32), (48, 48)])
def test_images_of_any_size_become_as_many_tokens_and_are_decoded_to_any_size(
    tiny_orderer: Orderer, size: tuple[int, int]
) -> None:
    tokens = tiny_orderer.encode(torch.rand(2, 3, *size) * 2 - 1)
    assert tokens.shape == (2, 4, 6)
    assert tiny_orderer.decode(tokens[:, :2], size).shape == (2, 3, *size)


def test_queries_without_an_order_see_each_other(tiny_orderer: Orderer, images: Tensor) -> None:
    config = OrdererConfig(**{**tiny_orderer.config.to_diff_dict(), "causal": False})
    unordered = Orderer(config).eval()
    tokens = unordered.encode(images[:1])
    queries = unordered.encoder.queries
    (gradient,) = torch.autograd.grad(tokens[0, 0, 0], queries, retain_graph=True)
    assert gradient.abs().sum(dim=-1).gt(0).all()
    torch.testing.assert_close(unordered.encode(images[:1], prefix=2), tokens[:, :2], **ROUNDING)


def test_the_encoding_hash_names_the_encoding_and_nothing_else(tiny_orderer: Orderer) -> None:
    before = tiny_orderer.encoding_hash()
    with torch.no_grad():
        tiny_orderer.decoder.null += 1
    assert tiny_orderer.encoding_hash() == before
    with torch.no_grad():
        tiny_orderer.encoder.queries[0, 0] += 1e-6
    assert tiny_orderer.encoding_hash() != before
