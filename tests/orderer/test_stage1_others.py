"""Terms of other networks in stage 1: who learns from which, what is saved, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from orderer import Objectives, Orderer, OrdererConfig, Stage1
from orderer.objectives import Balance

Save = Callable[[str], Path]


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)


@pytest.fixture
def stage(tiny_orderer: Orderer, vision_model: Save) -> Stage1:
    """All terms of other networks, and no text."""
    folder = vision_model("convnext")
    objectives = Objectives(
        contrastive=0.0,
        perceptual=0.5,
        perceptual_model=folder,
        adversarial=0.1,
        alignment=0.3,
        alignment_model=folder,
    )
    return Stage1(tiny_orderer, objectives).train()


def touched(module: torch.nn.Module) -> set[str]:
    """The parts of a module that have a gradient other than zero."""
    return {
        name.split(".")[0]
        for name, p in module.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }


@pytest.mark.parametrize("term", ["perceptual", "adversarial", "alignment"])
def test_each_term_moves_encoder_and_decoder(stage: Stage1, images: Tensor, term: str) -> None:
    terms = stage(images, None, [term])
    assert list(terms.values) == [term]
    terms.values[term].backward()
    assert {"encoder", "decoder"} <= touched(stage.orderer)
    assert stage.discriminator is not None
    assert not touched(stage.discriminator)


def test_the_discriminators_loss_moves_it_alone(stage: Stage1, images: Tensor) -> None:
    stage(images, None, ["adversarial"]).apart["discriminator"].backward()
    assert not touched(stage)
    assert stage.discriminator is not None and touched(stage.discriminator) == {"network"}


def test_one_backward_pass_gives_each_side_its_own_gradients(stage: Stage1, images: Tensor) -> None:
    """As much as two passes of one side each; LeCam's averages are the same in all three."""
    weights = stage.objectives.weights(0)

    def sides(which: str) -> list[Tensor]:
        assert stage.discriminator is not None
        stage.discriminator.real_average.zero_()
        stage.discriminator.rebuilt_average.zero_()
        stage.zero_grad()
        stage.discriminator.zero_grad()
        terms = stage(images, None, weights, torch.Generator().manual_seed(0))
        losses = {
            "both": terms.total(weights),
            "orderer": sum(weights[name] * value for name, value in terms.values.items()),
            "discriminator": terms.apart["discriminator"],
        }
        losses[which].backward()
        parameters = [*stage.parameters(), *stage.discriminator.parameters()]
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]

    both, one, other = (sides(which) for which in ("both", "orderer", "discriminator"))
    for found, first, second in zip(both, one, other, strict=True):
        torch.testing.assert_close(found, first + second)


def test_frozen_networks_and_the_opponent_are_no_part_of_the_stage(stage: Stage1) -> None:
    names = {name.split(".")[0] for name in stage.state_dict()}
    assert names == {"orderer", "alignment"}
    assert {name.split(".")[1] for name in stage.state_dict() if "alignment" in name} == {
        "projector"
    }
    assert set(stage.teachers) == {"perceptual", "alignment"}


def test_alignment_reaches_no_more_of_the_decoder_than_its_first_half(
    stage: Stage1, images: Tensor
) -> None:
    stage(images, None, ["alignment"]).values["alignment"].backward()
    assert stage.orderer.decoder.to_patch.weight.grad is None


def test_the_opponent_comes_in_at_its_step() -> None:
    objectives = Objectives(adversarial=0.1, adversarial_from=7)
    assert "adversarial" not in objectives.weights(6)
    assert objectives.weights(7)["adversarial"] == 0.1
    assert "adversarial" not in objectives.replayed().full_weights()


def test_balanced_terms_pull_alike_at_tokens(tiny_orderer: Orderer, vision_model: Save) -> None:
    objectives = Objectives(
        reconstruction=1.0,
        contrastive=0.0,
        perceptual=1.0,
        perceptual_model=vision_model("resnet"),
        balanced=True,
    )
    stage = Stage1(tiny_orderer, objectives)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    shares = {"reconstruction": 1.0, "perceptual": 1.0}
    terms = stage(images, None, shares)
    pulls = terms.gradient_norms(stage.balanced(terms, shares, step=0))
    torch.testing.assert_close(pulls["reconstruction"], pulls["perceptual"])
    assert isinstance(stage.balance, Balance) and "balance.pulls" in stage.state_dict()


def test_terms_that_are_not_balanced_keep_their_weights(stage: Stage1, images: Tensor) -> None:
    weights = stage.objectives.weights(0)
    assert stage.balanced(stage(images, None, weights), weights, step=0) == weights


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"perceptual": 0.5}, "perceptual needs perceptual_model, .* a weight of 0.5"),
        ({"alignment": 0.5}, "alignment needs alignment_model, .* a weight of 0.5"),
        ({"adversarial": -0.1}, "adversarial must be at least 0, got -0.1"),
        ({"lecam": float("nan")}, "lecam must be at least 0, got nan"),
        ({"adversarial_from": -1}, "adversarial_from must be at least 0, got -1"),
        ({"alignment_size": 0}, "alignment_size must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Objectives(**wrong)


def test_objectives_of_which_none_counts_at_first_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no term counts at step 0: .* at step 100"):
        Objectives(reconstruction=0.0)
    assert Objectives(reconstruction=0.0, text_from=0, text_ramp=1).weights(0).keys() == {
        "contrastive",
        "kl",
    }


def test_the_kl_term_pulls_at_what_tokens_are_drawn_from_and_is_not_balanced(
    tiny_orderer: Orderer,
) -> None:
    config = OrdererConfig(**{**tiny_orderer.config.own(), "bottleneck": "kl"})
    objectives = Objectives(contrastive=0.0, kl=0.5, balanced=True)
    stage = Stage1(Orderer(config), objectives)
    weights = objectives.weights(0)
    terms = stage(torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8), None, weights)
    pulls = terms.gradient_norms(weights)
    assert pulls["kl"] > 0 and pulls["reconstruction"] > 0
    balanced = stage.balanced(terms, weights, step=0)
    assert balanced["kl"] == 0.5
    assert not stage.balance.due(1, ["reconstruction"])
