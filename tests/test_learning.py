"""Fifty steps learn."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ar import ARConfig, ARModel
from data.scenes import load_scenes
from orderer import Objectives, Orderer, OrdererProcessor, Stage1
from orderer.bottleneck import normalise_tokens


def losses_of_fifty_steps(model: nn.Module, loss: Callable[[], Tensor]) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_fifty_steps_teach_the_orderer_pixels_and_captions(tiny_orderer: Orderer) -> None:
    scenes = load_scenes("train", 64, image_size=16)
    processor = OrdererProcessor(image_size=16, context_length=40)
    captions = [each[-1] for each in scenes.captions]
    stage = Stage1(tiny_orderer, Objectives(full_share=0.25))
    said = processor.said([[caption] * 3 for caption in captions])
    wanted = ("reconstruction", "contrastive")
    reconstruction, contrastive = [], []

    def loss() -> Tensor:
        terms = stage(scenes.images, said, wanted)
        reconstruction.append(terms.values["reconstruction"].item())
        contrastive.append(terms.values["contrastive"].item())
        return terms.total({"reconstruction": 10.0, "contrastive": 0.3})

    losses = losses_of_fifty_steps(tiny_orderer.train(), loss)
    assert mean(losses[-5:]) < 0.6 * losses[0]
    assert mean(reconstruction[-5:]) < 0.6 * reconstruction[0]
    assert mean(contrastive[-5:]) < 0.9 * contrastive[0]


def test_fifty_steps_teach_the_ar_model_which_tokens_belong_to_a_class() -> None:
    config = ARConfig(
        tokens=4,
        token_dim=6,
        condition="class",
        class_names=["one", "two", "three", "four"],
        width=32,
        heads=2,
        layers=2,
        mlp_width=64,
        head_width=32,
        head_layers=2,
    )
    model = ARModel(config).train()
    tokens = normalise_tokens(torch.randn(4, 4, 6))  # one sequence for each class
    model.set_statistics(tokens.mean(dim=0), tokens.std(dim=0))
    batch, labels = tokens.repeat(16, 1, 1), torch.arange(4).repeat(16)

    def loss() -> Tensor:
        return model.loss(batch, model.conditioned_on_class(labels)).mean()

    losses = losses_of_fifty_steps(model, loss)
    assert mean(losses[-5:]) < 0.6 * losses[0]
