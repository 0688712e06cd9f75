"""What `ar.evaluation.measure_order` says of an order, by the names that tables have for it."""

from collections.abc import Mapping
from typing import Any

POSITION = "position told above chance"


def figures_of_order(measures: Mapping[str, Any]) -> dict[str, float]:
    """What is known; of some orders some is not, see `measure_order`."""
    each = measures["equivariance"]
    values = {
        "EQ": each["eq"],
        "gain": each["gain"]["mean"],
        "gini of EQ": each["gain"]["gini"],
        "gradients agree": each["conflict"]["mean"],
        "gradients opposed": each["conflict"]["below_zero"],
        "transfer": each["transfer"]["mean"],
        "lost without positions": each["transfer"]["without_positions"],
        "lost one position off": each["transfer"]["shifted"],
        POSITION: measures["positions"]["told"],
    }
    return {name: value for name, value in values.items() if value is not None}
