"""What became of an orderer's settings, from one version of their format to the next."""

from typing import Any

from .formats import Migration, Settings

ADDED_IN_2: dict[str, Any] = {
    "encoder": "joint",
    "cross_every": 2,
    "causal": True,
    "bottleneck": "norm",
    "mixing": "random",
    "decoder": "deterministic",
    "decoder_timesteps": 0.0,
    "decoder_weighting": "data",
    "decoder_draws": 1,
    "decoder_drop": 0.0,
    "decoder_guidance": 1.0,
    "decoder_solver": "heun",
    "decoder_steps": 15,
    "autoencoder": None,
    "readout": "causal",
    "fusion_layers": None,
    "caption_pieces": None,
    "features": "patches",
    "features_architecture": None,
    "features_weights": None,
    "features_trained": False,
    "text": "own",
    "text_architecture": None,
    "text_weights": None,
    "text_trained": True,
    "text_pooling": "last",
    "text_end": None,
}
"""Settings that version 1 did not have, and what its orderers were."""


def _from_1_to_2(settings: Settings) -> Settings:
    return {**ADDED_IN_2, **settings}


ORDERER_MIGRATIONS: dict[int, Migration] = {1: _from_1_to_2}
