"""Both encoders keep one contract: prefixes stand by themselves, and no query looks ahead."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from orderer import Orderer, OrdererConfig
from orderer.cross_encoder import CrossEncoder

encoders = pytest.mark.parametrize("encoder", ["joint", "cross"])


def make(encoder: str, **settings: object) -> Orderer:
    """4 tokens of 6 channels from images of 16 x 16; three layers, of which two attend across."""
    config = OrdererConfig(
        image_size=16,
        patch_size=4,
        encoder=encoder,
        tokens=4,
        token_dim=6,
        width=16,
        heads=2,
        encoder_layers=3,
        decoder_layers=1,
        readout_layers=1,
        text_width=16,
        text_heads=2,
        text_layers=1,
        embed_dim=8,
        **settings,
    )
    return Orderer(config).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 16, 16) * 2 - 1


def seen(output: Tensor, source: Tensor) -> list[bool]:
    """Which rows of a source have a gradient, however small, from an output."""
    (gradient,) = torch.autograd.grad(output, source, retain_graph=True)
    return gradient.flatten(1).ne(0).any(dim=1).tolist()


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("causal", [True, False])
@encoders
def test_encoding_a_prefix_is_the_prefix_of_the_encoding(
    encoder: str, causal: bool, dtype: torch.dtype, most: float, images: Tensor
) -> None:
    orderer, pixels = make(encoder, causal=causal).to(dtype), images.to(dtype)
    tokens = orderer.encode(pixels)
    assert tokens.dtype == dtype
    for k in range(1, 5):
        assert (orderer.encode(pixels, prefix=k) - tokens[:, :k]).abs().max() <= most


@encoders
def test_no_gradient_reaches_a_later_query(encoder: str, images: Tensor) -> None:
    orderer = make(encoder).double()
    tokens = orderer.encode(images[:1].double())
    for k in range(4):
        for source in (orderer.encoder.queries, orderer.encoder.mixing.weight):
            assert seen(tokens[0, k, 0], source) == [i <= k for i in range(4)]


@encoders
def test_without_an_order_every_token_sees_every_query(encoder: str, images: Tensor) -> None:
    orderer = make(encoder, causal=False)
    tokens = orderer.encode(images[:1])
    for k in range(4):
        assert all(seen(tokens[0, k, 0], orderer.encoder.queries))


@encoders
def test_a_changed_query_leaves_the_tokens_before_it(encoder: str, images: Tensor) -> None:
    """So it leaves the patches as well: the tokens before it look at them in every layer."""
    orderer = make(encoder)
    before = orderer.encode(images)
    with torch.no_grad():
        orderer.encoder.queries[2] += torch.randn(16)
    after = orderer.encode(images)
    assert torch.equal(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2:], before[:, 2:], atol=1e-3)


@encoders
def test_every_token_sees_the_whole_image(encoder: str) -> None:
    orderer, image = make(encoder), torch.randn(1, 3, 16, 16).requires_grad_()
    tokens = orderer.encode(image)
    for k in range(4):
        (gradient,) = torch.autograd.grad(tokens[0, k, 0], image, retain_graph=True)
        assert gradient.ne(0).all()


def test_features_are_seen_across_and_not_by_the_blend_alone(images: Tensor) -> None:
    orderer = make("cross")
    with torch.no_grad():
        orderer.encoder.mixing.weight.zero_()
    assert not torch.allclose(orderer.encode(images[:1]), orderer.encode(images[1:]), atol=1e-3)


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 1, 2]), (2, [0, 2]), (5, [0])])
def test_queries_attend_to_the_features_every_few_layers(every: int, expected: list[int]) -> None:
    layers = make("cross", cross_every=every).encoder.qformer.layer
    assert [i for i, layer in enumerate(layers) if layer.has_cross_attention] == expected


@pytest.mark.parametrize("size", [(16, 24), (8, 32), (48, 48)])
@encoders
def test_images_of_any_size_become_as_many_tokens(encoder: str, size: tuple[int, int]) -> None:
    orderer = make(encoder)
    pixels = torch.rand(2, 3, *size) * 2 - 1
    tokens = orderer.encode(pixels)
    assert tokens.shape == (2, 4, 6)
    torch.testing.assert_close(orderer.encode(pixels, prefix=2), tokens[:, :2], atol=1e-5, rtol=0)


@encoders
def test_fifty_steps_learn(encoder: str) -> None:
    orderer = make(encoder, bottleneck="none").train()
    pixels = torch.rand(8, 3, 16, 16) * 2 - 1
    wanted = torch.randn(8, 4, 6)
    optimizer = torch.optim.AdamW(orderer.encoder.parameters(), lr=3e-3)
    errors = []
    for _ in range(50):
        error = (orderer.encode(pixels) - wanted).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.3 * errors[0]


@encoders
def test_a_saved_encoder_gives_the_same_bits(encoder: str, images: Tensor, tmp_path: Path) -> None:
    orderer = make(encoder, cross_every=1)
    orderer.save_pretrained(tmp_path)
    loaded = Orderer.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(images), orderer.encode(images))
    assert loaded.encoding_hash() == orderer.encoding_hash()


def test_the_encoding_hash_names_the_encoder() -> None:
    hashes = set()
    for encoder in ("joint", "cross"):
        torch.manual_seed(0)
        hashes.add(make(encoder).encoding_hash())
    assert len(hashes) == 2


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_dropped_out(images: Tensor, training: bool) -> None:
    orderer = make("cross").train(training)
    assert torch.equal(orderer.encode(images), orderer.encode(images))


def test_only_known_encoders_are_made() -> None:
    assert isinstance(make("cross").encoder, CrossEncoder)
    with pytest.raises(ValueError, match="encoder must be one of 'joint', 'cross', got 'other'"):
        make("other")
