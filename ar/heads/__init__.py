"""Heads: what a token's distribution looks like, given the tokens before it."""

from ..config import ARConfig
from .categorical import CategoricalHead
from .denoising import DenoisingHead
from .energy import EnergyHead
from .head import Draw, Head, Seen
from .in_trunk import InTrunkHead
from .mixture import MixtureHead
from .regression import RegressionHead

HEADS: dict[str, type[Head]] = {
    "flow": DenoisingHead,
    "diffusion": DenoisingHead,
    "regression": RegressionHead,
    "mixture": MixtureHead,
    "energy": EnergyHead,
    "categorical": CategoricalHead,
    "in_trunk": InTrunkHead,
}


def make_head(config: ARConfig) -> Head:
    """Make the head that a config names."""
    return HEADS[config.head](config)


__all__ = [
    "HEADS",
    "CategoricalHead",
    "DenoisingHead",
    "Draw",
    "EnergyHead",
    "Head",
    "InTrunkHead",
    "MixtureHead",
    "RegressionHead",
    "Seen",
    "make_head",
]
