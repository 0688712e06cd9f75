"""How good the captions are that an orderer or an AR model writes from a prefix."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from ar import ARModel
from data import Pairs
from orderer import Orderer, OrdererProcessor, prefix_lengths
from recipes.experiment import Experiment
from recipes.finding import queried
from recipes.word_scores import word_scores

BATCH = 250
SHOWN = 8
"""Captions that are kept to be read."""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """A model that writes captions from the first k tokens of images."""

    write: Callable[[Tensor], Tensor]
    """Tokens [B, k, D] to word pieces [B, L]."""
    likelihood: Callable[[Tensor, Tensor], Tensor]
    """Tokens [B, k, D] and their captions' word pieces [B, L] to nats of each caption [B]."""
    targets: Callable[[Tensor], Tensor]
    """Word pieces [B, L] to the places [B, L - 1] that are scored: those that are not below 0."""


def written_by_orderer(orderer: Orderer) -> Writer:
    """An orderer with fusion as a writer.

    Raises:
        ValueError: for one without.
    """
    return Writer(
        write=orderer.caption_tokens,
        likelihood=orderer.caption_likelihood,
        targets=orderer.fusing.targets,
    )


def written_by_ar(model: ARModel) -> Writer:
    """An AR model that writes as a writer.

    Raises:
        ValueError: for one that does not.
    """
    return Writer(
        write=model.caption,
        likelihood=model.caption_likelihood,
        targets=model.own_words.targets,
    )


@torch.no_grad()
def written_from_prefixes(
    experiment: Experiment,
    pairs: Pairs,
    tokens: Tensor,
    writer: Writer,
    processor: OrdererProcessor,
) -> dict[str, Any]:
    """At every prefix: the likelihood of what is said, and how near the likeliest caption comes.

    `log_likelihood` is in nats for each word piece that the writer can write. `exact` is the share
    of the images whose caption is one of their own, to the letter: for sets whose captions are a
    grammar, as those of scenes. `overlap` is the F1 of the words, in any order, with the best of
    an image's captions; `bleu` and `chrf` are those of `word_scores`.
    """
    captions = queried(experiment, pairs)
    true = [processor.words(processor.text(of_one)) for of_one in captions]
    figures = ("log_likelihood", "exact", "overlap", "bleu", "chrf", "written")
    found: dict[str, Any] = {figure: {} for figure in figures}
    for k in prefix_lengths(tokens.shape[1]):
        cut = tokens[:, :k]
        written = [
            caption for some in cut.split(BATCH) for caption in processor.words(writer.write(some))
        ]
        both = list(zip(written, true, strict=True))
        found["log_likelihood"][str(k)] = likelihood_of_captions(cut, captions, writer, processor)
        found["exact"][str(k)] = mean([float(one in own) for one, own in both])
        found["overlap"][str(k)] = mean([max(overlap(one, of) for of in own) for one, own in both])
        for name, score in word_scores(written, true).items():
            found[name][str(k)] = score
        found["written"][str(k)] = written[:SHOWN]
    found["true"] = [of_one[0] for of_one in true[:SHOWN]]
    return found


def overlap(written: str, true: str) -> float:
    """F1 of the words of two captions, each counted as often as it stands there."""
    one, other = Counter(written.split()), Counter(true.split())
    return 2 * (one & other).total() / max(1, one.total() + other.total())


def likelihood_of_captions(
    tokens: Tensor,
    captions: Sequence[Sequence[str]],
    writer: Writer,
    processor: OrdererProcessor,
) -> float:
    """Nats for each word piece that can be written, the mean over all of all captions."""
    owner = torch.tensor([image for image, of_one in enumerate(captions) for _ in of_one])
    text = processor.text([caption for of_one in captions for caption in of_one])
    text = text.to(tokens.device)
    total = torch.cat(
        [
            writer.likelihood(tokens[some], said)
            for some, said in zip(owner.split(BATCH), text.split(BATCH), strict=True)
        ]
    )
    written = writer.targets(text) >= 0
    return float(total.double().sum() / written.sum())
