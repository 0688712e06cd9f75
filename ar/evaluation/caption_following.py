"""Caption following: how much of what a caption says is seen in its image, and nothing else?"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

Thing = tuple[int, int, int]
"""An object's shape, colour and place, as indices."""

MEASURES: dict[str, Callable[[Thing], Hashable]] = {
    "colour": lambda thing: thing[1],
    "shape": lambda thing: thing[0],
    "colour_and_shape": lambda thing: thing[:2],
    "place": lambda thing: thing[2],
}


def following(seen: Sequence[Sequence[Thing]], said: Sequence[Sequence[Thing]]) -> dict[str, float]:
    """Compare what a judge sees in each image with what the image's caption says.

    Returns:
        For `colour`, `shape`, `colour_and_shape` and `place`: the objects that agree (each counts
        once), as a share of those seen or those said, whichever are more. `scene`: the share of
        images where all objects agree in everything. Each is the mean over the images.

    Raises:
        ValueError: for unequal numbers, no image, or a caption that names nothing.
    """
    if len(seen) != len(said) or not said:
        raise ValueError(f"each image needs its caption, got {len(seen)} and {len(said)}")
    silent = [index for index, things in enumerate(said) if not things]
    if silent:
        raise ValueError(f"the caption of image {silent[0]} says nothing")
    pairs = list(zip(seen, said, strict=True))
    shares = {
        name: sum(_agreement(map(of, s), map(of, t)) for s, t in pairs) / len(pairs)
        for name, of in MEASURES.items()
    }
    return shares | {"scene": sum(Counter(s) == Counter(t) for s, t in pairs) / len(pairs)}


def _agreement(seen: Iterable[Hashable], said: Iterable[Hashable]) -> float:
    """What two multisets share, as a part of the larger."""
    first, second = Counter(seen), Counter(said)
    return (first & second).total() / max(first.total(), second.total())
