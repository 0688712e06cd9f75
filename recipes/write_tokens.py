"""Between stages 1 and 2: encode the training images once, into a memory-mapped store.

    python -m recipes.write_tokens

Reads OUT/orderer, writes OUT/tokens: the tokens, their statistics per (position, channel), the
captions, and the hash of the orderer that made them. Takes seconds.
"""

import torch
from tqdm import tqdm

from data import write_tokens
from orderer import Orderer
from recipes.engine.cli import run as start
from recipes.engine.training import prepare_device
from recipes.experiment import Experiment

BATCH = 250


@torch.inference_mode()
def main(experiment: Experiment) -> None:
    """Encode in fp32 and write."""
    device = prepare_device()
    model = Orderer.from_pretrained(experiment.out / "orderer").to(device).eval()
    pairs = experiment.data.open_train(model.config.image_size)
    parts = [
        model.encode(images.to(device)).cpu()
        for images in tqdm(pairs.images.split(BATCH), desc="tokens", unit="batch", disable=None)
    ]
    write_tokens(
        experiment.out / "tokens",
        torch.cat(parts),
        pairs.captions,
        orderer_hash=model.encoding_hash(),
        fingerprint=pairs.fingerprint,
    )
    print(f"{experiment.out / 'tokens'}: {model.config.tokens} tokens of {len(pairs)} images")


if __name__ == "__main__":
    start(main, Experiment)
