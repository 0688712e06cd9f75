"""The verdict on an arm of a proof, by rule, from the intervals of its differences to controls.

Each of the two models is a side. Some measures decide about a side, others guard it: where a
deciding one is not known well enough, nothing is said for the side; a guarding one can only speak
against it. Measures that end in a prefix are asked at every prefix, and the worst counts.

The intervals say how trainings differ, not how test images do, which are the same for all. They are
not widened for their number, some twenty for each control: "harm" by one that ends just below 0
may be luck, and with three seeds a guard that does not speak proves little, while a side is hardly
ever decided within the margin at every prefix.
"""

from collections.abc import Mapping, Sequence
from typing import Any

NATS, FOLLOWED = "fresh AR model: nats", "fresh AR model: captions followed"
SAVED = "fresh AR model: nats saved at any error"
FRECHET, WRITTEN = (
    "fresh AR model: Fréchet distance",
    "fresh AR model: likelihood of captions, nats a word piece",
)
PAIR_NATS, PAIR_FOLLOWED = "the pair itself: nats", "the pair itself: captions followed"
SAVED_BY_PAIR = "the pair itself: nats saved at any error"
PAIR_FRECHET, PAIR_WRITTEN = (
    "the pair itself: Fréchet distance",
    "the pair itself: likelihood of captions, nats a word piece",
)
TRUNK = "trunk, linear probes"
RECALL, READER = "retrieval", "fresh reader"
PSNR = "PSNR, all tokens"
PREFIX = ", first tokens: "
"""Before the number of tokens, in the name of a measure that is taken at every prefix."""
LOWER_IS_BETTER = (NATS, FRECHET, PAIR_NATS, PAIR_FRECHET)
DECIDING: Mapping[str, tuple[str, ...]] = {
    "the orderer": (RECALL, READER),
    "the AR model": (SAVED, FOLLOWED, PAIR_FOLLOWED),
}
"""Some of them lie near what stage 3 trains on: retrieval is its contrast, replayed, on test pairs,
and nats are saved at equal error, which its replayed reconstruction lowers. An orderer that goes on
by itself has both: it is the control for them."""
GUARDING: Mapping[str, tuple[str, ...]] = {
    "the orderer": (PSNR,),
    "the AR model": (FRECHET, WRITTEN, SAVED_BY_PAIR, PAIR_FRECHET, PAIR_WRITTEN, TRUNK),
}
"""Those that were measured count."""
WORDS = ("loses", "undecided", "kept", "gains")
"""On a measure, from the worst to the best."""
MARGIN = 0.01
"""Most that a deciding measure may surely lose and still count as kept: all are shares of 1."""
LEAST_SEEDS = 3
"""With fewer nothing is decided."""
UNASKED = "not measured"
"""Instead of a word, of a guard that no control can be compared by."""
STOPPED = "stopped itself"
UNCONTROLLED = "no verdict without "
"""Before the controls that did not run."""

Differences = Mapping[str, Mapping[str, Any]]


def at_prefix(measure: str, k: int | str) -> str:
    """The name of a measure that is taken at every prefix, at one of them."""
    return f"{measure}{PREFIX}{k}"


def better(measure: str) -> int:
    """1 where more is better, else -1."""
    return -1 if measure in LOWER_IS_BETTER else 1


def judged_by_all(against: Mapping[str, Differences]) -> dict[str, Any]:
    """The verdict, and what it would be by each control alone."""
    alone = {control: judged([differences])["verdict"] for control, differences in against.items()}
    return {**judged(list(against.values())), "alone": alone}


def judged(against: Sequence[Differences]) -> dict[str, Any]:
    """The verdict on an arm, from its differences to each control.

    A measure gains if the interval of its difference lies above 0, is kept if it lies above the
    margin below 0, loses if below 0, and is undecided otherwise; a guarding one, whose unit is any,
    loses whenever it lies below 0. Of several controls, the one that
    says least for the arm counts. A side loses if any of its measures does; of those that decide it
    gains if one does and none is undecided, is kept if all are.

    Raises:
        KeyError: if a deciding measure was not taken.
    """
    words: dict[str, dict[str, str]] = {}
    sides: dict[str, str] = {}
    for side, deciding in DECIDING.items():
        decided = {name: _worst(against, name, MARGIN) for name in deciding}
        guarded = {
            name: _worst(against, name, 0.0)
            if any(_of_measure(differences, name) for differences in against)
            else UNASKED
            for name in GUARDING[side]
        }
        words[side] = {**decided, **guarded}
        sides[side] = "loses" if "loses" in guarded.values() else _side(list(decided.values()))
    return {"measures": words, "sides": sides, "verdict": _verdict(list(sides.values()))}


def _worst(against: Sequence[Differences], measure: str, margin: float) -> str:
    """What the control, and the prefix, that says least for the arm says."""
    found = [each for differences in against for each in _of_measure(differences, measure)]
    if not found:
        raise KeyError(measure)
    return min((_word(each, margin) for each in found), key=WORDS.index)


def _of_measure(differences: Differences, measure: str) -> list[Mapping[str, Any]]:
    """Its difference, or those of all its prefixes."""
    return [each for name, each in differences.items() if name.partition(PREFIX)[0] == measure]


def _word(difference: Mapping[str, Any], margin: float) -> str:
    if len(difference["seeds"]) < LEAST_SEEDS:
        return "undecided"
    if difference["low"] > 0:
        return "gains"
    if difference["low"] >= -margin:
        return "kept"
    return "loses" if difference["high"] < 0 else "undecided"


def _side(words: Sequence[str]) -> str:
    for word in ("loses", "undecided", "gains"):
        if word in words:
            return word
    return "kept"


def _verdict(sides: Sequence[str]) -> str:
    if "loses" in sides:
        return "harm"
    if all(side == "gains" for side in sides):
        return "both gain"
    if "gains" in sides and "undecided" not in sides:
        return "one gains, the other does not lose"
    return "no gain"
