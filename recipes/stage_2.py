"""What stage 2 minimises: the loss of each token and, where captions are written, that of them."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ar import ARModel
from data import TokenBatch
from orderer import OrdererProcessor
from orderer.sequences import ImageSequence
from recipes.captioning import loss_of_writing
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
