"""What stage 2 minimises: the loss of each token and, where captions are written, that of them."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ar import ARModel
from data import TokenBatch
from orderer import OrdererProcessor
from orderer.sequences import ImageSequence
from recipes.captioning import flops_of_writing, loss_of_writing
from recipes.compute import step_flops
from recipes.conditions import condition_on
from recipes.experiment import Experiment
from recipes.training_settings import ARTraining


def losses_of(
    experiment: Experiment,
    model: ARModel,
    batch: TokenBatch,
    orderer: ImageSequence,
    processor: OrdererProcessor,
) -> tuple[Float[Tensor, "K"], dict[str, Float[Tensor, ""]]]:
    """The loss of each token, their mean `loss` and, where captions are written, `caption`."""
    settings, device = experiment.train_ar, model.null.device
    tokens = batch.tokens.to(device)
    dropped = torch.rand(len(tokens)) < settings.condition_drop
    condition = condition_on(batch.captions, model, orderer, processor)
    condition = model.drop(condition, dropped.to(device))
    errors = model.loss(tokens, condition)
    losses = {"loss": errors.mean()}
    if settings.caption_weight:
        losses["caption"] = loss_of_writing(model, tokens, batch.captions, processor)
    return errors, losses


def total_of(losses: Mapping[str, Float[Tensor, ""]], settings: ARTraining) -> Float[Tensor, ""]:
    """What a step minimises."""
    return losses["loss"] + settings.caption_weight * losses.get("caption", 0)


def costs_of_step(
    experiment: Experiment,
    model: ARModel,
    batch: TokenBatch,
    orderer: ImageSequence,
    processor: OrdererProcessor,
) -> dict[str, int]:
    """Operations of a step, see `recipes.compute.step_flops`; the model is then one step further.

    Of the prefixes that are written after, one is drawn in each step: counted is their mean.
    """
    silent = replace(experiment, train_ar=replace(experiment.train_ar, caption_weight=0.0))

    def loss() -> Float[Tensor, ""]:
        return losses_of(silent, model, batch, orderer, processor)[1]["loss"]

    costs = step_flops(experiment.train_ar.optim.learner(model, 2), loss)
    if experiment.train_ar.caption_weight:
        written = flops_of_writing(model, batch.tokens, batch.captions, processor)
        costs = {**costs, **{name: costs[name] + written for name in ("loss", "step")}}
    return costs
