"""The terms of text: contrast, captions written from a prefix, and matching.

B batch   K tokens   D channels of a token   J measured prefixes   E embedding size   L word pieces
"""

from collections.abc import Collection
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .model import Orderer
from .objectives import (
    Negatives,
    Objectives,
    captioning_loss,
    contrastive_loss,
    hard_negatives,
    matching_loss,
    sigmoid_loss,
)
from .prefix import keep_mask, prefix_lengths
from .processor import Said


def text_terms(
    orderer: Orderer,
    objectives: Objectives,
    score_bias: Float[Tensor, ""] | None,
    tokens: Float[Tensor, "B K D"],
    said: Said,
    wanted: Collection[str],
    generator: torch.Generator | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Take the terms of text that are wanted.

    Args:
        orderer: reads, and writes where captions or matches are wanted.
        objectives: how each is taken.
        score_bias: of the sigmoid form of contrast; None takes InfoNCE.
        tokens: of the images, without noise.
        said: what is said of them at each measured prefix.
        wanted: names of terms; others than those of text are left alone.
        generator: source of the prefixes that captions are written from, and of hard negatives.
    """
    lengths = prefix_lengths(tokens.shape[1])
    if objectives.aligned == "full":
        lengths, said = lengths[-1:], replace(said, at=said.at[:, -1:])
    captions = said.numbers[said.at]  # [B, J]
    values = {}
    if "contrastive" in wanted or "matching" in wanted:
        images = orderer.readout(tokens, lengths).float()  # [B, J, E]
        texts = orderer.embed_texts(said.texts).float()[said.at]  # [B, J, E]
    if "contrastive" in wanted:
        values["contrastive"] = _contrast(images, texts, captions, orderer.scale, score_bias)
    if "captioning" in wanted or "matching" in wanted:
        places = _draw_places(len(tokens), len(lengths), generator).to(tokens.device)
        keep = keep_mask(torch.tensor(lengths, device=tokens.device)[places], tokens.shape[1])
        text = said.texts[said.at.gather(1, places[:, None])[:, 0]]  # [B, L]
    if "captioning" in wanted:
        values["captioning"] = _write(orderer, tokens, keep, text)
    if "matching" in wanted:
        wrong = hard_negatives(images, texts, captions, orderer.scale, places, generator)
        of_others = said.texts[said.at[wrong.texts, places]]  # [B, L]
        values["matching"] = _match(orderer, tokens, keep, text, of_others, wrong)
    return values


def _contrast(
    images: Float[Tensor, "B J E"],
    texts: Float[Tensor, "B J E"],
    captions: Int[Tensor, "B J"],
    scale: Float[Tensor, ""],
    score_bias: Float[Tensor, ""] | None,
) -> Float[Tensor, ""]:
    if score_bias is None:
        return contrastive_loss(images, texts, captions, scale).mean()
    return sigmoid_loss(images, texts, captions, scale, score_bias).mean()


def _draw_places(batch: int, prefixes: int, generator: torch.Generator | None) -> Int[Tensor, "B"]:
    """Draw, for each image, which of the measured prefixes its caption is written from."""
    device = generator.device if generator is not None else None
    return torch.randint(prefixes, (batch,), generator=generator, device=device)


def _write(
    orderer: Orderer,
    tokens: Float[Tensor, "B K D"],
    keep: Bool[Tensor, "B K"],
    text: Int[Tensor, "B L"],
) -> Float[Tensor, ""]:
    fusion, words = orderer.fusing, orderer.text.words(text[:, :-1])
    return captioning_loss(fusion.write(tokens, keep, words), fusion.targets(text))


def _match(
    orderer: Orderer,
    tokens: Float[Tensor, "B K D"],
    keep: Bool[Tensor, "B K"],
    text: Int[Tensor, "B L"],
    of_others: Int[Tensor, "B L"],
    wrong: Negatives,
) -> Float[Tensor, ""]:
    """Right pairs, images with captions of others, captions with images of others, at once."""
    logits = orderer.fusing.match(
        torch.cat([tokens, tokens, tokens[wrong.images]]),
        keep.repeat(3, 1),
        *orderer.embed_words(torch.cat([text, of_others, text])),
    )
    right, wrong_texts, wrong_images = logits.chunk(3)
    return matching_loss(right, wrong_texts, wrong_images, wrong.exist)
