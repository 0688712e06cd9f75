"""A judge of captioned images: the classifier's net says which of some words fit each image.

N images   B batch   S image side   T words
"""

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from .classifier import LEARNING_RATE, Classifier, check_judging, rolled
from .fitting import fit


def train_tagger(
    images: UInt8[Tensor, "N 3 S S"],
    tags: Bool[Tensor, "N T"],
    *,
    steps: int = 1500,
    batch_size: int = 128,
    seed: int = 0,
) -> Classifier:
    """Train a net on real images, rolled a little: a logit for each word.

    They are not mirrored: words may name a side.

    Args:
        images: real ones.
        tags: True where a word is said of an image.
        steps: updates.
        batch_size: images in one.
        seed: of the start and the draws.

    Raises:
        ValueError: for unequal numbers, no image, no word, or a word of all images or none.
    """
    if len(images) != len(tags) or tags.numel() == 0:
        raise ValueError(f"each image needs tags, got {tuple(tags.shape)} for {len(images)} images")
    said = tags.float().mean(dim=0)  # [T]
    if not bool(((said > 0) & (said < 1)).all()):
        raise ValueError("a tagger's words must each be said of some images and not of others")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tagger = Classifier(tags.shape[1]).to(images.device)
        with torch.no_grad():  # rare words would otherwise spend the training on their rarity
            tagger.label.bias.copy_(said.logit())
    random = torch.Generator().manual_seed(seed)

    def loss(chosen: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        logits = tagger(rolled(images[chosen], random))
        return F.binary_cross_entropy_with_logits(logits, tags[chosen].float())

    fit(
        tagger,
        loss,
        examples=len(images),
        steps=steps,
        batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        seed=seed,
    )
    return tagger


@torch.no_grad()
def tag_precision(
    tagger: Classifier,
    images: UInt8[Tensor, "N 3 S S"],
    tags: Bool[Tensor, "N T"],
    *,
    chunk: int = 256,
) -> float:
    """Mean average precision: how high, for each word, the images rank of which it is said.

    Words of none of the images, or of all, are left out.

    Raises:
        ValueError: for a tagger in train mode, unequal numbers, or tags without such a word.
    """
    check_judging(tagger)
    if len(images) != len(tags):
        raise ValueError(f"each image needs tags, got {len(tags)} for {len(images)} images")
    scores = torch.cat([tagger(some) for some in images.split(chunk)]).double()
    told = [t for t in range(tags.shape[1]) if 0 < int(tags[:, t].sum()) < len(tags)]
    if not told:
        raise ValueError(f"none of the {tags.shape[1]} words is said of some images but not of all")
    return sum(average_precision(scores[:, t], tags[:, t]) for t in told) / len(told)


def chance_of(tags: Bool[Tensor, "N T"]) -> float:
    """The precision that images ranked without looking come to, of many: the share of words."""
    said = tags.double().mean(dim=0)  # [T]
    return said[(said > 0) & (said < 1)].mean().item()


def average_precision(scores: Float[Tensor, "N"], wanted: Bool[Tensor, "N"]) -> float:
    """The precision among the images down to each wanted one, the mean; equals come together."""
    better = scores[None, :] >= scores[wanted][:, None]  # [wanted, N]
    return (better[:, wanted].sum(dim=1) / better.sum(dim=1)).double().mean().item()
