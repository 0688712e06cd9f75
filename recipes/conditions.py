"""Captions to what stands before an AR model's tokens: nothing, a class, text, or own words."""

from collections.abc import Sequence

import torch

from ar import ARModel, Condition
from orderer import OrdererProcessor
from orderer.sequences import ImageSequence


def condition_on(
    captions: Sequence[str], model: ARModel, orderer: ImageSequence, processor: OrdererProcessor
) -> Condition:
    """The condition of an AR model for each caption; the text tower's words are not trained by it.

    Raises:
        ValueError: for a caption that is no class of a class-conditional model.
    """
    device = model.null.device
    if model.config.condition == "none":
        return model.unconditioned(len(captions))
    if model.config.condition == "class":
        return model.conditioned_on_class(torch.tensor(_labels(captions, model), device=device))
    if model.config.condition == "words":
        return model.conditioned_on_words(processor.text(captions).to(device))
    with torch.no_grad():
        words, keep = orderer.embed_words(processor.text(captions).to(device))
    return model.conditioned_on_text(words, keep)


def _labels(captions: Sequence[str], model: ARModel) -> list[int]:
    names = {name: label for label, name in enumerate(model.config.class_names)}
    for caption in captions:
        if caption not in names:
            raise ValueError(f"this AR model knows no class {caption!r}, but {', '.join(names)}")
    return [names[caption] for caption in captions]
