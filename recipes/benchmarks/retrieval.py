"""Retrieval on a set of COCO's size at every prefix, against the usual lists of the best.

N images   M captions   E size of the embedding   J prefixes
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from orderer.evaluation import retrieval_metrics
from recipes.engine.memory import peak_memory

from .case import Case, clock_seconds, in_turns

IMAGES = 5_000
CAPTIONS = 25_010
"""Of COCO's test split by Karpathy and Fei-Fei: some images have more than five."""
SIZE = 512
PREFIXES = 8
KS = (1, 5, 10)
CHUNK = 1_024


def measure(runs: int) -> Iterator[Case]:
    """Measure all prefixes of random embeddings, on as many cores as torch uses.

    Args:
        runs: of each side.
    """
    random = torch.Generator().manual_seed(0)
    shapes = (PREFIXES, IMAGES, SIZE), (CAPTIONS, SIZE)
    images, texts = (F.normalize(torch.randn(s, generator=random), dim=-1) for s in shapes)
    owner = torch.arange(CAPTIONS) % IMAGES
    peaks: list[int] = []

    def ours() -> float:
        seconds = clock_seconds(lambda: [retrieval_metrics(at, texts, owner, KS) for at in images])
        peaks.append(peak_memory(torch.device("cpu")))
        return seconds

    case = in_turns(
        f"retrieval_{IMAGES}_images_{CAPTIONS}_captions_{PREFIXES}_prefixes",
        "s",
        ours,
        lambda: clock_seconds(lambda: [plain_recalls(at, texts, owner, KS) for at in images]),
        runs,
        is_rate=False,
    )
    yield replace(case, errors={"peak_memory_bytes": float(peaks[0])})  # before the other's turn


def plain_recalls(
    images: Float[Tensor, "N E"],
    texts: Float[Tensor, "M E"],
    owner: Int[Tensor, "M"],
    ks: Sequence[int],
) -> dict[str, dict[str, float]]:
    """Recalls from the lists of the best by fp32 scores, each direction by itself, ties as they
    fall.
    """
    image = torch.arange(len(images))
    return {
        "image_to_text": _listed(images, texts, image, owner, ks),
        "text_to_image": _listed(texts, images, owner, image, ks),
    }


def _listed(
    queries: Tensor, gallery: Tensor, own: Tensor, owner: Tensor, ks: Sequence[int]
) -> dict[str, float]:
    hits = torch.cat(
        [
            owner[(some @ gallery.T).topk(max(ks), dim=1).indices] == image[:, None]
            for some, image in zip(queries.split(CHUNK), own.split(CHUNK), strict=True)
        ]
    )
    return {f"r{k}": hits[:, :k].any(dim=1).double().mean().item() for k in ks}
