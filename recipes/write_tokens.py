"""Between stages 1 and 2: encode the training images once, into memory-mapped stores.

    python -m recipes.write_tokens

Reads OUT/orderer, writes OUT/tokens: the tokens, their statistics per (position, channel), the keys
and captions of the images, and the hash of the orderer that made them; and OUT/held, the same of
the pairs that `train_ar.held` sets apart for validation. Takes seconds.
"""

import shutil
from bisect import bisect_right
from collections import Counter
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data import (
    Damaged,
    Framing,
    PairSource,
    apart,
    check_skipped,
    read_all,
    write_tokens,
)
from orderer.sequences import ImageSequence, load_sequence
from recipes.data_settings import tell_skipped
from recipes.engine.cli import run as start
from recipes.engine.training import prepare_alone
from recipes.experiment import Experiment

BATCH = 250


@torch.inference_mode()
def main(experiment: Experiment) -> None:
    """Encode in fp32 and write."""
    experiment.check_is_done()
    device = prepare_alone()
    model = load_sequence(experiment.out / "orderer").to(device)
    pairs = experiment.data.open_train(model.config.image_size)
    rest, held = apart(pairs, experiment.train_ar.held)
    # Last, and not there before: an older one must not pass for a part of this split.
    shutil.rmtree(experiment.out / "held", ignore_errors=True)
    for name, some in (("tokens", rest), ("held", held)):
        write(experiment.out / name, some, model, experiment.data.max_skipped)


def write(path: Path, pairs: PairSource, model: ImageSequence, max_skipped: float) -> None:
    """Encode pairs into a store."""
    ends = list(accumulate(pairs.counts))
    counts, skipped = [0] * len(ends), Counter[str]()
    images, keys, captions, parts = [], [], [], []
    shown = read_all(pairs, Framing(size=model.config.image_size))
    bar = tqdm(shown, desc=path.name, total=len(pairs), unit="pair", disable=None)
    for index, pair in enumerate(bar):
        if isinstance(pair, Damaged):
            skipped[pair.reason] += 1
        else:
            images.append(pair.image)
            keys.append(pair.key)
            captions.append(pair.captions)
            counts[bisect_right(ends, index)] += 1
        if len(images) == BATCH or (images and index == len(pairs) - 1):
            batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
            parts.append(model.encode(batch.to(model.device)).cpu())
            images.clear()
    tell_skipped(pairs.name, skipped)
    check_skipped(pairs, len(keys), skipped, max_skipped)
    write_tokens(
        path,
        torch.cat(parts),
        keys,
        captions,
        counts=counts,
        orderer_hash=model.encoding_hash(),
        fingerprint=pairs.fingerprint,
    )
    print(f"{path}: {model.config.tokens} tokens of {len(keys)} images")


if __name__ == "__main__":
    start(main, Experiment)
