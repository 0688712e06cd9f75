"""Little pairs for every test of data."""

from collections.abc import Callable

import numpy as np
import pytest

from data import Pair


@pytest.fixture
def make_pairs() -> Callable[[int], list[Pair]]:
    def make(count: int) -> list[Pair]:
        random = np.random.default_rng(0)
        return [
            Pair(
                key=f"pair{index}",
                image=random.integers(0, 256, (8, 8, 3), dtype=np.uint8),
                captions=(f"picture {index}", f"this is picture number {index}"),
            )
            for index in range(count)
        ]

    return make
