"""Fixed orders: each visits every patch once, and gives the image back."""

from functools import cache
from pathlib import Path

import pytest
import torch
from sklearn.decomposition import PCA

from data.scenes import load_scenes
from orderer import Objectives, Orderer, OrdererConfig
from orderer.inputs import in_range
from orderer.sequences import PATHS, FixedOrder, SequenceConfig, load_sequence
from orderer.sequences.arrangements import Noise, Scales
from orderer.sequences.config import Order
from orderer.sequences.paths import hilbert, shuffled
from orderer.sequences.refining import Refining

SIZE, PATCH = 16, 4
ALL = 3 * PATCH**2
MANY = 3 * SIZE**2 + 1
"""Images that components of whole images need."""
OF_CELLS: tuple[Order, ...] = ("raster", "spiral", "z", "hilbert", "centre_out", "shuffled")
ORDERS: tuple[Order, ...] = (*OF_CELLS, "scales", "depth", "principal", "noise")


@cache
def images(number: int = 40) -> torch.Tensor:
    return load_scenes("val", number, SIZE).images


def fixed(order: str, channels: int = ALL, **settings) -> FixedOrder:
    config = SequenceConfig(
        order=order, image_size=SIZE, patch_size=PATCH, channels=channels, **settings
    )
    sequence = FixedOrder(config).eval()
    sequence.fit(images(MANY if order == "principal" else 40))
    return sequence


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("name", [*PATHS, "shuffled"])
def test_a_path_visits_every_cell_once(name, side):
    path = shuffled(side, 1) if name == "shuffled" else PATHS[name](side)
    assert sorted(path.tolist()) == list(range(side * side))


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_the_next_cell_of_hilberts_curve_is_a_neighbour(side):
    path = hilbert(side)
    rows, columns = path // side, path % side
    assert set((rows.diff().abs() + columns.diff().abs()).tolist()) == {1}


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        ("raster", [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        ("spiral", [[0, 1, 2], [7, 8, 3], [6, 5, 4]]),
        ("z", [[0, 1, 4], [2, 3, 5], [6, 7, 8]]),
        ("centre_out", [[5, 2, 6], [4, 0, 3], [8, 1, 7]]),
    ],
)
def test_paths_over_nine_cells(name, ranks):
    found = PATHS[name](3).argsort().view(3, 3).tolist()
    if name == "centre_out":  # equally far cells by their angle, from the left over the top
        assert found[1][1] == 0
        assert {found[0][1], found[1][0], found[1][2], found[2][1]} == {1, 2, 3, 4}
    else:
        assert found == ranks


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "noise"])
def test_all_components_hold_all_of_the_image(order):
    sequence = fixed(order)
    rebuilt = sequence.decode(sequence.encode(images()))
    torch.testing.assert_close(rebuilt, in_range(images()), atol=2e-5, rtol=0)


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "principal"])
def test_fewer_components_of_patches_lose_the_same_in_every_order(order):
    sequence, raster = fixed(order, channels=8), fixed("raster", channels=8)
    rebuilt = sequence.decode(sequence.encode(images()))
    wanted = raster.decode(raster.encode(images()))
    close = 0.1 if order == "noise" else 2e-5
    torch.testing.assert_close(rebuilt, wanted, atol=close, rtol=0)


@pytest.mark.parametrize("prefix", [1, 4, 16])
def test_components_of_whole_images_are_scikit_learns_and_lose_least(prefix):
    principal, raster = fixed("principal", channels=8), fixed("raster", channels=8)
    raster.fit(images(MANY))
    pixels = in_range(images(MANY))
    flat = pixels.flatten(1).numpy()
    exact = PCA(8 * prefix, svd_solver="full").fit(flat)
    wanted = torch.from_numpy(exact.inverse_transform(exact.transform(flat))).view_as(pixels)
    rebuilt = principal.decode(principal.encode(images(MANY), prefix))
    torch.testing.assert_close(rebuilt, wanted.clamp(-1, 1), atol=1e-3, rtol=0)
    others = raster.decode(raster.encode(images(MANY), prefix))
    assert (rebuilt - pixels).square().mean() < (others - pixels).square().mean()


@pytest.mark.parametrize("order", ORDERS)
def test_a_prefix_is_the_first_tokens_and_tokens_have_the_size_that_is_said(order):
    sequence = fixed(order)
    tokens = sequence.encode(images(3))
    assert tokens.shape == (3, sequence.config.tokens, sequence.config.token_dim)
    assert torch.equal(sequence.encode(images(3), prefix=2), tokens[:, :2])


@pytest.mark.parametrize("order", ORDERS)
def test_tokens_of_an_image_do_not_depend_on_its_batch(order):
    sequence = fixed(order)
    alone = torch.cat([sequence.encode(image[None]) for image in images(4)])
    torch.testing.assert_close(alone, sequence.encode(images(4)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("order", OF_CELLS)
def test_the_tokens_of_a_path_are_those_of_the_raster_in_another_order(order):
    tokens, raster = fixed(order).encode(images(2)), fixed("raster").encode(images(2))
    path = shuffled(4, 1) if order == "shuffled" else PATHS[order](4)
    assert torch.equal(tokens, raster[:, path])


def test_the_first_scale_is_the_mean_and_later_ones_have_none_over_their_squares():
    patches = torch.randn(2, 16, 3)
    tokens = Scales(4).arrange(patches, images(2))
    torch.testing.assert_close(tokens[:, 0], patches.mean(dim=1))
    torch.testing.assert_close(tokens[:, 1:5].mean(dim=1), torch.zeros(2, 3), atol=1e-6, rtol=0)


def test_each_scale_lowers_the_error():
    sequence = fixed("scales")
    tokens = sequence.encode(images())
    errors = [
        (sequence.decode(tokens[:, :k]) - in_range(images())).square().mean() for k in (1, 5, 21)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_noise_falls_as_it_is_said_to_and_each_level_holds_what_the_one_before_does():
    noise = Noise(patches=1, levels=4, draw=1)
    number = 4000
    pixels = torch.randint(0, 256, (number, 3, 2, 2), dtype=torch.uint8)
    clean = torch.randn(number, 1, 1)
    tokens = noise.arrange(clean, pixels)[:, :, 0]  # [N, 4]
    for level in range(4):
        left = tokens[:, level] - noise.signal[level] * clean[:, 0, 0]
        assert left.std().item() == pytest.approx(noise.noise[level].item(), rel=0.05)
    added = tokens[:, 1] - noise.signal[1] / noise.signal[2] * tokens[:, 2]
    correlation = torch.corrcoef(torch.stack([added, tokens[:, 2]]))[0, 1]
    assert abs(correlation) < 0.06  # the noise that is added is new


def test_components_do_not_correlate_and_their_mean_variance_is_one():
    tokens = fixed("raster").encode(images()).flatten(0, 1).double()
    covariance = torch.cov(tokens.T)
    variances = covariance.diagonal()
    torch.testing.assert_close(covariance, variances.diag(), atol=1e-4, rtol=0)
    assert variances.mean().item() == pytest.approx(1, rel=1e-3)
    assert torch.equal(variances.argsort(descending=True)[:8], torch.arange(8))


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_saved_encodes_the_same_and_has_the_same_name(order, tmp_path: Path):
    sequence = fixed(order, channels=6)
    sequence.save_pretrained(tmp_path)
    loaded = load_sequence(tmp_path)
    assert isinstance(loaded, FixedOrder)
    assert torch.equal(loaded.encode(images(2)), sequence.encode(images(2)))
    assert loaded.encoding_hash() == sequence.encoding_hash()


def test_an_orderer_is_loaded_as_one(tmp_path: Path):
    Orderer(OrdererConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1)).save_pretrained(
        tmp_path
    )
    assert isinstance(load_sequence(tmp_path), Orderer)


def test_orders_have_names_of_their_own():
    hashes = {fixed(order).encoding_hash() for order in ORDERS}
    assert len(hashes) == len(ORDERS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"order": "zigzag"}, "order must be one of .*, got 'zigzag'"),
        ({"image_size": 30}, "patches of 8 do not tile an image of 30"),
        ({"channels": 193}, "channels must be at most 192, a patch's values, got 193"),
        ({"order": "depth", "channels": 5}, "an even number of channels, got 5"),
        ({"order": "scales", "image_size": 24}, "a power of two of patches on a side, got 3"),
        ({"order": "noise", "levels": 1}, "at least 2 levels, got 1"),
    ],
)
def test_settings_that_make_no_order_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        SequenceConfig(**settings)


def test_what_a_fixed_order_cannot_do_is_refused():
    sequence = fixed("raster")
    with pytest.raises(ValueError, match=r"images of 16 x 16, got 8 x 8"):
        sequence.encode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"prefix must lie in 1\.\.16, got 17"):
        sequence.encode(images(1), prefix=17)
    with pytest.raises(ValueError, match="no text tower"):
        sequence.embed_words(torch.ones(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="at least 49 patches, got 16"):
        sequence.fit(images(1))
    with pytest.raises(ValueError, match="never vary"):
        sequence.fit(torch.zeros(9, 3, SIZE, SIZE, dtype=torch.uint8))


REFINED = [order for order in ORDERS if order != "noise"]


@torch.no_grad()
@pytest.mark.parametrize("order", REFINED)
def test_a_decoder_adds_nothing_before_it_learns_and_never_changes_tokens(order, tmp_path):
    plain = fixed(order, channels=4)
    refined = plain.refined().eval()
    tokens = plain.encode(images())
    assert refined.encoding_hash() == plain.encoding_hash()
    torch.testing.assert_close(refined.decode(tokens), plain.decode(tokens))
    torch.nn.init.normal_(refined.decoder.to_patch.weight, std=0.1)
    refined.save_pretrained(tmp_path)
    again = load_sequence(tmp_path)
    assert torch.equal(again.encode(images()), tokens)
    assert torch.equal(again.decode(tokens), refined.decode(tokens))
    assert not torch.allclose(again.decode(tokens), plain.decode(tokens), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("order", REFINED)
def test_a_prefix_is_all_tokens_of_which_some_are_not_kept(order):
    refined = fixed(order, channels=4).refined().eval()
    torch.nn.init.normal_(refined.decoder.to_patch.weight, std=0.1)
    tokens = refined.encode(images())
    for k in (1, tokens.shape[1] - 1):
        keep = torch.arange(tokens.shape[1]).expand(len(tokens), -1) < k
        rebuilt = refined.rebuild(tokens, keep).clamp(-1, 1)
        torch.testing.assert_close(refined.decode(tokens[:, :k]), rebuilt, atol=1e-5, rtol=0)


def test_refining_takes_the_terms_that_are_wanted_and_teaches_both_sides():
    order = fixed("raster", channels=4).refined()
    refining = Refining(order, Objectives(contrastive=0.0, adversarial=0.5))
    first = refining(images(), None, {"reconstruction"})
    assert first.values.keys() == {"reconstruction"} and not first.apart
    both = refining(images(), None, {"reconstruction", "adversarial"})
    both.total({"reconstruction": 1.0, "adversarial": 0.5}).backward()
    assert order.decoder.to_patch.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in refining.discriminator.parameters())
    assert order.basis.grad is None


def test_what_cannot_be_refined_is_refused():
    with pytest.raises(ValueError, match=r"refined needs tokens that add up .* the order noise"):
        fixed("noise", channels=4).refined()
    with pytest.raises(ValueError, match="this order has no decoder"):
        plain = fixed("raster", channels=4)
        plain.rebuild(plain.encode(images()), torch.ones(40, plain.config.tokens).bool())
    objectives = Objectives(perceptual=1.0, perceptual_model=Path("model"))
    with pytest.raises(ValueError, match="without a perceptual term, got one of weight 1"):
        Refining(fixed("raster", channels=4).refined(), objectives)
