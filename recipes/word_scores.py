"""How near written captions come to true ones, by their words: scores over a whole split."""

from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF


def word_scores(written: Sequence[str], true: Sequence[Sequence[str]]) -> dict[str, float]:
    """`bleu` (of up to 4 words) and `chrf` (of up to 6 letters), 0 to 100, in lower case.

    Args:
        written: of each image one caption.
        true: its own, any number of them, at least one.

    Source: Post 2018, "A Call for Clarity in Reporting BLEU Scores", sacrebleu,
    https://arxiv.org/abs/1804.08771.
    """
    most = max(map(len, true))
    columns: list[list[Any]] = [  # None, where an image has fewer
        [own[i] if i < len(own) else None for own in true] for i in range(most)
    ]
    metrics = {"bleu": BLEU(lowercase=True), "chrf": CHRF(lowercase=True)}
    return {
        name: metric.corpus_score(list(written), columns).score for name, metric in metrics.items()
    }
